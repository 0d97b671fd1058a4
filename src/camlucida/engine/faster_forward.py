"""One fast forward pass for everything that only runs the model: curves, removal, masks.

Batch norms are folded into the convolutions before them, images are laid out channels-last where that is faster, and
all of it can be compiled. The user's model is not touched: what runs is a list of operations that shares all its
weights but those of the folded convolutions, and it is used only where it gives the model's own outputs.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from camlucida.common.provenance import fingerprint
from camlucida.engine.borrow import session
from camlucida.engine.outputs import first_tensor
from camlucida.engine.replay.tracing import OneThread, put_back

Forward: TypeAlias = Callable[[Tensor], Tensor]

_LOG = logging.getLogger("camlucida")

_TOLERANCE = 1e-4
"""How far the output may be off, as a share of its largest value; rounding stays under 1e-6 in trained nets."""
_KINKS = 0.01
"""How far gradients may be off, as a share of their norm; rounding stays under 2e-3 in nets with ReLUs."""
_TIMED = 4
"""Images of the passes that are timed."""
_CLEARLY = 0.8
"""The expected layout gives way to one that takes at most this share of its time, so that noise does not decide."""


@dataclass
class _Kept:
    """What was found out about a model.

    Attributes:
        state: fingerprint of its values.
        session: in which it was last compared; while a model is borrowed, nobody else writes to it.
        graph: the model without batch norms; ``None`` where there is nothing to fold.
        forms: whether the graph runs, and whether on images laid out channels-last, by the shape of an image,
            precision, and whether gradients are taken.
        steps: see :mod:`camlucida.engine.compiled_step`.
    """

    state: str
    session: object
    graph: nn.Module | None
    forms: dict[tuple[object, ...], tuple[bool, bool]] = field(default_factory=dict)
    steps: dict[Any, Any] = field(default_factory=dict)


_KEPT: WeakKeyDictionary[nn.Module, _Kept] = WeakKeyDictionary()


def fast_forward(
    model: nn.Module,
    inputs: Tensor,
    outputs: Tensor | None = None,
    *,
    gradients: bool = False,
    compile: bool = False,  # noqa: A002
) -> Forward:
    """The model's forward pass in the fastest form that gives its outputs, for many passes.

    What is found is kept while the model lives and its values stay the same; it costs a few passes of up to four
    images once, and after that a fingerprint of the weights each time the model is borrowed.

    Args:
        model: in evaluation mode, borrowed.
        inputs: ``(N, C, H, W)``, to try it on.
        outputs: what the model returned for them, where that is known.
        gradients: passes forward and backward to the images are made: these are timed, and gradients compared too.
        compile: compile it as well, for batches of one size; the first pass takes half a minute then.

    Returns:
        From inputs to the model's first tensor; under autocast as the model itself.

    Example:
        >>> from camlucida.engine.borrow import borrowed
        >>> with borrowed(model) as lent, torch.no_grad():
        ...     fast_forward(lent, images)(images).shape
        torch.Size([2, 10])
    """
    few = inputs[:_TIMED]

    def known() -> Tensor:
        return first_tensor(model(few.clone())) if outputs is None else outputs[:_TIMED]

    if compile:
        return _in_layout(compiled(model, few, known()), expects_channels_last(model, inputs))
    now = session(model)
    kept = _KEPT.get(model)
    if kept is None or kept.session is not now:
        state = _state(model)
        if kept is None or kept.state != state:
            kept = _KEPT[model] = _Kept(state, now, folded(model, few, known()))
        kept.session = now
    kind = (
        *inputs.shape[1:],
        inputs.dtype,
        inputs.device,
        torch.is_autocast_enabled(inputs.device.type),
        gradients,
    )
    if kind not in kept.forms:
        wanted = _gradient(model, few) if gradients else None
        graph = kept.graph
        if wanted is not None and not (graph and near(_gradient(graph, few), wanted)):
            graph = None
        last = _prefers_channels_last(
            graph or model, few, known(), expects_channels_last(model, inputs), wanted
        )
        kept.forms[kind] = graph is not None, last
    folds, channels_last = kept.forms[kind]
    run = kept.graph if folds else model
    assert run is not None  # noqa: S101
    return _in_layout(run, channels_last)


def steps_of(model: nn.Module) -> dict[Any, Any]:
    """Where to keep what is compiled of a model whose fast form is known; it goes when the model's values change."""
    return _KEPT[model].steps


