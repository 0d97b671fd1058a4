"""What all results that hold maps share: they can be drawn, saved, and used as arrays and tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import to_json
from camlucida.common.optional import require
from camlucida.explanation import overlays

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PICTURES = {".png", ".jpg", ".jpeg", ".pdf", ".svg", ".webp"}


class Drawable(ABC):
    """What can be drawn and saved: it has a figure, arrays and a record."""

    @abstractmethod
    def figure(self) -> Figure:
        """Drawn with matplotlib."""

    @abstractmethod
    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """All numbers, by name."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON."""

    @abstractmethod
    def rows(self) -> list[dict[str, Any]]:
        """What is known of each image by each method, as rows of a table."""

    @abstractmethod
    def numpy(self) -> np.ndarray[Any, Any]:
        """The attribution maps as an array ``(N, H, W)``; of a comparison ``(methods, N, H, W)``."""

    @abstractmethod
    def save_into(self, folder: Path) -> None:
        """Everything, into a folder that is there."""

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def to_frame(self) -> Any:
        """A pandas table with a row for each image and method: what was explained, its value, what the model predicts.

        Raises:
            ModelError: pandas is not installed.
        """
        return require("pandas", "benchmark").DataFrame(self.rows())

    def show(self) -> None:
        """Show the figure: in a notebook below the cell, otherwise in the system's picture viewer.

        Raises:
            CamlucidaError: there is no picture viewer.
        """
        overlays.show(self.figure())

    def _repr_png_(self) -> bytes:
        return overlays.png(self.figure(), dpi=90)

    def save(self, path: str | Path) -> Path:
        """Write to a file, or everything into a folder.

        Args:
            path: ``.png``, ``.jpg``, ``.webp``, ``.pdf`` or ``.svg`` for the figure, ``.npz`` for the maps,
                ``.json`` for the record; without a suffix, a folder that gets all three and an overlay per image.
                A comparison names its maps ``"gradcam/maps"``, and its folder has one subfolder per method.

        Returns:
            The path written.

        Raises:
            CamlucidaError: for another suffix.
        """
        path = Path(path)
        suffix = path.suffix.lower()
        if suffix not in {"", ".npz", ".json", *_PICTURES}:
            raise CamlucidaError(
                f"cannot save to {path.name!r}: use .png, .jpg, .webp, .pdf, .svg, .npz, .json or a folder name"
            )
        (path.parent if suffix else path).mkdir(parents=True, exist_ok=True)
        if not suffix:
            self.save_into(path)
        elif suffix == ".npz":
            np.savez_compressed(path, **self.arrays())  # type: ignore[arg-type]
        elif suffix == ".json":
            path.write_text(to_json(self.record()), encoding="utf-8")
        else:
            overlays.write(self.figure(), path, dpi=130)
        return path
