"""Small real pictures that come with the package, so that everything can be tried offline.

Where each one comes from, and its licence, is written in `photos/ORIGIN.md`.
"""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from camlucida.common.errors import ImageError

_LABELS = {
    "chelsea": "the face of a tabby cat",
    "cheetah": "a cheetah, head and chest",
    "coffee": "a cup of espresso with a spoon, on a wooden table",
    "lion": "a lion lying on a rock, a lioness behind it",
    "rocket": "a rocket at lift-off, between lightning towers",
    "tower": "the Eiffel Tower at dusk, branches above it",
}


@dataclass(frozen=True)
class Picture(os.PathLike[str]):
    """A picture of the package; usable wherever a path is.

    Attributes:
        name: What it is called, as in `names`.
        label: What is to be seen in it, in a few words.
        path: The JPEG file.
    """

    name: str
    label: str
    path: Path

    def __fspath__(self) -> str:
        """The path as a string, for `open` and `read_image`."""
        return str(self.path)


def names() -> tuple[str, ...]:
    """The names of all pictures, sorted."""
    return tuple(sorted(_LABELS))


def picture(name: str) -> Picture:
    """One picture of the package.

    Args:
        name: One of `names`.

    Returns:
        The picture, which is a path that also has a name and a label.

    Raises:
        ImageError: There is no picture of that name.
    """
    if name not in _LABELS:
        near = difflib.get_close_matches(name.lower(), _LABELS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names())}"
        raise ImageError(f"no picture is called {name!r}; {hint}")
    path = Path(str(files("camlucida.data") / "photos" / f"{name}.jpg"))
    return Picture(name=name, label=_LABELS[name], path=path)
