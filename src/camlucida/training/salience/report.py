"""The report of salience-guided training: page, JSON and tables."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from camlucida.common.statistics import mean_std
from camlucida.report import Column, Document, Section, Table, save
from camlucida.report.charts import Line, lines
from camlucida.report.page import answers, facts, figures, picture
from camlucida.training.salience.experiment import Experiment, TrainedArm
from camlucida.training.salience.measure import outer_ring
from camlucida.training.salience.recipe import ARMS, IRIS_PAD, PUBLISHED, ImageSets
from camlucida.training.salience.verdict import MARGIN, Claim, verdicts

NAME = "salience"


@dataclass(frozen=True)
class SalienceReport:
    """What came out, ready to be shown.

    Attributes:
        experiment: the trainings.
        remarks: what else must be said.
        verdicts: on the published claims.
        tables: accuracy, and maps.
        picture: PNG of maps on a few images; empty where none could be drawn.
        files: what was written by :func:`camlucida.training.train_salience`, the page first.
    """

    experiment: Experiment
    remarks: tuple[str, ...]
    verdicts: tuple[Claim, ...]
    tables: tuple[Table, ...]
    picture: bytes = field(default=b"", repr=False)
    files: tuple[Path, ...] = ()

    @property
    def lead(self) -> tuple[str, ...]:
        """The answer in sentences, then the remarks."""
        return (*(f"{v.claim}: {v.outcome}." for v in self.verdicts), *self.remarks)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the picture, ready for JSON."""
        return {
            "title": _title(self.experiment),
            "lead": list(self.lead),
            "verdicts": [asdict(v) for v in self.verdicts],
            "summary": {arm: summary(self.experiment.of(arm)) for arm in self.experiment.arms},
            **self.experiment.to_dict(),
        }

    def html(self) -> str:
        """One page with everything in it; nothing is fetched."""
        experiment = self.experiment
        sections = []
        if self.verdicts:
            pairs = [(f"{v.claim}: {v.outcome}", v.text) for v in self.verdicts]
            sections.append(Section("claims", "What was published, and here", [answers(pairs)]))
        sections.append(Section("accuracy", "Accuracy", [self.tables[0]]))
        sections.append(Section("maps", "Where the maps lie", [self.tables[1], *self._drawn()]))
        if charts := curves(experiment):
            sections.append(
                Section(
                    "curves",
                    "Learning curves",
                    [figures(charts)],
                    lead="Means over the seeds; the bands reach from the lowest seed to the highest.",
                )
            )
        sections.append(Section("record", "Record", [facts(_facts(experiment))]))
        return Document(_title(experiment), self.lead, sections).html()

    def save(self, folder: str | os.PathLike[str]) -> tuple[Path, ...]:
        """Write page, JSON, tables and picture, each whole or not at all; the page is the first.

        Raises:
            CamlucidaError: it cannot be written to.
        """
        pictures = {f"{NAME}.png": self.picture} if self.picture else {}
        return save(folder, NAME, self.html(), self.to_dict(), self.tables, pictures)

    def _drawn(self) -> list[str]:
        if not self.picture:
            return []
        alt = "Test images, and the trained map of the true class on each, one column for each training."
        return [picture(self.picture, alt, f"{alt} The first seed.")]


def salience_report(
    experiment: Experiment, sets: ImageSets | None = None, *, margin: float = MARGIN
) -> SalienceReport:
    """Judge the trainings and draw them.

    The images are for the picture; up to a ``margin`` of lost accuracy counts as no worse.
    """
    found = tuple(verdicts(experiment, margin))
    drawn = _picture(experiment, sets) if sets is not None and experiment.trained else b""
    tables = (_accuracy_table(experiment), _maps_table(experiment))
    return SalienceReport(experiment, _remarks(experiment), found, tables, drawn)


