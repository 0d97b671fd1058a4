"""``camlucida explain --report``: the page on all photos, made of what was written about each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from camlucida.cli.shared.console import complain
from camlucida.cli.shared.photos import exact
from camlucida.cli.shared.writing import model_of, write_json
from camlucida.common.errors import CamlucidaError, ImageError, TargetError
from camlucida.common.printable import slug

if TYPE_CHECKING:
    from camlucida.cli.shared.job import Job, Outcome
    from camlucida.explanation.photo_report import PhotoRow

_FAILED = 50  # photos that could not be explained and are named

Classes: TypeAlias = "Mapping[str, tuple[int | None, str]]"
"""The class of photos by their exact path: the model's index, where it has one, and the name."""


def classes_of(
    given: Sequence[Path], data: str | None, class_names: Sequence[str] | None
) -> Classes:
    """The true classes of photos, as far as they are known, which is said.

    Args:
        given: What the user named: a folder with a subfolder per class tells them.
        data: A data set that knows them, in place of the folders.
        class_names: The model's.

    Raises:
        CamlucidaError: The data set cannot be opened.
    """
    from camlucida.data.folders import open_folder
    from camlucida.data.open import open_data

    if data is not None:
        opened = [open_data(data, class_names=class_names)]
    else:
        opened = []
        for folder in given:
            try:
                opened.append(open_folder(folder, class_names, labels=True))
            except (ImageError, TargetError, OSError):
                continue  # no folder of classes that the model knows
    known = {
        exact(sample.path): (sample.label, sample.label_name)
        for one in opened
        for sample in one
        if sample.path is not None and (sample.label is not None or sample.label_name)
    }
    if known and data is None:
        names = dict.fromkeys(name for _, name in known.values())
        complain(
            f"note: the photos' folders are taken for their classes ({len(names)}, such as {next(iter(names))!r}); "
            "--labels DATA names other ones"
        )
    return known


def write_report(job: Job, outcome: Outcome, classes: Classes) -> Path:
    """Write ``report.html``, ``.csv`` and ``.json`` into the out folder, beside those of another model; the page."""
    from camlucida.explanation.photo_report import write_photo_report

    name = "report"
    if model_of(job.out, name) not in (None, job.model.name):
        name = f"report-{slug(job.model.name)}"
    write_json(job.out / f"{name}.json", {"model": job.model.name, "photos": len(outcome.done)})
    rows = _rows(outcome.done, classes, job.model.class_names)
    notes = [f"Left out: {method}: {why}." for method, why in outcome.skipped.items()]
    notes += [f"Not explained: {why}." for _, why in outcome.failed[:_FAILED]]
    more = len(outcome.failed) - _FAILED
    notes += [f"Not explained: {more} more."] if more > 0 else []
    notes += ["It was stopped before all photos were explained."] if outcome.interrupted else []
    title = f"What {job.model.name} saw in {len(outcome.done):,} photos"
    return write_photo_report(rows, job.out / f"{name}.html", title=title, notes=notes)


def _rows(
    records: Sequence[dict[str, Any]], classes: Classes, names: Sequence[str] | None
) -> Iterator[PhotoRow]:
    from camlucida.explanation.photo_report import PhotoRow, labelled

    for record in records:
        index, name = classes.get(record["path"], (None, ""))
        if index is not None and names is not None and index < len(names):
            name = names[index].partition(",")[0]
        row = PhotoRow(
            record["photo"],
            record["predictions"],
            record["methods"],
            record.get("agreement"),
            strip=partial(_strip, record),
        )
        yield labelled(row, index, name)


def _strip(record: Mapping[str, Any]) -> bytes | None:
    """The strip of a photo; of one that was explained before a report was asked for, made of its overlays."""
    from camlucida.explanation.photo_report import strip_from

    try:
        if kept := record["files"].get("strip"):
            return Path(kept).read_bytes()
        return strip_from([Path(method["files"]["overlay"]) for method in record["methods"]])
    except OSError:
        return None


def check(shards: bool, report: bool, labels: str | None) -> None:
    """Refuse options that would have no effect.

    Raises:
        CamlucidaError: Naming them.
    """
    if shards and report:
        raise CamlucidaError(
            "--report shows pictures, and --shards draws none; leave out one of them"
        )
    if labels is not None and not report:
        raise CamlucidaError("--labels goes with --report, which shows the mistakes")
