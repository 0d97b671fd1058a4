"""Table 1 of "CAM-Based Methods Can See Through Walls": what was published, and ours beside it."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import tune_opticam
from camlucida.audits.deadzone.nets import LAYER, PREPROCESS, WalledNets, WallPlan, audit_images
from camlucida.audits.deadzone.proof import DeadZone, dead_zone
from camlucida.audits.deadzone.vgg import VGGPlan, stacked_photos, walled_vgg
from camlucida.audits.request import Request, described
from camlucida.audits.trial import Trial
from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say, part
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.data.open import open_known
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet
from camlucida.data.stack_mix import ANIMALS, StackFolder, StackMix, refuse_unknown
from camlucida.explanation.explain import explain
from camlucida.methods import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMpp,
    HiResCAM,
    Method,
    OptiCAM,
    ScoreCAM,
    XGradCAM,
)
from camlucida.metrics.concentration import dead_zone_activity
from camlucida.models import LoadedModel
from camlucida.models.masked_vgg import TARGET_LAYER
from camlucida.report import Column, Table
from camlucida.studies.published.base import Reproduced, slug

Numbers = tuple[float, float]
StandIn: TypeAlias = Literal["small", "vgg16"]

PUBLISHED: Mapping[str, Mapping[str, Numbers]] = {
    "gradcam": {"STACK-MIX": (22.7, 13.4), "STACK-GEN": (21.6, 11.6)},
    "gradcam++": {"STACK-MIX": (28.8, 8.1), "STACK-GEN": (28.5, 7.9)},
    "xgradcam": {"STACK-MIX": (23.8, 9.0), "STACK-GEN": (22.8, 9.0)},
    "scorecam": {"STACK-MIX": (19.9, 10.3), "STACK-GEN": (18.5, 10.6)},
    "opticam": {"STACK-MIX": (32.7, 7.9), "STACK-GEN": (32.0, 7.8)},
    "ablationcam": {"STACK-MIX": (21.0, 9.9), "STACK-GEN": (20.8, 9.6)},
    "eigencam": {"STACK-MIX": (51.7, 19.7), "STACK-GEN": (55.8, 21.6)},
    "hirescam": {"STACK-MIX": (0.0, 0.0), "STACK-GEN": (0.0, 0.0)},
}
"""Mean and standard deviation of μ x 100 over 100 images, on the masked VGG trained on ImageNet."""

ACCURACY: Mapping[str, Numbers] = {"unmasked": (71.5, 90.4), "masked": (66.5, 87.0)}
"""Published top-1 and top-5 accuracy on ImageNet's validation images, in percent (B7)."""

UNIFORM = 49.1
"""What a constant map scores there: 100 sqrt(54 / 224)."""


_IMAGENET = 1000

_STAND_IN = (
    "Another network on other images: only the structure can be compared, that HiResCAM is exactly 0 and methods with "
    "one weight per channel are not."
)
_SAME = "The published numbers are means over 100 images each, with the authors' weights and pairs of photos."


def parity_methods(opticam: Mapping[str, Any]) -> dict[str, Method]:
    """The eight methods with the options behind the published numbers, which are pytorch-grad-cam's.

    Learning rate and iterations of Opti-CAM are tuned to a low average drop; the paper does not give its own.
    """
    return {
        "gradcam": GradCAM(),
        "gradcam++": GradCAMpp(eps=1e-6),
        "xgradcam": XGradCAM(),
        "scorecam": ScoreCAM(align_corners=True),
        "opticam": OptiCAM(**opticam),
        "ablationcam": AblationCAM(),
        "eigencam": EigenCAM(sign="none"),
        "hirescam": HiResCAM(),
    }


