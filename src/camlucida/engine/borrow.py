"""Borrow a model for a computation and give it back exactly as it was, also after an exception."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from camlucida.common.errors import ModelError
from camlucida.common.optional import first_line
from camlucida.common.turns import turn
from camlucida.engine.failures import in_words
from camlucida.engine.global_state import random_state, without_checkpoints

_BORROWED = threading.local()
"""``modules``: what this thread has borrowed, by identity, and a token of that time."""


# Torch's own batch norms write to their statistics only while training; their subclasses may do anything.
_QUIET = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm})


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif (inner := dict(model.named_children()).get("_orig_mod")) is not None:
            model = inner  # no attribute: a wrapper of the user's may answer for every name
        else:
            return model


def check_inputs(model: nn.Module, inputs: Tensor) -> None:
    """Raise unless ``inputs`` is a non-empty float ``(N, C, H, W)`` on the model's device.

    Raises:
        ModelError: naming what was given and what the model expects.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise ModelError(
            "the model is a TorchScript module, whose layers cannot be observed; explain the original "
            "nn.Module"
        )
    if not isinstance(inputs, Tensor):
        raise ModelError(
            f"inputs must be a tensor (N, C, H, W), got {type(inputs).__name__}; "
            "camlucida.explain also takes photos, paths and arrays"
        )
    if inputs.ndim != 4 or inputs.shape[0] == 0:
        raise ModelError(
            f"inputs must have shape (N, C, H, W) with N >= 1, got {tuple(inputs.shape)}; "
            "add the batch dimension of a single image with inputs[None]"
        )
    if inputs.layout is not torch.strided:
        raise ModelError(
            f"inputs are {str(inputs.layout).removeprefix('torch.')}, and must hold all of their values; use "
            "inputs.to_dense()"
        )
    if not inputs.is_floating_point():
        raise ModelError(
            f"inputs must be floating point, got {inputs.dtype}; scale them as the model expects"
        )
    check_weights(model)
    parameters = list(model.parameters())
    devices = {p.device for p in parameters}
    if len(devices) == 1 and inputs.device not in devices:
        (device,) = devices
        advice = f"move one of them, e.g. inputs.to({str(device)!r})"
        if inputs.is_meta:
            advice = "the meta device holds no values"
        raise ModelError(f"inputs are on {inputs.device} but the model is on {device}; {advice}")
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    autocast = torch.is_autocast_enabled(inputs.device.type)
    if len(dtypes) == 1 and inputs.dtype not in dtypes and not autocast:
        (dtype,) = dtypes
        raise ModelError(
            f"inputs are {inputs.dtype} but the model is {dtype}; "
            f"use inputs.to({dtype}) or run under torch.autocast"
        )


def check_modules(model: nn.Module) -> None:
    """Raise ``ModelError`` where torch itself cannot list the modules of a model."""
    try:
        for _ in model.modules():
            pass
    except TypeError as error:
        raise ModelError(
            f"{type(model).__name__} cannot be explained: {first_line(error)}; torch keeps modules in sets, so that a "
            "class of modules must not define __eq__ alone (of a dataclass say eq=False)"
        ) from error


def check_weights(model: nn.Module) -> None:
    """Raise ``ModelError`` unless the model's weights are there and can take part in a gradient."""
    check_modules(model)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    lazy = [name for name, t in tensors if is_lazy(t)]
    if lazy:
        raise ModelError(
            f"{type(model).__name__} has lazy layers whose weights do not exist yet ({lazy[0]!r}); run the model "
            "once on an input before it is explained"
        )
    meta = [name for name, t in tensors if t.is_meta]
    if meta:
        raise ModelError(
            f"weights of {type(model).__name__} are on the meta device, which holds no values ({meta[0]!r}); load "
            "them first, for instance with load_state_dict(..., assign=True)"
        )
    if any(p.is_inference() for p in model.parameters()):
        raise ModelError(
            "the model's parameters were made under torch.inference_mode and can never take part in a "
            "gradient; build or load the model outside inference_mode"
        )


