"""From a face in a photo to the upright crop that an embedder was trained on, and back."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from camlucida.common.errors import ImageError

Points: TypeAlias = npt.NDArray[np.float64]
Scheme: TypeAlias = Literal["68", "5", "dlib-5"]

# Left eye, right eye, tip of the nose, left and right corner of the mouth, as one sees them; 112 x 112 pixels.
_ARCFACE = (
    (38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041),
)  # fmt: skip

# dlib's mean face in the unit square: those of the 68 points that dlib aligns by, as (index, x, y).
_DLIB_MEAN = (
    (27, 0.490127, 0.203352), (28, 0.490127, 0.307009), (29, 0.490127, 0.409805), (30, 0.490127, 0.515625),
    (31, 0.36688, 0.587326), (32, 0.426036, 0.609345), (33, 0.490127, 0.628106), (34, 0.554217, 0.609345),
    (35, 0.613373, 0.587326), (36, 0.121737, 0.216423), (37, 0.187122, 0.178758), (38, 0.265825, 0.179852),
    (39, 0.334606, 0.231733), (40, 0.260918, 0.245099), (41, 0.182743, 0.244077), (42, 0.645647, 0.231733),
    (43, 0.714428, 0.179852), (44, 0.793132, 0.178758), (45, 0.858516, 0.216423), (46, 0.79751, 0.244077),
    (47, 0.719335, 0.245099), (48, 0.254149, 0.780233), (49, 0.340985, 0.745405), (50, 0.428858, 0.727388),
    (51, 0.490127, 0.742578), (52, 0.551395, 0.727388), (53, 0.639268, 0.745405), (54, 0.726104, 0.780233),
    (60, 0.290379, 0.784792), (61, 0.428096, 0.778746), (62, 0.490127, 0.785343), (63, 0.552157, 0.778746),
    (64, 0.689874, 0.784792),
)  # fmt: skip
# The five points of dlib's small predictor: outer and inner corner of either eye, base of the nose.
_DLIB_FIVE = (
    (0.8595674595992, 0.2134981538014), (0.6460604764104, 0.2289674387677),
    (0.1205750620789, 0.2137274526848), (0.3340850613712, 0.2290642403242),
    (0.4901123135679, 0.6277975316475),
)  # fmt: skip
_PADDING = 0.25

_BINOMIAL = ImageFilter.Kernel((5, 5), np.outer((1, 4, 6, 4, 1), (1, 4, 6, 4, 1)).ravel().tolist())

TEMPLATES = ("arcface-112", "dlib-150", "facenet-160")
"""What faces can be aligned to; the number is the side of the crop in pixels."""


# -------------------------------------------------------------------------------------------- landmarks


def scheme_of(landmarks: Points) -> Scheme:
    """What landmarks mean, by their number.

    Args:
        landmarks: ``(68, 2)``, the usual 68 points (iBUG), or ``(5, 2)``: left eye, right eye, tip of the nose,
            left and right corner of the mouth, as one sees them; x and y in pixels, the centre of the first
            pixel is (0, 0).

    Raises:
        ImageError: another shape, or numbers that are not finite.
    """
    shape = landmarks.shape
    if shape not in {(68, 2), (5, 2)}:
        raise ImageError(
            f"landmarks have the shape {shape}; expected (68, 2), or (5, 2): left eye, right eye, nose tip, "
            "left and right mouth corner"
        )
    if not np.isfinite(landmarks).all():
        raise ImageError("landmarks must be finite numbers")
    return "68" if shape[0] == 68 else "5"


def five_points(landmarks: Points, scheme: Scheme | None = None) -> Points:
    """Eyes, tip of the nose and corners of the mouth: ``(5, 2)`` out of ``(68, 2)``.

    Raises:
        ImageError: dlib's small predictor does not tell where the mouth is, or the shape is another.
    """
    if scheme == "dlib-5":
        raise ImageError(
            "these landmarks have no mouth; detect with points=68, or give eyes, nose tip and mouth corners"
        )
    if scheme_of(landmarks) == "5":
        return landmarks
    eyes = [landmarks[36:42].mean(0), landmarks[42:48].mean(0)]
    return np.stack([*eyes, landmarks[30], landmarks[48], landmarks[54]])


# -------------------------------------------------------------------------------------------- geometry


def similarity_transform(source: Points, target: Points) -> Points:
    r"""The shift, turn and scale that bring points closest to others, in the least squares.

    $\min_{s, R, t} \sum_i \| s R p_i + t - q_i \|^2$, without mirroring (Umeyama 1991, eq. 40 to 42).

    Args:
        source: ``(n, 2)``, n at least 2.
        target: ``(n, 2)``.

    Returns:
        ``(2, 3)``: ``[sR | t]``.

    Raises:
        ImageError: all points of the source are the same.
    """
    mean_p, mean_q = source.mean(0), target.mean(0)
    p, q = source - mean_p, target - mean_q
    spread = (p**2).sum() / len(p)
    if not spread > 1e-12:
        raise ImageError("all landmarks lie on one point; a face cannot be aligned by them")
    u, d, vt = np.linalg.svd(q.T @ p / len(p))
    sign = np.array([1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    linear = (u * sign) @ vt * ((d * sign).sum() / spread)
    return np.column_stack([linear, mean_q - linear @ mean_p])


def inverse(matrix: Points) -> Points:
    """The inverse of an affine map ``(2, 3)``."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def apply(matrix: Points, points: Points) -> Points:
    """An affine map ``(2, 3)`` of points ``(n, 2)``."""
    moved: Points = points @ matrix[:, :2].T + matrix[:, 2]
    return moved


