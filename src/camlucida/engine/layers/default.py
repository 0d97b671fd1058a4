"""The layer that is explained when none is named."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import LayerError
from camlucida.common.turns import here
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers.calls import Call, observe
from camlucida.engine.layers.evidence import Survey, survey, weights_of
from camlucida.engine.layers.grids import Grid, map_shape
from camlucida.engine.outputs import outcome

POOLING = re.compile(r"pool([12]d)?(same)?$", re.IGNORECASE)
_DEFAULTS: WeakKeyDictionary[nn.Module, dict[Any, tuple[Any, str]]] = WeakKeyDictionary()
_TRIES = 8


def default_layer(model: nn.Module, inputs: Tensor) -> str:
    """The layer that a class activation map is drawn from when none is named.

    It is the last feature map before the image is pooled or read through a class token: among the modules
    that run once and return a map of the image on evidence
    (:mod:`camlucida.engine.layers.evidence`), the last one through which the output depends on the map's cells.
    Pooling layers are passed over (a map is explained before it is coarsened), and so are bare linear projections
    and what lies inside attention; for a model that returns a map itself (segmentation, depth), also
    the convolution that makes this prediction and all behind it. Of several modules that return this same map, the
    innermost block is named. This yields the customary choices, e.g. ``layer4.2`` of ResNet-50, the last ReLU before
    the final pooling of VGG, ``features`` of DenseNet, the last block of ConvNeXt and the first norm of a ViT's
    last block. Where no gradient reaches the output (quantized models) it is the last map that changes it.

    Args:
        model: the model, wrapped or not; returned as it was. The choice is remembered while the model lives and
            its weights stay.
        inputs: ``(N, C, H, W)`` on the model's device; the first image is used.

    Raises:
        LayerError: when nothing in the model returns a map on evidence that its output depends on.

    Example:
        >>> camlucida.default_layer(model, images)
        '4'
    """
    module = unwrap(model)
    key = (tuple(inputs.shape[1:]), inputs.dtype, inputs.device)
    known = _DEFAULTS.setdefault(module, {})
    weights = weights_of(module)
    if key in known and known[key][0] == weights:
        return known[key][1]
    with borrowed(module, inputs):
        maps = _Maps(module, inputs)
        probe = inputs[: maps.survey.images].detach().clone().requires_grad_()
        calls, result = observe(module, probe)
        usable = _usable(calls, maps, outcome(result))
        name = None
        for output in ends(calls, outcome(result)):
            name = name or _last_map(usable, output, maps)
        name = name or _last_that_changes(module, usable, probe.detach(), maps)
    if name is None:
        raise LayerError(_nothing(module, calls, maps, inputs[0].numel()))
    known[key] = (weights, name)
    return name


class _Maps:
    """Readings of a model's layers, asked as late as possible: some cost a pass."""

    def __init__(self, module: nn.Module, inputs: Tensor) -> None:
        self.module = module
        self.inputs = inputs
        self.survey: Survey = survey(module, inputs)
        self.refused: dict[str, str] = {}

    def grid(self, name: str) -> Grid | None:
        found = self.survey.reading(self.module, self.inputs, name)
        if found.grid is None and len(found.shape or ()) > 2 and found.calls == 1:
            self.refused[name] = found.reason
        if found.grid is None or found.shape is None or found.calls != 1:
            return None
        _, rows, columns = map_shape(found.grid, found.shape)
        return found.grid if rows * columns > 1 else None


def ends(calls: list[Call], outputs: list[Tensor]) -> list[list[Tensor]]:
    """What gradients are taken of: the outputs, and else the input of their head.

    Behind a head that is still zero nothing has a gradient; then one looks from its input.
    """
    heads = [c.input for c in calls if isinstance(c.module, nn.Linear) and c.input is not None]
    if heads and _is_blind(outputs, heads[-1]):
        return [heads[-1:]]
    return [outputs, heads[-1:]]


def gradients(outputs: list[Tensor], tensors: list[Tensor]) -> list[Tensor | None]:
    """Of a random direction of the outputs: sums cancel in normalised embeddings and softmax outputs.

    ``None`` for what they do not depend on, or through an operation that has no derivative.
    """
    generator = torch.Generator().manual_seed(0)
    score = [
        (
            output
            * torch.randn(output.shape, generator=generator, dtype=torch.float32, device="cpu").to(
                output
            )
        ).sum()
        for output in outputs
        if output.requires_grad
    ]
    if not score or not tensors:
        return [None] * len(tensors)
    try:
        return list(
            torch.autograd.grad(
                torch.stack([s.float() for s in score]).sum(),
                tensors,
                retain_graph=True,
                allow_unused=True,
            )
        )
    except torch.OutOfMemoryError:
        raise
    except RuntimeError:
        return [None] * len(tensors)


def _is_blind(outputs: list[Tensor], head: Tensor) -> bool:
    """Whether the outputs have no gradient at all with respect to what went into their head."""
    if not head.requires_grad or any(output is head for output in outputs):
        return False
    (gradient,) = gradients(outputs, [head])
    return gradient is not None and not gradient.any()


