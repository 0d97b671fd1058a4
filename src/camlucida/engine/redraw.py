"""A model's weights drawn anew, as they are before any training."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.common.jsonable import digest
from camlucida.engine.borrow import borrowed, unwrap


def redrawn(model: nn.Module, seed: int = 0, names: Iterable[str] | None = None) -> nn.Module:
    """A copy in eval mode with the weights of some modules drawn anew, of all by default; see :func:`randomise`."""
    with torch.inference_mode(mode=False):
        twin = copy.deepcopy(unwrap(model)).eval()
        every = [name for name, module in twin.named_modules() if holds_weights(module)]
        randomise(twin, every if names is None else names, seed)
    return twin


@torch.no_grad()
def randomise(model: nn.Module, names: Iterable[str], seed: int = 0) -> None:
    r"""Redraw the weights of some modules in place, as a network's are before any training.

    Weights of two and more dimensions are drawn from $N(0, 2/\mathrm{fan\,in})$ (He et al. 2015), other tensors that
    no norm owns from a normal distribution with their own root mean square, biases become 0; norms become the
    identity, with mean 0 and variance 1. Constants that no training changes, such as the mean and standard deviation
    of a layer that prepares the input, stay. Each module has its own random stream, made of the seed and its name, so
    that the same module gets the same weights whatever else is redrawn. The children of the modules stay as they are.
    """
    modules = dict(model.named_modules())
    for name in names:
        module = modules[name]
        generator = torch.Generator().manual_seed(int(digest([seed, name])[:15], 16))
        norm = is_norm(module)
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for key, tensor in tensors:
            learned = isinstance(tensor, nn.Parameter) or (norm and key in _LEARNED)
            if not tensor.is_floating_point() or not learned:
                continue
            if norm:
                tensor.fill_(0.0 if _is_offset(key) else 1.0)
            elif key == "bias":
                tensor.zero_()
            else:
                drawn = torch.randn(
                    tensor.shape, generator=generator, dtype=torch.float32, device="cpu"
                )
                tensor.copy_(drawn * _scale(module, key, tensor))


_LEARNED = frozenset({"weight", "bias", "running_mean", "running_var"})
"""Buffers of norms that come from training; frozen batch norms keep weight and bias as buffers too."""


def _is_offset(key: str) -> bool:
    """Whether a norm adds or subtracts this tensor; by the others, ``weight``, ``gamma``, it multiplies."""
    return any(word in key for word in ("bias", "beta", "mean", "shift", "offset"))


def _scale(module: nn.Module, key: str, tensor: Tensor) -> float:
    if tensor.ndim >= 2 and "weight" in key and not isinstance(module, nn.Embedding):
        transposed = bool(getattr(module, "transposed", False))
        inputs = tensor.numel() / tensor.shape[1 if transposed else 0]
        return float((2 / inputs) ** 0.5)
    return float(tensor.double().square().mean().sqrt())


def holds_weights(module: nn.Module) -> bool:
    """Whether training changes something that the module itself holds."""
    if any(p.is_floating_point() for p in module.parameters(recurse=False)):
        return True
    return is_norm(module) and any(
        key in _LEARNED for key, _ in module.named_buffers(recurse=False)
    )


def is_norm(module: nn.Module) -> bool:
    """Whether it normalises, and scales and shifts each channel at most."""
    return "norm" in type(module).__name__.lower() and not any(
        p.ndim > 1 and p.shape[0] > 1 and p.numel() > p.shape[0] and not _affine(module)
        for p in module.parameters(recurse=False)
    )


def _affine(module: nn.Module) -> bool:
    """Norms over several dimensions, whose weights have more than one."""
    return hasattr(module, "normalized_shape") or hasattr(module, "running_mean")


def randomisation_stages(
    model: nn.Module, inputs: Tensor, most: int | None = None
) -> tuple[tuple[str, ...], ...]:
    """The modules that hold weights, in groups from the output down to the input.

    A group is a layer with the norms behind it. Modules that never run are put where their nearest ancestor runs.
    There are at most so many groups: the output layer stays alone, the others are joined evenly.

    Raises:
        ModelError: the model holds no weights.
    """
    order: dict[str, int] = {}
    with borrowed(model, inputs) as module, torch.no_grad():

        def watch(name: str) -> Any:
            def hook(_m: nn.Module, _a: Any) -> None:
                order.setdefault(name, len(order))

            return hook

        handles = [
            child.register_forward_pre_hook(watch(name)) for name, child in module.named_modules()
        ]
        try:
            module(inputs[:1].clone())
        finally:
            for handle in handles:
                handle.remove()
        own = [
            (_place(name, order), name, child)
            for name, child in module.named_modules()
            if holds_weights(child)
        ]
    if not own:
        raise ModelError(f"{type(unwrap(model)).__name__} has no weights that could be redrawn")
    own.sort(key=lambda row: row[0])
    groups: list[list[str]] = []
    for _, name, child in own:
        if groups and is_norm(child):
            groups[-1].append(name)
        else:
            groups.append([name])
    groups.reverse()
    if most == 1:
        groups = [[name for group in groups for name in group]]
    if most is not None and most < len(groups):
        rest, count = groups[1:], most - 1
        bounds = [round(i * len(rest) / count) for i in range(count + 1)]
        joined = [[name for group in rest[a:b] for name in group] for a, b in pairwise(bounds)]
        groups = [groups[0], *joined]
    return tuple(tuple(group) for group in groups)


def _place(name: str, order: dict[str, int]) -> tuple[int, int]:
    parts = name.split(".") if name else []
    for length in range(len(parts), -1, -1):
        found = order.get(".".join(parts[:length]))
        if found is not None:
            return found, len(parts) - length
    return len(order), 0
