"""One page on many photos: what the model said, where it looked, and what to look at first; with a table beside it."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from html import escape
from importlib.resources import files
from itertools import combinations
from operator import index
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import write_bytes
from camlucida.common.statistics import correlation, mean
from camlucida.data.class_names import class_of
from camlucida.explanation.overlays import overlay
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.stream import Explanations, Result, one_of
from camlucida.report import Document
from camlucida.report.page import paragraph
from camlucida.report.template import data_uri, jpeg

_PICTURES = 18 * 2**20
"""Letters that the pictures of a page may take; more photos get smaller ones, and the last of very many none."""
_ROWS = 20_000
"""Photos on a page, those first that are to be looked at; the table beside it has all."""
_HEIGHT, _LEAST = 112, 44
"""Of a strip of pictures, in pixels: the usual one and the smallest."""
_SHOWN = 8
_ODD = "backslashreplace"
"""How names of files that are no UTF-8 are written."""


@dataclass(frozen=True)
class PhotoRow:
    """What is known of a photo.

    Attributes:
        photo: its name.
        predictions: the most probable classes, as in a record.
        methods: of each method the label, what was explained, its value, diagnostics and messages, as in a record.
        agreement: the mean correlation of the methods' maps; ``None`` where there are fewer than two.
        true: the name of its class; empty where it is not known.
        mistake: whether the model says another class; ``None`` where the true one is not known.
        strip: gives the photo and its maps, side by side, as JPEG.
    """

    photo: str
    predictions: Sequence[Mapping[str, Any]]
    methods: Sequence[Mapping[str, Any]]
    agreement: float | None = None
    true: str = ""
    mistake: bool | None = None
    strip: Callable[[], bytes | None] = lambda: None

    @property
    def probability(self) -> float | None:
        """Of the predicted class."""
        return self.predictions[0]["probability"] if self.predictions else None

    @property
    def margin(self) -> float | None:
        """By how much the predicted class is more probable than the next."""
        first, *others = self.predictions or ({"probability": None},)
        return first["probability"] - others[0]["probability"] if others else None

    @property
    def urgency(self) -> tuple[bool, bool, float]:
        """Photos are shown by it: mistakes, then remarks, then those of which the model is least sure."""
        said = any(_remarks(method) for method in self.methods)
        sure = self.probability
        return (not self.mistake, not said, 1.0 if sure is None else sure)


def photo_report(
    results: Result | Explanations,
    path: str | os.PathLike[str],
    *,
    labels: Sequence[int | str | None] | None = None,
    title: str = "",
) -> Path:
    """A page on many photos that can be sorted by confidence, mistakes and diagnostics, with a CSV table beside it.

    Args:
        results: what :func:`camlucida.explain` or :func:`camlucida.explain_each` returned.
        path: the page, ``.html``; the table gets the same name with ``.csv``.
        labels: the true class of each image, by index or name; ``None`` where it is not known.
        title: the heading.

    Returns:
        The page.

    Raises:
        CamlucidaError: the path is no page, there are more or fewer labels than images, or a class is unknown.

    Example:
        >>> many = camlucida.explain_each(model, images, method="layercam")
        >>> camlucida.explanation.photo_report(many, "out/photos.html", labels=[3, 1]).name
        'photos.html'
    """
    count = (
        len(results) if not isinstance(results, Comparison) else len(next(iter(results.values())))
    )
    if labels is not None and len(labels) != count:
        raise CamlucidaError(f"{count} images need as many labels, got {len(labels)}")
    rows: list[PhotoRow] = []
    skipped: dict[str, str] = {}
    for place, found in _each(results):
        one = found if isinstance(found, Comparison) else Comparison([found])
        skipped |= one.skipped
        first = next(iter(one.values()))
        images = {label: e.record()["images"][0] for label, e in one.items()}
        names = first.views.class_names
        true = None if labels is None else _index(labels[place], names)
        rows.append(
            labelled(
                PhotoRow(
                    (first.sources and first.sources[0]) or f"image {place}",
                    next((i["predictions"] for i in images.values() if i["predictions"]), []),
                    [{"label": name, **image} for name, image in images.items()],
                    agreement(one),
                    strip=partial(bytes, strip_of(one)),
                ),
                true,
                "" if true is None else "".join((names or ())[true : true + 1]).partition(",")[0],
            )
        )
    notes = [f"Left out: {method}: {why}." for method, why in skipped.items()]
    return write_photo_report(rows, path, title=title, notes=notes)


def _index(label: Any, names: Sequence[str] | None) -> int | None:
    """The class that a label means."""
    if label is None or isinstance(label, str):
        return None if label is None else class_of(label, names)
    try:
        found = index(label)  # of whatever library
    except TypeError:
        found = -1
    if found < 0:
        raise CamlucidaError(
            f"a label is the index of a class, its name, or None where it is not known, got {label!r}"
        )
    return found


def _each(results: Result | Explanations) -> Iterator[tuple[int, Result]]:
    if isinstance(results, Explanations):
        for places, found in results.batches():
            yield from ((place, one_of(found, i)) for i, place in enumerate(places))
        return
    first = results if isinstance(results, Explanation) else next(iter(results.values()))
    yield from ((i, one_of(results, i)) for i in range(len(first)))


def labelled(row: PhotoRow, label: int | None, name: str) -> PhotoRow:
    """The row with the photo's true class, by index and name."""
    predicted = row.predictions[0]["index"] if row.predictions else None
    mistake = None if label is None or predicted is None else predicted != label
    true = name or ("" if label is None else f"class {label}")
    return replace(row, true=true, mistake=mistake)


