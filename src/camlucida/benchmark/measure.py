"""One batch: every method explains it, every metric judges every method."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from camlucida.benchmark.plan import SECONDS, Bench
from camlucida.benchmark.shards import ImageRow, ShardColumn
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line
from camlucida.common.statistics import Floats
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.chunks import out_of_memory
from camlucida.engine.outputs import first_tensor
from camlucida.engine.reading import outputs_of, probabilities
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.methods import row_of
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.registry import METRICS

T = TypeVar("T")

_ROUNDING = 1e-5  # of a map's largest value


@dataclass
class Judged:
    """What came out of a batch.

    Attributes:
        rows: one per image.
        columns: the numbers.
        positions: of the curves, by number.
        layers: that each method explained, by label.
        explaining: seconds that the methods took together.
        measuring: seconds that the metrics took together.
    """

    rows: list[ImageRow]
    columns: list[ShardColumn] = field(default_factory=list)
    positions: dict[str, list[float]] = field(default_factory=dict)
    layers: dict[str, list[str]] = field(default_factory=dict)
    explaining: float = 0.0
    measuring: float = 0.0


def judge(
    bench: Bench,
    rows: list[ImageRow],
    parts: Mapping[str, Any],
    *,
    alone: bool,
    strict: bool = False,
) -> Judged:
    """Explain a batch with every method and measure the maps with every metric.

    Args:
        bench: methods, metrics and all else.
        rows: what is known about the images.
        parts: inputs, labels, boxes, masks of a ``Scene``.
        alone: explain method by method, nothing shared, and note what each costs.
        strict: raise what goes wrong; otherwise it is noted in the image's row, and its number is NaN.

    Raises:
        CamlucidaError: only with ``strict``; its text names the method or metric.
    """
    found = Judged(rows)
    inputs = parts["inputs"]
    trial = _Trial(strict, [[] for _ in rows])
    everyone = np.arange(len(rows))
    started = _now(inputs)
    explanations, costs = _explained(bench, inputs, parts["labels"], alone, trial)
    scene = _scene(bench, parts, explanations)
    found.explaining = _now(inputs) - started
    predicted = _predicted(rows, scene)
    started = _now(inputs)
    done: dict[tuple[str, str], list[tuple[slice, Measured]]] = {}
    with borrowed(scene.model, inputs):  # once, for all the passes of all metrics
        for label, explanation in explanations.items():
            empty = _empty(label, explanation, trial)
            same = _same_maps(label, explanations)
            if explanation is not None:
                found.layers[label] = list(explanation.layers)
            if alone:
                cost = np.full(len(rows), costs[label])
                found.columns.append(ShardColumn(everyone, label, SECONDS, cost))
            for (name, metric), columns in zip(bench.metrics, bench.columns, strict=True):
                measured: list[tuple[slice, Measured]] = []
                row = METRICS.row_of(metric)
                if same and row is not None and not row.cost.explanations:
                    measured = done[same, name]
                elif explanation is not None:
                    measured = _measured(metric, f"{name} of {label}", scene, explanation, trial)
                done[label, name] = measured
                for own, column in zip(metric.names, columns, strict=True):
                    values, curves = _joined(own, measured, len(rows))
                    values[empty] = np.nan
                    if curves is not None:
                        curves[empty] = np.nan
                    found.columns.append(ShardColumn(everyone, label, column, values, curves))
                    if curves is not None:
                        found.positions[column] = _numpy(measured[0][1].at[own]).tolist()
    found.measuring = _now(inputs) - started
    found.rows = [
        replace(row, notes="; ".join(dict.fromkeys(said)) or None)
        for row, said in zip(predicted, trial.notes, strict=True)
    ]
    return found


@dataclass(frozen=True)
class _Trial:
    """Tries things that may fail.

    Attributes:
        strict: raise what goes wrong.
        notes: of each image, what went wrong otherwise.
    """

    strict: bool
    notes: list[list[str]]

    def __call__(self, what: str, do: Callable[[], T], images: Iterable[int]) -> T | None:
        """What ``do`` returns; ``None`` where it fails, which is noted with these images."""
        try:
            return do()
        except Exception as error:
            if out_of_memory(error):
                raise
            if self.strict:
                raise _named(what, error) from error
            for i in images:
                self.notes[i].append(f"{what}: {first_line(error)}")
            return None


# ---- explaining -----------------------------------------------------------------------------------------


def _explained(
    bench: Bench, inputs: Tensor, labels: Tensor, alone: bool, trial: _Trial
) -> tuple[dict[str, Explanation | None], dict[str, float]]:
    """The explanations by label, and what each cost per image where they were made alone."""
    if not alone and not trial.strict:
        together = trial("", lambda: explain_batch(bench, inputs, labels, bench.methods), ())
        if together is not None:
            return dict(zip(bench.labels, together, strict=True)), {}
        # What failed is found out below, method by method.
    found: dict[str, Explanation | None] = {}
    costs = {}
    for label, method in zip(bench.labels, bench.methods, strict=True):
        started = _now(inputs)
        made = trial(
            label,
            lambda method=method: explain_batch(bench, inputs, labels, [method]),  # type: ignore[misc]
            range(len(inputs)),
        )
        found[label] = None if made is None else made[0]
        costs[label] = np.nan if made is None else (_now(inputs) - started) / len(inputs)
    return found, costs


def explain_batch(
    bench: Bench, inputs: Tensor, labels: Tensor, methods: Sequence[Any]
) -> list[Explanation]:
    """Explanations by some of the bench's methods, as its settings say."""
    settings = bench.settings
    comparison = explain(
        bench.model,
        inputs,
        method=list(methods),
        target=bench.for_labels(labels.tolist()),
        layers=bench.layers_for(methods),
        steps=settings.steps,
        seed=settings.seed,
        batch_size=len(inputs),
        top=1,
        strict=True,
    )
    return list(comparison.values())


