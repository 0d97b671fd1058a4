"""FAME, figure 3: the maps of every method on a face under every variation, as one picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.explanation.explain import MethodLike
from camlucida.explanation.overlays import png
from camlucida.faces.embedder import Embedder
from camlucida.faces.grid import variation_grid
from camlucida.faces.similarity_maps import face_method
from camlucida.report.tables import Cell, Column, Table


@dataclass(frozen=True, eq=False)
class Figure3:
    """The picture, and how much of each map stays on what covers the face.

    Attributes:
        png: the picture, a row per variation and a column per method.
        photo: name of the photo.
        shares: by method and covering variation, see ``VariationGrid.share_on_cover``.
    """

    png: bytes
    photo: str
    shares: dict[str, dict[str, float]]

    @property
    def image(self) -> Image.Image:
        """The picture, opened."""
        return Image.open(io.BytesIO(self.png))

    def table(self) -> Table:
        """The shares: below 1 a cover drops out of what makes similar."""
        kinds = list(dict.fromkeys(kind for found in self.shares.values() for kind in found))
        return Table(
            name="fame-figure3-covers",
            caption="How much of e+ stays on what covers the face",
            columns=tuple(Column(kind, "lower", places=2) for kind in kinds),
            rows=tuple(
                (label, tuple(Cell(found.get(kind)) for kind in kinds))
                for label, found in self.shares.items()
            ),
            legend="The share of the map on covered pixels, over the share of the same pixels where nothing "
            "covers them: below 1 the cover drops out of what makes the faces similar.",
        )

    def to_dict(self) -> dict[str, Any]:
        """All but the picture, ready for JSON."""
        return {"photo": self.photo, "share_on_cover": self.shares}


def figure3(
    embedder: Embedder,
    photos: Sequence[Path],
    methods: Sequence[MethodLike],
    *,
    threshold: float,
    seed: int,
    folder: Path | None,
) -> Figure3 | None:
    """The figure of the first photo in which a face is found.

    Args:
        embedder: the network.
        photos: tried in their order.
        methods: its columns.
        threshold: of the similarity.
        seed: of variations and masks.
        folder: keeps the figure; one of the same plan that lies there is taken.

    Returns:
        ``None`` where no face is found, as in crops that are aligned already.
    """
    target = embedder.target(torch.zeros(1))
    store = Store(
        folder,
        {
            "weights": fingerprint(embedder.module),
            "methods": [face_method(m, target, seed=seed)[0].describe() for m in methods],
            "threshold": round(threshold, 9),
            "seed": seed,
        },
    )

    def drawn(photo: Path) -> dict[str, Any]:
        made = variation_grid(embedder, photo, methods, threshold=threshold, seed=seed)
        picture = base64.b64encode(png(made.figure())).decode("ascii")
        return {"png": picture, "shares": made.share_on_cover()}

    for photo in photos:
        try:
            kept = store.value(f"figure3-{photo.name}", partial(drawn, photo))
        except ImageError:
            continue
        return Figure3(base64.b64decode(kept["png"]), photo.name, kept["shares"])
    return None
