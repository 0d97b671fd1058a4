"""FAME, figure 3: what makes faces similar, as one picture with a row per variation and a column per method."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import ImageError
from camlucida.common.files import stamp
from camlucida.common.provenance import fingerprint
from camlucida.common.store import Store
from camlucida.data.images import read_image
from camlucida.explanation import overlays
from camlucida.explanation.explain import MethodLike
from camlucida.faces.align import Crop
from camlucida.faces.detect import choose, find_faces
from camlucida.faces.embedder import Embedder
from camlucida.faces.similarity_maps import face_method, similarity_maps
from camlucida.faces.variations import VARIATIONS, varied_face
from camlucida.report.tables import Column, Table

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class VariationGrid:
    """Maps of one face under variations, against its own photo.

    Attributes:
        gallery: the face as it is.
        probes: the varied faces, by variation.
        maps: e+ of each probe ``(V, H, W)``, by method.
        scores: similarity of each probe with the gallery face, ``(V,)``.
        covered: which pixels of each probe are covered, ``None`` where nothing is.
    """

    gallery: Crop
    probes: dict[str, Crop]
    maps: dict[str, Tensor]
    scores: Tensor
    covered: dict[str, npt.NDArray[np.bool_] | None]

    def share_on_cover(self) -> dict[str, dict[str, float]]:
        """How much of a map stays on covered pixels, by method and variation.

        The share of the map on the covered pixels, over the share that the same pixels have in the maps of probes
        that nothing covers and that are not turned. Below 1 the cover drops out of e+; NaN without such probes.
        """
        bare = [
            index
            for index, (kind, cover) in enumerate(self.covered.items())
            if cover is None and "turned" not in kind
        ]
        found: dict[str, dict[str, float]] = {label: {} for label in self.maps}
        for label, maps in self.maps.items():
            for one, (kind, cover) in zip(maps, self.covered.items(), strict=True):
                if cover is not None:
                    before = [_share(maps[index], cover) for index in bare]
                    usual = sum(before) / len(before) if before else 0.0
                    found[label][kind] = _share(one, cover) / usual if usual > 0 else float("nan")
        return found

    def figure(self) -> Figure:
        """The grid: gallery, probe, and the map of each method over the probe."""
        pictures, rows = [], []
        for index, (kind, crop) in enumerate(self.probes.items()):
            view = overlays.View.whole(crop.image)
            drawn = [overlays.overlay(view, maps[index]) for maps in self.maps.values()]
            shown = (self.gallery.image, crop.image, *drawn)
            pictures.append([p.resize((224, 224), Image.Resampling.BICUBIC) for p in shown])
            rows.append(f"{kind}\n{float(self.scores[index]):.3f}")
        return overlays.grid(
            pictures, columns=["gallery", "probe", *self.maps], rows=rows, cell=1.8
        )


def variation_grid(
    embedder: Embedder,
    photo: str | os.PathLike[str] | Image.Image,
    methods: Sequence[MethodLike],
    *,
    variations: Sequence[str] = VARIATIONS,
    threshold: float | None = None,
    seed: int = 0,
) -> VariationGrid:
    """Vary a face, and explain what keeps it similar to itself.

    Raises:
        ImageError: no face is found, or a variation is unknown.
    """
    picture = read_image(photo)
    face = choose(find_faces(picture), "largest")
    gallery = face.crop(picture, embedder.align)
    made = {
        kind: varied_face(picture, face, kind, embedder.align, seed=seed) for kind in variations
    }
    inputs = embedder.inputs([crop for crop, _ in made.values()])
    reference = embedder.embed([gallery])[0]
    found = [
        similarity_maps(
            embedder, inputs, reference.expand(len(inputs), -1), method,
            dissimilar=False, threshold=threshold, seed=seed,
        )
        for method in methods
    ]  # fmt: skip
    return VariationGrid(
        gallery,
        {kind: crop for kind, (crop, _) in made.items()},
        {maps.label: maps.similar for maps in found},
        embedder.similarity(embedder.embed(inputs), reference),
        {kind: cover for kind, (_, cover) in made.items()},
    )


def _share(attribution: Tensor, cover: npt.NDArray[np.bool_]) -> float:
    """The share of a map that lies on covered pixels of the crop."""
    mask = torch.from_numpy(cover).to(attribution)
    if mask.shape != attribution.shape:
        mask = torch.nn.functional.interpolate(mask[None, None], attribution.shape[-2:])[0, 0]
    total = float(attribution.sum())
    return float((attribution * mask).sum()) / total if total > 0 else 0.0


# ------------------------------------------------------------------------------------------ what is kept


@dataclass(frozen=True, eq=False)
class Figure3:
    """The picture, and how much of each map stays on what covers the face.

    Attributes:
        png: the picture.
        photo: name of the photo.
        shares: the shares by method and covering variation, see ``VariationGrid.share_on_cover``.
    """

    png: bytes
    photo: str
    shares: dict[str, dict[str, float]]

    def table(self) -> Table:
        """The shares: below 1 a cover drops out of what makes similar."""
        kinds = dict.fromkeys(kind for found in self.shares.values() for kind in found)
        return Table.of_rows(
            "fame-figure3-covers",
            "How much of e+ stays on what covers the face",
            ("method", *(Column(kind, "lower", places=2) for kind in kinds)),
            ((label, *map(found.get, kinds)) for label, found in self.shares.items()),
            "The share of the map on covered pixels, over the share of the same pixels where nothing covers them: "
            "below 1 the cover drops out of what makes the faces similar.",
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
    """The figure of the first photo in which a face is found; ``None`` where none is.

    In crops that are aligned already none is found. A figure of the same plan that lies in the folder is taken.
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
        picture = base64.b64encode(overlays.png(made.figure())).decode("ascii")
        return {"png": picture, "shares": made.share_on_cover()}

    for photo in photos:
        try:
            kept = store.value(f"figure3-{photo.name}-{stamp(photo)}", partial(drawn, photo))
        except ImageError:
            continue
        return Figure3(base64.b64decode(kept["png"]), photo.name, kept["shares"])
    return None
