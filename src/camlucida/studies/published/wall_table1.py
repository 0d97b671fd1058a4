"""Table 1 of "CAM-Based Methods Can See Through Walls": what was published, and ours beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.deadzone.activity import tune_opticam
from camlucida.audits.deadzone.nets import LAYER, PREPROCESS, WalledNets, WallPlan, audit_images
from camlucida.audits.deadzone.proof import DeadZone, dead_zone
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
from camlucida.data.stack_mix import ANIMALS, StackGen, StackMix
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
    """The eight methods with the options behind the published numbers.

    Learning rate and iterations of Opti-CAM are tuned to a low average drop; the paper does not give its own.
    """
    return {
        "gradcam": GradCAM(),
        "gradcam++": GradCAMpp(eps=1e-6),
        "xgradcam": XGradCAM(),
        "scorecam": ScoreCAM(),
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
    quick: bool = True,
    out: str | os.PathLike[str] | None = None,
    say: Say | None = None,
) -> Reproduced:
    """μ x 100 of the paper's eight methods beside the published table.

    Maps are finished as the published ones were (``steps="pytorch-grad-cam"``); the class is the predicted one.

    Args:
        model: the trained masked VGG, see :func:`camlucida.models.masked_vgg.load_masked_vgg`; without it a small
            masked network is trained on digits on photos, whose numbers have the same structure, not the same
            values.
        sets: images by name, such as ``{"STACK-MIX": StackMix(...), "STACK-GEN": StackGen(...)}``.
        layer: the explained layer of the given model.
        count: images of each set.
        seed: the seed of noise and stand-in.
        batch_size: images at a time.
        quick: Opti-CAM is tuned on 6 images instead of 20; for the stand-in also 20 images and a short training.
        out: the folder where finished parts are kept.
        say: is told about the progress.

    Raises:
        CamlucidaError: a model without sets, one with no dead pixels, or a STACK-MIX whose seam is elsewhere.
    """
    report = say or (lambda *_: None)
    inputs: dict[str, Tensor] = {}
    preprocess: Preprocess | None
    if count < 1 or batch_size < 1:
        raise CamlucidaError(f"count and batch_size must be at least 1, got {count}, {batch_size}")
    if model is None:
        if sets:
            raise CamlucidaError(
                "images of your own go with a model of your own; give both or none"
            )
        plan = WallPlan.of(quick=quick, seed=seed)
        trained = Store(out, {"table": "wall-table1", "plan": asdict(plan)})
        nets = WalledNets(plan, trained, report)
        module, zone, layer = nets.get("masked").model, nets.zone, LAYER
        inputs["two digits"] = audit_images(nets.dead_from, 20 if quick else count, seed + 2)[0]
        preprocess, name = PREPROCESS, "a small masked network, digits on photos"
    else:
        if not sets:
            raise CamlucidaError(
                "give the images too, such as sets={'STACK-MIX': StackMix(folder, names)}"
            )
        for key, data in sets.items():
            report(f"reading {key}", 0, 1)
            trial = Request(model, data, count=count).open()
            module, inputs[key], preprocess = trial.model, trial.inputs, trial.preprocess
            report(f"reading {key}", 1, 1)
        zone = dead_zone(module, next(iter(inputs.values()))[:4], seed=seed)
        name = model.name if isinstance(model, LoadedModel) else type(model).__name__
    if zone.empty:
        raise CamlucidaError(f"{name} has no dead pixels, so there is nothing to measure")
    for key, data in (sets or {}).items():
        if isinstance(data, StackMix) and not torch.equal(
            data.dead.mask((data.size, data.size)), zone.mask
        ):
            raise CamlucidaError(
                f"{key} has its second photos in {data.dead}, but of {name} {zone}; make it with dead= what is dead"
            )
    record = {
        "model": name,
        "weights_sha256": fingerprint(module),
        "layer": layer,
        "dead_pixels": zone.to_dict(),
        "images": {key: described(data) for key, data in inputs.items()},
        "quick": quick,
        "seed": seed,
    }
    store = Store(
        out,
        {"table": "wall-table1", **record, "batch_size": batch_size, "preprocess": str(preprocess)},
    )
    ours: dict[str, dict[str, list[float]]] = {}
    tunings: dict[str, Any] = {}
    for key, images in inputs.items():
        trial = Trial(
            module, images, layer=layer, preprocess=preprocess, seed=seed, batch_size=batch_size
        )
        tuned = replace(trial.few(6 if quick else 20), seed=0, batch_size=16)
        tunings[key] = store.value(f"{key}-tuning", partial(tune_opticam, tuned))
        chosen = parity_methods(tunings[key]["options"])
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
        (measured, _summary(ours), _STAND_IN if model is None else _SAME),
        tuple(_table(key, ours[key], len(images)) for key, images in inputs.items()),
        {**record, "opticam": tunings, "mu": ours, "published": PUBLISHED},
    )


def stacks(
    model: LoadedModel,
    stack_mix: str | DataSet | None = None,
    stack_gen: str | os.PathLike[str] | None = None,
    *,
    count: int = 100,
    seed: int = 0,
    say: Say | None = None,
) -> dict[str, DataSet]:
    """The images of the table, of the model's size, with the seam where its dead part begins.

    Args:
        model: a masked VGG.
        stack_mix: photos that STACK-MIX is made of, or as :func:`camlucida.data.open_data` takes them; of ImageNet's
            classes the animals, as published.
        stack_gen: the folder with the pictures of STACK-GEN.
        count: images of STACK-MIX.
        seed: the seed of its pairs.
        say: is told about the progress.

    Raises:
        CamlucidaError: the model takes no square inputs or has no dead rows, or the photos cannot be used.
    """
    if model.preprocess is None or len(set(model.preprocess.size)) > 1:
        known = "unknown" if model.preprocess is None else "{} x {}".format(*model.preprocess.size)
        raise CamlucidaError(
            f"the images are stacked for a model of square inputs, but the input size of {model.name} is {known}"
        )
    size = model.preprocess.size[0]
    sets: dict[str, DataSet] = {}
    if stack_mix is not None:
        photos = stack_mix
        if isinstance(photos, str):
            photos = open_known(photos, class_names=model.class_names)
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
                photos, dead=dead, size=size, count=count, classes=animals, seed=seed
            )
        except CamlucidaError as error:
            if animals is None:
                raise
            raise CamlucidaError(
                f"{error}; the photos are drawn from ImageNet's animals, labels 0 to {ANIMALS[-1]}, as published"
            ) from error
    if stack_gen is not None:
        # Published: 256 on the shorter side, of which 224 are left.
        sets["STACK-GEN"] = StackGen(stack_gen, size=size, resize=round(size * 256 / 224))
    return sets


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


def _table(key: str, ours: Mapping[str, Sequence[float]], images: int) -> Table:
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
        "Mean and standard deviation over images.",
    )


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