def template(name: str, scheme: Scheme) -> tuple[list[int] | None, Points, int]:
    """Where landmarks belong in a crop.

    Args:
        name: one of :data:`TEMPLATES`. ``"arcface-112"``: the five points of ArcFace. ``"dlib-150"``: dlib's
            mean face with a padding of 0.25, as ``dlib.get_face_chip`` cuts it; from five points its eyes,
            nose and mouth. ``"facenet-160"``: the points of ArcFace, a little smaller, which is about a
            detector's box with a margin.
        scheme: which landmarks.

    Returns:
        The landmarks to use (``None`` for all five), their places ``(n, 2)``, the crop's side in pixels.

    Raises:
        ImageError: an unknown template, or landmarks that it cannot use.
    """
    if name in {"arcface-112", "facenet-160"}:
        places = np.array(_ARCFACE)
        if name == "facenet-160":
            places = (places - 56) * 0.85 * (160 / 112) + 80
        return None, places, int(name[-3:])
    if name != "dlib-150":
        raise ImageError(f"unknown alignment {name!r}; expected one of {', '.join(TEMPLATES)}")
    mean = np.zeros((68, 2))
    for index, x, y in _DLIB_MEAN:
        mean[index] = x, y
    chosen: list[int] | None = None
    if scheme == "68":
        chosen = [index for index, _, _ in _DLIB_MEAN]
        places = mean[chosen]
    else:
        places = np.array(_DLIB_FIVE) if scheme == "dlib-5" else five_points(mean)
    return chosen, (places + _PADDING) / (1 + 2 * _PADDING) * 150, 150


# ------------------------------------------------------------------------------------------------- crops


