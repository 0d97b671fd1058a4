"""Another picture of the same face: genuine pairs out of single photos.

The kinds stand in for those of the usual data sets: dark glasses and a scarf (AR), low resolution (SCface),
a turned head (CFP-FP), and light. They are drawn with the help of landmarks, and they are not photos:
results on them say how methods compare, not how an embedder would do in the field.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from camlucida.common.errors import ImageError
from camlucida.faces.align import (
    Crop,
    Points,
    Scheme,
    align,
    apply,
    five_points,
    scheme_of,
    similarity_transform,
    warp,
)
from camlucida.faces.detect import Face

_FINE = 4
_WINDOW = 300
# Where eyes, nose and mouth lie in the window that is varied before it is aligned.
_WINDOW_POINTS = np.array([(116, 120), (184, 120), (150, 160), (122, 200), (178, 200)], dtype=float)

Rng = np.random.Generator
Levels = npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Varied:
    """A varied picture of a face.

    Attributes:
        image: RGB, of the same size.
        landmarks: where they are now, in its pixels.
        covered: ``(height, width)`` of bool: pixels that something was put over; ``None`` for none.
        facts: what was drawn, by kind, ready for JSON.
    """

    image: Image.Image
    landmarks: Points
    covered: npt.NDArray[np.bool_] | None
    facts: dict[str, Any]


def vary(
    image: Image.Image,
    landmarks: npt.ArrayLike,
    kind: str,
    *,
    seed: int = 0,
    scheme: Scheme | None = None,
) -> Varied:
    """A picture of a face, varied.

    Args:
        image: RGB, with the face in it.
        landmarks: ``(68, 2)`` or ``(5, 2)``, in its pixels.
        kind: one of :data:`VARIATIONS`, or several joined by ``+``, such as ``"glasses+small"``, one after the
            other.
        seed: what is drawn at random depends on it, and on the kind, alone.
        scheme: what the landmarks mean; by default by their number.

    Raises:
        ImageError: an unknown kind, or landmarks that do not fit.

    Example:
        >>> face = camlucida.faces.find_faces(portrait)[0]
        >>> picture = camlucida.data.read_image(portrait)
        >>> camlucida.faces.vary(picture, face.landmarks, "glasses").image.save("glasses.png")
    """
    kinds = kind.split("+")
    check_variations([kind])
    points = np.asarray(landmarks, dtype=np.float64)
    scheme = scheme or scheme_of(points)
    five_points(points, scheme)
    covered: npt.NDArray[np.bool_] | None = None
    facts: dict[str, Any] = {}
    for one in kinds:
        draw, start = _DRAW[one], [abs(seed), *one.encode()]
        varied = draw(image, points, np.random.default_rng(start))
        if covered is not None and one == "turned":
            rng = np.random.default_rng(start)
            covered = _moved(covered, lambda mask, p=points, r=rng: _turned(mask, p, r).image)  # type: ignore[misc]
        if varied.covered is not None:
            covered = varied.covered if covered is None else covered | varied.covered
        image, points = varied.image, varied.landmarks
        facts |= {one: varied.facts}
    return Varied(image, points, covered, facts)


def check_variations(variations: Sequence[str]) -> None:
    """Refuse variations that cannot be drawn.

    Raises:
        ImageError: one is unknown, or there is none.
    """
    unknown = [one for kind in variations for one in kind.split("+") if one not in _DRAW]
    if unknown or not variations:
        what = f"unknown variation {unknown[0]!r}" if unknown else "no variation was given"
        raise ImageError(f"{what}; there are {', '.join(VARIATIONS)}")


def varied_face(
    photo: Image.Image, face: Face, kind: str, to: str = "arcface-112", *, seed: int = 0
) -> tuple[Crop, npt.NDArray[np.bool_] | None]:
    """A face of a photo, varied and then aligned again, as a detector would meet it.

    Args:
        photo: RGB.
        face: in the photo, with 68 landmarks or the five usual ones.
        kind: one of :data:`VARIATIONS`.
        to: what the crop is aligned to, one of ``camlucida.faces.align.TEMPLATES``.
        seed: as for :func:`vary`.

    Returns:
        The crop, its geometry that of the varied window; and which of its pixels are covered, ``None`` for
        none.

    Example:
        >>> face = camlucida.faces.find_faces(portrait)[0]
        >>> crop, covered = camlucida.faces.varied_face(camlucida.data.read_image(portrait), face, "light")
        >>> crop.size, covered
        ((112, 112), None)
    """
    matrix = similarity_transform(five_points(face.landmarks, face.scheme), _WINDOW_POINTS)
    window = warp(photo, matrix, (_WINDOW, _WINDOW))
    varied = vary(window, apply(matrix, face.landmarks), kind, seed=seed, scheme=face.scheme)
    crop = align(varied.image, varied.landmarks, to, scheme=face.scheme)
    if varied.covered is None:
        return replace(crop, photo=None, matrix=None), None
    matrix = cast("Points", crop.matrix)
    over = _moved(varied.covered, lambda mask: warp(mask, matrix, crop.size))
    return replace(crop, photo=None, matrix=None), over


def _moved(
    covered: npt.NDArray[np.bool_], move: Callable[[Image.Image], Image.Image]
) -> npt.NDArray[np.bool_]:
    """A mask moved as pictures are."""
    mask = Image.fromarray(covered.astype(np.uint8) * 255).convert("RGB")
    return np.asarray(np.asarray(move(mask))[:, :, 0] > 127)


# ------------------------------------------------------------------------------------------------- things


def _frame(points: Points) -> tuple[Points, Points, Points]:
    """Middle of the eyes, the step from there to the right eye, and the step of that length down the face."""
    left, right = five_points(points)[:2]
    across = (right - left) / 2
    return (left + right) / 2, across, np.array([-across[1], across[0]])


def _over(
    image: Image.Image,
    draw: Callable[[ImageDraw.ImageDraw, float], None],
    paint: Levels,
    soft: float,
) -> tuple[Image.Image, npt.NDArray[np.bool_]]:
    """Paint over what is drawn (white on black, four times as fine)."""
    stencil = Image.new("L", (image.width * _FINE, image.height * _FINE))
    draw(ImageDraw.Draw(stencil), _FINE)
    small = stencil.resize(image.size, Image.Resampling.BOX)
    if soft > 0:
        small = small.filter(ImageFilter.GaussianBlur(soft))
    share = np.asarray(small, dtype=np.float32)[:, :, None] / 255
    mixed = np.asarray(image, dtype=np.float32) * (1 - share) + paint * share
    return _picture(mixed), share[:, :, 0] > 0.5


def _glasses(image: Image.Image, points: Points, rng: Rng) -> Varied:
    middle, across, down = _frame(points)
    wide, high = rng.uniform(0.74, 0.86), rng.uniform(0.52, 0.66)
    corner = rng.uniform(2.2, 4.0)  # 2 is an ellipse, more is a rectangle with round corners
    shade = rng.uniform(8, 40, size=3)
    step = math.hypot(*across)
    angles = np.linspace(0, 2 * math.pi, 72)
    ring = np.stack([np.cos(angles), np.sin(angles)], 1)
    ring = np.sign(ring) * np.abs(ring) ** (2 / corner)

    def draw(pen: ImageDraw.ImageDraw, fine: float) -> None:
        def place(x: Levels | float, y: Levels | float) -> list[tuple[float, float]]:
            spots = middle + np.outer(x, across) + np.outer(y, down)
            return [tuple((spot + 0.5) * fine) for spot in spots]

        for side in (-1, 1):
            # Frames sit a little lower than the pupils.
            pen.polygon(place(side + wide * ring[:, 0], 0.08 + high * ring[:, 1]), fill=255)
            ends = np.array([side * (1 + wide * 0.95), side * 2.05])
            pen.line(
                place(ends, np.array([-0.12, -0.2])), fill=255, width=round(0.13 * step * fine)
            )
        bridge = np.linspace(-0.4, 0.4, 9)
        pen.line(
            place(bridge, -0.16 - 0.08 * np.cos(bridge * 4)),
            fill=255,
            width=round(0.13 * step * fine),
        )

    rows, columns = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    slope = (rows - middle[1]) / max(step, 1) * 10  # lenses are a little lighter below
    paint = shade.astype(np.float32) + (slope + 0 * columns)[:, :, None].clip(-8, 14)
    varied, covered = _over(image, draw, paint, 0.02 * step)
    return Varied(varied, points, covered, {"shade": _round(shade)})


def _scarf(image: Image.Image, points: Points, rng: Rng) -> Varied:
    middle, across, down = _frame(points)
    top = rng.uniform(1.25, 1.45)
    colour = rng.uniform(40, 200, size=3)
    other = colour * rng.uniform(0.55, 0.85)
    step = math.hypot(*across)
    x = np.linspace(-2.3, 2.3, 25)
    edge = top + 0.22 * np.cos(x * 1.2) - 0.22 + 0.04 * np.sin(x * 5 + rng.uniform(0, 6))

    def draw(pen: ImageDraw.ImageDraw, fine: float) -> None:
        upper = middle + np.outer(x, across) + np.outer(edge, down)
        lower = middle + np.outer(x[::-1], across) + np.outer(np.full(len(x), 5.0), down)
        pen.polygon(
            [tuple((spot + 0.5) * fine) for spot in np.concatenate([upper, lower])], fill=255
        )

    rows, columns = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    unit = down / max(step**2, 1e-6)
    along = (columns - middle[0]) * unit[0] + (rows - middle[1]) * unit[1]
    side = ((columns - middle[0]) * across[0] + (rows - middle[1]) * across[1]) / max(step**2, 1e-6)
    stripes = 0.5 + 0.5 * np.sin((along + 0.25 * side**2) * rng.uniform(9, 16))
    folds = 1 + 0.12 * np.sin(side * 3 + along * 2)
    paint = (colour + (other - colour) * stripes[:, :, None]) * folds[:, :, None]
    varied, covered = _over(image, draw, paint.astype(np.float32), 0.02 * step)
    return Varied(varied, points, covered, {"colour": _round(colour)})


# ------------------------------------------------------------------------------------------- the camera


def _small(image: Image.Image, points: Points, rng: Rng) -> Varied:
    """The face, about 4.4 half eye distances wide, is left 24 to 40 pixels."""
    across = _frame(points)[1]
    pixels = float(rng.uniform(24, 40))
    factor = min(1.0, pixels / (4.4 * math.hypot(*across)))
    size = (max(4, round(image.width * factor)), max(4, round(image.height * factor)))
    small = image.resize(size, Image.Resampling.BOX)
    noise = rng.normal(0, 3, size=(size[1], size[0], 3))
    small = _picture(np.asarray(small, dtype=np.float32) + noise.astype(np.float32))
    back = small.resize(image.size, Image.Resampling.BICUBIC)
    return Varied(back, points, None, {"pixels": round(pixels, 1)})


def _turned(image: Image.Image, points: Points, rng: Rng) -> Varied:
    """The picture tilted in its plane, and seen from the side."""
    from scipy.spatial.transform import Rotation

    middle = five_points(points).mean(0)
    step = 2 * math.hypot(*_frame(points)[1])
    tilt = math.radians(rng.uniform(8, 20) * rng.choice([-1, 1]))
    yaw = math.radians(rng.uniform(30, 48) * rng.choice([-1, 1]))
    pitch = math.radians(rng.uniform(-10, 10))
    turn = Rotation.from_euler("ZXY", [tilt, pitch, yaw]).as_matrix()
    distance = 6.0 * step
    # A plane through the face, turned, and seen by a camera in front of it.
    flat = np.column_stack([turn[:, 0], turn[:, 1], [0, 0, distance]])
    lens = np.array([[distance, 0, 0], [0, distance, 0], [0, 0, 1]])
    shift = np.array([[1, 0, middle[0]], [0, 1, middle[1]], [0, 0, 1]])
    matrix = shift @ lens @ flat @ np.linalg.inv(shift)
    matrix = matrix / matrix[2, 2]
    centre = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
    back = centre @ np.linalg.inv(matrix) @ np.linalg.inv(centre)
    back = back / back[2, 2]
    border = tuple(int(v) for v in np.asarray(image.resize((1, 1), Image.Resampling.BOX))[0, 0])
    turned = image.transform(
        image.size,
        Image.Transform.PERSPECTIVE,
        tuple(back.ravel()[:8]),
        Image.Resampling.BICUBIC,
        fillcolor=border,
    )
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    facts = {"tilt": _degrees(tilt), "yaw": _degrees(yaw), "pitch": _degrees(pitch)}
    return Varied(turned, moved[:, :2] / moved[:, 2:], None, facts)


def _light(image: Image.Image, points: Points, rng: Rng) -> Varied:
    """Lamp at one side: the other one darkens; gamma, contrast and colour change."""
    middle = five_points(points).mean(0)
    step = 2 * math.hypot(*_frame(points)[1])
    angle = rng.uniform(0, 2 * math.pi)
    rows, columns = np.mgrid[0 : image.height, 0 : image.width].astype(np.float32)
    along = ((columns - middle[0]) * math.cos(angle) + (rows - middle[1]) * math.sin(angle)) / step
    strength = float(rng.uniform(0.35, 0.6))
    lamp = 1 - strength / (1 + np.exp(-2.5 * along))
    gamma = float(rng.choice([rng.uniform(0.6, 0.8), rng.uniform(1.3, 1.7)]))
    tint = rng.uniform(0.88, 1.12, size=3).astype(np.float32)
    levels = (np.asarray(image, dtype=np.float32) / 255) ** gamma * lamp[:, :, None] * tint
    facts = {"angle": _degrees(angle), "gamma": round(gamma, 3), "strength": round(strength, 3)}
    return Varied(_picture(levels * 255), points, None, facts)


def _picture(levels: Levels) -> Image.Image:
    return Image.fromarray(levels.clip(0, 255).round().astype(np.uint8))


def _degrees(angle: float) -> float:
    return round(math.degrees(angle), 1)


def _round(values: npt.NDArray[np.float64]) -> list[int]:
    return [round(float(v)) for v in values]


_DRAW: dict[str, Callable[[Image.Image, Points, Rng], Varied]] = {
    "glasses": _glasses,
    "scarf": _scarf,
    "small": _small,
    "turned": _turned,
    "light": _light,
}

VARIATIONS = tuple(_DRAW)
"""Dark glasses, a scarf, low resolution, a turned head, another light."""
