"""What sanity checks measure: maps before and after something that should, or should not, change them.

Everything is returned ready for JSON, by method label; ``{"error": text}`` where a method cannot explain a model.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import all_methods
from camlucida.audits.request import Tested
from camlucida.audits.sanity.models import copied, randomise, shifted_input, shifted_logits
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line
from camlucida.common.provenance import fingerprint
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.maps import normalise, resize
from camlucida.engine.outputs import first_tensor
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.methods import Progress, method_row, read_method
from camlucida.metrics.agreement import rank_correlation, similarity, ssim
from camlucida.targets import LogitMargin, Target

Found = dict[str, dict[str, Any]]
"""Numbers by method label."""

_SMALLEST = 11  # side of SSIM's window


@dataclass(frozen=True)
class Bench:
    """A model with images, and how methods explain them.

    Attributes:
        model: a classifier.
        inputs: ``(N, C, H, W)``.
        classes: what is explained of each image, ``(N,)``: what the model predicts.
        rivals: the class that comes second, ``(N,)``.
        others: the class that comes last, ``(N,)``.
        preprocess: for methods that work on pixels.
        layer: the explained layer; the methods' own default where it is ``None``.
        seed: of methods that draw.
        batch_size: images at a time.
        progress: of the methods' own passes.
    """

    model: nn.Module
    inputs: Tensor
    classes: Tensor
    rivals: Tensor
    others: Tensor
    preprocess: Preprocess | None = None
    layer: str | None = None
    seed: int = 0
    batch_size: int = 16
    progress: Progress | None = None

    @classmethod
    def of(cls, model: nn.Module, inputs: Tensor, **options: Any) -> Bench:
        """With the two best classes of each image.

        Raises:
            CamlucidaError: the model is no classifier of two or more classes, or returns nothing but NaN.
        """
        if getattr(unwrap(model), "embeds", False):
            raise CamlucidaError(
                f"{type(unwrap(model)).__name__} returns embeddings, which have no classes; the audits compare the "
                "maps of classes and need a classifier"
            )
        with borrowed(model, inputs) as module, torch.no_grad():
            parts = [first_tensor(module(part.clone())) for part in torch.split(inputs, 16)]
        logits = torch.cat(parts)
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise CamlucidaError(
                "the audits compare the maps of classes, so the model must return logits (N, M) of two or more; it "
                f"returned {tuple(logits.shape)}"
                + (
                    "; a model with one logit z can be wrapped to return the two logits (0, z)"
                    if logits.ndim == 2
                    else ""
                )
            )
        if not logits.isfinite().any():
            raise CamlucidaError(
                "the model returns NaN or infinite logits for every image, so that there is nothing to explain"
            )
        best = logits.topk(2, dim=1).indices
        return cls(model, inputs, best[:, 0], best[:, 1], logits.argmin(1), **options)

    def few(self, count: int) -> Bench:
        """The first images only."""
        return replace(
            self,
            inputs=self.inputs[:count],
            classes=self.classes[:count],
            rivals=self.rivals[:count],
            others=self.others[:count],
        )

    def exact(self) -> Bench:
        """A copy of the model in double precision, with the images."""
        return replace(self, model=copied(self.model, torch.float64), inputs=self.inputs.double())


UNFIT = (CamlucidaError, RuntimeError, TypeError, NotImplementedError)
"""What is raised where a method or a check does not fit a model."""


def reason(error: BaseException) -> str:
    """Why something does not fit a model, in a line."""
    return str(error) if isinstance(error, CamlucidaError) else first_line(error)


def choose(
    methods: Sequence[str | tuple[str, Mapping[str, Any]] | Tested], *, quick: bool
) -> tuple[Tested, ...]:
    """Methods with their options, each under a label of its own.

    Args:
        methods: registered names, pairs of a name and options, or what this function returned.
        quick: fewer passes for the methods that take many, where no option says otherwise.

    Raises:
        MethodError: for an unknown name.
        CamlucidaError: no method was given, or one twice.
    """
    found: list[Tested] = []
    for one in methods:
        if isinstance(one, Tested):
            found.append(one)
            continue
        name, options = read_method(one)
        base = all_methods(quick=quick, names=[name])[0]
        written = ",".join(f"{k}={v}" for k, v in options.items())
        label = f"{base.name}:{written}" if written else base.name
        if label in {t.label for t in found}:
            raise CamlucidaError(f"the method {label!r} is given twice")
        merged = {**base.options, **options}
        found.append(Tested(label, base.name, merged, base.own_layers, dict(options)))
    if not found:
        raise CamlucidaError("no method was given")
    return tuple(found)


def grouped(tested: Sequence[Tested]) -> tuple[tuple[Tested, ...], ...]:
    """Methods of one forward pass together, so that they share it; the others alone."""
    cheap = [t for t in tested if not method_row(t.name).cost.times]
    rest = [(t,) for t in tested if t not in cheap]
    return ((tuple(cheap),) if cheap else ()) + tuple(rest)


def maps_of(
    bench: Bench, group: Sequence[Tested], target: Target | Tensor | None = None
) -> dict[str, Explanation | str]:
    """Explanations by label, or why there is none."""
    wanted = bench.classes if target is None else target
    found: dict[str, Explanation | str] = {}
    # Where all explain the input, no layer can be named.
    shared = [t for t in group if not t.own_layers]
    own = [t for t in group if t.own_layers]
    for part, layer in ((shared, bench.layer), (own, None)):
        if part:
            found |= _together(bench, part, layer, wanted)
    return {t.label: found[t.label] for t in group}


def _together(
    bench: Bench, group: Sequence[Tested], layer: str | None, target: Target | Tensor
) -> dict[str, Explanation | str]:
    try:
        made = explain(
            bench.model,
            bench.inputs,
            method=[(t.name, t.options) for t in group],
            target=target.tolist() if isinstance(target, Tensor) else target,
            layers=layer,
            preprocess=bench.preprocess,
            seed=bench.seed,
            batch_size=bench.batch_size,
            progress=bench.progress,
        )
    except torch.cuda.OutOfMemoryError:
        raise  # a smaller batch helps, and the command says so
    except UNFIT as error:
        if len(group) == 1:
            return {group[0].label: reason(error)}
        alone: dict[str, Explanation | str] = {}
        for one in group:
            alone |= _together(bench, [one], layer, target)
        return alone
    return dict(zip((t.label for t in group), made.values(), strict=True))


def _each(
    before: Mapping[str, Explanation | str], after: Mapping[str, Explanation | str], compare: Any
) -> Found:
    found: Found = {}
    for label, a in before.items():
        b = after[label]
        if isinstance(a, str) or isinstance(b, str):
            found[label] = {"error": a if isinstance(a, str) else str(b)}
        else:
            found[label] = compare(a, b)
    return found


# ------------------------------------------------------------------------------------------- measures


def alike(before: Explanation, after: Explanation) -> dict[str, Any]:
    """How alike two explanations of the same images are, per image.

    ``signed`` and ``absolute`` are rank correlations of the signed maps and of their absolute values at the
    layer's resolution, ``ssim`` that of the finished maps; ``None`` where a map is constant. ``chance`` is
    ``absolute`` between different images, ``blank`` how many maps of the second are constant, ``cells`` how many
    values are compared for each image.
    """
    a, b = _same_size(before.signed, after.signed)
    found: dict[str, Any] = {
        "signed": _numbers(rank_correlation(a, b)),
        "absolute": _numbers(rank_correlation(a.abs(), b.abs())),
        "ssim": [],
        "chance": [],
        "blank": int((b.flatten(1).amax(1) == b.flatten(1).amin(1)).sum()),
        "cells": a[0].numel(),
    }
    if min(before.maps.shape[1:]) >= _SMALLEST:
        found["ssim"] = _numbers(ssim(normalise(before.maps), normalise(after.maps)))
    if len(a) > 1:
        found["chance"] = _numbers(rank_correlation(a.abs(), b.roll(1, 0).abs()))
    return found


def parameters(
    bench: Bench,
    group: Sequence[Tested],
    base: Mapping[str, Explanation | str],
    names: Sequence[str],
    seed: int,
) -> Found:
    """How alike the maps stay when the weights of some modules are redrawn (Adebayo et al. 2018, section 3)."""
    twin = copied(bench.model)
    randomise(twin, names, seed)
    return _each(base, maps_of(replace(bench, model=twin), group), alike)


def other_class(
    bench: Bench, group: Sequence[Tested], base: Mapping[str, Explanation | str]
) -> Found:
    """How alike the maps of the most and the least probable class are; ``rival``, of the two most probable.

    The second class is often a sibling of the first, for which the same places may rightly count; the last one
    hardly is.
    """
    last = _each(base, maps_of(bench, group, bench.others), alike)
    second = _each(base, maps_of(bench, group, bench.rivals), alike)
    return {k: {**v, "rival": second[k].get("signed", [])} for k, v in last.items()}


def input_shift(bench: Bench, group: Sequence[Tested]) -> Found:
    """How far maps move when images and first bias are shifted so that nothing else changes.

    In double precision; the shift is the standard deviation of the images, 1 where they are constant. ``change``
    is the largest change of the signed map over its largest value, per image, ``output`` the same of the logits.
    A known preprocessing is shifted too, so that methods on pixels see the same pixels.
    """
    exact = bench.exact()
    shift = float(exact.inputs.std()) or 1.0
    twin = shifted_input(exact.model, exact.inputs, shift)
    moved = replace(
        exact,
        model=twin,
        inputs=exact.inputs + shift,
        preprocess=_moved(bench.preprocess, shift),
    )
    with torch.no_grad():
        before = first_tensor(exact.model(exact.inputs))
        after = first_tensor(twin(moved.inputs))
    apart = float((after - before).abs().max() / before.abs().max())

    def compare(a: Explanation, b: Explanation) -> dict[str, Any]:
        return {"change": _relative(a.signed, b.signed), "output": apart, "shift": shift}

    return _each(maps_of(exact, group), maps_of(moved, group), compare)


def logit_shift(bench: Bench, group: Sequence[Tested], scale: float = 3.0) -> Found:
    """How far maps move when all logits get the same amount more, which no probability notices.

    In double precision. ``own`` is the mean squared difference of the maps scaled to [0, 1], per image, for the
    target that the method explains by itself, ``margin`` for the margin over the other classes' mean logit;
    ``output`` is the largest change of a probability.
    """
    exact = bench.exact()
    twin = shifted_logits(exact.model, exact.inputs, scale, bench.seed)
    moved = replace(exact, model=twin)
    with torch.no_grad():
        before = first_tensor(exact.model(exact.inputs)).softmax(1)
        after = first_tensor(twin(exact.inputs)).softmax(1)
    apart = float((after - before).abs().max())

    def compare(a: Explanation, b: Explanation) -> dict[str, Any]:
        # Two blank maps are alike, which proves nothing.
        blank = [_flat(m.raw) for m in (a, b)]
        values = torch.where(blank[0] & blank[1], math.nan, similarity(a.raw, b.raw))
        return {"values": _numbers(values), "output": apart}

    own = _each(maps_of(exact, group), maps_of(moved, group), compare)
    plain = [t for t in group if method_row(t.name).target is None]
    margins: Found = {}
    if plain:
        target = LogitMargin(classes=exact.classes)
        margins = _each(maps_of(exact, plain, target), maps_of(moved, plain, target), compare)
    found: Found = {}
    for label, values in own.items():
        if "error" in values:
            found[label] = values
            continue
        margin = margins.get(label, values)
        found[label] = {
            "own": values["values"], "margin": margin.get("values", []), "output": apart, "scale": scale,
        }  # fmt: skip
    return found


def behaviour(
    bench: Bench, group: Sequence[Tested], base: Mapping[str, Explanation | str]
) -> Found:
    """Whether maps are usable, come out the same again and alone, and whether the model is left as it was.

    Shares of maps ``blank`` (constant), ``negative`` (nothing left after rectifying), ``broken`` (NaN or
    infinite) and ``cut`` (the target does not depend on the layer); ``repeat``, the largest difference of a map
    in [0, 1] between two runs with one seed, ``single``, between an image alone and in its batch, ``None`` where
    no batch had two images; ``changed``, what of the model is not as it was.
    """
    found: Found = {}
    one = bench.few(1)
    several = min(len(bench.inputs), bench.batch_size) > 1
    for tested in group:
        e = base[tested.label]
        if isinstance(e, str):
            found[tested.label] = {"error": e}
            continue
        before = _state(bench.model)
        first, again = (maps_of(one, [tested])[tested.label] for _ in range(2))
        changed = [k for k, v in _state(bench.model).items() if v != before[k]]
        if isinstance(first, str) or isinstance(again, str):
            found[tested.label] = {"error": str(first)}
            continue
        notes = e.diagnostics
        found[tested.label] = {
            "images": len(notes),
            "blank": _share([d.constant and not d.disconnected for d in notes]),
            "negative": _share([d.all_negative and e.method.steps.rectify for d in notes]),
            "broken": _share([not d.finite for d in notes]),
            "cut": _share([bool(d.disconnected) for d in notes]),
            "saturated": _share([d.saturated for d in notes]),
            "repeat": _apart(first.maps, again.maps),
            "single": _apart(first.maps, e.maps[:1]) if several else None,
            "changed": changed,
        }
    return found


# ------------------------------------------------------------------------------------------- pieces


def _same_size(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    size = (max(a.shape[1], b.shape[1]), max(a.shape[2], b.shape[2]))
    return resize(a, size), resize(b, size)


def _numbers(values: Tensor) -> list[float | None]:
    return [v if math.isfinite(v) else None for v in values.double().tolist()]


def _relative(before: Tensor, after: Tensor) -> list[float | None]:
    a, b = _same_size(before, after)
    top = a.flatten(1).abs().amax(1)
    apart = (b - a).flatten(1).abs().amax(1)
    return _numbers(torch.where(top > 0, apart / top, apart))


def _flat(maps: Tensor) -> Tensor:
    return maps.flatten(1).amax(1) == maps.flatten(1).amin(1)


def _apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max())


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / len(flags)


def _moved(preprocess: Preprocess | None, shift: float) -> Preprocess | None:
    if preprocess is None:
        return None
    mean = tuple(m - shift * s for m, s in zip(preprocess.mean, preprocess.std, strict=True))
    return replace(preprocess, mean=mean)


def _state(model: nn.Module) -> dict[str, Any]:
    return {
        "weights and buffers": fingerprint(model),
        "training flags": [m.training for m in model.modules()],
        "requires_grad of parameters": [p.requires_grad for p in model.parameters()],
        "gradients of parameters": [
            None
            if p.grad is None
            else str(float(p.grad.double().sum()))  # NaN too is equal to itself
            for p in model.parameters()
        ],
        "hooks": [
            (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))  # noqa: SLF001
            for m in model.modules()
        ],
        "random state": torch.get_rng_state().sum().item(),
    }
