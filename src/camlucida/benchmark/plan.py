"""What a benchmark is to do: everything that decides its numbers, in a form that can be written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch

from camlucida.common.errors import CamlucidaError, MethodError, ModelError, TargetError
from camlucida.common.jsonable import digest, plain
from camlucida.common.provenance import fingerprint
from camlucida.common.version import __version__
from camlucida.data import resolve_class
from camlucida.data.samples import DataSet
from camlucida.engine.borrow import unwrap
from camlucida.explanation.explain import MethodLike, settle
from camlucida.methods import read_method, row_of
from camlucida.methods.smoothing import unwrapped
from camlucida.metrics.base import Metric
from camlucida.metrics.registry import METRICS, Number, build_metric, describe_number
from camlucida.models import LoadedModel, load_model
from camlucida.targets import Target, as_target

FORMAT = 1
"""Of the run folder; a folder of another format is refused."""
SHARD = 64
"""Images per shard, unless told otherwise."""
SECONDS = "seconds"
"""The number that holds what explaining an image costs."""

Named: TypeAlias = "tuple[str, Mapping[str, Any]]"
"""A registered name and its options."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers besides model, data, methods and metrics.

    Attributes:
        target: what is explained; its class is set by ``explain``.
        explain: whose class: ``"predicted"``, ``"label"`` (photos without one are left out), or one class for
            all, by index or name.
        layers: names; empty for the model's default.
        steps: a preset of :func:`camlucida.explain`, or ``None`` for each method's own.
        seed: of methods and metrics that draw random numbers; each image has its own stream.
        limit: that many photos, spread evenly over the data set; ``None`` for all.
        shard_size: images that are written together.
        legacy: whether boxes are mapped as in published scripts, see :func:`camlucida.data.boxes.map_boxes`.
    """

    target: Target = field(default_factory=lambda: as_target(None))
    explain: str = "predicted"
    layers: tuple[str, ...] = ()
    steps: str | None = None
    seed: int = 0
    limit: int | None = None
    shard_size: int = SHARD
    legacy: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            CamlucidaError: naming the value.
        """
        if self.shard_size < 1:
            raise CamlucidaError(f"a shard holds at least 1 image, got {self.shard_size}")
        if self.limit is not None and self.limit < 1:
            raise CamlucidaError(f"the limit must be at least 1 photo, got {self.limit}")


@dataclass(frozen=True)
class Recipe:
    """All that another process needs to open the same bench; it can be pickled.

    Attributes:
        data: what :func:`camlucida.data.open.open_data` takes.
        model: what :func:`camlucida.load_model` takes.
        methods: names with their options.
        metrics: names with their options.
        settings: everything else that decides the numbers.
        architecture: of a checkpoint file.
        class_names: a file with the model's class names.
    """

    data: str
    model: str
    methods: tuple[Named, ...]
    metrics: tuple[Named, ...]
    settings: Settings = field(default_factory=Settings)
    architecture: str | None = None
    class_names: Path | None = None

    def open(self, device: str | None = None) -> Bench:
        """Load the model, open the data, build methods and metrics.

        Raises:
            CamlucidaError: one of them does not exist or does not fit.
        """
        from camlucida.data.open import open_data

        model = load_model(
            self.model,
            architecture=self.architecture,
            class_names=self.class_names,
            device=device,
        )
        data = open_data(self.data, class_names=model.class_names)
        return self.around(model, data)

    def around(self, model: LoadedModel, data: DataSet) -> Bench:
        """The bench around a model and data that are open already.

        Raises:
            CamlucidaError: something does not fit them.
        """
        built = [(name, build_metric(name, **options)) for name, options in self.metrics]
        return Bench(model, data, self.methods, built, self.settings, self)


