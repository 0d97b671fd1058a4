"""FAME, figure 3: the maps of every method on a face under every variation, as one picture."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import digest, plain, to_json
from camlucida.common.provenance import weights_hash
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
    described = [face_method(m, target, seed=seed)[0].describe() for m in methods]
    weights = weights_hash(embedder.module)
    for photo in photos:
        plan = digest(plain([weights, described, photo.name, round(threshold, 9), seed]))
        if folder is not None and (kept := _kept(folder, plan)) is not None:
            return kept
        try:
            made = variation_grid(embedder, photo, methods, threshold=threshold, seed=seed)
        except ImageError:
            continue
        found = Figure3(png(made.figure()), photo.name, made.share_on_cover())
        if folder is not None:
            write_bytes(folder / "figure3.png", found.png)
            write_bytes(
                folder / "figure3.json", to_json({"plan": plan, **found.to_dict()}).encode()
            )
        return found
    return None


def _kept(folder: Path, plan: str) -> Figure3 | None:
    """What a former run made, where its plan was the same."""
    try:
        record = json.loads((folder / "figure3.json").read_text(encoding="utf-8"))
        content = (folder / "figure3.png").read_bytes()
    except (OSError, ValueError):
        return None
    if not isinstance(record, dict) or record.get("plan") != plan:
        return None
    return Figure3(content, str(record["photo"]), record["share_on_cover"])
