"""Why two faces match, or do not: the pair explanation."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.files import write, write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.printable import distinct, slug
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import correlation, number
from camlucida.common.version import __version__
from camlucida.explanation import overlays
from camlucida.explanation.explain import MethodLike, listed
from camlucida.faces.embedder import Embedder
from camlucida.faces.pair_side import PairSide, WhichFace, face_photo, photo_overlay
from camlucida.faces.protocol import check_threshold, decision
from camlucida.faces.similarity_maps import (
    IDENTICAL,
    SimilarityMaps,
    same_embedding,
    similarity_maps,
)
from camlucida.methods import Progress

if TYPE_CHECKING:
    import numpy.typing as npt
    from matplotlib.figure import Figure

SideName: TypeAlias = Literal["probe", "gallery"]
MapKind: TypeAlias = Literal["similar", "dissimilar"]

SIDES: tuple[SideName, ...] = ("probe", "gallery")
KINDS: tuple[MapKind, ...] = ("similar", "dissimilar")

CARE = (
    "A similarity map shows which pixels move this network's score for this pair. It does not show that two "
    "faces are those of one person, nor why people find them alike, and it inherits every fault of detection, "
    "alignment and network. Faces are biometric data: nothing is uploaded, and embeddings are not written."
)
"""What a reader of the maps has to know; printed in reports."""

_EMPTY = 1e-12


# --------------------------------------------------------------------------------------- the explanation


@dataclass(frozen=True, eq=False)
class PairMaps:
    """The maps of one method.

    Attributes:
        label: a short name for the method with its options.
        maps: ``(2, 2, H, W)`` in [0, 1]: probe and gallery, similar and dissimilar; both maps of a face have one
            scale, so that the stronger one reaches 1.
        signed: the method's own maps of both sides ``(2, h, w)`` before rectifying.
        messages: the messages about each side.
        facts: method, target and layers, ready for JSON.
        seconds: what the maps took.
    """

    label: str
    maps: Tensor
    signed: Tensor
    messages: tuple[tuple[str, ...], tuple[str, ...]]
    facts: dict[str, Any]
    seconds: float

    @property
    def apart(self) -> tuple[str, ...]:
        """How far e+ and e- of each face are apart, beside the method's own noise where that was measured; in words."""
        lines = []
        for side, told in self.facts["sides"].items():
            plus, minus = told["strength"].values()
            weaker, share, other = ("e-", minus, "e+") if minus <= plus else ("e+", plus, "e-")
            line = f"{self.label} {side}: {weaker} reaches {share:.0%} of the strength of {other}"
            if told["reproduced"] is not None and told["alike"] is not None:
                line += f"; they correlate at {told['alike']:.3f}, each with itself at {told['reproduced']:.3f} or more"
                line += ": within the noise" if told["alike"] >= told["reproduced"] else ""
            lines.append(line)
        return tuple(lines)

    def map(self, side: SideName, kind: MapKind) -> Tensor:
        """One map ``(H, W)``."""
        return self.maps[SIDES.index(side), KINDS.index(kind)]


