"""The XML annotations of ImageNet and VOC: objects with boxes.

No entity is ever expanded: a document type declaration, where entities are made, is refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from xml.parsers import expat

from camlucida.common.errors import CamlucidaError
from camlucida.common.files import read_bytes
from camlucida.data.samples import Box

_MAX_BYTES = 4_000_000
_MAX_DEPTH = 64


@dataclass(frozen=True)
class XmlObject:
    """An object of a photo.

    Attributes:
        name: its class, as the file calls it.
        box: the four numbers as they stand there.
    """

    name: str
    box: Box


@dataclass(frozen=True)
class Annotation:
    """What an annotation file says.

    Attributes:
        width: width of the photo; 0 where the file does not say it.
        height: height of the photo; 0 where the file does not say it.
        objects: in the file's order; objects without a proper box are left out.
    """

    width: int
    height: int
    objects: tuple[XmlObject, ...]


def read_annotation(path: Path) -> Annotation:
    """Read one file.

    Raises:
        CamlucidaError: it cannot be read, is too large, is not XML, or declares a document type.
    """
    name = repr(str(path))
    text = read_bytes(path, "annotation", most=_MAX_BYTES)
    reader = _Reader(name)
    try:
        reader.parser.Parse(text, True)
    except expat.ExpatError as error:
        raise CamlucidaError(f"{name} is not proper XML: {error}") from error
    if reader.root != "annotation":
        raise CamlucidaError(f"{name} is no annotation; its outermost element is {reader.root!r}")
    return Annotation(reader.size["width"], reader.size["height"], tuple(reader.objects))


class _Reader:
    """Collects name and box of each object while expat reads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = ""
        self.size = {"width": 0, "height": 0}
        self.objects: list[XmlObject] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self._object: dict[str, str] = {}
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.StartDoctypeDeclHandler = self._doctype
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._text.append

    def _doctype(self, *_: object) -> None:
        raise CamlucidaError(f"{self.name} declares a document type, which no annotation needs")

    def _start(self, tag: str, _: object) -> None:
        self.root = self.root or tag
        self._open.append(tag)
        self._text.clear()
        if len(self._open) > _MAX_DEPTH:
            raise CamlucidaError(f"{self.name} is nested too deeply for an annotation")

    def _end(self, tag: str) -> None:
        where, text = self._open[1:], "".join(self._text).strip()
        if where == ["object", "name"] or where[:-1] == ["object", "bndbox"]:
            self._object[tag] = text
        elif where == ["object"]:
            box = _box(self._object)
            if box is not None and self._object.get("name"):
                self.objects.append(XmlObject(self._object["name"], box))
            self._object = {}
        elif where[:-1] == ["size"] and tag in self.size and text.isdecimal() and len(text) < 8:
            self.size[tag] = int(text)
        self._open.pop()
        self._text.clear()


def _box(found: dict[str, str]) -> Box | None:
    try:
        left, top, right, bottom = (float(found[n]) for n in ("xmin", "ymin", "xmax", "ymax"))
    except (KeyError, ValueError):
        return None
    if not all(map(math.isfinite, (left, top, right, bottom))):
        return None
    return left, top, right, bottom


def inside(box: Box, width: float, height: float) -> Box | None:
    """The part of a box inside a photo, ``None`` if nothing is left; a size of 0 is not known."""
    left, top, right, bottom = box
    left, top = max(0.0, left), max(0.0, top)
    if width > 0 and height > 0:
        right, bottom = min(right, float(width)), min(bottom, float(height))
    return (left, top, right, bottom) if right > left and bottom > top else None
