"""Faster forward passes of the same function: batch norms folded into the convolutions before them.

For methods that run a model hundreds of times. The user's model is not touched: what runs is a list of
operations that shares all its weights but those of the folded convolutions.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from camlucida.common.provenance import fingerprint
from camlucida.engine.outputs import first_tensor
from camlucida.engine.replay.tracing import OneThread, put_back

Forward: TypeAlias = Callable[[Tensor], Tensor]

_LOG = logging.getLogger("camlucida")

_TOLERANCE = 1e-4
"""How far the output may be off, as a share of its largest value; rounding stays under 1e-6 in trained nets."""


def folded(model: nn.Module, inputs: Tensor, outputs: Tensor) -> nn.Module | None:
    """The model with its batch norms folded away, where that is possible and gives the same outputs.

    Args:
        model: in evaluation mode, borrowed.
        inputs: ``(N, C, H, W)``.
        outputs: what the model returned for them; what is folded has to return the same to 1e-4 of its
            largest value, else it is not used.

    Returns:
        A module that shares the model's other weights; ``None`` where there is nothing to fold, the model's
        operations cannot be told, or modules carry hooks of the user's, which would no longer run.
    """
    if not any(isinstance(m, nn.BatchNorm2d) for m in model.modules()) or _hooked(model):
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with put_back(model.modules()):
                graph = fx.GraphModule(model, _Tracer().trace(model))
        if not _fold(graph):
            return None
        # A copy: some models write to their input.
        found = first_tensor(graph(inputs.clone()))
    except Exception as error:
        _LOG.debug("batch norms are not folded: %s: %s", type(error).__name__, error)
        return None
    apart = (found - outputs).abs().max() if found.shape == outputs.shape else torch.inf
    return graph if apart <= _TOLERANCE * outputs.abs().max() else None


class _Tracer(OneThread):
    """Keeps convolutions and batch norms whole, also those that other packages derive from torch's."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, nn.Conv2d | nn.BatchNorm2d) or super().is_leaf_module(
            m, module_qualified_name
        )


def _hooked(model: nn.Module) -> bool:
    return any(
        m._forward_hooks or m._forward_pre_hooks  # noqa: SLF001
        for m in model.modules()
    )


def _fold(graph: fx.GraphModule) -> int:
    """Fold every batch norm that only follows one convolution; returns how many."""
    modules = dict(graph.named_modules())
    calls: dict[str, int] = {}
    for node in graph.graph.nodes:
        if node.op == "call_module":
            calls[node.target] = calls.get(node.target, 0) + 1
    number = 0
    for node in list(graph.graph.nodes):
        norm = modules.get(str(node.target)) if node.op == "call_module" else None
        if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None:
            continue
        before = node.args[0]
        convolution = (
            modules.get(str(before.target))
            if isinstance(before, fx.Node) and before.op == "call_module"
            else None
        )
        if not isinstance(convolution, nn.Conv2d) or isinstance(convolution, nn.ConvTranspose2d):
            continue
        if len(before.users) > 1 or calls[before.target] > 1 or calls[node.target] > 1:
            continue
        rest = _behind(norm)
        if rest is None:
            continue
        name = f"folded{number}"
        graph.add_module(name, fuse_conv_bn_eval(convolution, norm))
        before.target = name
        if rest:
            graph.add_module(f"{name}_rest", rest[0] if len(rest) == 1 else nn.Sequential(*rest))
            node.target = f"{name}_rest"
        else:
            node.replace_all_uses_with(before)
            graph.graph.erase_node(node)
        number += 1
    graph.delete_all_unused_submodules()
    graph.recompile()
    # torch's own prints to stderr what the caller is told anyway.
    setattr(type(graph), "__call__", nn.Module.__call__)  # noqa: B010
    return number


def _behind(norm: nn.BatchNorm2d) -> list[nn.Module] | None:
    """What a batch norm does after normalising: nothing, or the activation that timm's norms hold."""
    if type(norm) in (nn.BatchNorm2d, nn.SyncBatchNorm):
        return []
    parts = [getattr(norm, name, None) for name in ("drop", "act")]
    if type(norm).__name__ != "BatchNormAct2d" or not all(isinstance(p, nn.Module) for p in parts):
        return None
    return [p for p in parts if isinstance(p, nn.Module) and not isinstance(p, nn.Identity)]


# ---------------------------------------------------------------------------------------------- compiled

_COMPILED: WeakKeyDictionary[nn.Module, tuple[str, Forward]] = WeakKeyDictionary()


def compiled(model: nn.Module, inputs: Tensor, outputs: Tensor) -> Forward:
    """The model, folded where possible and compiled, for batches of one size.

    The first pass takes as long as compiling does, half a minute for a ResNet-50. The result is kept while
    the model lives and its weights are neither replaced nor written to.

    Args:
        model: in evaluation mode, borrowed.
        inputs: ``(N, C, H, W)``.
        outputs: what the model returned for them.
    """
    state = _state(model)
    known = _COMPILED.get(model)
    if known is not None and known[0] == state:
        return known[1]
    graph = folded(model, inputs, outputs)
    run: Forward = torch.compile(graph or model, dynamic=False, options={"freezing": True})
    if graph is not None:  # what is kept must not hold on to the model itself
        _COMPILED[model] = (state, run)
    return run


def _state(model: nn.Module) -> str:
    """Of the values themselves: ``data`` is written to without a trace, and a borrowed model's buffers are copies."""
    plain = [
        {k: v for k, v in vars(m).items() if isinstance(v, bool | int | float | str | tuple | None)}
        for m in model.modules()
    ]
    kinds = [(name, type(module).__name__) for name, module in model.named_modules()]
    tensors = dict((*model.named_parameters(), *model.named_buffers()))
    return fingerprint(*tensors.values(), [*tensors], kinds, repr(plain))
