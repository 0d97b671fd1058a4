"""Read any ordinary picture as 8-bit RGB, or say in one line why not."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from camlucida.common.errors import ImageError
from camlucida.common.files import check_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 100_000_000
"""The largest width times height that is decoded."""

# Raster formats that Pillow decodes itself. EPS and WMF would run or call other programs.
_FORMATS = (
    "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "ICO", "QOI", "TGA",
)  # fmt: skip
_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pbm",
    ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".avif", ".ico", ".qoi", ".tga",
)  # fmt: skip

_FULL = 65535
_RANGE = "camlucida range"


def read_image(
    source: str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic],
    *,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Read a picture as 8-bit RGB, upright.

    Files and PIL images: the EXIF orientation is applied; transparency is composited on white;
    palettes, grey, 1-bit, CMYK, YCbCr and LAB are converted; 16-bit grey (and 32-bit integers in
    0 to 65535) is scaled to 8 bits, never clipped: from its full range, or from the picture's own
    where that is less than half of it, as in scans of 10 to 14 bits (see `range_note`); 32-bit
    float must lie in [0, 1]. Of an animation the first frame is taken (of a PIL image, its current one). Colour
    profiles are not applied, as in the usual training pipelines.

    Arrays: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` of bool, uint8 (0 to 255), uint16
    (0 to 65535) or float (0 to 1); four channels are RGBA.

    Args:
        source: A path, a PIL image or a numpy array.
        max_pixels: The largest width times height that is decoded; checked in a file's header.

    Returns:
        A new PIL image of mode RGB; the source is left as it was.

    Raises:
        ImageError: The source is missing, is not a picture, is damaged, is too large, is empty, or
            has a type, shape or range that is not in the list above.

    Example:
        >>> camlucida.data.read_image(photo).size
        (64, 48)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, _name_of(source), max_pixels)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"cannot read an image from an object of type {type(source).__name__}; expected a path, a PIL image "
            "or a numpy array (height, width, channels)"
        )
    path = Path(os.fspath(source))
    name = repr(str(path))
    _check_file(path, name)
    with _quiet():
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError:
            raise ImageError(
                f"{name} is not an image that can be read; expected PNG, JPEG, WebP, TIFF, BMP, "
                "GIF or another raster format"
            ) from None
        except Image.DecompressionBombError:
            raise ImageError(_too_large(name, None, max_pixels)) from None
        except Exception as error:
            raise ImageError(f"{name} is damaged or not an image: {_reason(error)}") from error
        with image:
            return _decode(image, name, max_pixels)


def range_note(image: Image.Image) -> str | None:
    """What a user has to know of how a scan's grey levels became those of a picture.

    Args:
        image: As `read_image` returned it.

    Returns:
        One sentence where they were stretched from the scan's own range, else None.
    """
    if _RANGE not in image.info:
        return None
    low, high = image.info[_RANGE]
    return (
        f"its 16-bit values run from {low} to {high} only, so these were taken for black and white; if the model "
        "was trained on another range, scale the values yourself"
    )


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file of pictures, by its suffix, whether it exists or not."""
    return Path(path).suffix.lower() in _SUFFIXES


def find_images(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """The image files of a folder, recursively, in a stable order.

    Files are chosen by their suffix. Hidden files and folders are skipped, and links to folders are
    not followed.

    Args:
        path: A folder, or one file, which is then returned as it is.

    Returns:
        At least one path, sorted by its parts.

    Raises:
        ImageError: The path does not exist, or holds no image.

    Example:
        >>> [path.name for path in camlucida.data.find_images(".")]
        ['photo.jpg']
    """
    root = Path(path)
    if root.is_file():
        return (root,)
    if not root.is_dir():
        raise ImageError(f"no such file or folder: {str(root)!r}")
    found: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [
            Path(folder, name)
            for name in files
            if not name.startswith(".") and Path(name).suffix.lower() in _SUFFIXES
        ]
    if not found:
        raise ImageError(f"no image in {str(root)!r}; looked for {', '.join(_SUFFIXES)}")
    return tuple(sorted(found))


@contextmanager
def open_picture(
    path: Path, name: str, formats: tuple[str, ...], expected: str
) -> Iterator[Image.Image]:
    """Open a picture whose values are read as they are, such as a mask.

    Args:
        path: its file.
        name: what it is called in errors.
        formats: what Pillow may decode.
        expected: what is expected instead, for the error.

    Raises:
        ImageError: it cannot be read, or is too large.
    """
    check_regular(path, "picture", ImageError)
    try:
        with Image.open(path, formats=formats) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(  # noqa: TRY301 - it is the picture that is refused
                    f"{name} has {image.width} x {image.height} pixels, which is too many"
                )
            yield image
    except ImageError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ImageError(
            f"{name} cannot be read ({_reason(error)}); expected {expected}"
        ) from error


def upright_size(path: Path) -> tuple[int, int]:
    """Width and height of an upright photo, of which only the header is read.

    Raises:
        ImageError: it cannot be opened, or has too many pixels.
    """
    check_regular(path, "photo", ImageError)
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(0x0112) in {5, 6, 7, 8}  # orientations that swap the sides
            return (image.height, image.width) if turned else image.size
    except Image.DecompressionBombError:
        raise ImageError(f"{str(path)!r} has too many pixels") from None
    except Exception as error:
        raise ImageError(f"{str(path)!r} cannot be opened as an image") from error


# ---- files --------------------------------------------------------------------------------------


def _check_file(path: Path, name: str) -> None:
    """Raise what can be said before a file is opened."""
    if str(path).startswith(("http:", "https:")):
        raise ImageError(f"{name} is an address; download the image first and give its path")
    try:
        if path.is_dir():
            raise ImageError(f"{name} is a folder, not an image; give one file")
        if not path.exists():
            raise ImageError(f"no such file: {name}")
        if not path.is_file():
            raise ImageError(f"{name} is not a regular file")
        if path.stat().st_size == 0:
            raise ImageError(f"{name} is an empty file")
        with path.open("rb"):
            pass
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror or _reason(error)}") from error


