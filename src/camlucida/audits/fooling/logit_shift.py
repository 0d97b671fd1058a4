"""The attack that needs no training: one vector added to the weights of every class.

All logits rise by the same amount, so that no probability changes, and yet the map of a lone logit can be moved
anywhere within the span of the activation maps. A margin over the rivals cannot: the vector cancels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate, with_margins
from camlucida.audits.fooling.figures import panel
from camlucida.audits.fooling.measure import measure_variant, ratio
from camlucida.audits.fooling.tune import check_labels, last_linear
from camlucida.audits.report import AuditReport, Illustration
from camlucida.audits.request import AuditData, Request
from camlucida.audits.sanity.checks import COMMON
from camlucida.audits.trial import Trial, copied, head_behind
from camlucida.audits.verdicts import UNEXPLAINED, Verdict, by_outcome, decided, sentences
from camlucida.common.errors import CamlucidaError
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.engine.layers import default_layer
from camlucida.engine.linear_head import LinearHead, no_head
from camlucida.engine.maps import normalise
from camlucida.engine.reading import outputs_of
from camlucida.explanation.subject import ModelLike
from camlucida.report import Table
from camlucida.training.digits import digits_model
from camlucida.training.sham import Layout, sham_mask


@dataclass(frozen=True)
class Shift:
    r"""A vector for every class row of a linear head.

    Attributes:
        vector: what is added to each row, ``(K,)``.
        layer: the layer whose maps it moves.
        mask: where to, ``(h, w)``.
        error: mean squared distance of the maps $\sum_k v_k A^k$ that were fitted from the mask, each scaled to
            [0, 1], over the batch; the closer to 0 the better the mask lies in the span of the maps.
        strength: how many times wider the added maps are than the model's own.
    """

    vector: Tensor
    layer: str
    mask: Tensor
    error: float
    strength: float


def fit_shift(
    model: nn.Module,
    inputs: Tensor,
    *,
    layer: str | None = None,
    mask: Tensor | Layout = "rounded",
    strength: float = 30.0,
    ridge: float = 1e-6,
    batch_size: int = 16,
) -> Shift:
    r"""The vector whose maps come closest to a mask on a batch of images.

    Solves $\min_v \sum_n \| \sum_k v_k f_k A^k_n - T \|^2$ by least squares over all cells of the batch, in double
    precision. $f_k$ is 1, or the share of cells that a ReLU behind the layer lets through (DenseNet), as in
    Grad-CAM's weights. Fitted on one image the vector is that image's own; fitted on a batch it serves others.

    Args:
        model: ends in global average pooling and one linear layer.
        inputs: ``(N, C, H, W)``.
        layer: whose maps are moved; by default the model's last feature map.
        mask: where to: a SHAM layout or ``(h, w)``.
        strength: how many times wider the added maps are than the model's own maps of the predicted class, on
            the average over the batch.
        ridge: share of the largest squared singular value that is added, which keeps the vector short.
        batch_size: images at a time; what is fitted is the whole batch.

    Raises:
        CamlucidaError: the model has another head.
    """
    if not (math.isfinite(strength) and strength > 0):
        raise CamlucidaError(f"strength must be positive, got {strength}")
    name = layer or default_layer(model, inputs[:1])
    read = [_read(model, some, name) for some in torch.split(inputs, batch_size)]
    head = read[0][1]
    maps = torch.cat([activation for activation, _, _ in read]).double()
    if head.rectified:
        maps = maps * (maps > 0).double().mean((2, 3), keepdim=True)
    size = (int(maps.shape[-2]), int(maps.shape[-1]))
    wanted = sham_mask(size, mask).to(maps)
    rows = maps.flatten(2).transpose(1, 2).flatten(0, 1)  # one row per cell of each image
    gram = rows.T @ rows
    gram.diagonal().add_(ridge * torch.linalg.matrix_norm(gram, 2))
    vector = torch.linalg.solve(gram, rows.T @ wanted.flatten().repeat(len(maps)))
    added = torch.einsum("k,nkhw->nhw", vector, maps)
    weight = head.weight.double()[torch.cat([outputs for _, _, outputs in read]).argmax(1)]
    own = torch.einsum("nk,nkhw->nhw", weight, maps)
    scale = strength * _range(own) / _range(added).clamp_min(torch.finfo(torch.float64).tiny)
    error = (normalise(added) - wanted).square().mean()
    return Shift(vector * scale, name, wanted.cpu(), float(error), strength)


def apply_shift(model: nn.Module, inputs: Tensor, shift: Shift) -> nn.Module:
    """A copy of the model with the vector in every class row; the inputs ``(N, C, H, W)`` find the head.

    Raises:
        CamlucidaError: the vector does not fit the head.
    """
    shifted = copy.deepcopy(model)
    weight = last_linear(shifted, inputs[:1]).weight
    assert isinstance(weight, Tensor)  # noqa: S101
    if weight.flatten(1).shape[1] != len(shift.vector):
        raise CamlucidaError(
            f"the shift has {len(shift.vector)} numbers, the head takes {weight.flatten(1).shape[1]}"
        )
    with torch.no_grad():
        weight.add_(shift.vector.to(weight).view(1, -1, *(1,) * (weight.ndim - 2)))
    return shifted


def audit_logit_shift(
    model: ModelLike | None = None,
    data: AuditData | None = None,
    *,
    strength: float = 30.0,
    fitted_on: Tensor | None = None,
    **options: Any,
) -> AuditReport:
    """Which maps move when all logits rise alike? An attack without training; no probability changes.

    Everything is done on a copy in double precision, so that what is left is not rounding.

    Args:
        model: ends in global average pooling and one linear layer; left as it is. By default a small network for
            digits on photos, which is trained now unless it was trained before.
        data: see :class:`camlucida.audits.Request`. Images without labels are explained by the predicted class.
        strength: how many times wider the added maps are than the model's own, see :func:`fit_shift`.
        fitted_on: images that the vector is fitted on; the explained ones by default.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: the model has another head or one output only, or a label is none of its classes.

    Example:
        >>> report = camlucida.audits.audit_logit_shift(model, images, methods=["gradcam"])
        >>> report["MeanDiffGradCAM"].value < 1e-6
        True
    """
    request = Request.of(audit_logit_shift, model, data, options)
    if model is None:
        request = replace(request, model=digits_model(request.say))
    return logit_shift_audit(request, strength, fitted_on)


def logit_shift_audit(
    request: Request,
    strength: float = 30.0,
    fitted_on: Tensor | None = None,
    *,
    margins: bool = True,
) -> AuditReport:
    """The audit as it is asked; see :func:`audit_logit_shift`; without ``margins`` with each method's own target."""
    chosen = with_margins(request.tested(everything=True), quick=request.quick, every=margins)
    given = request.open(60, 600, whole=True)
    clean = given.exact()
    inputs = clean.inputs
    said = outputs_of(clean.model)
    if clean.logits().shape[1] < 2 or (said is not None and said.kind == "binary"):
        raise CamlucidaError(
            "the shift needs a model of two classes or more, this one has one output"
        )
    basis = inputs if fitted_on is None else fitted_on.double()
    shift = fit_shift(clean.model, basis, layer=given.layer, strength=strength)
    moved_model = apply_shift(clean.model, inputs, shift)
    before, after = clean.logits(), replace(clean, model=moved_model).logits()
    change = float((before.softmax(1) - after.softmax(1)).abs().max())
    floats = inputs.float()
    single = apply_shift(copied(given.model, torch.float32), floats[:1], shift)
    rounded = replace(given, model=single, inputs=floats).logits().double()
    rounded_change = float((rounded.softmax(1) - before.softmax(1)).abs().max())
    if given.labels is not None:
        check_labels(given.labels, clean.model, inputs)
    classes = before.argmax(1) if given.labels is None else given.labels
    clean = replace(clean, classes=classes, layer=shift.layer)
    store = request.store(
        replace(given, classes=classes, layer=shift.layer),
        "logit-shift",
        strength=strength,
        basis=fingerprint(basis),
    )
    found: dict[str, dict[str, Any]] = {}
    for i, one in enumerate(chosen):
        request.say(f"measuring {one.label}", i, len(chosen))
        found[one.label] = store.value(
            one.key, partial(measure_variant, clean, moved_model, one, shift.mask)
        )
    request.say("measured", len(chosen), len(chosen))
    verdicts = tuple(_verdict(one, found[one.label]) for one in chosen)
    found_by = by_outcome(verdicts)
    fooled, safe, unclear = (found_by[outcome] for outcome in ("fail", "pass", "unclear"))
    picture = _picture(clean, moved_model, shift)
    return AuditReport(
        "logit-shift",
        "Logit-shift audit",
        f"{ABOUT}\nTested on {given.name}, {len(inputs)} images; the vector was fitted on "
        f"{len(basis)}. Largest change of a probability: {change:.1e} in double precision, {rounded_change:.1e} when "
        "the attacked weights are stored in single precision.",
        f"No probability changed by more than {_at_most(change)}, and yet {len(fooled)} of {len(chosen)} combinations "
        f"of method and target moved ({', '.join(fooled[:8])}{' …' if len(fooled) > 8 else ''}); {len(safe)} did not"
        f"{f'; of {len(unclear)} these images are not enough to tell' if unclear else ''}.",
        verdicts,
        (
            Table.of_rows(
                "distances",
                "Distance of the maps before and after the shift",
                (
                    "method and target",
                    "mean squared distance",
                    "std",
                    "share of another image's",
                    "images",
                ),
                [_row(one, found[one.label]) for one in chosen],
                "Maps at their own resolution, each scaled to [0, 1]. The share is that of the distance between the "
                "maps of two different images.",
            ),
        ),
        (picture,) if picture else (),
        {
            "layer": shift.layer,
            "strength": strength,
            "fit_error": shift.error,
            "probability_change": change,
            "probability_change_single_precision": rounded_change,
            "measured": found,
            "seed": request.seed,
            "resumed_parts": store.found,
        },
    )