def wall_table1(
    model: nn.Module | LoadedModel | None = None,
    sets: Mapping[str, DataSet] | None = None,
    *,
    layer: str = TARGET_LAYER,
    count: int = 100,
    seed: int = 0,
    batch_size: int = 10,
    standin: StandIn = "small",
    quick: bool = True,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Reproduced:
    """μ x 100 of the paper's eight methods beside the published table.

    Maps are finished as the published ones were (``steps="pytorch-grad-cam"``); the class is the predicted one.

    Args:
        model: the trained masked VGG, see :func:`camlucida.models.masked_vgg.load_masked_vgg`; without it a small
            network is trained on digits on photos, whose numbers have the same structure, not the same values.
        sets: images by name, such as ``{"STACK-MIX": StackMix(...), "STACK-GEN": StackFolder(...)}``.
        layer: the explained layer of the given model.
        count: images of each set.
        seed: the seed of noise and stand-in.
        batch_size: images at a time.
        standin: without a model, ``"small"`` trains a small masked network, ``"vgg16"`` the head of the masked VGG on
            VGG16's ImageNet convolutions, see :mod:`camlucida.audits.deadzone.vgg`; that takes half an hour.
        quick: Opti-CAM is tuned on 6 images instead of 20; for the stand-in also 20 images and a short training, for
            that on VGG16 4 images and no tuning.
        out: the folder where finished parts are kept.
        say: is told about the progress.

    Raises:
        CamlucidaError: a model without sets, one with no dead pixels, or a STACK-MIX whose seam is elsewhere.
    """
    report = say or (lambda *_: None)
    if count < 1 or batch_size < 1:
        raise CamlucidaError(f"count and batch_size must be at least 1, got {count}, {batch_size}")
    if (model is None) != (not sets):
        raise CamlucidaError(
            "a model and images of your own go together, such as sets={'STACK-MIX': StackMix(folder, names)}; give "
            "both or none"
        )
    if model is None:
        case = _stand_in(standin, count, seed, out, report, quick=quick)
    else:
        case = _own(model, sets or {}, layer, count, seed, report)
    module, inputs, zone, layer, name = case.model, case.inputs, case.zone, case.layer, case.name
    if zone.empty:
        raise CamlucidaError(f"{name} has no dead pixels, so there is nothing to measure")
    for key, data in (sets or {}).items():
        if isinstance(data, StackMix) and not torch.equal(
            data.dead.mask((data.size, data.size)), zone.mask
        ):
            raise CamlucidaError(
                f"{key} has its second photos in {data.dead}, but of {name} {zone}; make it with dead= what is dead"
            )
    taken = [_taken(key, data, inputs[key], zone) for key, data in (sets or {}).items()]
    record = {
        "model": name,
        "weights_sha256": fingerprint(module),
        "layer": layer,
        "dead_pixels": zone.to_dict(),
        "images": {key: described(data) for key, data in inputs.items()},
        "sets": {key: data.describe() for key, data in (sets or {}).items()},
        "quick": quick,
        "seed": seed,
    }
    store = Store(
        out,
        {
            "table": "wall-table1",
            **record,
            "batch_size": batch_size,
            "preprocess": str(case.preprocess),
        },
    )
    ours: dict[str, dict[str, list[float]]] = {}
    tunings: dict[str, Any] = {}
    methods: dict[str, dict[str, Method]] = {}
    for key, images in inputs.items():
        trial = Trial(
            module, images, layer=layer, preprocess=case.preprocess, seed=seed,
            batch_size=batch_size,
        )  # fmt: skip
        tuned = replace(trial.few(6 if quick else 20), seed=0, batch_size=16)
        tunings[key] = {"options": {}}
        if case.tuned:
            tunings[key] = store.value(f"{key}-tuning", partial(tune_opticam, tuned))
        chosen = methods[key] = parity_methods(tunings[key]["options"])
        for i, (label, method) in enumerate(chosen.items()):
            report(f"{label} on {key}", i, len(chosen))
            values = store.value(f"{key}-{label}", partial(_activity, method, trial, zone))
            ours.setdefault(key, {})[label] = values
        report(f"{len(chosen)} methods on {key}", len(chosen), len(chosen))
    measured = (
        f"Measured on {name}: {zone}. μ × 100 is the share of a map's norm on what is dead; a constant map scores "
        f"{100 * zone.uniform:.1f} here, and {UNIFORM} in the paper."
    )
    return Reproduced(
        "wall-table1",
        "Through walls, Table 1: published and ours",
        (measured, *taken, _summary(ours), _STAND_IN if model is None else _SAME),
        tuple(_table(key, ours[key], len(inputs[key]), methods[key]) for key in inputs),
        {
            **record,
            "training": case.training,
            "opticam": tunings,
            "mu": ours,
            "published": PUBLISHED,
        },
    )


@dataclass(frozen=True)
class _Case:
    """What is measured: a model and its images, and what is dead; whether Opti-CAM is tuned on them."""

    model: nn.Module
    inputs: Mapping[str, Tensor]
    preprocess: Preprocess | None
    name: str
    zone: DeadZone
    layer: str
    tuned: bool = True
    training: Mapping[str, Any] | None = None


def _stand_in(kind: StandIn, count: int, seed: int, out: Any, say: Say, *, quick: bool) -> _Case:
    if kind == "small":
        small = WallPlan.of(quick=quick, seed=seed)
        nets = WalledNets(small, Store(out, {"table": "wall-table1", "plan": asdict(small)}), say)
        net = nets.get("masked")
        inputs = {"two digits": audit_images(nets.dead_from, 20 if quick else count, seed + 2)[0]}
        name = "a small masked network, digits on photos"
        return _Case(net.model, inputs, PREPROCESS, name, nets.zone, LAYER, training=net.record)
    plan = VGGPlan(seed=seed)
    loaded, training = walled_vgg(
        plan, Store(out, {"table": "wall-table1", "plan": asdict(plan)}), say
    )
    images = stacked_photos(4 if quick else count, seed + 2)[0]
    zone = dead_zone(loaded.module, images[:2], seed=seed)
    # Tuned, Opti-CAM would take as long as all else.
    return _Case(
        loaded.module,
        {"two photos": images},
        loaded.preprocess,
        loaded.name,
        zone,
        TARGET_LAYER,
        not quick,
        training,
    )


def _own(
    model: nn.Module | LoadedModel,
    sets: Mapping[str, DataSet],
    layer: str,
    count: int,
    seed: int,
    say: Say,
) -> _Case:
    inputs = {}
    for key, data in sets.items():
        say(f"reading {key}", 0, 1)
        trial = Request(model, data, count=count).open()
        inputs[key] = trial.inputs
        say(f"reading {key}", 1, 1)
    zone = dead_zone(trial.model, next(iter(inputs.values()))[:4], seed=seed)
    name = model.name if isinstance(model, LoadedModel) else type(model).__name__
    return _Case(trial.model, inputs, trial.preprocess, name, zone, layer)


def stacks(
    model: LoadedModel,
    stack_mix: str | DataSet | None = None,
    stack_gen: str | os.PathLike[str] | None = None,
    *,
    count: int = 100,
    leave_out: Collection[str] = (),
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, DataSet]:
    """The images of the table, of the model's size, with the seam where its dead part begins.

    Flat folders of finished pictures of the model's size, such as the authors', are taken as they are.

    Args:
        model: a masked VGG.
        stack_mix: photos that STACK-MIX is made of, or as :func:`camlucida.data.open_data` takes them; of ImageNet's
            classes the animals, as published. Or finished pictures, in a folder without subfolders.
        stack_gen: the folder with the pictures of STACK-GEN.
        count: images of STACK-MIX.
        leave_out: keys of images that a look has ruled out, see :class:`StackMix`.
        seed: the seed of its pairs.
        say: is told about the progress.

    Raises:
        CamlucidaError: the model takes no square inputs or has no dead rows, the photos cannot be used, or what is to
            be left out is not among them.
    """
    if model.preprocess is None or len(set(model.preprocess.size)) > 1:
        known = "unknown" if model.preprocess is None else "{} x {}".format(*model.preprocess.size)
        raise CamlucidaError(
            f"the images are stacked for a model of square inputs, but the input size of {model.name} is {known}"
        )
    size = model.preprocess.size[0]
    sets: dict[str, StackMix | StackFolder] = {}
    photos = stack_mix
    if isinstance(photos, str):
        photos = open_known(photos, class_names=model.class_names)
    if photos is not None and all(s.label is None and not s.label_name for s in photos):
        sets["STACK-MIX"] = StackFolder(
            photos, what="stack-mix", size=size, resize=None, leave_out=leave_out
        )
    elif photos is not None:
        told = part(say, "proving what is dead")
        zone = dead_zone(model, (size, size), draws=2, progress=told)
        dead = zone.region
        if dead is None:
            raise CamlucidaError(
                f"STACK-MIX fills whole dead rows at the lower edge, which {model.name} has not: {zone}"
            )
        # 1000 classes are taken to be ImageNet's, as everywhere.
        animals = ANIMALS if zone.proof["outputs"] == _IMAGENET else None
        try:
            sets["STACK-MIX"] = StackMix(
                photos, dead=dead, size=size, count=count, classes=animals, leave_out=leave_out,
                seed=seed,
            )  # fmt: skip
        except CamlucidaError as error:
            if animals is None:
                raise
            raise CamlucidaError(
                f"{error}; the photos are drawn from ImageNet's animals, labels 0 to {ANIMALS[-1]}, as published"
            ) from error
    if stack_gen is not None:
        # Published: 256 on the shorter side, of which 224 are left.
        sets["STACK-GEN"] = StackFolder(
            stack_gen, size=size, resize=round(size * 256 / 224), leave_out=leave_out
        )
    refuse_unknown(leave_out, *sets.values())
    return dict(sets)


def _activity(method: Method, trial: Trial, zone: DeadZone) -> list[float]:
    found = explain(
        trial.model,
        trial.inputs,
        method=method,
        layers=trial.layer,
        steps=None if isinstance(method, OptiCAM) else "pytorch-grad-cam",
        preprocess=trial.preprocess,
        seed=trial.seed,
        batch_size=trial.batch_size,
    )
    values: list[float] = dead_zone_activity(found.maps, zone.mask).tolist()
    return values


def _taken(key: str, data: DataSet, images: Tensor, zone: DeadZone) -> str:
    """How the images were made, and where their seam is."""
    if isinstance(data, StackMix):
        return f"{key}: {len(images)} pairs of photos, stacked where the dead part begins."
    if not isinstance(data, StackFolder):
        return f"{key}: {len(images)} photos."
    if data.resize is not None:
        cut = f"the shorter side resized to {data.resize} and {data.size} pixels cut out"
        return f"{key}: {len(images)} photos, {cut}."
    text = f"{key}: {len(images)} finished pictures, taken as they are."
    if data.what == "stack-gen":
        return text
    seam = int(images.diff(dim=2).abs().mean((0, 1, 3)).argmax()) + 1
    begins = None if zone.rows is None else zone.rows[0]
    where = (
        "where the dead rows begin" if seam == begins else f"but the dead rows begin at {begins}"
    )
    return f"{text} From row to row they change most at row {seam}, {where}."


def _table(
    key: str, ours: Mapping[str, Sequence[float]], images: int, methods: Mapping[str, Method]
) -> Table:
    rows = (
        (
            method,
            *mean_std([100 * v for v in ours[method]]),
            *(n for numbers in published.values() for n in numbers),
        )
        for method, published in PUBLISHED.items()
    )
    columns = [
        column
        for who in ("ours", "published, STACK-MIX", "published, STACK-GEN")
        for column in Column(who, "lower", places=1).with_std()
    ]
    return Table.of_rows(
        f"wall-table1-{slug(key)}",
        f"Dead-zone activity μ × 100 on {key}, {images} images",
        ("method", *columns),
        rows,
        "Mean and standard deviation over images. Maps are rectified and scaled as pytorch-grad-cam does, but not "
        f"Opti-CAM's. Options that are not the usual ones: {_options(methods)}. Eigen-CAM has the sign of numpy's SVD.",
    )


def _options(methods: Mapping[str, Method]) -> str:
    """What differs from the defaults, as it is written on the command line."""
    changed = {
        name: [f"{f.name}={v}" for f in fields(m) if (v := getattr(m, f.name)) != f.default]
        for name, m in methods.items()
    }
    return ", ".join(f"{name}:{','.join(some)}" for name, some in changed.items() if some)


def _summary(ours: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    zero = all(max(values["hirescam"]) == 0 for values in ours.values())
    lit = all(
        min(mean_std(v)[0] for k, v in values.items() if k != "hirescam") > 0
        for values in ours.values()
    )
    exactly = "exactly 0 on every image, as published"
    if not zero:
        exactly = "not exactly 0 on every image, as it is in the paper"
    return (
        f"HiResCAM is {exactly}; the seven methods with one weight per channel {'all' if lit else 'do not all'} light "
        "up what is dead."
    )
