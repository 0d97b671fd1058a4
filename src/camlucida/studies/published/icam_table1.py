"""Integrative CAM, Table 1: average IoU of fitted boxes on correctly predicted photos, over several runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from camlucida.benchmark import Bench, Settings
from camlucida.common.progress import Say
from camlucida.data.samples import DataSet
from camlucida.metrics.objects import BoxIoU, SaliencyScore
from camlucida.models import LoadedModel
from camlucida.report import Cell, Column, Table
from camlucida.studies.published.base import Reproduced, evaluated, mean_cell, slug

BASELINES = ("gradcam", "gradcam++", "layercam")
"""Those of the paper's survey."""
RUNS = 10
NUMBERS = {
    "box_iou": Column("average IoU", "higher", "%", 1),
    "saliency_score": Column("saliency score", "higher", "%", 1),
}
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
    draws perturbations, so it is run several times and the runs' numbers are averaged; the baselines draw nothing.

    Args:
        sets: the data sets by name: a model and the labelled photos with boxes that it is measured on.
        out: a folder; rows are kept there, and the same call goes on where it was stopped.
        baselines: methods beside I-CAM.
        runs: the runs of I-CAM, each with its own seed, 10 by default as published.
        limit: photos per set; all of them by default.
        seed: the seed of the first run.
        batch_size: photos at a time.
        say: is told about the progress.

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
        rows: dict[str, dict[str, Cell]] = {}
        repeated: dict[str, list[float]] = {}
        count = 0
        plans = [("baselines", list(baselines), seed)] if baselines else []
        plans += [(f"icam-{r}", ["icam"], seed + r) for r in range(runs)]
        for part, methods, own in plans:
            bench = Bench(model, data, methods, judged, Settings(seed=own, limit=limit))
            summary, whole = evaluated(
                bench, root / slug(name) / part, say, f"{name}, {part}", batch_size=batch_size, seed=seed
            )  # fmt: skip
            complete &= whole
            if summary is None or not whole:
                break
            for number in NUMBERS:
                if part == "baselines":
                    for label in bench.labels:
                        cell = mean_cell(summary, label, number, 100)
                        rows.setdefault(label, {})[number] = cell
                else:
                    mean = float(summary.cell(bench.labels[0], number)["mean"])
                    repeated.setdefault(number, []).append(mean)
            count = int(summary.cell(bench.labels[0], "box_iou")["n"])
        if repeated:
            rows["icam"] = {
                number: Cell(100 * float(np.mean(values)), 100 * min(values), 100 * max(values))
                for number, values in repeated.items()
            }
        if rows:
            tables.append(
                Table.of_rows(
                    f"icam-table1-{slug(name)}",
                    f"{name}: {model.name}, {count} correctly predicted photos",
                    ("method", *NUMBERS.values()),
                    ((label, *own.values()) for label, own in rows.items()),
                    f"icam: mean over {len(repeated.get('box_iou', []))} runs, and the range they span; the "
                    "others: 95 % interval over photos.",
                    interval="interval",
                )
            )
            kept = {
                label: {n: [c.value, c.low, c.high] for n, c in own.items()}
                for label, own in rows.items()
            }
            records[name] = {"percent": kept, "icam_runs": repeated, "images": count}
    record = {"seed": seed, "runs": runs, "sets": records}
    return Reproduced(
        "icam-table1",
        "Integrative CAM, Table 1",
        (PROTOCOL, CAVEAT),
        tuple(tables),
        record,
        complete,
    )
