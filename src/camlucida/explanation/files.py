"""Where explanations are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from camlucida.errors import CamlucidaError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def make_parent(path: Path) -> None:
    """Make the folder of a file."""
    path.parent.mkdir(parents=True, exist_ok=True)


def save_figure(figure: Callable[[], Figure], path: Path) -> None:
    """Draw a figure and write it.

    Raises:
        CamlucidaError: the suffix is no picture's.
    """
    if path.suffix.lower() not in {".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"}:
        raise CamlucidaError(
            f"cannot save to {path.name!r}: use .png, .jpg, .webp, .pdf, .svg, .npz, .json or a folder name"
        )
    make_parent(path)
    figure().savefig(path, dpi=130)