def summary(trained: Sequence[TrainedArm]) -> dict[str, Any]:
    """Mean and standard deviation of an arm's numbers over its seeds."""

    def of(*names: str) -> tuple[float, float]:
        mean, std = mean_std([t.number(*names) for t in trained])
        return mean, std if len(trained) > 1 else math.nan

    return {
        "seeds": len(trained),
        "accuracy": of("accuracy"),
        "validation_accuracy": of("validation_accuracy"),
        "best_epoch": of("best_epoch"),
        "seconds": of("seconds"),
        "cpu_seconds": of("cpu_seconds"),
        **{k: of("maps", k) for k in ("entropy", "border", "sham", "object")},
        "entropy_before": of("maps_before", "entropy"),
    }


# ---- tables -------------------------------------------------------------------------------------


def _accuracy_table(experiment: Experiment) -> Table:
    real = not experiment.stand_in
    columns = [
        Column("guided by"),
        Column("accuracy", "higher", places=4),
        Column("std over seeds", places=4),
        *((Column("published", places=4), Column("published std", places=4)) if real else ()),
        Column("validation accuracy", "higher", places=4),
        Column("best epoch", places=1, note="counted from 1"),
        Column("seeds"),
        Column("CPU time each", unit="s", digits=3),
    ]
    rows = []
    for arm in experiment.arms:
        found = summary(experiment.of(arm))
        published = PUBLISHED.get(arm, (None, None)) if real else ()
        means = [found[k][0] for k in ("validation_accuracy", "best_epoch", "cpu_seconds")]
        means[1:2] = [means[1] + 1, found["seeds"]]
        rows.append([ARMS[arm], *found["accuracy"], *published, *means])
    legend = "Mean and unbiased standard deviation over the seeds."
    if real:
        legend += (
            " Published: Iris PAD, 7 classes, DenseNet-121 from ImageNet's weights, 50 epochs, 5 seeds; comparable on "
            "those images with that recipe only."
        )
    if not experiment.own_test:
        legend += " There were no test images: these also chose the epoch, so the accuracy is a little too high."
    return Table.of_rows(f"{NAME}-accuracy", "Accuracy on the test images", columns, rows, legend)


def _maps_table(experiment: Experiment) -> Table:
    shares = ("energy in the outer ring", "on the SHAM cells", "on the object")
    columns = [
        Column("guided by"),
        Column("CAM entropy before", unit="nats", places=3),
        Column("CAM entropy", unit="nats", places=3),
        *(Column(title, unit="%", places=1) for title in shares),
    ]
    rows: list[list[Any]] = []
    for arm in experiment.arms:
        found = summary(experiment.of(arm))
        percent = [100 * found[name][0] for name in ("border", "sham", "object")]
        rows.append([ARMS[arm], found["entropy_before"][0], found["entropy"][0], *percent])
    for one in experiment.trained[:1]:
        height, width = one.record["grid"]
        cells = height * width
        ring = float(outer_ring((height, width)).sum())
        ones = math.exp(one.number("sham_entropy"))
        area = 100 * one.number("maps", "object_area")
        even = (math.log(cells), 100 * ring / cells, 100 * ones / cells, area)
        rows.append(["energy spread evenly", None, *even])
    return Table.of_rows(
        f"{NAME}-maps",
        "Where the energy of the maps lies: of the true class, scaled to [0, 1], on the test images",
        columns,
        rows,
        "Before: with the weights that the training starts from. Means over images and seeds.",
    )


# ---- words --------------------------------------------------------------------------------------


def _title(experiment: Experiment) -> str:
    where = (
        "digits on photos, a stand-in"
        if experiment.stand_in
        else str(experiment.data["train"]["name"])
    )
    return f"Salience-guided training: {where}"


def _remarks(experiment: Experiment) -> tuple[str, ...]:
    said = []
    if not experiment.complete:
        done, wanted = len(experiment.trained), len(experiment.arms) * len(experiment.seeds)
        said.append(
            f"Stopped after {done} of {wanted} trainings; the same command goes on from there."
        )
    if experiment.stand_in:
        said.append(
            "Another network on other images than the paper's: this shows the mechanism, not the published numbers."
        )
    elif experiment.recipe.describe() != IRIS_PAD.describe():
        said.append("The recipe differs from the published one, see the record.")
    return tuple(said)


