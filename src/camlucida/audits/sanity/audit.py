"""The sanity audit: maps must change when what they explain changes, and stay when nothing does.

Redrawn weights and shuffled labels after Adebayo et al. 2018 (Sanity Checks for Saliency Maps), shifted inputs
after Kindermans et al. 2019 (The (Un)reliability of Saliency Methods), shifted logits, sums that methods promise,
other classes, repetition, batches, and the model's state.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.images import described
from camlucida.audits.report import AuditReport
from camlucida.audits.request import Tested
from camlucida.audits.sanity.completeness import completeness
from camlucida.audits.sanity.measures import (
    UNFIT,
    Bench,
    Found,
    alike,
    behaviour,
    choose,
    grouped,
    input_shift,
    logit_shift,
    maps_of,
    other_class,
    parameters,
    reason,
)
from camlucida.audits.sanity.models import randomisation_stages
from camlucida.audits.sanity.report import Measured, report_of
from camlucida.audits.sanity.shuffled_labels import (
    LAYER,
    PREPROCESS,
    TwinPlan,
    train_twins,
    unlearned,
)
from camlucida.audits.sanity.verdicts import results
from camlucida.audits.verdicts import Verdict
from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.jsonable import digest
from camlucida.common.progress import Say
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet
from camlucida.engine.borrow import unwrap
from camlucida.engine.layers import default_layer, resolve
from camlucida.explanation import Explanation
from camlucida.explanation.subject import Photo, prepare
from camlucida.methods import list_methods
from camlucida.models import LoadedModel

MethodChoice = str | tuple[str, Mapping[str, Any]]

QUICK = (
    "gradcam", "diffgradcam", "gradcam++", "hirescam", "layercam", "eigencam", "ablationcam",
    "saliency", "inputxgradient", "fullgrad", "integrated-gradients",
)  # fmt: skip
"""What is tested unless told: methods of few passes. ``--full`` tests all that are registered."""

_TWIN_STEPS = 4  # parts of the progress that the two small networks take


def audit_sanity(
    model: nn.Module | LoadedModel,
    images: DataSet | Tensor | Photo | Sequence[Photo],
    *,
    methods: Sequence[MethodChoice | Tested] | None = None,
    preprocess: Preprocess | None = None,
    layer: str | None = None,
    count: int | None = None,
    quick: bool = True,
    independent: bool = False,
    data: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> AuditReport:
    """Put methods through the sanity checks.

    Args:
        model: any classifier; given back as it was.
        images: photos, a data set, or a tensor that is ready.
        methods: registered names, or pairs of a name and options; :data:`QUICK` by default, all of them unless
            ``quick``.
        preprocess: how photos become inputs; the model's own where it says.
        layer: the explained layer; the model's last feature map unless told.
        count: images at most; 8 with ``quick``, else 50.
        quick: fewer images, fewer stages of redrawing, fewer passes of the methods that take many.
        independent: redraw each stage alone too.
        data: train the two small networks for the check with shuffled labels.
        seed: of everything.
        batch_size: images at a time.
        folder: where finished parts are kept, so that a stopped audit goes on.
        say: told about the progress.

    Raises:
        CamlucidaError: the model is no classifier, a method or layer is unknown, or no image can be read.
    """
    found = measure_sanity(
        model, images, methods=methods, preprocess=preprocess, layer=layer, count=count, quick=quick,
        independent=independent, data=data, seed=seed, batch_size=batch_size, folder=folder, say=say,
    )  # fmt: skip
    return report_of(found)


def measure_sanity(
    model: nn.Module | LoadedModel,
    images: DataSet | Tensor | Photo | Sequence[Photo],
    *,
    methods: Sequence[MethodChoice | Tested] | None = None,
    preprocess: Preprocess | None = None,
    layer: str | None = None,
    count: int | None = None,
    quick: bool = True,
    independent: bool = False,
    data: bool = True,
    seed: int = 0,
    batch_size: int = 16,
    folder: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Measured:
    """The numbers of :func:`audit_sanity`, which says what the arguments are."""
    told = say or (lambda *_: None)
    given = methods or (QUICK if quick else [m.name for m in list_methods()])
    tested = choose(given, quick=quick)
    module, inputs, own, skipped = inputs_of(model, images, count or (8 if quick else 50))
    preprocess = preprocess or own
    bench = Bench.of(
        module, inputs, preprocess=preprocess, layer=layer, seed=seed, batch_size=batch_size
    )
    if layer is not None:
        resolve(module, layer)
    stages = randomisation_stages(module, inputs, 5 if quick else 12)
    record = {
        "model": name_of(model),
        "weights_sha256": fingerprint(module),
        "layer": layer,
        "explained_layer": layer or explained_layer(module, inputs),
        "images": {**described(inputs), "skipped": skipped},
        "quick": quick,
        "seed": seed,
        "stages": [list(stage) for stage in stages],
    }
    store = Store(
        folder,
        {
            **record,
            "network": network(module),
            "batch_size": batch_size,
            "preprocess": str(preprocess),
        },
    )
    groups = grouped(tested)
    parts_in_all = len(groups) * (len(stages) + 5) + (_TWIN_STEPS if data else 0)

    def learning(what: str, done: float, total: float) -> None:
        told(what, _TWIN_STEPS * done / total, parts_in_all)

    twins, learned = _twins(groups, bench, seed, folder, learning) if data else ({}, {})
    work = _Work(bench, stages, store, told, parts_in_all, seed, quick, _TWIN_STEPS if data else 0)
    cascade: dict[str, list[Any]] = {}
    alone: dict[str, list[Any]] = {}
    found: dict[str, dict[str, Verdict]] = {}
    for group in groups:
        heavy = len(groups[0]) > 1 and group is not groups[0]
        parts = work.parts(group, some=quick and heavy, independent=independent)
        for one in group:
            steps = [None if stage is None else stage[one.label] for stage in parts.cascade]
            cascade[one.label] = steps
            alone[one.label] = [stage[one.label] for stage in parts.alone]
            found[one.label] = results(
                one.name,
                {
                    "parameters": steps[-1],
                    "data": learned.get(one.label),
                    **{key: values.get(one.label) for key, values in parts.others.items()},
                },
            )
    order = [t.label for t in tested]
    return Measured(
        tested,
        stages,
        {k: cascade[k] for k in order},
        {k: alone[k] for k in order} if independent else {},
        {k: found[k] for k in order},
        twins,
        record,
        store.found,
    )


def inputs_of(
    model: nn.Module | LoadedModel, images: Any, count: int
) -> tuple[nn.Module, Tensor, Any, list[str]]:
    """The module, at most ``count`` inputs spread over the images, the preprocessing, and what cannot be read.

    Raises:
        ImageError: none can be read.
    """
    skipped: list[str] = []
    if isinstance(images, Tensor):
        images = images[:count] if images.ndim == 4 else images
    else:
        several = isinstance(images, DataSet | Sequence) and not isinstance(images, str)
        given: Sequence[Any] = images if several else [images]
        places = [i * len(given) // count for i in range(count)]
        chosen: list[Any] = []
        for i in dict.fromkeys(places):
            if i >= len(given):
                break
            try:
                one = given[i]
                chosen.append(one.picture().convert("RGB") if isinstance(given, DataSet) else one)
            except CamlucidaError as error:
                skipped.append(str(error))
        if not chosen:
            raise ImageError(
                f"none of the images can be read: {skipped[0]}"
                if skipped
                else "there are no images"
            )
        images = chosen
    module, inputs, _, preprocess = prepare(model, images)
    return module, inputs, preprocess, skipped


def explained_layer(module: nn.Module, inputs: Tensor) -> str | None:
    """The layer that is explained by default; ``None`` where the model has no feature map."""
    try:
        return default_layer(module, inputs)
    except CamlucidaError:
        return None


def network(module: nn.Module) -> str:
    """A hash of what a model is made of: the same weights with other activations are another model."""
    return digest([re.sub(r"0x[0-9a-f]+", "", repr(module))])[:16]


def name_of(model: nn.Module | LoadedModel) -> str:
    """How reports call a model."""
    return model.name if isinstance(model, LoadedModel) else type(unwrap(model)).__name__


# -------------------------------------------------------------------------------------------- pieces


@dataclass
class _Parts:
    cascade: list[Found | None]
    alone: list[Found]
    others: dict[str, Found]


@dataclass
class _Work:
    """Measures, part by part, what has not been measured before; ``done`` of ``total`` parts are behind it."""

    bench: Bench
    stages: Sequence[Sequence[str]]
    store: Store
    told: Say
    total: int
    seed: int
    quick: bool
    done: int = 0

    def parts(self, group: Sequence[Tested], *, some: bool, independent: bool) -> _Parts:
        """Everything about a group of methods; ``some`` redraws the first and the last stages only."""
        bench, few = self.bench, self.bench.few(2 if self.quick else 8)
        kept: dict[str, Explanation | str] = {}

        def base() -> dict[str, Explanation | str]:
            if not kept:
                kept.update(maps_of(bench, group))
            return kept

        def redrawn(which: Sequence[str]) -> Found:
            return parameters(bench, group, base(), which, self.seed)

        names: list[str] = []
        cascade: list[Found | None] = []
        alone: list[Found] = []
        last = len(self.stages) - 1
        for i, stage in enumerate(self.stages):
            names += stage
            if some and 0 < i < last:
                cascade.append(None)
                self.done += 1
                continue
            cascade.append(
                self._part(
                    group, f"weights redrawn down to {stage[-1]}", f"cascade-{i}",
                    partial(redrawn, tuple(names)),
                )
            )  # fmt: skip
            if independent:
                self.done -= 1
                alone.append(
                    self._part(
                        group, f"weights of {stage[-1]} redrawn", f"alone-{i}",
                        partial(redrawn, stage),
                    )
                )  # fmt: skip
        measures: dict[str, tuple[str, Callable[[], Found]]] = {
            "class": ("other class", lambda: other_class(bench, group, base())),
            "behaviour": ("repetition and batches", lambda: behaviour(bench, group, base())),
            "input shift": ("shifted inputs", lambda: input_shift(few, group)),
            "logit shift": ("shifted logits", lambda: logit_shift(few, group)),
            "completeness": ("sums", lambda: self._sums(few, group)),
        }
        others = {
            key: self._part(group, title, key, _guarded(group, compute))
            for key, (title, compute) in measures.items()
        }
        return _Parts(cascade, alone, others)

    def _part(
        self, group: Sequence[Tested], title: str, key: str, compute: Callable[[], Any]
    ) -> Any:
        who = group[0].label if len(group) == 1 else f"{len(group)} quick methods"
        self.told(f"{who}: {title}", self.done, self.total)
        options = [(t.label, sorted(t.options.items())) for t in group]
        found = self.store.value(f"{key}-{options}", compute)
        self.done += 1
        self.told(f"{who}: {title}", self.done, self.total)
        return found

    def _sums(self, few: Bench, group: Sequence[Tested]) -> dict[str, Any]:
        exact = few.exact()
        found: dict[str, Any] = {}
        for one in group:
            try:
                found[one.label] = completeness(exact, one.name, one.options)
            except torch.cuda.OutOfMemoryError:
                raise
            except UNFIT as error:
                found[one.label] = {"error": reason(error)}
        return found


def _guarded(group: Sequence[Tested], compute: Callable[[], Found]) -> Callable[[], Found]:
    """A check that does not fit the model, such as double precision that it refuses, is not tested."""

    def run() -> Found:
        try:
            return compute()
        except torch.cuda.OutOfMemoryError:
            raise
        except UNFIT as error:
            return {one.label: {"error": reason(error)} for one in group}

    return run


def _twins(
    groups: Sequence[Sequence[Tested]],
    bench: Bench,
    seed: int,
    folder: str | os.PathLike[str] | None,
    told: Say,
) -> tuple[dict[str, float], Found]:
    plan = TwinPlan(seed=seed)

    def half(what: str, done: float, total: float) -> None:
        told(what, done / total, 2)

    try:
        twins = train_twins(max(len(bench.inputs), 8), plan, Store(folder, {"twins": 1}), half)
    except CamlucidaError as error:
        return {}, {t.label: {"error": str(error)} for group in groups for t in group}
    if why := unlearned(twins.accuracy, plan):
        return twins.accuracy, {t.label: {"error": why} for group in groups for t in group}
    found: Found = {}
    for number, group in enumerate(groups):
        told("networks with true and shuffled labels", 1 + number / len(groups), 2)
        options: dict[str, Any] = {
            "preprocess": PREPROCESS, "layer": LAYER, "seed": seed, "batch_size": bench.batch_size,
        }  # fmt: skip
        labels = twins.labels
        pair = [
            maps_of(Bench(net, twins.inputs, labels, labels, labels, **options), group)
            for net in (twins.true, twins.shuffled)
        ]
        for label, a in pair[0].items():
            b = pair[1][label]
            found[label] = (
                {"error": a if isinstance(a, str) else str(b)}
                if isinstance(a, str) or isinstance(b, str)
                else alike(a, b)
            )
    return twins.accuracy, found
