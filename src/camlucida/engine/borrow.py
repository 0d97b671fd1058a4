"""Borrow a model for a computation and give it back exactly as it was, also after an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError

_BORROWED: ContextVar[frozenset[int]] = ContextVar("camlucida_borrowed", default=frozenset())


# Torch's own batch norms write to their statistics only while training; their subclasses may do anything.
_QUIET = frozenset({nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm})


def unwrap(model: nn.Module) -> nn.Module:
    """The user's own module inside ``DataParallel``, ``DistributedDataParallel`` or ``torch.compile``."""
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(inner := getattr(model, "_orig_mod", None), nn.Module):
            model = inner
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
    if not inputs.is_floating_point():
        raise ModelError(
            f"inputs must be floating point, got {inputs.dtype}; scale them as the model expects"
        )
    parameters = list(model.parameters())
    devices = {p.device for p in parameters}
    if len(devices) == 1 and inputs.device not in devices:
        (device,) = devices
        raise ModelError(
            f"inputs are on {inputs.device} but the model is on {device}; "
            f"move one of them, e.g. inputs.to({str(device)!r})"
        )
    dtypes = {p.dtype for p in parameters if p.is_floating_point()}
    autocast = torch.is_autocast_enabled(inputs.device.type)
    if len(dtypes) == 1 and inputs.dtype not in dtypes and not autocast:
        (dtype,) = dtypes
        raise ModelError(
            f"inputs are {inputs.dtype} but the model is {dtype}; "
            f"use inputs.to({dtype}) or run under torch.autocast"
        )
    if any(p.is_inference() for p in parameters):
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
    buffers, the compiled calls and the global random state are what they were. Borrowing a model that is
    borrowed already costs nothing.

    Args:
        model: the model, possibly wrapped in ``DataParallel`` or compiled.
        inputs: a tensor on the device whose random state must be kept; ``None`` keeps the CPU's only.

    Yields:
        The unwrapped module.
    """
    module = unwrap(model)
    with torch.inference_mode(mode=False), torch.enable_grad():
        if id(module) in _BORROWED.get():
            yield module
            return
        with ExitStack() as stack:
            cuda = [inputs.device] if inputs is not None and inputs.device.type == "cuda" else []
            stack.enter_context(torch.random.fork_rng(devices=cuda))
            token = _BORROWED.set(_BORROWED.get() | {id(module)})
            stack.callback(_BORROWED.reset, token)
            copies: dict[int, Tensor] = {}
            for child in module.modules():
                if type(child) not in _QUIET:
                    stack.callback(_put_back, child._buffers, dict(child._buffers))  # noqa: SLF001
                    _copy_all(child._buffers, copies)  # noqa: SLF001
                if child.training:
                    stack.callback(setattr, child, "training", True)
                    child.training = False
                if (compiled := child._compiled_call_impl) is not None:  # noqa: SLF001
                    stack.callback(setattr, child, "_compiled_call_impl", compiled)
                    child._compiled_call_impl = None  # noqa: SLF001
            for parameter in module.parameters():
                if parameter.requires_grad and parameter.is_leaf:
                    stack.callback(parameter.requires_grad_, True)
                    parameter.requires_grad_(False)
            yield module


_Buffers = dict[str, Tensor | None]


def _copy_all(buffers: _Buffers, copies: dict[int, Tensor]) -> None:
    """Have the forward pass write to copies, one for each buffer, so that the buffers stay untouched."""
    for name, buffer in buffers.items():
        if buffer is not None:
            buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def _put_back(buffers: _Buffers, before: _Buffers) -> None:
    buffers.clear()
    buffers.update(before)