def _facts(experiment: Experiment) -> list[tuple[str, str]]:
    recipe, data = experiment.recipe, experiment.data
    pairs = [
        ("model", recipe.model),
        ("weights", "from ImageNet" if recipe.pretrained else "random"),
        ("image size", f"{recipe.size} px"),
        *((f"{name} images", f"{data[name]['samples']:,}") for name in ("train", "validation")),
        ("test images", f"{data['test']['samples']:,}" if experiment.own_test else "none"),
        ("epochs", str(recipe.epochs)),
        ("optimiser", f"{recipe.optimizer}, learning rate {recipe.learning_rate:g}"),
        ("schedule", recipe.schedule),
        ("batch", str(recipe.batch_size)),
        ("precision", recipe.precision),
        ("weight of the cross-entropy", f"{recipe.weight:g}"),
        ("map", f"{recipe.cam.cam}, class: {recipe.cam.cam_class}"),
        ("seeds", ", ".join(map(str, experiment.seeds))),
    ]
    if experiment.trained:
        record = experiment.trained[0].record
        height, width = record["grid"]
        pairs += [
            ("layer", f"{record['layer']}, {height} x {width} cells"),
            ("parameters", f"{record['parameters']:,}"),
            ("device", str(record["device"])),
        ]
    return pairs


# ---- drawings -----------------------------------------------------------------------------------


def curves(experiment: Experiment) -> list[tuple[str, str]]:
    """Charts of the learning curves, with captions."""
    drawn = []
    for name, title, label in (
        ("score", "Accuracy on the validation images", "accuracy"),
        ("ce", "Cross-entropy on the training images", "nats"),
        (
            "cam_mse",
            "Distance of the maps from their target, training images",
            "mean squared error",
        ),
    ):
        series = []
        for index, arm in enumerate(experiment.arms):
            rows = [t.record["curves"] for t in experiment.of(arm)]
            values = [[row[name] for row in curve] for curve in rows if name in curve[0]]
            if each := list(zip(*values, strict=False)):
                means = [sum(v) / len(v) for v in each]
                several = len(values) > 1
                low = [min(v) for v in each] if several else ()
                high = [max(v) for v in each] if several else ()
                epochs = [float(i + 1) for i in range(len(each))]
                series.append(Line(ARMS[arm], epochs, means, low, high, index))
        if not series:
            continue
        said = "; ".join(f"{s.label} from {s.y[0]:.3g} to {s.y[-1]:.3g}" for s in series)
        svg = lines(
            f"curve-{name.replace('_', '-')}", title, series, x_label="epoch", y_label=label, describe=f"{said}."
        )  # fmt: skip
        drawn.append((svg, title))
    return drawn


def _picture(experiment: Experiment, sets: ImageSets, count: int = 4) -> bytes:
    """Maps of the first seed's networks on images of different classes."""
    from dataclasses import replace

    from camlucida.explanation.overlays import View, grid, overlay, png
    from camlucida.training.cam_loss import TrainableCAM
    from camlucida.training.salience.measure import example_maps
    from camlucida.training.salience.models import load_trained

    data = sets.test
    firsts = [
        int((data.labels == c).nonzero()[0]) for c in sorted(set(data.labels.tolist()))[:count]
    ]
    places = torch.tensor(firsts)
    pictures = [
        Image.fromarray(data.pixels(i).permute(1, 2, 0).numpy()).resize(
            (224, 224), Image.Resampling.BILINEAR
        )
        for i in firsts
    ]
    columns: list[str] = ["image"]
    rows: list[list[Image.Image]] = [[p] for p in pictures]
    for arm in experiment.arms:
        trained = experiment.of(arm)
        if not trained:
            continue
        model = load_trained(trained[0].folder).module
        options = replace(experiment.recipe.cam, cam_layer=trained[0].record["layer"])
        cam = TrainableCAM(model, data.inputs(places[:1]), options)
        for row, photo, drawn in zip(
            rows, pictures, example_maps(model, cam, data, places), strict=True
        ):
            row.append(overlay(View.whole(photo), drawn))
        columns.append(ARMS[arm])
    names = [str(data.class_names[int(data.labels[i])]) for i in firsts]
    return png(grid(rows, columns=columns, rows=names, cell=1.7))