@dataclass(frozen=True, eq=False)
class PairExplanation(Mapping[str, PairMaps]):
    """Why two faces match, or do not, by one or several methods; a mapping from labels to their maps.

    Attributes:
        sides: the probe and the gallery face.
        similarity: the similarity of their embeddings, as the embedder compares.
        threshold: at which two faces are taken for one person; ``None`` where not known.
        embedder: its name.
        compare: ``"cosine"`` or ``"distance"``, whose similarity is its negative.
        methods: the maps of each method.
        messages: about the pair as a whole.

    Example:
        >>> first, second = camlucida.faces.demo_photos()[:2]
        >>> found = camlucida.faces.explain_pair(embedder, first, second, method="saliency")
        >>> found["saliency"].map("probe", "similar").shape
        torch.Size([16, 16])
    """

    sides: tuple[PairSide, PairSide]
    similarity: float
    threshold: float | None
    embedder: str
    compare: str
    methods: tuple[PairMaps, ...] = field(repr=False)
    messages: tuple[str, ...] = ()

    def __getitem__(self, label: str) -> PairMaps:
        """The maps of a method."""
        for found in self.methods:
            if found.label == label:
                return found
        raise KeyError(label)

    def __iter__(self) -> Any:
        return iter([found.label for found in self.methods])

    def __len__(self) -> int:
        return len(self.methods)

    @property
    def match(self) -> bool | None:
        """Whether the two are taken for one person; ``None`` without a threshold."""
        return None if self.threshold is None else self.similarity >= self.threshold

    @property
    def verdict(self) -> str:
        """Similarity, threshold and decision, such as ``"distance 0.419 <= 0.600: match"``."""
        return decision(self.similarity, self.threshold, self.compare)

    # ------------------------------------------------------------------------------------- drawing

    def overlay(
        self, label: str, side: SideName, kind: MapKind, *, on_photo: bool = False
    ) -> Image.Image:
        """A map over its face.

        Args:
            label: the method's.
            side: ``"probe"`` or ``"gallery"``.
            kind: ``"similar"`` or ``"dissimilar"``.
            on_photo: draw on the photo that the face was cut from, where it is known, instead of on the crop.

        Returns:
            RGB, at most 1024 pixels to a side.
        """
        chosen = self.sides[SIDES.index(side)]
        attribution = self[label].map(side, kind)
        if on_photo and chosen.photo is not None and chosen.crop.matrix is not None:
            return photo_overlay(chosen, attribution)
        return overlays.overlay(overlays.View.whole(chosen.crop.image), attribution)

    def figure(self) -> Figure:
        """Both faces and what makes them similar and sets them apart, one column per method."""
        pictures, rows = [], []
        for kind in KINDS:
            for index, side in enumerate(SIDES):
                face = self.sides[index].crop.image
                maps = [_large(self.overlay(label, side, kind)) for label in self]
                pictures.append([_large(face), *maps])
                rows.append(f"{side}\n{kind}")
        figure = overlays.grid(
            pictures,
            columns=["face", *self],
            rows=rows,
            said="attribution, both maps of a face by a method on one scale",
            note="\n".join(line for one in self.methods for line in one.apart),
        )
        figure.suptitle(f"{self.embedder}: {self.verdict}", fontsize=10)
        return figure

    def _repr_png_(self) -> bytes:
        return overlays.png(self.figure(), dpi=90)

    # -------------------------------------------------------------------------------------- saving

    def record(self) -> dict[str, Any]:
        """Everything but the maps, ready for JSON; no embedding is in it."""
        return {
            "camlucida": __version__,
            "probe": _describe(self.sides[0]),
            "gallery": _describe(self.sides[1]),
            "embedder": self.embedder,
            "compare": self.compare,
            "similarity": self.similarity,
            "threshold": self.threshold,
            "match": self.match,
            "verdict": self.verdict,
            "messages": list(self.messages),
            "methods": [
                {
                    "label": one.label,
                    "seconds": one.seconds,
                    "messages": {s: list(m) for s, m in zip(SIDES, one.messages, strict=True)},
                    **one.facts,
                }
                for one in self.methods
            ],
            "care": CARE,
        }

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """``LABEL/maps`` ``(2, 2, H, W)`` and ``LABEL/signed`` ``(2, h, w)`` of every method."""
        return {
            f"{one.label}/{what}": values.cpu().numpy()
            for one in self.methods
            for what, values in (("maps", one.maps), ("signed", one.signed))
        }

    def save(self, folder: str | os.PathLike[str], *, overlays: bool = False) -> dict[str, Path]:
        """Write ``pair.png`` (all maps), ``pair.npz`` (as numbers) and ``pair.json`` (the record) into a folder.

        Args:
            folder: made where it is missing; of this pair alone.
            overlays: also every map by itself, ``METHOD.probe.similar.png`` on the crop and ``.photo.png``
                on the photo.

        Returns:
            The files, by what they hold.

        Raises:
            CamlucidaError: a file cannot be written.
        """
        out = Path(folder)
        files: dict[str, Path] = {}
        names = distinct(slug(one.label) for one in self.methods)
        every = product(enumerate(SIDES), KINDS, zip(self, names, strict=True))
        for (index, side), kind, (label, name) in every if overlays else ():
            key = f"{name}.{side}.{kind}"
            crop = _large(self.overlay(label, side, kind))
            files[key] = write(out / f"{key}.png", crop.save)
            if self.sides[index].photo is not None:
                whole = self.overlay(label, side, kind, on_photo=True)
                files[f"{key}.photo"] = write(out / f"{key}.photo.png", whole.save)
        figure = self.figure()
        arrays = self.arrays()
        files["grid"] = write(out / "pair.png", lambda p: figure.savefig(p, dpi=130))
        files["maps"] = write(
            out / "pair.npz", lambda p: np.savez_compressed(p, allow_pickle=False, **arrays)
        )
        files["record"] = write_bytes(out / "pair.json", to_json(self.record()).encode())
        return files