def _usable(calls: list[Call], maps: _Maps, outputs: list[Tensor]) -> list[Call]:
    """Layers that may be the default, in the order in which they end."""
    passed_over = {c.identity for c in calls if POOLING.search(type(c.module).__name__)}
    dense = [output for output in outputs if output.ndim > 2]
    prediction = _prediction(dense)
    return [
        c
        for c in calls
        if c.calls == 1
        and c.output is not None
        and c.output.ndim in (3, 4)
        and c.identity not in passed_over
        and (c.node is None or c.node not in prediction)
        and not (prediction and any(c.output is output for output in dense))
        and not isinstance(c.module, nn.Linear)
        and not any(parent in maps.survey.attention for parent in parents(c.name))
    ]


_WEIGHTED = re.compile(r"Convolution|Addmm|^MmBackward|Linear")
_NORM = re.compile(r"Norm")


def _prediction(dense: list[Tensor]) -> set[Any]:
    """Graph nodes of the maps that a model returns, back to the convolutions that make them.

    Empty where these are features, such as a backbone returns: they come out of a normalisation, or are a sum of blocks
    each of which goes on from the one before.
    """
    found, weighted = _walk([output.grad_fn for output in dense], _WEIGHTED)
    before, _ = _walk([after for node in weighted for after, _ in node.next_functions], None)
    features = any(_NORM.search(node.name()) for node in found)
    stream = any(node in before and not hasattr(node, "variable") for node in found)
    return set() if features or stream else found


def _walk(start: list[Any], end: re.Pattern[str] | None) -> tuple[set[Any], list[Any]]:
    """Nodes behind some, up to and with those whose name matches, and which these are."""
    found: set[Any] = set()
    ends: list[Any] = []
    wanted = list(start)
    while wanted:
        node = wanted.pop()
        if node is None or node in found:
            continue
        found.add(node)
        if end is not None and end.search(node.name()):
            ends.append(node)
        else:
            wanted += [after for after, _ in node.next_functions]
    return found, ends


def _last_map(usable: list[Call], outputs: list[Tensor], maps: _Maps) -> str | None:
    for call in reversed(usable):
        if call.output is None or not call.output.requires_grad:
            continue
        (gradient,) = gradients(outputs, [call.output])
        if gradient is None or not gradient.any():
            continue
        grid = maps.grid(call.name)
        if grid is not None and grid.to_map(gradient).any():
            return _named(call, usable)
    return None


def _named(call: Call, usable: list[Call]) -> str:
    """The innermost block among those that return this very map; calls end innermost first."""
    same = [c for c in usable if c.identity == call.identity]
    blocks = [c for c in same if next(c.module.children(), None) is not None]
    inner = [c for c in blocks if type(c.module) is not nn.Sequential]
    return (inner or blocks[-1:] or same)[0].name


def _last_that_changes(
    module: nn.Module, usable: list[Call], image: Tensor, maps: _Maps
) -> str | None:
    """Where nothing has a gradient: the last map without which the output is another."""
    tries = 0
    before = outcome(module(image.clone()))
    for call in reversed(usable):
        grid = maps.grid(call.name)
        if grid is None:
            continue
        tries += 1
        handle = call.module.register_forward_hook(here(_blank))
        try:
            after = outcome(module(image.clone()))
        finally:
            handle.remove()
        if not all(torch.equal(a, b) for a, b in zip(before, after, strict=True)):
            return _named(call, usable)
        if tries == _TRIES:
            break
    return None


def _blank(_: nn.Module, __: Any, output: Any) -> Tensor | None:
    return torch.zeros_like(output) if isinstance(output, Tensor) else None


def _nothing(module: nn.Module, calls: list[Call], maps: _Maps, pixels: int) -> str:
    """That there is no map, and what was seen of layers that could have been one."""
    seen = [
        f"{name!r} is none, because {reason}" for name, reason in list(maps.refused.items())[-2:]
    ]
    rows = [c.name for c in calls if c.input is not None and c.input.shape[1:] == (pixels,)]
    if rows:
        seen.append(f"the image is flattened into one row of {pixels} numbers before {rows[0]!r}")
    elif not any(c.output is not None and c.output.ndim in (3, 4) for c in calls):
        weighted = any(next(c.module.parameters(recurse=False), None) is not None for c in calls)
        traced = ", as in a model that was exported or traced into single operations"
        seen.append(f"no module inside it returns a map by itself{'' if weighted else traced}")
    again = [c for c in calls if c.calls > 1 and c.output is not None and c.output.ndim in (3, 4)]
    if again:
        seen.append(
            f"{again[-1].name!r} runs {again[-1].calls} times in a forward pass, so its map is not defined"
        )
    return (
        f"no module of {type(module).__name__} returns a feature map of the image that its output depends on"
        + (f" ({'; '.join(seen)})" if seen else "")
        + "; use a method that explains the input itself (camlucida methods lists them)"
        + (
            ""
            if rows
            else f", or name a layer with {argument('layers')} and how its output is read with {argument('grid')}"
        )
    )


def parents(name: str) -> Iterator[str]:
    """Names of the modules around a module, the nearest first."""
    while "." in name:
        name = name.rpartition(".")[0]
        yield name