def _formats() -> list[str]:
    """The allowed formats that this build of Pillow has."""
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings (large image, odd metadata) say nothing that our errors do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _too_large(name: str, size: tuple[int, int] | None, max_pixels: int) -> str:
    if size is None:
        return (
            f"{name} has more pixels than Pillow allows ({2 * (Image.MAX_IMAGE_PIXELS or 0)}); "
            "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels if you trust the file"
        )
    return (
        f"{name} has {size[0]} x {size[1]} pixels, more than the {max_pixels} allowed; shrink it, "
        "or raise max_pixels if you trust the file"
    )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _name_of(image: Image.Image) -> str:
    filename = getattr(image, "filename", "")
    return repr(str(filename)) if filename else "the PIL image"


# ---- to 8-bit RGB -------------------------------------------------------------------------------


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    """Load, turn upright and convert an opened image."""
    _check_size(image.size, name, max_pixels)
    with _quiet():
        try:
            image.load()
        except Exception as error:
            raise ImageError(f"{name} is damaged or truncated: {_reason(error)}") from error
        _check_size(image.size, name, max_pixels)  # an icon's real size shows only now
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # unreadable metadata says nothing about the orientation
            upright = image
        try:
            result = _to_rgb(upright, name)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(
                f"{name} has mode {image.mode}, which cannot be converted to RGB: {_reason(error)}"
            ) from error
    if result is image or result is upright:
        result = result.copy()
    # An orientation or transparency left here would be applied a second time.
    result.info = {k: v for k, v in {**image.info, **result.info}.items() if k == _RANGE}
    return result


def _check_size(size: tuple[int, int], name: str, max_pixels: int) -> None:
    if min(size) < 1:
        raise ImageError(f"{name} has {size[0]} x {size[1]} pixels: nothing to see")
    if size[0] * size[1] > max_pixels:
        raise ImageError(_too_large(name, size, max_pixels))


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I"):  # I;16, I;16B, I;16L, I;16N and I
        levels, own = _from_integers(np.asarray(image), name)
        return _ranged(_grey(levels), own)
    if image.mode == "F":
        return _grey(_from_floats(np.asarray(image), name))
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_array(array: npt.NDArray[np.generic], max_pixels: int) -> Image.Image:
    name = f"the array of shape {array.shape} and type {array.dtype}"
    if array.ndim == 3 and array.shape[0] in {1, 3, 4} and array.shape[2] not in {1, 3, 4}:
        raise ImageError(f"{name} has its channels first; give array.transpose(1, 2, 0)")
    if array.ndim not in {2, 3} or (array.ndim == 3 and array.shape[2] not in {1, 3, 4}):
        raise ImageError(
            f"{name} is not one picture; expected (height, width) or (height, width, channels) "
            "with 1, 3 or 4 channels"
        )
    height, width = array.shape[:2]
    _check_size((width, height), name, max_pixels)
    own = None
    if array.dtype == np.bool_:
        levels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint8:
        levels = array.astype(np.uint8)
    elif array.dtype.kind == "u" and array.dtype.itemsize == 2:  # of either byte order
        levels, own = _from_integers(array, name)
    elif np.issubdtype(array.dtype, np.floating):
        levels = _from_floats(array, name)
    else:
        raise ImageError(
            f"{name} has an unsupported type; expected uint8 (0 to 255), uint16 (0 to 65535), "
            "bool, or float (0 to 1)"
        )
    if levels.ndim == 2 or levels.shape[2] == 1:
        return _ranged(_grey(levels.reshape(height, width)), own)
    return _ranged(_to_rgb(Image.fromarray(np.ascontiguousarray(levels)), name), own)


def _from_integers(
    values: npt.NDArray[np.generic], name: str
) -> tuple[npt.NDArray[np.uint8], tuple[int, int] | None]:
    """0..65535, or the values' own range where it is less than half of that, to 0..255, rounded.

    Returns:
        The levels, and the own range where it was taken.
    """
    wide = values.astype(np.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > _FULL:
        raise ImageError(
            f"{name} has integer values from {low} to {high}; expected 0 to 65535, so scale them"
        )
    if 0 < high - low < _FULL / 2:
        return np.rint((wide - low) * (255 / (high - low))).astype(np.uint8), (low, high)
    return ((wide + 128) // 257).astype(np.uint8), None


def _from_floats(values: npt.NDArray[np.generic], name: str) -> npt.NDArray[np.uint8]:
    """0..1 to 0..255, rounded."""
    exact = values.astype(np.float64)
    low, high = float(exact.min()), float(exact.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name} has values that are not finite; replace NaN and infinity")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255" if low >= 0 and high <= 255 else "scale them"
        raise ImageError(
            f"{name} has float values from {low:.6g} to {high:.6g}; expected 0 to 1, so {hint}"
        )
    levels: npt.NDArray[np.uint8] = np.rint(exact.clip(0, 1) * 255).astype(np.uint8)
    return levels


def _grey(levels: npt.NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


def _ranged(image: Image.Image, own: tuple[int, int] | None) -> Image.Image:
    """The picture, with the range that was taken for black and white."""
    if own is not None:
        image.info[_RANGE] = own
    return image
