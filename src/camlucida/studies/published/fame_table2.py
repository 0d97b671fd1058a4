"""FAME, Table 2: IoU and ROAD-Delete of five methods, published and ours beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camlucida.benchmark import Bench, Settings
from camlucida.benchmark.summary import Summary
from camlucida.common.progress import Say
from camlucida.data.samples import DataSet
from camlucida.metrics.objects import IoU
from camlucida.metrics.road import RoadDelete
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from camlucida.studies.published.base import Reproduced, evaluated, mean_cell, slug
from camlucida.studies.published.numbers import FAME_TABLE2

METHODS = tuple(FAME_TABLE2)
SHOWN = (10, 30, 50)
NUMBERS = {
    **{f"iou@{t:g}": Column(f"IoU {t:g}", "higher", "%", 1) for t in (0.3, 0.5, 0.7)},
    **{f"road_delete@{p}": Column(f"ROAD-Delete {p} %", "higher", places=3) for p in SHOWN},
    **{
        f"road_delete_rank@{p}": Column(f"ROAD-Delete {p} %, by rank", "higher", places=3)
        for p in SHOWN
    },
}
PROTOCOL = (
    "The true class's logit is explained. IoU is that of the thresholded map and the first box; ROAD-Delete is the "
    "fall of the logit when the most relevant pixels are blackened, with the published masks and, by rank, with exact "
    "counts: under the former, maps with many equal values delete less than they are asked to."
)
CAVEAT = (
    "The published numbers are of a ResNet-50 on 5,000 of ImageNet's validation images, with faults that the authors "
    "list themselves: hold the order against ours, not the decimals."
)
STANDIN = (
    "These are stand-ins, other models on other photos. What can be held against the paper is what is proved: Grad-CAM "
    "and HiResCAM agree where global average pooling and a linear layer follow."
)
_IDENTICAL = 1e-5


def fame_table2(
    sets: Mapping[str, tuple[LoadedModel, DataSet]],
    out: str | os.PathLike[str],
    *,
    methods: Sequence[str] = METHODS,
    iterations: int | str = 500,
    layer: str | None = None,
    legacy: bool = False,
    limit: int | None = None,
    seed: int = 0,
    batch_size: int = 8,
    compare: bool = True,
    say: Say | None = None,
) -> Reproduced:
    """IoU at .3, .5 and .7 and ROAD-Delete at 10, 30 and 50 %, as FAME measures them.

    The true class is explained. IoU is that of the thresholded map and the first box, filled; ROAD-Delete is the
    fall of the true class's logit when the most relevant pixels are blackened, without imputation. Beside the
    published masks, which spare maps with many equal values, stands the same with exact counts ("by rank").

    Args:
        sets: the data sets by name: a model and the labelled photos with boxes that it is measured on.
        out: a folder; each set's rows are kept there, and the same call goes on where it was stopped.
        methods: some of the published five, or any others.
        iterations: FAME's.
        layer: the explained layer; by default the model's last feature map, which is ``layer4.2`` of a ResNet-50.
        legacy: map boxes as the authors' scripts did, both axes on their own, and use their code's settings
            of FAME.
        limit: photos per set; all of them by default.
        seed: the seed of everything that is drawn.
        batch_size: photos at a time.
        compare: print the published numbers beside ours; they can be held against ImageNet's only.
        say: is told about the progress.

    Raises:
        CamlucidaError: photos lack boxes or labels, or the folder holds another plan.

    Source: Zhang and Günther, "FAME" (arXiv 2605.12017), Table 2; boxes and masks as in the authors' code.
    """
    root = Path(out)
    options: dict[str, Any] = {"iterations": iterations}
    if legacy:
        options["preset"] = "reference_code"
    chosen = [("fame", options) if name == "fame" else (name, {}) for name in methods]
    settings = Settings(
        explain="label",
        layers=(layer,) if layer else (),
        seed=seed,
        limit=limit,
        legacy_boxes=legacy,
    )
    tables, records, notes, complete = [], {}, [], True
    for name, (model, data) in sets.items():
        bench = Bench(model, data, chosen, [IoU(), RoadDelete(shown=SHOWN)], settings)
        summary, whole = evaluated(
            bench, root / slug(name), say, name, batch_size=batch_size, seed=seed
        )
        complete &= whole
        if summary is None:
            continue
        labels = dict(zip(methods, bench.labels, strict=True))
        tables.append(_table(name, summary, labels, compare=compare))
        records[name] = summary.to_dict()
        notes += _same(name, summary, labels)
    lead = (PROTOCOL, *notes, CAVEAT if compare else STANDIN)
    record = {"seed": seed, "legacy": str(legacy), "iterations": str(iterations), "sets": records}
    return Reproduced(
        "fame-table2", "FAME, Table 2: published and ours", lead, tuple(tables), record, complete
    )


def _table(name: str, summary: Summary, labels: Mapping[str, str], *, compare: bool) -> Table:
    rows = []
    for method, label in labels.items():
        known = FAME_TABLE2.get(method, {}) if compare else {}
        cells = (
            mean_cell(summary, label, number, 100.0 if column.unit else 1.0, known.get(number))
            for number, column in NUMBERS.items()
        )
        rows.append((label, *cells))
    count = max(int(summary.cell(label, "iou@0.3")["n"]) for label in labels.values())
    caption = f"{name}: {summary.plan['model']['name']}, {count} photos"
    table = f"fame-table2-{slug(name)}"
    return Table.of_rows(table, caption, ("method", *NUMBERS.values()), rows)


def _same(name: str, summary: Summary, labels: Mapping[str, str]) -> list[str]:
    """Whether Grad-CAM and HiResCAM agree, as they must where pooling and a linear layer follow."""
    if not {"gradcam", "hirescam"} <= set(labels):
        return []
    apart = max(
        abs(
            float(summary.cell(labels["gradcam"], number)["mean"])
            - float(summary.cell(labels["hirescam"], number)["mean"])
        )
        for number in NUMBERS
        if "rank" not in number
    )
    verb = "agree" if apart < _IDENTICAL else "do NOT agree"
    return [f"Grad-CAM and HiResCAM {verb} on {name} (largest difference of a mean {apart:.1e})."]
