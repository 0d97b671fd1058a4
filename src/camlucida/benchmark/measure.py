"""One batch: every method explains it, every metric judges every method."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from camlucida.benchmark.plan import SECONDS, Bench
from camlucida.benchmark.shards import Column, ImageRow
from camlucida.common.errors import CamlucidaError
from camlucida.common.optional import first_line
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.outputs import first_tensor
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.methods import row_of
from camlucida.methods.smoothing import unwrapped
from camlucida.metrics.base import Measured, Metric, Scene


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
    columns: list[Column] = field(default_factory=list)
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
    notes: list[list[str]] = [[] for _ in rows]
    started = _now(inputs)
    explanations, costs = _explained(bench, inputs, parts["labels"], alone, strict, notes)
    scene = _scene(bench, parts, explanations)
    found.explaining = _now(inputs) - started
    predicted = _predicted(rows, scene)
    started = _now(inputs)
    everything = np.arange(len(rows))
    for label, explanation in explanations.items():
        if explanation is not None:
            found.layers[label] = list(explanation.layers)
        if costs:
            cost = np.full(len(rows), costs[label])
            found.columns.append(Column(everything, label, SECONDS, cost))
        for (name, metric), columns in zip(bench.metrics, bench.columns, strict=True):
            measured = _measured(metric, name, label, scene, explanation, strict, notes)
            _keep(found, metric, columns, label, measured, everything)
    found.measuring = _now(inputs) - started
    found.rows = [
        replace(row, notes="; ".join(dict.fromkeys(said)) or None)
        for row, said in zip(predicted, notes, strict=True)
    ]
    return found


# ---- explaining -----------------------------------------------------------------------------------------


def _explained(
    bench: Bench,
    inputs: Tensor,
    labels: Tensor,
    alone: bool,
    strict: bool,
    notes: list[list[str]],
) -> tuple[dict[str, Explanation | None], dict[str, float]]:
    """The explanations by label, and what each cost per image where they were made alone."""
    if not alone and not strict:
        try:
            together = _explain(bench, inputs, labels, bench.methods)
            return dict(zip(bench.labels, together, strict=True)), {}
        except Exception as error:
            if is_memory(error):
                raise
            # Found out below, method by method.
    found: dict[str, Explanation | None] = {}
    costs = {}
    for label, method in zip(bench.labels, bench.methods, strict=True):
        started = _now(inputs)
        try:
            found[label] = _explain(bench, inputs, labels, [method])[0]
        except Exception as error:
            if is_memory(error):
                raise
            if strict:
                raise _named(label, error) from error
            found[label] = None
            for said in notes:
                said.append(_said(label, error))
        costs[label] = (
            (_now(inputs) - started) / len(inputs) if found[label] is not None else np.nan
        )
    return found, costs if alone else {}


def _explain(
    bench: Bench, inputs: Tensor, labels: Tensor, methods: Sequence[Any]
) -> list[Explanation]:
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
        row = row_of(unwrapped(explanation.method))
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
    if scene.logits.ndim != 2:
        raise CamlucidaError(
            f"the benchmark needs class logits (N, M), but the model returned {tuple(scene.logits.shape)}"
        )
    probabilities = scene.logits.double().softmax(1)
    best = scene.predicted
    p = probabilities.gather(1, best[:, None])[:, 0].tolist()
    q = probabilities.gather(1, scene.classes.to(best.device)[:, None])[:, 0].tolist()
    return [
        replace(row, explained=c, predicted=b, probability=one, explained_probability=other)
        for row, c, b, one, other in zip(
            rows, scene.classes.tolist(), best.tolist(), p, q, strict=True
        )
    ]


# ---- measuring ------------------------------------------------------------------------------------------


def _measured(
    metric: Metric,
    name: str,
    label: str,
    scene: Scene,
    explanation: Explanation | None,
    strict: bool,
    notes: list[list[str]],
) -> Measured | list[Measured | None]:
    """The numbers of a batch; image by image where the batch as a whole fails."""
    if explanation is None:
        return [None] * len(scene)
    try:
        return metric.measure(scene, explanation)
    except Exception as error:
        if is_memory(error):
            raise
        if strict:
            raise _named(f"{name} of {label}", error) from error
    found: list[Measured | None] = []
    for i, said in enumerate(notes):
        try:
            found.append(metric.measure(_one(scene, i), explanation[i]))
        except Exception as error:
            if is_memory(error):
                raise
            said.append(_said(f"{name} of {label}", error))
            found.append(None)
    return found


def _keep(
    found: Judged,
    metric: Metric,
    columns: Sequence[str],
    label: str,
    measured: Measured | list[Measured | None],
    everything: Any,
) -> None:
    parts = measured if isinstance(measured, list) else [measured]
    whole = not isinstance(measured, list)
    for own, column in zip(metric.names, columns, strict=True):
        good = [one for one in parts if one is not None]
        values = np.full(len(everything), np.nan)
        curves = None
        if good:
            there = (
                everything
                if whole
                else np.array([i for i, one in enumerate(parts) if one is not None])
            )
            values[there] = np.concatenate([_numpy(one.values[own]) for one in good])
            if own in good[0].curves:
                heights = np.concatenate([_numpy(one.curves[own]) for one in good])
                curves = np.full((len(everything), heights.shape[1]), np.nan, np.float32)
                curves[there] = heights
                found.positions[column] = _numpy(good[0].at[own]).tolist()
        found.columns.append(Column(everything, label, column, values, curves))


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


def is_memory(error: BaseException) -> bool:
    """Whether this says that the memory, of the device or the machine, is too small."""
    text = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in text
        or "out of memory" in text
    )


def _said(what: str, error: Exception) -> str:
    return f"{what}: {first_line(error)}"


def _named(what: str, error: Exception) -> Exception:
    if isinstance(error, CamlucidaError):
        text = str(error)
        return type(error)(text if text.startswith(what) else f"{what}: {text}")
    return CamlucidaError(
        f"{what} fails on the first photo: {type(error).__name__}: {first_line(error)}"
    )
