"""One side of a pair: an aligned face, the photo it was cut from, and maps laid back onto that photo."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.files import read_text
from camlucida.common.printable import printable
from camlucida.data.images import read_image
from camlucida.explanation import overlays
from camlucida.explanation.photos import Photo
from camlucida.faces.align import Crop, align, scheme_of
from camlucida.faces.align import aligned as crop_of
from camlucida.faces.detect import choose, find_faces
from camlucida.faces.embedder import Embedder

if TYPE_CHECKING:
    import numpy.typing as npt

WhichFace: TypeAlias = Literal["largest", "only"] | int

_ENLARGED = 2.0
_TURNED = 25.0


@dataclass(frozen=True, eq=False)
class PairSide:
    """An aligned face and the photo it was cut from.

    Attributes:
        crop: the face as the embedder sees it.
        photo: the photo, RGB; ``None`` for a crop that came without one.
        source: its file, where there is one.

    Example:
        >>> embedder = camlucida.faces.load_embedder("dlib")
        >>> side = camlucida.faces.face_photo(embedder, camlucida.faces.demo_photos()[0])
        >>> side.messages
        ()
    """

    crop: Crop
    photo: Image.Image | None = None
    source: str | None = None

    @property
    def messages(self) -> tuple[str, ...]:
        """What may be wrong with this face: hardly any pixels, or far from upright."""
        found = []
        if self.crop.scale > _ENLARGED:
            width = self.crop.size[0] / self.crop.scale
            found.append(
                f"the face covers only {width:.0f} pixels of its photo and was enlarged "
                f"{self.crop.scale:.1f} times"
            )
        if abs(self.crop.turned) > _TURNED:
            found.append(
                f"the face was turned by {abs(self.crop.turned):.0f} degrees and set upright"
            )
        return tuple(found)


def face_photo(
    embedder: Embedder,
    photo: Photo | Crop,
    *,
    face: WhichFace = "only",
    aligned: bool = False,
    landmarks: npt.ArrayLike | None = None,
) -> PairSide:
    """The face of a photo, aligned for an embedder.

    Args:
        embedder: says how faces are aligned.
        photo: a path, picture or array; a :class:`Crop` is taken as it is.
        face: which one is meant of several: ``"only"`` (default) insists on one, ``"largest"``, or a number from 0.
        aligned: the photo is an aligned crop; nothing is searched.
        landmarks: ``(68, 2)`` or ``(5, 2)`` in pixels of the photo; nothing is searched.

    Raises:
        ImageError: not a picture, no face, several faces, or landmarks that do not fit.

    Example:
        >>> embedder = camlucida.faces.load_embedder("dlib")
        >>> camlucida.faces.face_photo(embedder, camlucida.faces.demo_photos()[0]).crop.size
        (150, 150)
    """
    if isinstance(photo, Crop):
        return PairSide(photo)
    picture = read_image(photo)
    source = os.fspath(photo) if isinstance(photo, str | os.PathLike) else None
    if aligned:
        return PairSide(crop_of(picture, landmarks), None, source)
    if landmarks is not None:
        points = np.asarray(landmarks, dtype=np.float64)
        return PairSide(
            align(picture, points, embedder.align, scheme=scheme_of(points)), picture, source
        )
    found = find_faces(photo if source is not None else picture)
    crop = choose(found, face).crop(picture, embedder.align)
    return PairSide(crop, picture, source)


def read_landmarks(file: str | os.PathLike[str]) -> list[list[float]]:
    r"""Points ``x y`` from a text, CSV or JSON file: the numbers in their order, two by two.

    Raises:
        ImageError: the file cannot be read, or holds no even list of numbers.

    Example:
        >>> written = open("points.csv", "w").write("38,52\n74,52\n56,72\n42,92\n71,92\n")
        >>> camlucida.faces.read_landmarks("points.csv")[0]
        [38.0, 52.0]
    """
    name = f"the landmarks '{printable(file)}'"
    text = read_text(Path(file), "file of landmarks", ImageError, most=2**20)
    try:
        numbers = [float(word) for word in re.sub(r"[\[\](),;]", " ", text).split()]
    except ValueError as error:
        raise ImageError(f"{name} must hold numbers only: {error}") from error
    if not numbers or len(numbers) % 2:
        raise ImageError(f"{name} hold {len(numbers)} numbers, not pairs x y")
    return [numbers[i : i + 2] for i in range(0, len(numbers), 2)]


def photo_overlay(side: PairSide, attribution: Tensor, *, alpha: float = 0.6) -> Image.Image:
    """A map of the crop on the photo it was cut from; what the crop does not reach stays dark.

    The picture has at most 1024 pixels to a side.
    """
    photo, crop = side.photo, side.crop
    if photo is None or crop.matrix is None:
        raise CamlucidaError("this face came without its photo; draw its map on the crop")
    small = overlays.View.whole(photo).scaled().picture
    if small.size != photo.size:
        across, down = small.width / photo.width, small.height / photo.height
        # Corners of pixels stay where they are: x = (x' + 1/2) / s - 1/2.
        shrink = np.array([[1 / across, 0, 0.5 / across - 0.5], [0, 1 / down, 0.5 / down - 0.5]])
        linear = crop.matrix[:, :2] @ shrink[:, :2]
        shift = crop.matrix[:, :2] @ shrink[:, 2] + crop.matrix[:, 2]
        crop = replace(crop, matrix=np.column_stack([linear, shift]), photo=small.size)
    laid, inside = crop.onto_photo(attribution.detach().to("cpu", torch.float32).numpy())
    return overlays.blend(small, overlays.colourise(torch.from_numpy(laid)), inside, alpha)
