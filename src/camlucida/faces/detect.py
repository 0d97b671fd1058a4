"""Find faces and their landmarks in a photo."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.common.optional import require
from camlucida.data.images import read_image
from camlucida.explanation.photos import Photo
from camlucida.faces.align import Crop, Points, Scheme, align, apply, inverse
from camlucida.faces.networks.dlib_net import model_file

_SMALL, _LARGE = 600, 1600
_MAX_ENLARGED = 4.0
_TURNS = (0, -30, 30, 90, -90, 180)
_MIN_FACE = 20
_PREDICTORS = {
    68: "shape_predictor_68_face_landmarks.dat",
    5: "shape_predictor_5_face_landmarks.dat",
}


@dataclass(frozen=True, eq=False)
class Face:
    """A face in a photo.

    Attributes:
        box: left, top, right, bottom, in pixels of the photo; upright, around the detector's window.
        landmarks: ``(68, 2)`` or ``(5, 2)``, in pixels of the photo.
        score: the detector's confidence: above 0, seldom above 4; about 1 for a face that is hard to see.
        scheme: what the landmarks mean, see ``camlucida.faces.align``.
        turn: by how many degrees the photo was turned counter-clockwise to find it; 0 for upright faces.

    Example:
        >>> face = camlucida.faces.find_faces(portrait)[0]
        >>> face.crop(camlucida.data.read_image(portrait)).size
        (112, 112)
    """

    box: tuple[float, float, float, float]
    landmarks: Points
    score: float
    scheme: Scheme = "68"
    turn: float = 0.0

    @property
    def width(self) -> float:
        """Width of the box in pixels of the photo."""
        return self.box[2] - self.box[0]

    @property
    def area(self) -> float:
        """Area of the box in square pixels of the photo."""
        return self.width * (self.box[3] - self.box[1])

    def crop(self, photo: Image.Image, to: str = "arcface-112") -> Crop:
        """This face, aligned; see :func:`camlucida.faces.align.align`."""
        return align(photo, self.landmarks, to, scheme=self.scheme)


def find_faces(
    photo: Photo, *, points: Literal[68, 5] = 68, turns: Sequence[float] = _TURNS
) -> tuple[Face, ...]:
    """The faces of a photo, the largest first.

    dlib's detector (histograms of oriented gradients, faces seen from the front) and its landmark predictors.
    Photos are searched at 600 to 1600 pixels on their longer side; where nothing is found at twice that, then
    turned. Nothing leaves the machine.

    Args:
        photo: a path, a PIL image or an array, see ``camlucida.data.images.read_image``.
        points: landmarks per face: 68 (default), or dlib's 5, which fit only the alignment ``"dlib-150"``.
        turns: degrees, counter-clockwise, by which the photo is turned, one after the other until a face is
            found; ``(0,)`` finds upright faces only. A face that is seen only in a turned photo is returned
            with its ``turn``; alignment makes it upright.

    Returns:
        At least one face.

    Raises:
        ImageError: not a picture; no face; or only faces of less than 20 pixels.
        ModelError: dlib or the predictors are not installed.

    Example:
        >>> [face.scheme for face in camlucida.faces.find_faces(portrait)]
        ['68']
    """
    picture = read_image(photo)
    name = f"the photo {str(photo)!r}" if isinstance(photo, str | os.PathLike) else "the photo"
    longer = max(picture.size)
    scale = min(max(1.0, min(_SMALL / longer, _MAX_ENLARGED)), _LARGE / longer)
    for turn in turns:
        for enlarge in (1.0, 2.0):
            if enlarge * scale * longer > 2 * _LARGE or (enlarge > 1 and turn not in (0, turns[0])):
                continue
            faces = _search(picture, scale * enlarge, turn, points)
            if faces:
                large = [face for face in faces if face.width >= _MIN_FACE]
                if large:
                    return tuple(sorted(large, key=lambda face: -face.area))
                raise ImageError(
                    f"the largest face in {name} is {max(f.width for f in faces):.0f} pixels wide, "
                    f"too small to compare; use a photo in which it has at least {_MIN_FACE} pixels"
                )
    tried = ", ".join(f"{turn:g}" for turn in turns if turn)
    raise ImageError(
        f"no face was found in {name} ({picture.width} x {picture.height} pixels)"
        + (f", neither upright nor turned by {tried} degrees" if tried else "")
        + "; the detector needs a face seen from the front. Give its landmarks, or a crop that is already "
        "aligned"
    )


def choose(faces: Sequence[Face], which: Literal["largest", "only"] | int = "only") -> Face:
    """One face out of several.

    Args:
        faces: the faces, as :func:`find_faces` returns them, the largest first.
        which: ``"only"`` (default) insists that there is just one; ``"largest"``; or its position, 0 for the
            largest.

    Raises:
        ImageError: there are several faces, or none at that position.

    Example:
        >>> found = camlucida.faces.find_faces(portrait)
        >>> camlucida.faces.choose(found, "largest") is found[0]
        True
    """
    if not faces:
        raise ImageError("there is no face to choose from")
    if which == "largest":
        return faces[0]
    if which == "only":
        if len(faces) == 1:
            return faces[0]
        where = "; ".join(
            f"{i}: {face.width:.0f} pixels wide at ({face.box[0]:.0f}, {face.box[1]:.0f})"
            for i, face in enumerate(faces[:6])
        )
        raise ImageError(
            f"{len(faces)} faces were found ({where}{'; ...' if len(faces) > 6 else ''}); choose one by its "
            "number, "
            "or 'largest'"
        )
    if not isinstance(which, int) or not 0 <= which < len(faces):
        raise ImageError(
            f"there is no face {which!r}; expected 'largest', 'only' or a number from 0 to {len(faces) - 1}"
        )
    return faces[which]


# -------------------------------------------------------------------------------------------------- dlib


@functools.cache
def _detector() -> Any:
    return require("dlib", "faces").get_frontal_face_detector()


@functools.cache
def _predictor(points: int) -> Any:
    return require("dlib", "faces").shape_predictor(str(model_file(_PREDICTORS[points])))


def _search(picture: Image.Image, scale: float, turn: float, points: int) -> list[Face]:
    """Faces at one scale and turn, in pixels of the photo."""
    dlib = require("dlib", "faces")
    searched, forth = _turned(picture, turn)
    size = (max(1, round(searched.width * scale)), max(1, round(searched.height * scale)))
    # Resizing to the same size copies.
    small = searched.resize(size, Image.Resampling.BILINEAR)
    rectangles, scores, _ = _detector().run(np.asarray(small), 0, 0.0)
    if not rectangles:
        return []
    predictor, full = _predictor(points), np.asarray(searched)
    across, down = searched.width / size[0], searched.height / size[1]
    back = inverse(forth)
    faces = []
    for found, score in zip(rectangles, scores, strict=True):
        edges = (found.left(), found.top(), found.right(), found.bottom())
        box = [edge * by for edge, by in zip(edges, (across, down) * 2, strict=True)]
        shape = predictor(full, dlib.rectangle(*(round(v) for v in box)))
        places = np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float64)
        corners = np.array([(box[x], box[y]) for x in (0, 2) for y in (1, 3)])
        if turn:
            places, corners = apply(back, places), apply(back, corners)
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        upright = (float(left), float(top), float(right), float(bottom))
        scheme: Scheme = "68" if points == 68 else "dlib-5"
        faces.append(Face(upright, places, float(score), scheme, float(turn)))
    return faces


def _turned(picture: Image.Image, turn: float) -> tuple[Image.Image, Points]:
    """The photo turned counter-clockwise, and the map from its pixels to those of the turned one."""
    if not turn:
        return picture, np.array([[1.0, 0, 0], [0, 1, 0]])
    turned = picture.rotate(turn, Image.Resampling.BILINEAR, expand=True)
    angle = np.deg2rad(turn)
    linear = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    centre = (np.array(picture.size) - 1) / 2
    new = (np.array(turned.size) - 1) / 2
    return turned, np.column_stack([linear, new - linear @ centre])