def has_fast_form(model: nn.Module) -> bool:
    """Whether the fastest form of a borrowed model is known already, so that using it costs nothing."""
    kept = _KEPT.get(model)
    return kept is not None and kept.session is session(model)


def _in_layout(run: Forward, channels_last: bool) -> Forward:
    layout = torch.channels_last if channels_last else torch.contiguous_format

    def forward(inputs: Tensor) -> Tensor:
        return first_tensor(run(inputs.contiguous(memory_format=layout)))

    return forward


def expects_channels_last(model: nn.Module, inputs: Tensor) -> bool:
    """Whether convolutions of this model are usually faster on channels-last images."""
    half = torch.is_autocast_enabled(inputs.device.type) or inputs.dtype in (
        torch.float16,
        torch.bfloat16,
    )
    convolves = any(isinstance(m, nn.Conv2d) and m.groups == 1 for m in model.modules())
    return convolves and (inputs.device.type == "cpu" or half)


def _prefers_channels_last(
    run: Forward, images: Tensor, known: Tensor, expected: bool, wanted: Tensor | None = None
) -> bool:
    """Whether channels-last is right and faster; what is expected decides unless the clock says clearly otherwise.

    Of passes backward no clock decides, since maps are made of them: they would depend on what else the machine does.
    """
    if wanted is not None and not expected:
        return False
    times = {}
    for channels_last in (True, False):
        forward = _in_layout(run, channels_last)
        try:
            if channels_last and not same(forward(images.clone()), known):
                return False
            if wanted is not None:
                return near(_gradient(forward, images), wanted)
            times[channels_last] = _seconds(forward, images.clone())
        except RuntimeError as error:
            # A model that reshapes its maps with view() wants them as usual; or the memory is small.
            _LOG.debug("images are not laid out channels-last: %s", error)
            return False
    if expected:
        return times[False] >= _CLEARLY * times[True]
    return times[True] < _CLEARLY * times[False]


def _seconds(forward: Forward, images: Tensor) -> float:
    spent = []
    for _ in range(3):
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        started = time.perf_counter()
        forward(images)
        if images.is_cuda:
            torch.cuda.synchronize(images.device)
        spent.append(time.perf_counter() - started)
    return median(spent)


def _gradient(forward: Forward, images: Tensor) -> Tensor:
    """Of a sum of all outputs, each with another weight, at the images."""
    with torch.enable_grad():
        leaf = images.detach().requires_grad_()
        output = first_tensor(forward(leaf.clone())).float()
        weight = torch.linspace(-1, 1, output[0].numel(), device=output.device)
        total = (output.flatten(1) * weight).sum()
        (found,) = torch.autograd.grad(total, leaf) if total.requires_grad else (leaf * 0,)
    return found.detach()


def near(found: Tensor, wanted: Tensor) -> bool:
    """Whether gradients are the same but for the kinks of the model, at which rounding decides."""
    half = torch.is_autocast_enabled(wanted.device.type) or wanted.dtype in (
        torch.float16,
        torch.bfloat16,
    )
    bound = 0.2 if half else _KINKS
    return bool((found - wanted).norm() <= bound * wanted.norm())


def same(found: Tensor, known: Tensor) -> bool:
    """Whether outputs are the same but for rounding."""
    if found.shape != known.shape:
        return False
    bound = _TOLERANCE if found.dtype in (torch.float32, torch.float64) else 0.05
    return bool((found - known).abs().max() <= bound * known.abs().max())


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
    return graph if same(found, outputs) else None


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
