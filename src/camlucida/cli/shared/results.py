"""The results of a photo: files, a record, rows of a table."""

from __future__ import annotations

import json
from bisect import insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from camlucida.cli.shared.console import print_lines, shown
from camlucida.cli.shared.photos import exact
from camlucida.cli.shared.writing import write, write_json
from camlucida.common.files import read_text
from camlucida.common.printable import distinct, slug
from camlucida.common.version import __version__

if TYPE_CHECKING:
    from camlucida.explanation import Comparison, Explanation

_TOP = 3  # predictions in the table
_ROWS = 100  # photos in the table


class Records(Sequence[dict[str, Any]]):
    """Records of photos, each read from its file when it is asked for, so that any number takes no memory."""

    def __init__(self) -> None:
        self._files: list[tuple[int, Path]] = []

    def add(self, place: int, file: Path) -> None:
        """The record of the photo at a place of the photos' order."""
        insort(self._files, (place, file))

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        """A record; of a slice a list."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record: dict[str, Any] = json.loads(read_text(self._files[index][1], "record"))
        return record


def save(
    comparison: Comparison,
    index: int,
    photo: Path,
    out: Path,
    name: str,
    facts: Mapping[str, Any],
    *,
    strip: bool = False,
) -> None:
    """Write everything about one photo.

    Files are called ``NAME.METHOD.png`` (overlay), ``NAME.METHOD.npz`` (maps), ``NAME.comparison.png``
    (with several methods) and ``NAME.json`` (the record).

    Args:
        comparison: Explanations of a batch.
        index: The photo's place in it.
        photo: The photo's file.
        out: Where to.
        name: What the files are called.
        facts: What tells later whether it is to be done again.
        strip: Also write photo and maps small and side by side, for the report: ``NAME.strip.jpg``.

    Raises:
        CamlucidaError: A file cannot be written.
    """
    from camlucida.explanation import Comparison
    from camlucida.explanation.photo_report import agreement, strip_of

    skipped = comparison.skipped
    own = Comparison(_with_small_views([e[index] for e in comparison.values()]), [*skipped.items()])
    first = next(iter(own.values()))
    methods = []
    parts = distinct(slug(label, "method") for label in own)
    for (label, explanation), part in zip(own.items(), parts, strict=True):
        # Alone it tells what several have beside them: what was explained, the scale, the crop.
        draw = explanation.overlay(0).save if len(own) > 1 else explanation.save
        overlay = write(out / f"{name}.{part}.png", draw)
        maps = write(out / f"{name}.{part}.npz", explanation.save)
        record = explanation.record()
        image = record["images"][0]
        methods.append({
            "label": label,
            "explained": image["explained"],
            "target_value": image["target_value"],
            "target": image["target"],
            "layers": record["layers"],
            "messages": image["messages"],
            "diagnostics": image["diagnostics"],
            "files": {"overlay": shown(overlay), "maps": shown(maps)},
            "provenance": record["provenance"],
            "predictions": image["predictions"],
        })  # fmt: skip
    files = {"record": shown(out / f"{name}.json")}
    if len(own) > 1:
        files["comparison"] = shown(write(out / f"{name}.comparison.png", own.save))
    if strip:
        small = strip_of(own)
        files["strip"] = shown(write(out / f"{name}.strip.jpg", lambda p: p.write_bytes(small)))
    predictions: list[dict[str, Any]] = next(
        (m["predictions"] for m in methods if m["predictions"]), []
    )
    for method in methods:
        del method["predictions"]  # of the model, not of the method
    record = {
        "camlucida": __version__,
        "model": first.provenance.facts["model"],
        "photo": shown(photo),
        "path": exact(photo),
        **facts,
        "predictions": predictions,
        "files": files,
        "methods": methods,
        "agreement": agreement(own),
        "skipped": [{"method": name, "reason": reason} for name, reason in skipped.items()],
    }
    write_json(out / f"{name}.json", record)


def _with_small_views(explanations: Sequence[Explanation]) -> list[Explanation]:
    """A large photo is made small once, not for every picture drawn of it."""
    from camlucida.explanation import LazyViews

    first = explanations[0].views
    small = first[0].scaled()
    views = LazyViews([lambda: small], first.class_names)
    return [replace(explanation, views=views) for explanation in explanations]


# ---- on the terminal ----------------------------------------------------------------------------


def show(records: Sequence[dict[str, Any]], out: Path, console: Console) -> None:
    """Print a table of what was found, remarks on single maps, and where the files are; of the first hundred photos."""
    if not records:
        return
    more, records = len(records) - _ROWS, records[:_ROWS]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("photo", overflow="fold")
    table.add_column("predictions", overflow="fold")
    table.add_column("explained", overflow="fold")
    labels = _labels(records)
    for label, record in zip(labels, records, strict=True):
        table.add_row(Text(label), _predictions(record), _explained(record))
    console.print(table)
    if more > 0:
        console.print(f"and {more} more photos, whose records tell the same of them")
    if assumed := _assumed(records):
        console.print("\nAssumed", style="bold")
        for message in assumed:
            _print_indented(message, console)
    if remarks := _remarks(records, labels):
        console.print("\nRemarks", style="bold")
        for where, message in remarks:
            _print_indented(f"{where}: {message}", console)
    print_lines(f"\nWritten to {shown(out)}", style="bold")
    for record in records:
        files = record["files"]
        print_lines(f"  {files.get('comparison') or record['methods'][0]['files']['overlay']}")
    several = len(records[0]["methods"]) > 1
    beside = "an overlay NAME.METHOD.png and " if several else ""
    console.print(
        f"Beside each: {beside}the maps NAME.METHOD.npz"
        f"{' of every method' if several else ''}, and the record NAME.json."
    )


def _print_indented(text: str, console: Console) -> None:
    for line in Text(text).wrap(console, console.width - 2):
        line.rstrip()
        console.print(Text("  ").append_text(line))


def _labels(records: Sequence[dict[str, Any]]) -> list[str]:
    """File names; whole paths where two photos have the same."""
    names = [Path(record["photo"]).name for record in records]
    count = Counter(names)
    return [
        name if count[name] == 1 else record["photo"]
        for name, record in zip(names, records, strict=True)
    ]


def _predictions(record: dict[str, Any]) -> Text:
    lines = [
        f"{p['probability']:>6.1%}  {p['name'].partition(',')[0]}"
        for p in record["predictions"][:_TOP]
    ]
    return Text("\n".join(lines) or "-")


def _explained(record: dict[str, Any]) -> Text:
    """What was explained; with the methods where they differ in it."""
    by_text: dict[str, list[str]] = {}
    for method in record["methods"]:
        by_text.setdefault(method["explained"], []).append(method["label"])
    if len(by_text) == 1:
        return Text(next(iter(by_text)))
    most = max(by_text, key=lambda text: len(by_text[text]))
    lines = [
        text if text == most and len(labels) > 1 else f"{text} ({', '.join(labels)})"
        for text, labels in by_text.items()
    ]
    return Text("\n".join(lines))


def _assumed(records: Sequence[dict[str, Any]]) -> list[str]:
    """What was assumed about the model and the photos, each once."""
    said = [
        message
        for record in records
        for method in record["methods"]
        for message in method["diagnostics"]["assumed"]
    ]
    return list(dict.fromkeys(said))


def _remarks(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[tuple[str, str]]:
    """Each message once per photo, with the methods that it is about."""
    found = []
    for label, record in zip(labels, records, strict=True):
        by_message: dict[str, list[str]] = {}
        for method in record["methods"]:
            for message in method["messages"]:
                if message in method["diagnostics"]["assumed"]:
                    continue
                by_message.setdefault(message, []).append(method["label"])
        found += [
            (f"{label}, {', '.join(about)}", message) for message, about in by_message.items()
        ]
    return found
