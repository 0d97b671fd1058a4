"""Completeness: methods that promise that their map sums to something, held to it in double precision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.audits.trial import Trial, head_behind, output_layer
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import default_layer
from camlucida.engine.outputs import first_tensor
from camlucida.methods.fullgrad import full_gradient
from camlucida.targets import Logit

TOLERANCE = 1e-3
"""Largest share of the explained score that may be missing from the sum."""

PATH_TOLERANCE = 0.05
"""The same for integrated gradients, whose path is cut in steps (Sundararajan et al. 2017, section 5)."""


def completeness(trial: Trial, tested: Candidate) -> dict[str, Any] | None:
    """What a method's map sums to, and what it should; better in double precision.

    Returns:
        ``promise`` in words, ``missing`` per image as a share of the explained score, ``tolerance``, and, where
        the promise is not made for this model, ``unpromised`` with the reason; ``None`` where the method promises
        nothing at all.
    """
    promise = tested.row.sums_to
    return _CHECKS[promise](trial, tested) if promise else None


def _full(trial: Trial, _: Candidate) -> dict[str, Any]:
    full = full_gradient(trial.model, trial.inputs, Logit(trial.classes))
    found = _result(
        "input times gradient and the biases' shares sum to the logit", full.residual, full.values
    )
    return {**found, "unpromised": bent(trial.model, trial.inputs)}


def _input(trial: Trial, _: Candidate) -> dict[str, Any] | None:
    full = full_gradient(trial.model, trial.inputs, Logit(trial.classes))
    biases = full.other.abs() + sum(t.flatten(1).abs().sum(1) for t in full.spatial_terms)
    if (biases > 1e-9 * full.values.abs()).any() or bent(trial.model, trial.inputs):
        return None
    missing = full.values - full.input_term.flatten(1).sum(1)
    return _result(
        "input times gradient sums to the logit, as there is no bias", missing, full.values
    )


def _path(trial: Trial, tested: Candidate) -> dict[str, Any]:
    own = {k: v for k, v in tested.options.items() if k in {"n_steps", "baseline"}}
    (e,) = trial.explain([Candidate(tested.name, options={"reduction": "sum", **own})]).values()
    blank = torch.full_like(trial.inputs[:1], float(own.get("baseline", 0.0)))
    with borrowed(trial.model, trial.inputs) as module, torch.no_grad():
        start = first_tensor(module(blank))[0, trial.classes]
    wanted = e.target_values - start
    steps = e.method.describe()["options"].get("n_steps")
    return _result(
        "the map sums to the logit less the baseline's logit"
        + (f" ({steps} steps; more come closer)" if steps else ""),
        wanted - e.signed.flatten(1).sum(1),
        wanted,
        PATH_TOLERANCE,
    )


def bent(model: nn.Module, inputs: Tensor) -> str:
    """What keeps a network from being made of the parts for which FullGrad's sum is exact; empty if nothing does.

    The sum is promised for piecewise linear networks (Srinivas and Fleuret 2019, proposition 1), and counted here
    for convolutions, batch norms, linear layers, pooling and ReLU, LeakyReLU, PReLU, ReLU6 or Hardtanh. What the
    network is made of is read from the graph of its forward pass, so that functional calls count too.
    """
    with borrowed(model, inputs) as module:
        x = inputs[:1].detach().clone().requires_grad_()
        outputs = first_tensor(module(x))
    waiting, seen, odd = [outputs.grad_fn], set(), set()
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        before = [one for one, _ in node.next_functions if one is not None]
        waiting += before
        kind = node.name().rpartition("::")[2].rstrip("0123456789").removesuffix("Backward")
        # A sum with a constant adds a share that belongs to nobody; a product of two maps is no longer linear.
        wanted = {"Add": 2, "Mul": 1, "Div": 1}.get(kind)
        known = kind in _STRAIGHT if wanted is None else len(before) == wanted
        if not known:
            odd.add(_NAMES.get(kind, kind))
    return (
        f"it is exact for piecewise linear networks, and this one holds {', '.join(sorted(odd))}"
        if odd
        else ""
    )


_STRAIGHT = frozenset({
    "AccumulateGrad", "Convolution", "MkldnnConvolution", "ConvolutionOverrideable", "CudnnConvolution",
    "NativeBatchNorm", "CudnnBatchNorm", "MiopenBatchNorm", "Addmm", "Mm", "T", "Relu", "LeakyRelu",
    "Prelu", "PreluKernel", "Hardtanh", "MaxPool2DWithIndices", "MkldnnMaxPool2D", "AvgPool2D", "AdaptiveAvgPool2D",
    "AdaptiveMaxPool2D", "MkldnnAdaptiveAvgPool2D", "Mean", "Sum", "View", "UnsafeView", "Reshape", "ReshapeAlias",
    "Squeeze", "Unsqueeze", "Permute", "Transpose", "Cat", "Split", "SplitWithSizes", "Slice", "Select", "Clone",
    "ToCopy", "Expand", "Alias", "ConstantPadNd", "Neg",
})  # fmt: skip
_NAMES = {
    "Add": "a constant that is added", "Sub": "a constant that is taken off", "Mul": "products of maps",
    "Div": "quotients of maps", "Gelu": "GELU", "Silu": "SiLU", "Sigmoid": "sigmoid", "Softmax": "softmax",
    "NativeLayerNorm": "layer norm", "NativeGroupNorm": "group norm",
    "Hardswish": "hard swish", "Hardsigmoid": "hard sigmoid", "Tanh": "tanh",
}  # fmt: skip


def _linear(trial: Trial, tested: Candidate) -> dict[str, Any] | None:
    layer = trial.layer or default_layer(trial.model, trial.inputs)
    bias = _bias(trial, layer)
    if bias is None:
        return None
    (e,) = replace(trial, layer=layer).explain([tested]).values()
    wanted = e.target_values - bias[trial.classes]
    kind = tested.row.sums_to
    if kind == "weights":  # they are shares of the score
        promise = "the channels' losses sum to the logit less its bias"
        score = e.target_values
        if tested.options.get("denominator", "score") != "score":
            score = score.abs()
        got = e.details["weights"].sum(1).to(wanted) * score
    else:
        promise = f"the map's {kind} is the logit less its bias"
        summed = e.signed.flatten(1)
        got = summed.mean(1) if kind == "mean" else summed.sum(1)
    return _result(f"{promise} (pooling and one linear layer follow)", wanted - got, wanted)


def _bias(trial: Trial, layer: str) -> Tensor | None:
    """The last layer's biases, where pooling and one linear layer follow; else ``None``."""
    _, head, outputs = head_behind(trial.model, trial.inputs, layer)
    linear = output_layer(trial.model, trial.inputs)
    if head is None or head.rectified or linear is None:
        return None
    bias = linear.bias
    return bias.detach() if isinstance(bias, Tensor) else torch.zeros_like(outputs[0])


def _result(
    promise: str, missing: Tensor, wanted: Tensor, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    shares = missing.double().abs() / wanted.double().abs().clamp_min(1e-12)
    return {"promise": promise, "missing": shares.tolist(), "tolerance": tolerance}


_CHECKS: dict[str, Callable[[Trial, Candidate], dict[str, Any] | None]] = {
    "score": _full,
    "score without biases": _input,
    "path": _path,
    **dict.fromkeys(("sum", "mean", "weights"), _linear),
}
"""By what the registry says that a map sums to."""