def agreement(found: Comparison) -> float | None:
    """The mean correlation of the maps of one image by several methods, two by two."""
    maps = [e.maps.flatten(1).detach().cpu() for e in found.values()]
    pairs = [float(correlation(a, b)) for a, b in combinations(maps, 2)]
    return mean([pair for pair in pairs if pair == pair])  # noqa: PLR0124 - NaN of constant maps


def strip_of(found: Comparison, height: int = _HEIGHT) -> bytes:
    """The photo and its maps by all methods side by side, as JPEG; of one image."""
    first = next(iter(found.values()))
    small = first.views[0].scaled(3 * height)
    drawn = [overlay(small, e.maps[0], e.style_of(0)) for e in found.values()]
    return jpeg(_side_by_side([small.picture, *drawn], height), 70)


def strip_from(overlays: Sequence[Path]) -> bytes:
    """A strip of pictures that were drawn already."""
    return jpeg(_side_by_side([Image.open(file) for file in overlays], _HEIGHT), 70)


def _side_by_side(pictures: Sequence[Image.Image], height: int) -> Image.Image:
    made = []
    for picture in pictures:
        width = max(8, min(3 * height, round(picture.width * height / picture.height)))
        made.append(picture.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    strip = Image.new("RGB", (sum(p.width for p in made) + 2 * (len(made) - 1), height), "white")
    left = 0
    for picture in made:
        strip.paste(picture, (left, 0))
        left += picture.width + 2
    return strip


# ---- what is written ----------------------------------------------------------------------------


def write_photo_report(
    rows: Iterable[PhotoRow],
    path: str | os.PathLike[str],
    *,
    title: str = "",
    notes: Sequence[str] = (),
) -> Path:
    """The page and the table of rows; see :func:`photo_report`.

    Args:
        rows: the photos.
        path: the page.
        title: the heading.
        notes: what else is to be said, such as photos that failed.

    Raises:
        CamlucidaError: the path is no page, or cannot be written.
    """
    page = Path(path)
    if page.suffix.lower() not in (".html", ".htm"):
        raise CamlucidaError(f"a report is written to a file called .html, got {page.name!r}")
    kept = list(rows)
    write_bytes(page.with_suffix(".csv"), _csv(kept).encode(errors=_ODD))
    kept.sort(key=lambda row: row.urgency)
    return write_bytes(page, _html(kept, title, notes).encode(errors=_ODD))


def _remarks(method: Mapping[str, Any]) -> list[str]:
    """What is said of one map, without what was assumed of all."""
    assumed = method["diagnostics"]["assumed"]
    return [text for text in method["messages"] if text not in assumed]


def _dead(method: Mapping[str, Any]) -> float | None:
    """The share of the layer's channels that are zero everywhere."""
    counts = method["diagnostics"]["dead_channels"].values()
    total = sum(of for _, of in counts)
    return sum(dead for dead, _ in counts) / total if total else None


def _csv(rows: Sequence[PhotoRow]) -> str:
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow([
        "photo", "true", "predicted", "probability", "margin", "mistake", "agreement", "method", "explained", "value",
        "lowest", "highest", "dead_channels", "all_negative", "constant", "saturated", "remarks",
    ])  # fmt: skip
    for row in rows:
        said = row.predictions[0]["name"] if row.predictions else ""
        mistake = "" if row.mistake is None else str(row.mistake).lower()
        known = [row.photo, row.true, said, row.probability, row.margin, mistake, row.agreement]
        for method in row.methods:
            d = method["diagnostics"]
            flags = [str(d[k]).lower() for k in ("all_negative", "constant", "saturated")]
            own = [
                method["label"],
                method["explained"],
                method["target_value"],
                d["raw_min"],
                d["raw_max"],
            ]
            table.writerow([*known, *own, _dead(method), *flags, "; ".join(_remarks(method))])
    return text.getvalue()


def _html(rows: Sequence[PhotoRow], title: str, notes: Sequence[str]) -> str:
    labels = list(dict.fromkeys(method["label"] for row in rows for method in row.methods))
    shown = rows[:_ROWS]
    height = _HEIGHT
    room = _PICTURES
    data = []
    for place, row in enumerate(shown):
        picture = ""
        if room > 0 and (found := row.strip()):
            while len(found) * 4 / 3 > room / (len(shown) - place) and height > _LEAST:
                height = max(_LEAST, height * 3 // 4)
                found = _smaller(found, height)
            picture = data_uri(_smaller(found, height), "image/jpeg")
            picture = picture if len(picture) <= room else ""
            room -= len(picture)
        data.append(_compact(row, picture))
    several = [agree for row in rows if (agree := row.agreement) is not None]
    facts = {
        "labels": labels,
        "rows": data,
        "agree": bool(several),
        "true": any(r.true for r in rows),
    }
    safe = json.dumps(facts, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    nothing = "This table needs scripts; the .csv file beside the page holds the same."
    parts = [
        f'<div id="photos"><noscript><p>{nothing}</p></noscript></div>',
        f'<script type="application/json" id="data">{safe}</script>',
    ]
    parts += [f"<ul>{''.join(f'<li>{escape(n)}</li>' for n in notes)}</ul>"] if notes else []
    if len(shown) < len(rows):
        parts.append(
            paragraph(
                f"The page shows {len(shown):,} of {len(rows):,} photos; the table has all.",
                note=True,
            )
        )
    source = files("camlucida.report") / "templates"
    return Document(
        title or "Where the model looked",
        _lead(rows),
        [],
        parts=parts,
        sortable=False,
        style=(source / "photos.css").read_text(encoding="utf-8"),
        script=(source / "photos.js").read_text(encoding="utf-8"),
    ).html()


def _smaller(content: bytes, height: int) -> bytes:
    """A strip of at most a height."""
    picture = Image.open(io.BytesIO(content))
    if picture.height <= height:
        return content
    size = (max(1, round(picture.width * height / picture.height)), height)
    return jpeg(picture.resize(size, Image.Resampling.LANCZOS), 65)


def _compact(row: PhotoRow, picture: str) -> list[Any]:
    methods = [
        [
            m["label"], m["explained"], _short(m["target_value"]), _short(m["diagnostics"]["raw_min"]),
            _short(m["diagnostics"]["raw_max"]), _short(_dead(m)), _remarks(m),
        ]
        for m in row.methods
    ]  # fmt: skip
    said = row.predictions[0]["name"].partition(",")[0] if row.predictions else ""
    return [
        row.photo, row.true, said, _short(row.probability), _short(row.margin), row.mistake, _short(row.agreement),
        methods, picture,
    ]  # fmt: skip


def _short(value: float | None) -> float | None:
    """A number in few letters; what is not finite has no place in JSON."""
    if value is None or not torch.tensor(value).isfinite():
        return None
    return float(f"{value:.4g}")


def _lead(rows: Sequence[PhotoRow]) -> list[str]:
    """The answer in sentences."""
    said = [f"{len(rows):,} photo{'' if len(rows) == 1 else 's'} explained."]
    known = [row for row in rows if row.mistake is not None]
    if known:
        wrong = Counter(
            f"{row.true} taken for {row.predictions[0]['name'].partition(',')[0]}"
            for row in known
            if row.mistake
        )
        count = wrong.total()
        are = "is" if count == 1 else "are"
        share = f"{count / len(known):.1%}"
        said.append(f"Of {len(known):,} whose class is known, {count:,} {are} mistaken ({share}).")
        if often := [f"{what} ({n})" for what, n in wrong.most_common(_SHOWN) if n > 1]:
            said.append(f"Most often: {', '.join(often)}.")
    marked = sum(any(_remarks(m) for m in row.methods) for row in rows)
    if marked:
        said.append(
            f"{marked:,} have a remark: on how the photo was read, or why a map means little."
        )
    said.append(
        "Mistakes come first, then maps with remarks, then the photos of which the model is least sure."
    )
    return said
