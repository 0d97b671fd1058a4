"""Altered copies of a model, for sanity checks: inputs shifted, logits shifted.

The user's own model is only ever copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.trial import copied, output_layer
from camlucida.common.errors import ModelError
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers.calls import observe
from camlucida.engine.outputs import first_tensor

# ------------------------------------------------------------------------------------- inputs shifted


def shifted_input(model: nn.Module, inputs: Tensor, shift: float) -> nn.Module:
    r"""A copy that gives for ``x + shift`` exactly what the model gives for ``x``.

    The bias of the first layer makes up for the shift: $f'(x) = f(x) - (f(c) - f(0))$ for that affine layer $f$ and
    the constant image $c$, which is right at padded borders too (Kindermans et al. 2019, section 3). It is the
    convolution or linear layer that reads the input, else the module without children that does, such as one that
    takes off the mean.

    Raises:
        ModelError: no affine layer reads the input directly.
    """
    twin = copied(model)
    name = _first_layer(twin, inputs)
    layer = twin.get_submodule(name)

    def compensate(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if busy:
            return output
        busy.append(True)
        try:
            blank = torch.zeros_like(args[0][:1])
            moved: Tensor = output - (module(blank + shift) - module(blank))
            return moved
        finally:
            busy.clear()

    busy: list[bool] = []
    layer.register_forward_hook(compensate)
    return twin


def _first_layer(model: nn.Module, inputs: Tensor) -> str:
    values = inputs[:1].detach()
    with torch.no_grad():
        calls, _ = observe(model, values.clone())
    found = {
        call.name: call.module
        for call in calls
        if call.name
        and not list(call.module.children())
        and not isinstance(call.module, nn.Identity)
        if call.input is not None and call.output is not None
        if call.input.shape == values.shape and torch.equal(call.input, values)
    }
    weighted = [n for n, m in found.items() if isinstance(m, nn.Conv2d | nn.Linear)]
    names = weighted or list(found)
    if len(names) != 1:
        raise ModelError(
            f"{len(names) or 'no'} layers read the input directly; the shift can be made up for in exactly one"
        )
    return names[0]


# ------------------------------------------------------------------------------------- logits shifted


def shifted_logits(
    model: nn.Module, inputs: Tensor, scale: float = 3.0, seed: int = 0
) -> nn.Module:
    """A copy whose logits are all raised equally, by another number for every image: the softmax is unchanged.

    One random vector, ``scale`` times as long as the mean class row, is added to the row of every class in the last
    linear layer. A model that does not end in one gets ``scale`` times the mean of its logits added instead, and so
    does one whose last weights are computed anew in each pass (weight norm).

    Raises:
        ModelError: the output is no ``(N, M)``, or no logit rises, as where the mean of the logits is always 0.
    """
    found = _shifted(model, inputs, scale, seed, by_weights=True)
    if not _rises(model, found, inputs):
        found = _shifted(model, inputs, scale, seed, by_weights=False)
        if not _rises(model, found, inputs):
            raise ModelError(
                "the logits could not be shifted: the model does not end in a linear layer, and the mean of its "
                "logits does not depend on the image"
            )
    return found


def _rises(model: nn.Module, twin: nn.Module, inputs: Tensor) -> bool:
    """Whether the mean of the logits changes by an amount that the image decides, beyond rounding."""
    one = inputs[:1]
    with torch.no_grad(), borrowed(model, inputs) as module:
        # A constant that every image gets moves no map; a brighter image must get another amount.
        before, other = (first_tensor(module(x)) for x in (one.clone(), 2 * one + 1))
        more, otherwise = (first_tensor(twin(x)) for x in (one.clone(), 2 * one + 1))
    change = ((more - before).mean() - (otherwise - other).mean()).abs()
    return bool(change > 1e-6 * before.abs().max())


def _shifted(
    model: nn.Module, inputs: Tensor, scale: float, seed: int, *, by_weights: bool
) -> nn.Module:
    twin = copied(model)
    with torch.no_grad():
        outputs = first_tensor(twin(inputs[:1].clone()))
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ModelError(f"logits (N, M) of two or more classes are needed, got {outputs.shape}")
    if by_weights and (layer := output_layer(twin, inputs)) is not None:
        weight = layer.weight
        assert isinstance(weight, Tensor)  # noqa: S101
        rows = weight.detach().flatten(1)
        drawn = torch.randn(
            rows.shape[1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        ).to(rows)
        length = scale * rows.norm(dim=1).mean() / drawn.norm()
        with torch.no_grad():
            weight += (length * drawn).view_as(weight[0])
        return twin

    def add(_m: nn.Module, _a: tuple[Any, ...], output: Any) -> Any:
        logits = first_tensor(output)
        more = logits + scale * logits.mean(1, keepdim=True)
        return more if isinstance(output, Tensor) else (more, *tuple(output)[1:])

    twin.register_forward_hook(add)
    return twin


def spread_over(names: Sequence[str]) -> str:
    """A group of modules in a few words."""
    return names[0] if len(names) == 1 else f"{names[-1]} to {names[0]}"