@dataclass(frozen=True, eq=False)
class Crop:
    """An aligned face, and how it lies in its photo.

    Attributes:
        image: the crop, RGB.
        matrix: ``(2, 3)``, from pixels of the photo to pixels of the crop; ``None`` for a crop that came
            without its photo.
        photo: width and height of the photo.
        landmarks: in pixels of the crop, where they are known.
        scheme: what the landmarks mean.

    Example:
        >>> face = camlucida.faces.aligned(camlucida.data.read_image(photo))
        >>> face.size
        (64, 48)
    """

    image: Image.Image
    matrix: Points | None = None
    photo: tuple[int, int] | None = None
    landmarks: Points | None = None
    scheme: Scheme | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the crop."""
        return self.image.size

    @property
    def turned(self) -> float:
        """How far the face was turned in the photo: degrees clockwise, -180 to 180; 0 where not known."""
        if self.matrix is None:
            return 0.0
        return math.degrees(math.atan2(self.matrix[0, 1], self.matrix[0, 0]))

    @property
    def scale(self) -> float:
        """Pixels of the crop for each pixel of the photo; above 1 the face was enlarged. 1 where not known."""
        return 1.0 if self.matrix is None else float(math.hypot(*self.matrix[:, 0]))

    def outline(self) -> Points:
        """Corners of the crop in the photo, ``(4, 2)``, clockwise from the upper left; outside it for black parts."""
        width, height = self.size
        corners = np.array(
            [(-0.5, -0.5), (width - 0.5, -0.5), (width - 0.5, height - 0.5), (-0.5, height - 0.5)]
        )
        return corners if self.matrix is None else apply(inverse(self.matrix), corners)

    def onto_photo(
        self, values: npt.NDArray[np.floating]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """A map of the crop, laid back onto the photo.

        Args:
            values: ``(h, w)``, over the whole crop, at any resolution.

        Returns:
            The map ``(H, W)`` of the photo, 0 where the crop does not reach; and where it does reach.
        """
        image = Image.fromarray(np.ascontiguousarray(values, dtype=np.float32))
        if image.size != self.size:
            image = image.resize(self.size, Image.Resampling.BILINEAR)
        if self.matrix is None or self.photo is None:
            return np.asarray(image, dtype=np.float32), np.ones(image.size[::-1], dtype=np.bool_)
        from scipy.ndimage import map_coordinates

        width, height = self.photo
        rows, columns = np.mgrid[0:height, 0:width]
        x, y = (apply(self.matrix, np.stack([columns.ravel(), rows.ravel()], 1).astype(float))).T
        inside = (x > -0.5) & (y > -0.5) & (x < image.width - 0.5) & (y < image.height - 0.5)
        laid = map_coordinates(np.asarray(image, dtype=np.float64), (y, x), order=1, mode="nearest")
        onto = np.where(inside, laid, 0).reshape(height, width).astype(np.float32)
        return onto, np.asarray(inside, dtype=np.bool_).reshape(height, width)


def align(
    photo: Image.Image,
    landmarks: npt.ArrayLike,
    to: str = "arcface-112",
    *,
    scheme: Scheme | None = None,
) -> Crop:
    """Cut a face out of a photo, turned upright, at the size and place that an embedder expects.

    Args:
        photo: RGB, as ``camlucida.data.images.read_image`` returns it.
        landmarks: ``(68, 2)`` or ``(5, 2)`` in pixels of the photo, see :func:`scheme_of`.
        to: one of :data:`TEMPLATES`.
        scheme: ``"dlib-5"`` for the five points of dlib's small predictor; by default by their number.

    Returns:
        The crop, black where it reaches beyond the photo.

    Raises:
        ImageError: the landmarks do not fit, lie on one point, or lie far outside the photo.

    Example:
        >>> eyes_nose_mouth = [[20, 18], [42, 18], [31, 28], [23, 38], [39, 38]]
        >>> camlucida.faces.align(camlucida.data.read_image(photo), eyes_nose_mouth).size
        (112, 112)
    """
    points = np.asarray(landmarks, dtype=np.float64)
    scheme = scheme or scheme_of(points)
    chosen, places, side = template(to, scheme)
    used = five_points(points, scheme) if to != "dlib-150" else points
    if chosen is not None:
        used = points[chosen]
    width, height = photo.size
    if (used < -np.array([width, height])).any() or (used > 2 * np.array([width, height])).any():
        raise ImageError(
            f"the landmarks lie outside the photo of {width} x {height} pixels; they must be in its pixels"
        )
    fit = _as_dlib_cuts if to == "dlib-150" else similarity_transform
    matrix = fit(used, places)
    return Crop(
        image=warp(photo, matrix, (side, side)),
        matrix=matrix,
        photo=photo.size,
        landmarks=apply(matrix, points),
        scheme=scheme,
    )


def _as_dlib_cuts(points: Points, places: Points, side: int = 150) -> Points:
    """The map of ``dlib.get_face_chip``.

    It fits the template to the landmarks, not the landmarks to the template, puts the middle of the template
    on the middle pixel and the outer pixels on the window's border.
    """
    if not np.ptp(points, axis=0).max() > 0:
        raise ImageError("all landmarks lie on one point; a face cannot be aligned by them")
    matrix = inverse(similarity_transform(places, points))
    scale = math.hypot(*matrix[:, 0])
    grow = (side - 1) / (side - min(scale, side / 2))
    return np.column_stack(
        [grow * matrix[:, :2], grow * (matrix[:, 2] - side / 2) + (side - 1) / 2]
    )


def warp(photo: Image.Image, matrix: Points, size: tuple[int, int]) -> Image.Image:
    """A photo under an affine map, bilinear; smoothed and halved first where it shrinks to less than half."""
    scale = math.hypot(*matrix[:, 0])
    back = inverse(matrix)
    while scale < 0.5 and min(photo.size) > 8:
        photo = photo.filter(_BINOMIAL)
        photo = Image.fromarray(np.asarray(photo)[::2, ::2])
        back, scale = back / 2, scale * 2
    # Pillow counts from the corners of pixels, landmarks from their centres.
    shift = back[:, 2] + 0.5 - back[:, :2] @ (0.5, 0.5)
    a, b, c, d = back[:, :2].ravel()
    data = (a, b, shift[0], c, d, shift[1])
    return photo.transform(size, Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)


def aligned(image: Image.Image, landmarks: npt.ArrayLike | None = None) -> Crop:
    """A crop that already is aligned, taken as it is.

    Args:
        image: RGB, of any size; the embedder's preprocessing resizes it.
        landmarks: in its pixels, where they are known.

    Example:
        >>> camlucida.faces.aligned(camlucida.data.read_image(photo)).turned
        0.0
    """
    if landmarks is None:
        return Crop(image)
    points = np.asarray(landmarks, dtype=np.float64)
    return Crop(image, landmarks=points, scheme=scheme_of(points))


def resized(crop: Crop, side: int) -> Crop:
    """The crop at another size, ``side`` x ``side`` pixels, its geometry with it."""
    across, down = side / crop.size[0], side / crop.size[1]
    # Corners of pixels stay where they are: x' + 1/2 = (x + 1/2) s.
    grow = np.array([[across, 0, across / 2 - 0.5], [0, down, down / 2 - 0.5]])
    matrix = crop.matrix
    if matrix is not None:
        matrix = np.column_stack([grow[:, :2] @ matrix[:, :2], apply(grow, matrix[:, 2][None])[0]])
    return replace(
        crop,
        image=crop.image.resize((side, side), Image.Resampling.BILINEAR),
        matrix=matrix,
        landmarks=None if crop.landmarks is None else apply(grow, crop.landmarks),
    )
