"""Completeness: methods that promise that their map sums to something, held to it in double precision."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.sanity.checks import Bench
from camlucida.borrow import borrowed
from camlucida.explain import explain
from camlucida.heads import LinearInputs, find_head
from camlucida.layers import default_layer
from camlucida.methods.fullgrad import full_gradient
from camlucida.outputs import first_tensor
from camlucida.tap import tap
from camlucida.targets import Logit

TOLERANCE = 1e-3
"""Largest share of the explained score that may be missing from the sum."""

PATH_TOLERANCE = 0.05
"""The same for integrated gradients, whose path is cut in steps (Sundararajan et al. 2017, section 5)."""


def completeness(bench: Bench, name: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a method's map sums to, and what it should.

    Args:
        bench: the model and images; better in double precision.
        name: registered name.
        options: of the method.

    Returns:
        ``promise`` in words, ``missing`` per image as a share of the explained score, and ``tolerance``;
        ``None`` where the method promises nothing for this model.
    """
    check = _CHECKS.get(name)
    return None if check is None else check(bench, options)


def _full(bench: Bench, _: Mapping[str, Any]) -> dict[str, Any]:
    full = full_gradient(bench.model, bench.inputs, Logit(bench.classes))
    return _result(
        "input times gradient and the biases' shares sum to the logit (exact for piecewise linear networks)",
        full.residual,
        full.values,
    )


def _input(bench: Bench, _: Mapping[str, Any]) -> dict[str, Any] | None:
    full = full_gradient(bench.model, bench.inputs, Logit(bench.classes))
    biases = full.other.abs() + sum(t.flatten(1).abs().sum(1) for t in full.spatial_terms)
    if (biases > 1e-9 * full.values.abs()).any():
        return None
    missing = full.values - full.input_term.flatten(1).sum(1)
    return _result(
        "input times gradient sums to the logit, as there is no bias", missing, full.values
    )


def _path(bench: Bench, options: Mapping[str, Any]) -> dict[str, Any]:
    own = {k: v for k, v in options.items() if k in {"n_steps", "baseline"}}
    e = explain(
        bench.model,
        bench.inputs,
        method="integrated-gradients",
        target=bench.classes.tolist(),
        reduction="sum",
        batch_size=bench.batch_size,
        **own,
    )
    blank = torch.full_like(bench.inputs[:1], float(own.get("baseline", 0.0)))
    with borrowed(bench.model, bench.inputs) as module, torch.no_grad():
        start = first_tensor(module(blank))[0, bench.classes]
    wanted = e.target_values - start
    return _result(
        "the map sums to the logit less the baseline's logit",
        wanted - e.signed.flatten(1).sum(1),
        wanted,
        PATH_TOLERANCE,
    )


def _linear(name: str) -> Callable[[Bench, Mapping[str, Any]], dict[str, Any] | None]:
    def check(bench: Bench, options: Mapping[str, Any]) -> dict[str, Any] | None:
        layer = bench.layer or default_layer(bench.model, bench.inputs)
        bias = _bias(bench, layer)
        if bias is None:
            return None
        e = explain(
            bench.model,
            bench.inputs,
            method=name,
            target=bench.classes.tolist(),
            layers=layer,
            batch_size=bench.batch_size,
            **options,
        )
        wanted = e.target_values - bias[bench.classes]
        if name == "ablationcam":
            # Weights are shares of the score.
            got = e.details["weights"].sum(1).to(wanted) * e.target_values.abs()
            if options.get("denominator", "score") == "score":
                got = e.details["weights"].sum(1).to(wanted) * e.target_values
            promise = "the channels' losses sum to the logit less its bias (pooling and one linear layer follow)"
            return _result(promise, wanted - got, wanted)
        summed = e.signed.flatten(1)
        got = summed.mean(1) if name == "cam" else summed.sum(1)
        word = "mean" if name == "cam" else "sum"
        return _result(
            f"the map's {word} is the logit less its bias (pooling and one linear layer follow)",
            wanted - got,
            wanted,
        )

    return check


def _bias(bench: Bench, layer: str) -> Tensor | None:
    """The last layer's biases, where pooling and one linear layer follow; else ``None``."""
    with borrowed(bench.model, bench.inputs) as module, LinearInputs(module) as seen:
        tapped = tap(module, bench.inputs, [layer], Logit(bench.classes), gradients=False)
        activation = tapped.activations[layer]
        outputs = tapped.outputs.detach()
        head = find_head(activation, outputs, seen.calls)
    if head is None or head.rectified:
        return None
    for linear, _, returned in reversed(seen.calls):
        if returned.shape == outputs.shape and isinstance(linear, nn.Module):
            bias = linear.bias
            return bias.detach() if isinstance(bias, Tensor) else torch.zeros_like(outputs[0])
    return None


def _result(
    promise: str, missing: Tensor, wanted: Tensor, tolerance: float = TOLERANCE
) -> dict[str, Any]:
    shares = missing.double().abs() / wanted.double().abs().clamp_min(1e-12)
    return {"promise": promise, "missing": shares.tolist(), "tolerance": tolerance}


_CHECKS: dict[str, Callable[[Bench, Mapping[str, Any]], dict[str, Any] | None]] = {
    "fullgrad": _full,
    "inputxgradient": _input,
    "integrated-gradients": _path,
    **{name: _linear(name) for name in ("cam", "gradcam", "hirescam", "xgradcam", "ablationcam")},
}