ABOUT = (
    "One vector is added to the weights of every class. All logits of an image rise by the same amount, so the "
    "model's probabilities and decisions stay what they were: nothing about its behaviour changes. A map that "
    "changes all the same does not explain the decision alone. The vector was fitted so that maps of a lone logit "
    "move to the border of the image (a SHAM mask). No training and no access to data beyond a few images is needed."
)
"""What the audit does, for people."""


_SAY = sentences("""
pass: Its maps stay: they differ by {value:.1e}, the bound is {same:.0e}.
fail: Its maps move by {value:.2g}{like} although no probability changes; {same:.0e} would be rounding.
""")


def _verdict(one: Candidate, found: Mapping[str, Any]) -> Verdict:
    if "error" in found:
        return Verdict(one.label, "not tested", UNEXPLAINED(error=found["error"]))
    evidence, share = decided(found["susceptibility"], most=COMMON), ratio(found)
    value = evidence.value
    known = not math.isnan(share)
    like = f" ({_percent(share)} of what the maps of two images differ by)" if known else ""
    said = _SAY["pass" if evidence.within else "fail"].of(
        {"value": value, "same": COMMON, "like": like}
    )
    return Verdict(
        one.label, evidence.outcome, said, value, COMMON, "mean squared distance of the maps before and after",
        {"share_of_another": share}, evidence=evidence,
    )  # fmt: skip


