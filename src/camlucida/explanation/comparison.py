"""Several methods side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from camlucida import render
from camlucida.explanation.files import make_parent, save_figure
from camlucida.explanation.names import name_of
from camlucida.explanation.result import Explanation
from camlucida.plain import to_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Comparison(Mapping[str, Explanation]):
    """Explanations of the same images by several methods, by label.

    Args:
        explanations: at least one, all of the same images.
    """

    def __init__(self, explanations: Sequence[Explanation]) -> None:
        self._by_label: dict[str, Explanation] = {}
        for explanation in explanations:
            label, n = explanation.label, 2
            while label in self._by_label:
                label, n = f"{explanation.label} ({n})", n + 1
            self._by_label[label] = explanation

    def __getitem__(self, label: str) -> Explanation:
        """The explanation of a method."""
        return self._by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    def figure(self) -> Figure:
        """A grid: one row per image, the photo first, then the map of each method."""
        first = next(iter(self.values()))
        signed = any(bool((e.maps < 0).any()) for e in self.values())
        pictures, rows = [], []
        for i in range(len(first)):
            overlays = [render.overlay(e.views[i], e.maps[i], signed=signed) for e in self.values()]
            pictures.append([first.views[i].scaled().picture, *overlays])
            source = first.sources[i] if first.sources else None
            top = first.predictions[i][0] if first.predictions else None
            parts = [name_of(source)] if source else []
            if top is not None:
                parts.append(f"{top.name.partition(',')[0]} {top.probability:.0%}")
            rows.append("\n".join(parts))
        bar = (render.SIGNED, -1.0, 1.0) if signed else (render.COLOURS, 0.0, 1.0)
        return render.grid(pictures, columns=["photo", *self], rows=rows, bar=bar)

    def _repr_png_(self) -> bytes:
        return render.png(self.figure(), dpi=90)

    def save(self, path: str | Path) -> Path:
        """Write to a file; without a suffix, a folder with one subfolder per method and the grid.

        Args:
            path: a picture format for the grid, ``.npz`` for the maps of all methods (``"gradcam/maps"``),
                ``.json`` for their records.

        Raises:
            CamlucidaError: for another suffix.
        """
        path = Path(path)
        if path.suffix.lower() == ".npz":
            make_parent(path)
            arrays = {
                f"{label}/{name}": array
                for label, explanation in self.items()
                for name, array in explanation.arrays().items()
            }
            np.savez_compressed(path, **arrays)  # type: ignore[arg-type]
        elif path.suffix.lower() == ".json":
            make_parent(path)
            records = {label: explanation.record() for label, explanation in self.items()}
            path.write_text(to_json(records), encoding="utf-8")
        elif path.suffix:
            save_figure(self.figure, path)
        else:
            taken: set[str] = set()
            for label, explanation in self.items():
                stem = name = _file_name(label)
                n = 2
                while name.lower() in taken:
                    name, n = f"{stem}-{n}", n + 1
                taken.add(name.lower())
                explanation.save(path / name)
            save_figure(self.figure, path / "comparison.png")
        return path


def _file_name(label: str) -> str:
    return "".join(c if c.isalnum() or c in "+-._" else "-" for c in label)
