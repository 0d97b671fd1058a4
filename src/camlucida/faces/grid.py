"""FAME's figure 3: what makes faces similar, one row per variation and one column per method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from camlucida.data.images import read_image
from camlucida.explanation import overlays
from camlucida.explanation.explain import MethodLike
from camlucida.faces.align import Crop
from camlucida.faces.detect import choose, find_faces
from camlucida.faces.embedder import Embedder
from camlucida.faces.similarity_maps import similarity_maps
from camlucida.faces.variations import VARIATIONS, varied_face
from camlucida.methods import Progress

if TYPE_CHECKING:
    import os

    import numpy as np
    import numpy.typing as npt
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class VariationGrid:
    """Maps of one face under variations, against its own photo.

    Attributes:
        gallery: the face as it is.
        probes: by variation; ``"none"`` is the photo itself.
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
        plain = [
            index
            for index, (kind, cover) in enumerate(self.covered.items())
            if cover is None and "turned" not in kind
        ]
        found: dict[str, dict[str, float]] = {}
        for label, maps in self.maps.items():
            found[label] = {}
            for one, (kind, cover) in zip(maps, self.covered.items(), strict=True):
                if cover is None:
                    continue
                before = [_share(maps[index], cover) for index in plain]
                usual = sum(before) / len(before) if before else 0.0
                found[label][kind] = _share(one, cover) / usual if usual > 0 else float("nan")
        return found

    def figure(self) -> Figure:
        """The grid: gallery, probe, and the map of each method over the probe."""
        pictures, rows = [], []
        for index, (kind, crop) in enumerate(self.probes.items()):
            picture = crop.image
            view = overlays.View.whole(picture)
            drawn = [overlays.overlay(view, maps[index]) for maps in self.maps.values()]
            pictures.append([_shown(p) for p in (self.gallery.image, picture, *drawn)])
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
    progress: Progress | None = None,
) -> VariationGrid:
    """Vary a face, and explain what keeps it similar to itself.

    Args:
        embedder: the network.
        photo: with a face; of several the largest.
        methods: as for ``explain_pair``.
        variations: of ``camlucida.faces.variations.VARIATIONS``.
        threshold: of the similarity, for FGGB.
        seed: of variations and masks.
        progress: called with the methods done and their number.

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
    found: dict[str, Tensor] = {}
    for number, method in enumerate(methods):
        maps = similarity_maps(
            embedder, inputs, reference.expand(len(inputs), -1), method,
            dissimilar=False, threshold=threshold, seed=seed,
        )  # fmt: skip
        found[maps.label] = maps.similar
        if progress is not None:
            progress(number + 1, len(methods))
    return VariationGrid(
        gallery,
        {kind: crop for kind, (crop, _) in made.items()},
        found,
        embedder.similarity(embedder.embed(inputs), reference),
        {kind: cover for kind, (_, cover) in made.items()},
    )


def _shown(picture: Image.Image, side: int = 224) -> Image.Image:
    return picture.resize((side, side), Image.Resampling.BICUBIC)


def _share(attribution: Tensor, cover: npt.NDArray[np.bool_]) -> float:
    """The share of a map that lies on covered pixels of the crop."""
    mask = torch.from_numpy(cover).to(attribution)
    if mask.shape != attribution.shape:
        mask = torch.nn.functional.interpolate(mask[None, None], attribution.shape[-2:])[0, 0]
    total = float(attribution.sum())
    return float((attribution * mask).sum()) / total if total > 0 else 0.0