@contextmanager
def borrowed(model: nn.Module, inputs: Tensor | None = None) -> Iterator[nn.Module]:
    """Lend ``model`` for post-hoc explaining: evaluation mode, frozen parameters, gradients possible.

    Inside the block the unwrapped module runs in evaluation mode, no parameter requires a gradient (so
    that running it with gradients enabled builds no graph until something else requires one), compiled
    calls are bypassed, and an outer ``no_grad`` or ``inference_mode`` is lifted. Afterwards, whether or
    not something was raised, the training flag of every module, ``requires_grad`` of every parameter, the
    buffers, the compiled calls and the global random state are what they were. Gradient checkpointing is
    left out inside: it gives the same numbers, but runs layers a second time. Borrowing a model that is borrowed
    already costs nothing.

    Any number of threads may borrow one model: each waits for its turn, and so it does for models that share modules
    with it.

    Args:
        model: the model, possibly wrapped in ``DataParallel`` or compiled.
        inputs: a tensor on the device whose random state must be kept; ``None`` keeps the CPU's only.

    Yields:
        The unwrapped module.

    Raises:
        ModelError: in place of whatever the model itself raised inside the block, with it as the cause.
    """
    module = unwrap(model)
    mine: dict[int, object] = _BORROWED.__dict__.setdefault("modules", {})
    with torch.inference_mode(mode=False), torch.enable_grad():
        if id(module) in mine:
            yield module
            return
        with ExitStack() as stack:
            stack.enter_context(turn(module))
            stack.enter_context(random_state(inputs))
            stack.enter_context(without_checkpoints())
            mine[id(module)] = object()
            stack.callback(mine.pop, id(module))
            _prepare(module, stack)
            try:
                yield module
            except Exception as error:
                words = in_words(error, module, inputs)
                if words is None:
                    raise
                raise ModelError(words) from error


def session(module: nn.Module) -> object:
    """What stands for the time of which a model is lent: another object whenever it is borrowed anew."""
    mine: dict[int, object] = _BORROWED.__dict__.get("modules", {})
    return mine.get(id(module), object())


def _prepare(module: nn.Module, stack: ExitStack) -> None:
    """Evaluation mode, frozen parameters, copied buffers; the stack puts back what was there."""
    copies: dict[int, Tensor] = {}
    children = list(module.modules())
    modes = [(child, child.training) for child in children]
    gradients = [(parameter, parameter.requires_grad) for parameter in module.parameters()]
    kept: list[tuple[dict[str, Any], dict[str, Any]]] = []
    stack.callback(_put_back, modes, gradients, kept)
    for child in children:
        if not isinstance(child, torch.jit.ScriptModule):
            own = (child._parameters, child._modules, child._buffers)  # noqa: SLF001
            kept += [(there, dict(there) if there else _NOTHING) for there in own]
            if type(child) not in _QUIET:
                _copy_all(child._buffers, copies)  # noqa: SLF001
        if child.training:
            child.training = False
        if (compiled := getattr(child, "_compiled_call_impl", None)) is not None:
            stack.callback(setattr, child, "_compiled_call_impl", compiled)
            child._compiled_call_impl = None  # noqa: SLF001
    for parameter, requires_grad in gradients:
        if requires_grad and parameter.is_leaf:
            parameter.requires_grad_(False)


_NOTHING: dict[str, Any] = {}


def _put_back(
    modes: list[tuple[nn.Module, bool]],
    gradients: list[tuple[nn.Parameter, bool]],
    kept: list[tuple[dict[str, Any], dict[str, Any]]],
) -> None:
    """What was changed for the loan, and what the model changed of itself while it ran."""
    for module, training in modes:
        if module.training != training:
            module.training = training
    for parameter, requires_grad in gradients:
        if parameter.requires_grad != requires_grad:
            parameter.requires_grad_(requires_grad)
    for there, before in kept:
        if there or before:
            there.clear()
            there.update(before)


def _copy_all(buffers: dict[str, Tensor | None], copies: dict[int, Tensor]) -> None:
    """Have the forward pass write to copies, one for each buffer, so that the buffers stay untouched."""
    for name, buffer in buffers.items():
        if buffer is not None:
            buffers[name] = copies.setdefault(id(buffer), buffer.clone())
