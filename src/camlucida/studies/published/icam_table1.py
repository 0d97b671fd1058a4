"""Integrative CAM, Table 1: average IoU of fitted boxes on correctly predicted photos, over several runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.benchmark import Bench, Settings
from camlucida.benchmark.local import run
from camlucida.benchmark.summary import summarise
from camlucida.common.progress import Say
from camlucida.data.samples import DataSet
from camlucida.metrics.objects import BoxIoU, SaliencyScore
from camlucida.models import LoadedModel
from camlucida.report import Cell, Column, Table
from camlucida.studies.published.base import Reproduced, means, share, slug

BASELINES = ("gradcam", "gradcam++", "layercam")
"""Those of the paper's survey."""
RUNS = 10
PROTOCOL = (
    "Average IoU of the box fitted to the map at half its maximum with the best of the photo's boxes, and the share of "
    "the map inside the boxes, over correctly predicted photos."
)
CAVEAT = (
    "The numbers of the published table are not in the public text, so none stand beside ours; its claim is that I-CAM "
    "is best."
)


def icam_table1(
    sets: Mapping[str, tuple[LoadedModel, DataSet]],
    out: str | os.PathLike[str],
    *,
    baselines: Sequence[str] = BASELINES,
    runs: int = RUNS,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    say: Say | None = None,
) -> Reproduced:
    """Average IoU and saliency score of I-CAM and its baselines.

    The predicted class is explained, and only photos that are predicted correctly count. A map is thresholded at
    half its maximum, a box is fitted to the largest region, and held against the best of the photo's boxes. I-CAM
    draws perturbations, so it is run several times and its runs are averaged; the baselines draw nothing.

    The numbers of the published table are not in the text that is public, so none stand beside ours; its claim is
    that I-CAM is best.

    Args:
        sets: by name, a model and the labelled photos with boxes that it is measured on.
        out: a folder; rows are kept there, and the same call goes on where it was stopped.
        baselines: methods beside I-CAM.
        runs: of I-CAM, each with its own seed, 10 by default as published.
        limit: photos per set; all of them by default.
        seed: of the first run.
        batch_size: photos at a time.
        say: told about the progress.

    Raises:
        CamlucidaError: photos lack boxes or labels, or the folder holds another plan.

    Source: Singh et al., "Integrative CAM" (arXiv 2412.01354), average IoU and equation 32.
    """
    root = Path(out)
    judged = [BoxIoU(), SaliencyScore()]
    tables: list[Table] = []
    records: dict[str, Any] = {}
    complete = True
    for name, (model, data) in sets.items():
        rows: dict[str, dict[str, tuple[float, float, float]]] = {}
        plans = [("baselines", list(baselines), seed)] if baselines else []
        plans += [(f"icam-{r}", ["icam"], seed + r) for r in range(runs)]
        repeated: dict[str, list[float]] = {}
        for part, methods, own in plans:
            bench = Bench(model, data, methods, judged, Settings(seed=own, limit=limit))
            done = run(
                bench,
                root / slug(name) / part,
                batch_size=batch_size,
                progress=share(say, f"{name}, {part}"),
            )
            complete &= not done.interrupted
            if done.interrupted:
                break
            summary = summarise(root / slug(name) / part, seed=seed, tests=False)
            for number in ("box_iou", "saliency_score"):
                found = means(summary, bench.labels, number)
                if part == "baselines":
                    for label, (mean, low, high, _) in found.items():
                        rows.setdefault(label, {})[number] = (mean, low, high)
                else:
                    repeated.setdefault(number, []).append(found["icam"][0])
            count = means(summary, bench.labels, "box_iou")[bench.labels[0]][3]
        if repeated:
            rows["icam"] = {number: _spread(values) for number, values in repeated.items()}
        if rows:
            tables.append(_table(name, model, rows, count, len(repeated.get("box_iou", []))))
            records[name] = {"rows": rows, "icam_runs": repeated, "images": count}
    record = {"seed": seed, "runs": runs, "sets": records}
    return Reproduced(
        "icam-table1",
        "Integrative CAM, Table 1",
        (PROTOCOL, CAVEAT),
        tuple(tables),
        record,
        complete,
    )


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean of the runs and the range that they span."""
    return float(np.mean(values)), float(np.min(values)), float(np.max(values))


def _cell(mean: float, low: float, high: float) -> Cell:
    return Cell(100 * mean, 100 * low, 100 * high)


def _table(
    name: str,
    model: LoadedModel,
    rows: Mapping[str, Mapping[str, tuple[float, float, float]]],
    count: int,
    runs: int,
) -> Table:
    columns = (
        Column("average IoU", "higher", "%", 1),
        Column("saliency score", "higher", "%", 1),
    )
    cells = tuple(
        (label, tuple(_cell(*found[number]) for number in ("box_iou", "saliency_score")))
        for label, found in rows.items()
    )
    return Table(
        f"icam-table1-{slug(name)}",
        f"{name}: {model.name}, {count} correctly predicted photos",
        columns,
        cells,
        legend=f"icam: mean over {runs} runs, and the range they span; the others: 95 % interval over photos.",
        interval="interval",
    ).marked()
