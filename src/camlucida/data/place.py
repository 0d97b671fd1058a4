"""Where a picture stands: a file, a page of it, and which of its values are black and white."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from camlucida.common.errors import ImageError
from camlucida.common.files import is_there

Window = tuple[float, float]
"""The values that become black and white."""

_BEHIND = re.compile(r"(?P<file>.+)\[(?P<words>[^\[\]]*)\]", re.DOTALL)


@dataclass(frozen=True)
class Place:
    """A picture in a file, written ``scan.tif[3]``, ``ct.npy[window=-160:240]`` or ``[3,window=-160:240]``.

    Attributes:
        file: the file.
        page: which of its pages or frames, counted from 1; ``None`` where it was not said.
        window: the values that become black and white; ``None`` where they were not said.

    Example:
        >>> Place.of("scan.tif[3]").page
        3
    """

    file: Path
    page: int | None = None
    window: Window | None = None

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> Place:
        """What a path says; a file that has such a name itself is that file.

        Raises:
            ImageError: the words in brackets are no page and no window.
        """
        text = os.fspath(path)
        found = _BEHIND.fullmatch(text)
        if found is None or is_there(Path(text)) or not is_there(Path(found["file"])):
            return cls(Path(text))
        page, window = None, None
        for word in found["words"].split(","):
            name, equals, value = word.strip().partition("=")
            if (page, window)[equals == "="] is not None:
                raise ImageError(
                    f"{text!r} says twice which {'window' if equals else 'page'} it is"
                )
            if equals and name == "window":
                window = window_of(value)
            else:
                page = page_of(word)
        return cls(Path(found["file"]), page, window)

    def __str__(self) -> str:
        """As it is written."""
        words = [] if self.page is None else [str(self.page)]
        ends = [repr(end).removesuffix(".0") for end in self.window or ()]
        words += [f"window={':'.join(ends)}"] if ends else []
        return f"{self.file}[{','.join(words)}]" if words else str(self.file)

    @property
    def name(self) -> str:
        """The file's name without its kind, with the page."""
        return self.file.stem + ("" if self.page is None else f"-page{self.page}")


def page_of(text: str) -> int:
    """A page, counted from 1.

    Raises:
        ImageError: it is none.
    """
    word = text.strip()
    if not (word.isdecimal() and word.isascii() and 0 < int(word[:9]) == int(word)):
        raise ImageError(f"a page is a whole number, the first being 1, got {text!r:.40}")
    return int(word)


def window_of(given: str | Window) -> Window:
    """A window, from ``LOW:HIGH`` or two numbers.

    Raises:
        ImageError: it is none.
    """
    try:
        low, high = map(float, given.split(":") if isinstance(given, str) else given)
    except (TypeError, ValueError):
        low = high = math.nan
    if not 0 < high - low < math.inf:
        raise ImageError(
            "a window is LOW:HIGH, the values that become black and white, such as -160:240, got "
            f"{given!r:.40}"
        )
    return low, high