def _scene(
    bench: Bench, parts: Mapping[str, Any], explanations: Mapping[str, Explanation | None]
) -> Scene:
    """Everything that metrics look at; the logits come from the explanations where they have them."""
    made = [e for e in explanations.values() if e is not None]
    logits = next((e.logits for e in made if e.logits is not None), None)
    inputs = parts["inputs"]
    module = unwrap(bench.model.module)
    if logits is None:
        with borrowed(module, inputs), torch.no_grad():
            logits = first_tensor(module(inputs))
    chosen = next((getattr(e.target, "classes", None) for e in made), None)
    classes = chosen if isinstance(chosen, Tensor) else None
    if classes is None and (settled := getattr(bench.target, "classes", None)) is not None:
        classes = torch.as_tensor(settled, device=logits.device).expand(len(inputs))
    references = {label: e for label, e in explanations.items() if e is not None}
    for explanation in made:
        row = row_of(explanation.method)
        if row is not None:
            references.setdefault(row.name, explanation)
    return Scene(
        model=module,
        logits=logits,
        classes=logits.argmax(1) if classes is None else classes,
        preprocess=bench.model.preprocess,
        seed=bench.settings.seed,
        batch_size=max(32, len(inputs)),
        references=references,
        **parts,
    )


def _predicted(rows: Sequence[ImageRow], scene: Scene) -> list[ImageRow]:
    said = outputs_of(scene.model)
    valued = said is not None and said.kind in ("regression", "embedding")
    if scene.logits.ndim != 2 or valued:
        what = (
            f"{said.kind} outputs"
            if said is not None and valued
            else f"{tuple(scene.logits.shape)}"
        )
        raise CamlucidaError(
            f"the benchmark needs class logits (N, M), but the model returned {what}"
        )
    own = probabilities(scene.model, scene.logits.double())
    best = scene.predicted
    p = own.gather(1, best[:, None])[:, 0].tolist()
    q = own.gather(1, scene.classes.to(best.device)[:, None])[:, 0].tolist()
    return [
        replace(row, explained=c, predicted=b, probability=one, explained_probability=other)
        for row, c, b, one, other in zip(
            rows, scene.classes.tolist(), best.tolist(), p, q, strict=True
        )
    ]


# ---- measuring ------------------------------------------------------------------------------------------


def _same_maps(label: str, explanations: Mapping[str, Explanation | None]) -> str | None:
    """An earlier method whose maps are the same but for rounding, such as Grad-CAM's and HiResCAM's of many models."""
    one = explanations[label]
    for other, two in explanations.items():
        if other == label or one is None:
            return None
        if (
            two is not None
            and one.raw.shape == two.raw.shape
            and one.provenance.facts["target"] == two.provenance.facts["target"]
            and all(
                torch.allclose(getattr(one, kind), getattr(two, kind), rtol=0, atol=bound)
                for kind in ("maps", "raw", "signed")
                for bound in [_ROUNDING * max(1e-30, float(getattr(one, kind).abs().max()))]
            )
        ):
            return other
    return None


def _measured(
    metric: Metric, what: str, scene: Scene, explanation: Explanation, trial: _Trial
) -> list[tuple[slice, Measured]]:
    """The numbers of the batch; image by image where the batch as a whole fails."""
    whole = trial(what, lambda: metric.measure(scene, explanation), ())
    if whole is not None:
        return [(slice(None), whole)]
    found = []
    for i in range(len(scene)):
        one = trial(what, lambda i=i: metric.measure(_one(scene, i), explanation[i]), (i,))  # type: ignore[misc]
        if one is not None:
            found.append((slice(i, i + 1), one))
    return found


def _empty(label: str, explanation: Explanation | None, trial: _Trial) -> list[int]:
    """The images whose map is drawn as zeros because something was NaN or infinite: it is none, and is noted."""
    found = []
    for i, said in enumerate(() if explanation is None else explanation.diagnostics):
        if said.broken or not said.finite:
            found.append(i)
            why = said.broken or "the map held NaN or infinite values"
            trial.notes[i].append(f"{label}: {why}, so there is no number")
    return found


def _joined(
    name: str, measured: Sequence[tuple[slice, Measured]], count: int
) -> tuple[Floats, npt.NDArray[np.float32] | None]:
    """The values ``(N,)`` and, where there are some, the curves ``(N, P)`` of a number; NaN where it failed."""
    values = np.full(count, np.nan)
    curves: npt.NDArray[np.float32] | None = None
    for images, one in measured:
        values[images] = _numpy(one.values[name])
        if name in one.curves:
            heights = _numpy(one.curves[name])
            if curves is None:
                curves = np.full((count, heights.shape[1]), np.nan, np.float32)
            curves[images] = heights
    return values, curves


def _one(scene: Scene, i: int) -> Scene:
    part = slice(i, i + 1)
    return replace(
        scene,
        inputs=scene.inputs[part],
        logits=scene.logits[part],
        classes=scene.classes[part],
        labels=scene.labels[part],
        boxes=scene.boxes[part],
        masks=scene.masks[part],
        exact=scene.exact[part],
        references={name: e[i] for name, e in scene.references.items()},
    )


def _numpy(values: Tensor) -> Any:
    return values.detach().to("cpu", torch.float64).numpy()


def _now(inputs: Tensor) -> float:
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter()


def _named(what: str, error: Exception) -> Exception:
    if isinstance(error, CamlucidaError):
        text = str(error)
        return type(error)(text if text.startswith(what) else f"{what}: {text}")
    return CamlucidaError(
        f"{what} fails on the first photo: {type(error).__name__}: {first_line(error)}"
    )