def _describe(side: PairSide) -> dict[str, Any]:
    crop = side.crop
    return {
        "source": side.source,
        "outline": None if crop.matrix is None else crop.outline().tolist(),
        "turned": crop.turned,
        "scale": crop.scale,
        "messages": list(side.messages),
    }


def _large(picture: Image.Image, side: int = 336) -> Image.Image:
    """Small crops enlarged, so that they can be seen."""
    factor = math.ceil(side / max(picture.size))
    if factor <= 1:
        return picture
    return picture.resize(
        (picture.width * factor, picture.height * factor), Image.Resampling.BICUBIC
    )


# ---------------------------------------------------------------------------------------------- explain


def explain_pair(
    embedder: Embedder,
    probe: Any,
    gallery: Any,
    *,
    method: MethodLike | Sequence[MethodLike] = "fame:preset=reproducible",
    threshold: float | None = None,
    face: WhichFace = "only",
    aligned: bool = False,
    layers: str | None = None,
    target_options: Mapping[str, Any] | None = None,
    noise: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
) -> PairExplanation:
    """What makes two faces similar to an embedder, and what sets them apart.

    Each side is explained by itself, the other side's embedding kept constant.

    Args:
        embedder: the network, see ``camlucida.faces.load_embedder``.
        probe: a photo (path, picture, array), a :class:`Crop` or a :class:`PairSide`.
        gallery: the same.
        method: a registered name, a pair of a name and its options, a method object, or a list of these; by default
            FAME by several short paths, whose maps come out again (``"fame:iterations=75"`` takes a fifth of the
            time). See :func:`similarity_maps` for what e+ and e- are.
        threshold: the threshold of the similarity; by default the embedder's.
        face: which one is meant of several faces in a photo, see :func:`face_photo`.
        aligned: photos are aligned crops; nothing is searched.
        layers: the layers for activation maps; by default the embedder's.
        target_options: options for :meth:`Embedder.target`.
        noise: measure the noise of each method: explain both faces again with every pixel changed by at most one grey
            level, and say where e+ and e- differ by no more than that. It takes as long again.
        seed: the seed of methods that draw random numbers.
        progress: is called with the number of methods done and their number, in fractions.

    Returns:
        Maps, similarity and decision.

    Raises:
        CamlucidaError: a photo cannot be read or shows no face, a method is unknown or cannot explain
            similarities.

    Example:
        >>> embedder = camlucida.faces.load_embedder("dlib")
        >>> first, second = camlucida.faces.demo_photos()[:2]
        >>> camlucida.faces.explain_pair(embedder, first, second, method="gradcam").match
        True
    """
    chosen = listed(method)
    sides = tuple(
        side
        if isinstance(side, PairSide)
        else face_photo(embedder, side, face=face, aligned=aligned)
        for side in (probe, gallery)
    )
    inputs = embedder.inputs([side.crop for side in sides])
    embeddings = embedder.embed(inputs)
    similarity = float(embedder.similarity(embeddings[0], embeddings[1])) + 0.0  # not minus 0
    theta = embedder.threshold if threshold is None else threshold
    check_threshold(theta)
    given = [inputs]
    if noise and embedder.preprocess is not None:
        given.append(embedder.preprocess.jittered(inputs, ImageGenerators(seed + 1, inputs)))
    every = [
        [
            similarity_maps(
                embedder,
                faces,
                embeddings.flip(0),
                one,
                threshold=theta,
                layers=layers,
                target_options=target_options,
                seed=seed,
                progress=_share(progress, number * len(given) + part, len(chosen) * len(given)),
            )
            for part, faces in enumerate(given)
        ]
        for number, one in enumerate(chosen)
    ]
    found = [maps for maps, *_ in every]
    labels = distinct([maps.label for maps in found], "{} ({})")
    messages = []
    if same_embedding(similarity, embedder.compare):
        messages.append(IDENTICAL)
    for name, side in zip(SIDES, sides, strict=True):
        messages += [f"{name}: {text}" for text in side.messages]
    return PairExplanation(
        sides=(sides[0], sides[1]),
        similarity=similarity,
        threshold=theta,
        embedder=embedder.name,
        compare=embedder.compare,
        methods=tuple(
            _of_pair(*maps, label=label) for maps, label in zip(every, labels, strict=True)
        ),
        messages=tuple(messages),
    )