class Bench:
    """A benchmark that can run: a model, a data set, methods, metrics and settings.

    Args:
        model: the model, with its preprocessing.
        data: the photos.
        methods: names, pairs of a name and its options, or method objects.
        judged: metric objects, or pairs of the name to show and the object.
        settings: everything else that decides the numbers.
        recipe: how another process opens the same; needed by the Ray engine only.

    Raises:
        CamlucidaError: something does not fit, before any photo is read.
    """

    def __init__(
        self,
        model: LoadedModel,
        data: DataSet,
        methods: Sequence[MethodLike],
        judged: Sequence[Metric | tuple[str, Metric]],
        settings: Settings | None = None,
        recipe: Recipe | None = None,
    ) -> None:
        if not methods:
            raise MethodError("no method was given")
        if not judged:
            raise CamlucidaError("no metric was given")
        if len(data) == 0:
            raise CamlucidaError(f"{data.name} holds no photo")
        if model.preprocess is None:
            raise ModelError(
                f"it is not known how {model.name} wants its images prepared; give the LoadedModel a preprocess"
            )
        self.model = model
        self.data = data
        self.recipe = recipe
        self.methods: tuple[MethodLike, ...] = tuple(methods)
        self.settings = settings = settings or Settings()
        target = settings.target
        if settings.explain not in {"predicted", "label"}:
            given = settings.explain
            target = _with_classes(target, resolve_class(given, model.class_names))
        elif settings.explain == "label":
            _with_classes(target, 0)
        self.target = target.resolve(lambda name: resolve_class(name, model.class_names))
        self.metrics = tuple(
            one if isinstance(one, tuple) else (_metric_name(one), one) for one in judged
        )
        built = [settle(one, self.target) for one in self.methods]
        self.labels = _distinct([label for _, _, label in built])
        rows = [row_of(unwrapped(method)) for method, _, _ in built]
        self.references = {*self.labels, *(row.name for row in rows if row is not None)}
        self.takes_layers = tuple(method.uses_layers for method, _, _ in built)

    # ---- the parts --------------------------------------------------------------------------------

    @cached_property
    def columns(self) -> tuple[tuple[str, ...], ...]:
        """Of each metric, what its numbers are called in the rows: its own names, made distinct."""
        seen: dict[str, int] = {}
        for _, metric in self.metrics:
            for name in metric.names:
                seen[name] = seen.get(name, 0) + 1
        found = []
        for _, metric in self.metrics:
            clash = any(seen[name] > 1 for name in metric.names)
            changed = _changed(metric) if clash else ""
            found.append(
                tuple(
                    f"{name} ({changed})" if seen[name] > 1 and changed else name
                    for name in metric.names
                )
            )
        flat = [name for names in found for name in names]
        if twice := {name for name in flat if flat.count(name) > 1}:
            raise CamlucidaError(
                f"{min(twice)} comes from two metrics with the same options; give each metric once"
            )
        return tuple(found)

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """What each column of the results shows, in order; what explaining costs is the last."""
        found = [
            _number(name, own, column)
            for (name, metric), columns in zip(self.metrics, self.columns, strict=True)
            for own, column in zip(metric.names, columns, strict=True)
        ]
        limits = (0.0, math.inf)
        cost = Number(SECONDS, "Explaining an image", "lower", limits, "s", SECONDS, "cost")
        return (*found, cost)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        parameter = next(unwrap(self.model.module).parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the model."""
        parameters = unwrap(self.model.module).parameters()
        return next((p.dtype for p in parameters if p.is_floating_point()), torch.float32)

    # ---- images and shards ------------------------------------------------------------------------

    @property
    def images(self) -> int:
        """How many photos take part."""
        total = len(self.data)
        return total if self.settings.limit is None else min(self.settings.limit, total)

    @property
    def shards(self) -> int:
        """How many shards they make."""
        return -(-self.images // self.settings.shard_size)

    def index(self, position: int) -> int:
        """The data set's index of the photo at a position ``0 <= position < images``."""
        return (2 * position + 1) * len(self.data) // (2 * self.images)

    def members(self, shard: int) -> list[int]:
        """The data set's indices of a shard's photos."""
        size = self.settings.shard_size
        return [self.index(p) for p in range(shard * size, min((shard + 1) * size, self.images))]

    # ---- the record -------------------------------------------------------------------------------

    @cached_property
    def record(self) -> dict[str, Any]:
        """Everything that decides the numbers, ready for JSON, and a ``digest`` over it."""
        settings, preprocess = self.settings, self.model.preprocess
        found = {
            "format": FORMAT,
            "camlucida": __version__,
            "data": {**self.data.describe(), "limit": settings.limit, "images": self.images,
                     "legacy": settings.legacy},
            "model": {
                "name": self.model.name,
                "architecture": self.recipe.architecture if self.recipe else None,
                "weights_sha256": fingerprint(unwrap(self.model.module)),
                "dtype": str(self.dtype),
                "preprocess": preprocess.to_dict() if preprocess else None,
            },
            "methods": [
                {"label": label, **_describe(one)}
                for label, one in zip(self.labels, self.methods, strict=True)
            ],
            "metrics": [
                {"name": name, "options": metric.describe()["options"], "numbers": list(columns)}
                for (name, metric), columns in zip(self.metrics, self.columns, strict=True)
            ],
            "target": self.target.describe(),
            "explain": settings.explain,
            "layers": list(settings.layers),
            "steps": settings.steps,
            "seed": settings.seed,
            "shard_size": settings.shard_size,
        }  # fmt: skip
        found = plain(found)
        # The same photos under another name are the same data.
        data = {key: value for key, value in found["data"].items() if key != "name"}
        return {**found, "digest": digest([{**found, "data": data}])}

    def layers_for(self, methods: Sequence[MethodLike]) -> list[str] | None:
        """The layers that these methods are to explain; ``None`` where they go without."""
        layered = [
            takes
            for one, takes in zip(self.methods, self.takes_layers, strict=True)
            if any(one is chosen for chosen in methods)
        ]
        # Where no method at all takes layers, the first one says so.
        wanted = any(layered) or not any(self.takes_layers)
        return list(self.settings.layers) or None if wanted else None

    def for_labels(self, labels: Sequence[int]) -> Target:
        """The target of a batch whose photos have these classes."""
        if self.settings.explain != "label":
            return self.target
        return _with_classes(self.target, torch.as_tensor(labels))


def _with_classes(target: Target, classes: Any) -> Target:
    if not hasattr(target, "classes"):
        raise TargetError(
            f"a {type(target).__name__} belongs to no class; leave explain at 'predicted'"
        )
    return replace(target, classes=classes)  # type: ignore[type-var]


def _describe(method: MethodLike) -> dict[str, Any]:
    if isinstance(method, str | tuple):
        name, options = read_method(method)
        return {"name": name, "options": options}
    found = method.describe()
    return {"name": found["method"], "options": found["options"]}


def _distinct(labels: Sequence[str]) -> tuple[str, ...]:
    found: list[str] = []
    for label in labels:
        name, count = label, 1
        while name in found:
            count += 1
            name = f"{label} #{count}"
        found.append(name)
    return tuple(found)


def _changed(metric: Metric) -> str:
    """A metric's options that differ from their defaults."""
    options = metric.describe()["options"]
    return ", ".join(
        f"{name}={value}"
        for name, value in options.items()
        if value != getattr(type(metric), name, None)
    )


def _metric_name(metric: Metric) -> str:
    row = METRICS.row_of(metric)
    return type(metric).__name__ if row is None else row.name


def _number(metric: str, own: str, column: str) -> Number:
    try:
        return replace(describe_number(own), name=column)
    except CamlucidaError:  # of a metric that is not registered
        return Number(column, column, metric=metric)
