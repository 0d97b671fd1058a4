"""The layer that is explained when none is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.common.errors import LayerError
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers.calls import Call, observe
from camlucida.engine.outputs import first_tensor

POOLING = re.compile(r"pool([12]d)?(same)?$", re.IGNORECASE)
_DEFAULTS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def default_layer(model: nn.Module, inputs: Tensor) -> str:
    """The layer that a class activation map is drawn from when none is named.

    It is the last feature map before the image is pooled or read through a class token: among the modules
    that run once and return a spatial map, the last one through which the output depends on the map's
    cells. Pooling layers are passed over (a map is explained before it is coarsened), and so are bare
    linear projections inside attention. Of several modules that return this same map, the innermost
    block is named. This yields the customary choices, e.g. ``layer4.2`` of ResNet-50, the last ReLU before
    the final pooling of VGG, ``features`` of DenseNet, the last block of ConvNeXt and the first
    norm of a ViT's last block.

    Args:
        model: the model, wrapped or not; returned as it was. The choice is remembered while it lives.
        inputs: ``(N, C, H, W)`` on the model's device; the first image is used.

    Raises:
        LayerError: when nothing in the model returns a spatial map.
    """
    module = unwrap(model)
    known = _DEFAULTS.get(module)
    if known is not None and known in dict(module.named_modules()):
        return known
    with borrowed(module, inputs):
        probe = inputs[:1].detach().clone().requires_grad_()
        calls, result = observe(module, probe)
        # Behind a head that is still zero nothing has a gradient; then look from its input.
        head = [c.input for c in calls if isinstance(c.module, nn.Linear) and c.input is not None]
        outputs = [first_tensor(result), *head[-1:]]
        if head and _is_blind(outputs[0], head[-1]):
            del outputs[0]
        for output in outputs:
            name = _last_map(calls, output)
            if name is not None:
                _DEFAULTS[module] = name
                return name
    raise LayerError(
        f"no module of {type(module).__name__} returns a feature map that its output depends on; pass "
        "layers= a name (`camlucida layers` lists what runs) or explain the input itself"
    )


def _is_blind(output: Tensor, head: Tensor) -> bool:
    """Whether the output has no gradient at all with respect to what went into its head."""
    if not (output.requires_grad and head.requires_grad) or output is head:
        return False
    (gradient,) = torch.autograd.grad(output.sum(), head, retain_graph=True, allow_unused=True)
    return gradient is not None and not gradient.any()


def _last_map(calls: list[Call], output: Tensor) -> str | None:
    # A random direction: sums cancel in normalised embeddings and softmax outputs.
    generator = torch.Generator().manual_seed(0)
    score = (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    passed_over = {c.identity for c in calls if POOLING.search(type(c.module).__name__)}
    usable = [
        c
        for c in calls
        if c.info.candidate
        and c.output is not None
        and c.identity not in passed_over
        and c.output.requires_grad
        and not isinstance(c.module, nn.Linear)
        and type(c.module).__name__ != "Permute"
        and not _is_attention_part(c.name, calls)
    ]
    for call in reversed(usable if score.requires_grad else []):
        assert call.output is not None  # noqa: S101
        assert call.info.grid is not None  # noqa: S101
        (gradient,) = torch.autograd.grad(score, call.output, retain_graph=True, allow_unused=True)
        if gradient is None or not call.info.grid.to_map(gradient).any():
            continue
        same = [c for c in usable if c.identity == call.identity]
        blocks = [c for c in same if next(c.module.children(), None) is not None]
        inner = [c for c in blocks if type(c.module) is not nn.Sequential]
        # Calls end innermost first.
        return (inner or blocks[-1:] or same)[0].name
    return None


def _is_attention_part(name: str, calls: list[Call]) -> bool:
    """Whether the module lies inside an attention module (its projections, norms and dropouts)."""
    attention = {c.name for c in calls if "attention" in type(c.module).__name__.lower()}
    return any(parent in attention for parent in _parents(name))


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