def _row(one: Candidate, found: Mapping[str, Any]) -> tuple[Any, ...]:
    if "error" in found:
        return (one.label, None, None, None, None)
    mean, std = mean_std(found["susceptibility"])
    share = ratio(found)
    known = None if math.isnan(share) else _percent(share)
    return (one.label, f"{mean:.3g}", f"{std:.2g}", known, len(found["susceptibility"]))


def _percent(share: float) -> str:
    """A share in plain figures, however large or small."""
    return f"{100 * share:.{1 if share < 0.095 else 0}f} %"


def _read(model: nn.Module, inputs: Tensor, name: str) -> tuple[Tensor, LinearHead, Tensor]:
    """The layer's maps, the head behind it, and the outputs."""
    activation, head, outputs = head_behind(model, inputs, name)
    if head is None:
        raise CamlucidaError(f"the shift cannot be fitted: {no_head(name)}")
    return activation, head, outputs


def _at_most(value: float) -> str:
    """A number of one figure that is not below the value."""
    if value == 0:
        return "0"
    power = math.floor(math.log10(value))
    return f"{math.ceil(value / 10.0**power) * 10.0**power:.0e}"


def _range(maps: Tensor) -> Tensor:
    flat = maps.flatten(1)
    return (flat.amax(1) - flat.amin(1)).mean()


def _picture(clean: Trial, fooled: nn.Module, shift: Shift) -> Illustration | None:
    chosen = [Candidate("gradcam"), Candidate("gradcam", "mean"), Candidate("eigencam")]
    caption = "Maps before and after the shift. The model's probabilities are the same to the last digits."
    try:
        return panel(clean.few(3), fooled, chosen, shift.mask, caption)
    except CamlucidaError:
        return None