def _share(progress: Progress | None, before: int, total: int) -> Progress | None:
    if progress is None:
        return None
    return lambda done, of: progress(before + done / of, total)


def _of_pair(maps: SimilarityMaps, again: SimilarityMaps | None = None, *, label: str) -> PairMaps:
    both = _both(maps)
    told = [_compared(both[side], None if again is None else _both(again)[side]) for side in (0, 1)]
    empty = [
        f"the {kind} map is empty"
        for kind, of_both in zip(KINDS, both.unbind(1), strict=True)
        if float(of_both.max()) <= _EMPTY
    ]
    return PairMaps(
        label=label,
        maps=both,
        signed=maps.signed,
        messages=tuple((*maps.messages[side], *empty, *_noise(told[side])) for side in (0, 1)),  # type: ignore[arg-type]
        facts={**maps.facts, "sides": dict(zip(SIDES, told, strict=True))},
        seconds=maps.seconds,
    )


def _both(maps: SimilarityMaps) -> Tensor:
    """``(2, 2, H, W)``: probe and gallery, similar and dissimilar."""
    return torch.stack([maps.similar, cast("Tensor", maps.dissimilar)], dim=1)


def _compared(maps: Tensor, again: Tensor | None) -> dict[str, Any]:
    """How strong e+ and e- of a face are, ``(2, H, W)``, how alike, and how alike each stays under jitter."""
    flat = maps.flatten(1)
    stays = None if again is None else number(correlation(flat, again.flatten(1)).min())
    return {
        "strength": dict(zip(KINDS, flat.amax(1).tolist(), strict=True)),
        "alike": number(correlation(flat[0], flat[1])),
        "reproduced": stays,
    }


def _noise(told: Mapping[str, Any]) -> list[str]:
    """That e+ and e- differ by no more than each does from itself, where this is so."""
    alike, stays = told["alike"], told["reproduced"]
    if alike is None or stays is None or alike < stays:
        return []
    said = (
        f"e+ and e- correlate at {alike:.3f}, one of them with itself at {stays:.3f} when pixels change by at most one "
        "grey level: their difference lies within the method's own noise, so do not read it"
    )
    return [said]
