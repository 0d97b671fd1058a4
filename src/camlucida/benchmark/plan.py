"""What a benchmark is to do: everything that decides its numbers, in a form that can be written down."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Annotated, Any, TypeAlias

import torch
from torch import nn

from camlucida.benchmark.needs import in_words, lacking
from camlucida.common.arguments import argument
from camlucida.common.errors import CamlucidaError, ModelError, TargetError
from camlucida.common.grammar import refuse_arguments
from camlucida.common.jsonable import digest, plain
from camlucida.common.limits import Limits, check_fields
from camlucida.common.provenance import fingerprint
from camlucida.common.version import __version__
from camlucida.data import resolve_class
from camlucida.data.open import namesake, open_data
from camlucida.data.samples import DataSet
from camlucida.engine.borrow import unwrap
from camlucida.engine.reading import OutputsLike, outputs_of
from camlucida.explanation.explain import MethodLike, listed, settle
from camlucida.explanation.question import NamedMethod
from camlucida.explanation.subject import ModelLike, PreprocessGiven, Subject, read_target
from camlucida.methods import Method, method_row, read_method, row_of
from camlucida.metrics.base import Metric
from camlucida.metrics.registry import METRICS, Number, build_metric, describe_number, metric_groups
from camlucida.models import LoadedModel
from camlucida.models.factory import ArchitectureLike, architecture_name
from camlucida.targets import Target, TargetLike, as_target

FORMAT = 1
"""Of the run folder; a folder of another format is refused."""
SHARD, SMALL_SHARD, FEW = 64, 8, 512
"""Images per shard unless told otherwise; and in runs of few images, so that a stopped one loses little."""
DEFAULT = ("default",)
"""The group of metrics that are measured unless others are named, as far as the data allow."""
SECONDS = "seconds"
"""The number that holds what explaining an image costs."""
COST = Number(SECONDS, "Explaining an image", "lower", (0.0, math.inf), "s", SECONDS, "cost")

MetricLike: TypeAlias = "str | Metric | tuple[str, Mapping[str, Any]] | tuple[str, Metric]"
"""A registered name, also as ``iou:points=5``; a name with its options; a metric object, or one with the name to show;
or a group of :func:`camlucida.metrics.metric_groups`, of which those are left out that the data do not allow."""


@dataclass(frozen=True)
class Settings:
    """What decides the numbers besides model, data, methods and metrics.

    Attributes:
        target: what is explained, as for :func:`camlucida.explain`; its class is set by ``explain``.
        explain: whose class: ``"predicted"``, ``"label"`` (photos without one are left out), or one class for
            all, by index or name.
        layers: names; empty for the model's default.
        steps: a preset of :func:`camlucida.explain`, or ``None`` for each method's own.
        seed: of methods and metrics that draw random numbers; each image has its own stream.
        limit: that many photos, spread evenly over the data set; ``None`` for all.
        shard_size: images that are written together; ``None`` for 64, or 8 of up to 512 images.
        legacy_boxes: whether boxes are mapped as in published scripts, see :func:`camlucida.data.boxes.map_boxes`.

    Raises:
        CamlucidaError: a number is out of range.

    Example:
        >>> camlucida.benchmark.Settings(explain="label", limit=100).seed
        0
    """

    target: TargetLike = None
    explain: str = "predicted"
    layers: tuple[str, ...] = ()
    steps: str | None = None
    seed: int = 0
    limit: Annotated[int, Limits(1)] | None = None
    shard_size: Annotated[int, Limits(1)] | None = None
    legacy_boxes: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        check_fields(self)


class Bench:
    """A benchmark that can run: a model, a data set, methods, metrics and settings.

    Args:
        model: the model, with its preprocessing.
        data: the photos.
        methods: names, also as ``fame:iterations=20``, pairs of a name and its options, or method objects.
        metrics: see :data:`MetricLike`.
        settings: everything else that decides the numbers.
        source: the arguments of :func:`open_bench` that open the same in another process, where there are such;
            the Ray engine needs them.
        skipped: methods that were left out, by label, with the reason.

    Attributes:
        notes: what was left out of groups of metrics, and why, in words.

    Raises:
        CamlucidaError: something does not fit, before any photo is read.

    Example:
        >>> bench = camlucida.benchmark.open_bench(
        ...     model, ".", ["gradcam", "fame:iterations=5"], preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> bench.images, bench.labels
        (1, ('gradcam', 'fame (iterations=5)'))
    """

    def __init__(
        self,
        model: LoadedModel,
        data: DataSet,
        methods: Sequence[MethodLike] | MethodLike,
        metrics: Sequence[MetricLike] | str | Metric,
        settings: Settings | None = None,
        source: Mapping[str, Any] | None = None,
        skipped: Mapping[str, str] | None = None,
    ) -> None:
        self.skipped = dict(skipped or {})
        if not metrics:
            raise CamlucidaError("no metric was given")
        if len(data) == 0:
            raise CamlucidaError(f"{data.name} holds no photo")
        if model.preprocess is None:
            raise ModelError(
                f"it is not known how {model.name} wants its images prepared; say it with {argument('preprocess')}"
            )
        self.model = model
        self.data = data
        self.settings = settings = settings or Settings()
        target = read_target(settings.target, model.class_names)
        if settings.explain not in {"predicted", "label"}:
            given = settings.explain
            target = _with_classes(target, resolve_class(given, model.class_names))
        elif settings.explain == "label":
            _with_classes(target, 0)
        self.target = target
        self.methods = tuple(_plain(one, self.target) for one in listed(methods))
        built = [settle(one, self.target) for one in self.methods]
        self.labels = _distinct([label for _, _, label in built])
        rows = [row_of(method) for method, _, _ in built]
        self.references = {*self.labels, *(row.name for row in rows if row is not None)}
        self.takes_layers = tuple(method.uses_layers for method, _, _ in built)
        self.metrics, optional = chosen_metrics(metrics)
        self.notes = self._leave_out(optional)
        chosen = {"methods": self.methods, "metrics": self.metrics}
        self.source = None if source is None else {**source, **chosen}

    def without(self, skipped: Mapping[str, str]) -> Bench:
        """The same without these methods, by label, each with the reason."""
        kept = [
            m for m, label in zip(self.methods, self.labels, strict=True) if label not in skipped
        ]
        return Bench(self.model, self.data, kept, self.metrics, self.settings, self.source, skipped)

    def _leave_out(self, optional: set[str]) -> tuple[str, ...]:
        """Drop those of the metrics that came with a group and that these data do not allow; say so."""
        missing = lacking(self) if optional else {}
        missing = {name: what for name, what in missing.items() if name in optional}
        if not missing:
            return ()
        said = f"{', '.join(missing)}: {in_words(self, missing)}"
        self.metrics = tuple(one for one in self.metrics if one[0] not in missing)
        if not self.metrics:
            raise CamlucidaError(f"none of these metrics can be measured: {said}")
        return (f"left out: {said}",)

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
        return (*found, COST)

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
    def shard_size(self) -> int:
        """How many photos are written together."""
        return self.settings.shard_size or (SMALL_SHARD if self.images <= FEW else SHARD)

    @property
    def shards(self) -> int:
        """How many shards they make."""
        return -(-self.images // self.shard_size)

    def index(self, position: int) -> int:
        """The data set's index of the photo at a position ``0 <= position < images``."""
        return (2 * position + 1) * len(self.data) // (2 * self.images)

    def members(self, shard: int) -> list[int]:
        """The data set's indices of a shard's photos."""
        size = self.shard_size
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
                     "legacy": settings.legacy_boxes},
            "model": {
                "name": self.model.name,
                "architecture": architecture_name(self.source["architecture"]) if self.source else None,
                "weights_sha256": fingerprint(unwrap(self.model.module)),
                "dtype": str(self.dtype),
                "preprocess": preprocess.to_dict() if preprocess else None,
                **_of_outputs(unwrap(self.model.module)),
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
            "shard_size": self.shard_size,
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


def _of_outputs(module: nn.Module) -> dict[str, Any]:
    """How the model's outputs are read, where they are not plain logits."""
    said = outputs_of(module)
    return {} if said is None else {"outputs": said.describe()}


def open_bench(
    model: ModelLike,
    data: DataSet | str | os.PathLike[str],
    methods: Sequence[MethodLike] | MethodLike = ("gradcam",),
    metrics: Sequence[MetricLike] | str | Metric = DEFAULT,
    *,
    device: str | None = None,
    architecture: ArchitectureLike | None = None,
    class_names: str | os.PathLike[str] | None = None,
    outputs: OutputsLike = None,
    preprocess: PreprocessGiven | None = None,
    say: Callable[[str], object] = lambda _: None,
    **settings: Any,
) -> Bench:
    """Load the model, open the data, build methods and metrics; arguments as for :func:`evaluate`.

    Raises:
        CamlucidaError: one of them does not exist or does not fit.

    Example:
        >>> bench = camlucida.benchmark.open_bench(
        ...     model, ".", metrics=["concentration"], preprocess=camlucida.Preprocess((32, 32), 32)
        ... )
        >>> [name for name, _ in bench.metrics]
        ['sparseness', 'cam_entropy', 'complexity']
    """
    refuse_arguments(open_bench, settings, [f.name for f in fields(Settings)])
    layers = settings.get("layers") or ()
    chosen = Settings(
        **{**settings, "layers": (layers,) if isinstance(layers, str) else tuple(layers)}
    )
    for one in listed(methods):
        settle(one, as_target(None if isinstance(chosen.target, str) else chosen.target))
    chosen_metrics(metrics)
    source = None
    if not isinstance(data, DataSet):
        if said := namesake(os.fspath(data)):
            say(said)
        if isinstance(model, str | os.PathLike):
            source = {
                "model": os.fspath(model), "data": os.fspath(data), "architecture": architecture,
                "class_names": class_names, "outputs": outputs, "preprocess": preprocess, **settings,
            }  # fmt: skip
    loaded = Subject.of(
        model, preprocess, class_names, outputs, architecture=architecture, device=device
    ).loaded
    for said in (*loaded.notes, *(loaded.outputs.notes if loaded.outputs else ())):
        say(said)
    opened = data if isinstance(data, DataSet) else open_data(data, class_names=loaded.class_names)
    bench = Bench(loaded, opened, methods, metrics, chosen, source)
    for said in bench.notes:
        say(said)
    return bench


def chosen_metrics(
    wanted: Sequence[MetricLike] | str | Metric,
) -> tuple[tuple[tuple[str, Metric], ...], set[str]]:
    """The metrics with the names to show, each once, and which of them came with a group.

    Raises:
        CamlucidaError: a name or an option is unknown, or a value does not fit.
    """
    groups = metric_groups()
    found: list[tuple[str, Metric]] = []
    grouped: set[str] = set()
    for one in [wanted] if isinstance(wanted, str | Metric) else wanted:
        if isinstance(one, str) and one in groups:
            several = [(name, build_metric(name)) for name in groups[one]]
            grouped.update(groups[one])
        else:
            several = [_named(one)]
        found += [m for m in several if m not in found or m[0] not in grouped]
    return tuple(found), grouped


def _named(one: MetricLike) -> tuple[str, Metric]:
    if isinstance(one, Metric):
        row = METRICS.row_of(one)
        return type(one).__name__ if row is None else row.name, one
    name, options = one if isinstance(one, tuple) else (one, {})
    if isinstance(options, Metric):
        return name, options
    return METRICS.read(name)[0].name, build_metric(name, **options)


def _with_classes(target: Target, classes: Any) -> Target:
    if not hasattr(target, "classes"):
        raise TargetError(
            f"the target {type(target).__name__} belongs to no class; leave explain at 'predicted'"
        )
    return replace(target, classes=classes)  # type: ignore[type-var]


def _plain(method: NamedMethod, target: Target) -> NamedMethod:
    """A method by its registered name, where it is no object."""
    if isinstance(method, Method):
        return method
    name, options = read_method(method, target)
    return (name, options) if options else name


def _describe(method: NamedMethod) -> dict[str, Any]:
    if isinstance(method, Method):
        found, row = method.describe(), row_of(method)
        named = {"name": found["method"], "options": found["options"]}
    else:
        name, options = method if isinstance(method, tuple) else (method, {})
        named, row = {"name": name, "options": dict(options)}, method_row(name)
    return {**named, **(row.origin if row else {})}


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


def _number(metric: str, own: str, column: str) -> Number:
    try:
        return replace(describe_number(own), name=column)
    except CamlucidaError:  # of a metric that is not registered
        return Number(column, column, metric=metric)
