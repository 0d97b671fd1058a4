"""Parts of an image, named in words or rows."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError

_PART = re.compile(r"\s*(\d+)\s*-\s*(\d+)?\s*$")


@dataclass(frozen=True)
class Region:
    """A rectangle of pixels or cells.

    Attributes:
        top: first row.
        left: first column.
        bottom: end of the rows, exclusive; ``None`` is the map's last row.
        right: end of the columns, exclusive; ``None`` is the map's last column.

    Raises:
        CamlucidaError: a number is negative, or an end does not lie behind its start.
    """

    top: int = 0
    left: int = 0
    bottom: int | None = None
    right: int | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        for start, end in ((self.top, self.bottom), (self.left, self.right)):
            if start < 0 or (end is not None and end <= start):
                raise CamlucidaError(
                    f"a region counts rows and columns from 0 and is not empty, got top={self.top}, "
                    f"left={self.left}, bottom={self.bottom}, right={self.right} (ends exclusive)"
                )

    @classmethod
    def rows(cls, first: int, last: int | None = None) -> Region:
        """Rows ``first`` to ``last``, both included; to the lower edge by default."""
        return cls(top=first, bottom=None if last is None else last + 1)

    @classmethod
    def parse(cls, text: str) -> Region:
        """A region from ``rows:170-223``, ``cols:0-20`` or ``box:170-223,0-99``, ends included.

        An end that is left out, as in ``rows:170-``, is the edge.

        Raises:
            CamlucidaError: the text is none of these.
        """
        kind, _, numbers = text.partition(":")
        parts = [_PART.match(part) for part in numbers.split(",")]
        wanted = {"rows": 1, "cols": 1, "box": 2}.get(kind.strip().lower())
        if wanted != len(parts) or not all(parts):
            raise CamlucidaError(
                f"{text!r} is no region; write rows:FIRST-LAST, cols:FIRST-LAST or box:ROWS,COLUMNS such as "
                "box:170-223,0-99, counted from 0, ends included"
            )
        spans = [(int(p[1]), None if p[2] is None else int(p[2]) + 1) for p in parts if p]
        if any(end is not None and end <= start for start, end in spans):
            raise CamlucidaError(f"{text!r} is empty; the last row or column lies before the first")
        if kind.strip().lower() == "cols":
            spans.insert(0, (0, None))
        (top, bottom), (left, right) = (*spans, (0, None))[:2]
        return cls(top, left, bottom, right)

    def mask(self, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
        """Where the region is on a map: boolean ``(h, w)``.

        Raises:
            CamlucidaError: it lies outside the map, or covers all of it.
        """
        found = torch.zeros(size, dtype=torch.bool, device=device)
        found[self.top : self.bottom, self.left : self.right] = True
        height, width = size
        if (self.bottom or 0) > height or (self.right or 0) > width or not found.any():
            raise CamlucidaError(f"{self}: a map of {height} x {width} does not have all of that")
        if found.all():
            raise CamlucidaError(
                f"{self}: that is all of a map of {height} x {width}; leave something to be seen"
            )
        return found

    def __str__(self) -> str:
        def span(first: int, end: int | None) -> str:
            return f"{first}-" if end is None else f"{first}-{end - 1}"

        rows = f"rows {span(self.top, self.bottom)}"
        if (self.left, self.right) == (0, None):
            return rows
        columns = f"columns {span(self.left, self.right)}"
        return columns if (self.top, self.bottom) == (0, None) else f"{rows}, {columns}"
