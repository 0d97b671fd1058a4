"""Read any ordinary picture as 8-bit RGB, or say in one line why not."""

from __future__ import annotations

import os
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from camlucida.common.errors import ImageError
from camlucida.common.files import check_regular
from camlucida.data.levels import Levels, Scaled, Values, from_integers, scaled
from camlucida.data.place import Place, Window, page_of, window_of
from camlucida.data.scans import (
    check_size,
    checked_page,
    kind_of,
    left_out,
    read_scan,
    register_heif,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PIXELS = 100_000_000
"""The largest width times height that is decoded."""

# Raster formats that Pillow decodes itself. EPS and WMF would run or call other programs.
_FORMATS = (
    "PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "HEIF", "ICO", "QOI", "TGA",
)  # fmt: skip
_SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".pbm",
    ".pgm", ".ppm", ".pnm", ".jp2", ".j2k", ".ico", ".qoi", ".tga",
)  # fmt: skip

_NOTES = "camlucida notes"


def read_image(
    source: str | os.PathLike[str] | Image.Image | npt.NDArray[np.generic],
    *,
    window: Window | None = None,
    page: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Image.Image:
    """Read a picture as 8-bit RGB, upright.

    Files and PIL images: the EXIF orientation is applied; transparency is composited on white;
    palettes, grey, 1-bit, CMYK, YCbCr and LAB are converted; 16-bit grey (and 32-bit integers in
    0 to 65535) is scaled to 8 bits, never clipped: from its full range, or from the picture's own
    where that is less than half of it, as in scans of 10 to 14 bits (see `picture_notes`); 32-bit
    float must lie in [0, 1]. Of several pages or frames the first is taken (of a PIL image, its current one). Colour
    profiles are not applied, as in the usual training pipelines.

    DICOM (with the extra ``scans``): values are rescaled, shown by the file's own window, or else from the smallest to
    the largest, and MONOCHROME1 is inverted. ``.npy`` files are read like arrays, their first axis being pages where
    they have one more.

    Arrays: `(H, W)`, `(H, W, 1)`, `(H, W, 3)` or `(H, W, 4)` of bool, uint8 (0 to 255), uint16
    (0 to 65535) or float (0 to 1); four channels are RGBA.

    Args:
        source: A path, also with a page and a window behind it, ``"scan.tif[3]"`` or ``"ct.npy[2,window=-160:240]"``; a
            PIL image or a numpy array.
        window: The values that become black and white, for scans and arrays of any numbers.
        page: Which page or frame of a file, counted from 1.
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
    window = None if window is None else window_of(window)
    page = None if page is None else page_of(str(page))
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels, window)
    if isinstance(source, Image.Image):
        return _decode(source, _name_of(source), max_pixels, window)
    if not isinstance(source, str | os.PathLike):
        raise ImageError(
            f"cannot read an image from an object of type {type(source).__name__}; expected a path, a PIL image "
            "or a numpy array (height, width, channels)"
        )
    place = Place.of(source)
    window, page = window or place.window, page or place.page
    path, name = place.file, repr(str(place.file))
    _check_file(path, name)
    if (scan := read_scan(path, name, page, max_pixels)) is not None:
        # A file's own window is what its maker shows; an array says nothing.
        picture = _picture(
            scan.values, name, max_pixels, window or scan.window, inverted=scan.inverted
        )
        shown = () if window or scan.window is None else (_SHOWN.format(*scan.window),)
        return _noted(picture, *shown, *_of_page(name, page, scan.pages))
    with _quiet():
        try:
            image = Image.open(path, formats=_formats())
        except UnidentifiedImageError:
            kind = kind_of(path)
            more = f"; {kind.advice}" if kind is not None and not kind.is_read else ""
            raise ImageError(
                f"{name} is not an image that can be read; expected PNG, JPEG, WebP, TIFF, BMP, "
                f"GIF or another raster format{more}"
            ) from None
        except Image.DecompressionBombError:
            raise ImageError(_too_large(name)) from None
        except Exception as error:
            raise ImageError(f"{name} is damaged or not an image: {_reason(error)}") from error
        with image:
            pages = _pages(image)
            if index := checked_page(page, pages, name):
                try:
                    image.seek(index)
                except Exception as error:
                    raise ImageError(
                        f"page {page} of {name} is damaged: {_reason(error)}"
                    ) from error
            return _noted(_decode(image, name, max_pixels, window), *_of_page(name, page, pages))


_SHOWN = "it is shown from {:g} to {:g}, as its header says or its values run; FILE[window=LOW:HIGH] is another range"


def _pages(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except Exception:  # a damaged file tells when it is decoded
        return 1


def pages_of(path: str | os.PathLike[str]) -> int:
    """How many pages or frames a file has, of which only the header is read.

    Raises:
        ImageError: it cannot be opened.
    """
    file = Place.of(path).file
    name = repr(str(file))
    _check_file(file, name)
    if (scan := read_scan(file, name, None, MAX_PIXELS)) is not None:
        return scan.pages
    try:
        with _quiet(), Image.open(file, formats=_formats()) as image:
            return _pages(image)
    except Exception as error:
        raise ImageError(f"{name} is damaged or not an image: {_reason(error)}") from error


def picture_notes(image: Image.Image) -> tuple[str, ...]:
    """What a user has to know of a picture: how a scan was scaled, which page it is, that there is nothing to see.

    Args:
        image: As `read_image` returned it.
    """
    notes: tuple[str, ...] = image.info.get(_NOTES, ())
    bands: Any = image.getextrema()
    if image.size == (1, 1):
        notes += ("it is 1 x 1 pixel large: no place in it can be told from another",)
    elif all(low == high for low, high in bands):
        colour = "#{:02x}{:02x}{:02x}".format(*(low for low, _ in bands))
        what = "black" if colour == "#000000" else f"of one colour ({colour})"
        notes += (f"it is {what} all over: nothing in it can be evidence for anything",)
    return notes


def is_image_file(path: str | os.PathLike[str]) -> bool:
    """Whether a path names a file of pictures, by its suffix, whether it exists or not."""
    return _is_read(Place.of(path).file)


def _is_read(path: Path) -> bool:
    kind = kind_of(path)
    return path.suffix.lower() in _SUFFIXES if kind is None else kind.is_read


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
    files = _files(root)
    found = [path for path in files if _is_read(path)]
    if not found:
        others = "".join(f"; {said}" for said in left_out(files))
        raise ImageError(f"no image in {str(root)!r}; looked for {', '.join(_SUFFIXES)}{others}")
    return tuple(sorted(found))


def _files(root: Path) -> list[Path]:
    found: list[Path] = []
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(folder, name) for name in files if not name.startswith(".")]
    return found


def skipped_kinds(folder: str | os.PathLike[str]) -> list[str]:
    """Which pictures of a folder `find_images` leaves out, kind by kind, and what reads them; a sentence each."""
    return left_out(_files(Path(folder)))


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
    register_heif()
    return [name for name in _FORMATS if name in Image.OPEN]


@contextmanager
def _quiet() -> Iterator[None]:
    """Pillow's warnings (large image, odd metadata) say nothing that our errors do not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _too_large(name: str) -> str:
    return (
        f"{name} has more pixels than Pillow allows ({2 * (Image.MAX_IMAGE_PIXELS or 0)}); "
        "shrink it, or raise PIL.Image.MAX_IMAGE_PIXELS and max_pixels if you trust the file"
    )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _name_of(image: Image.Image) -> str:
    filename = getattr(image, "filename", "")
    return repr(str(filename)) if filename else "the PIL image"


# ---- to 8-bit RGB -------------------------------------------------------------------------------


def _decode(
    image: Image.Image, name: str, max_pixels: int, window: Window | None = None
) -> Image.Image:
    """Load, turn upright and convert an opened image."""
    check_size(*image.size, name, max_pixels)
    with _quiet():
        try:
            image.load()
        except Exception as error:
            raise ImageError(f"{name} is damaged or truncated: {_reason(error)}") from error
        check_size(*image.size, name, max_pixels)  # an icon's real size shows only now
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # unreadable metadata says nothing about the orientation
            upright = image
        try:
            result = _to_rgb(upright, name, window)
        except ImageError:
            raise
        except Exception as error:
            raise ImageError(
                f"{name} has mode {image.mode}, which cannot be converted to RGB: {_reason(error)}"
            ) from error
    if result is image or result is upright:
        result = result.copy()
    # An orientation or transparency left here would be applied a second time.
    result.info = {k: v for k, v in {**image.info, **result.info}.items() if k == _NOTES}
    return result


def _to_rgb(image: Image.Image, name: str, window: Window | None) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":  # I;16, I;16B, I;16L, I;16N and I
        values = np.asarray(image)
        counted = image.mode != "F" and window is None
        found = from_integers(values, name) if counted else scaled(values, name, window)
        return _noted(_grey(found.levels), *_of_range(found))
    if window is not None:
        eight = image if image.mode == "L" else _to_rgb(image, name, None)
        return Image.fromarray(scaled(np.asarray(eight), name, window).levels).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _from_array(array: Values, max_pixels: int, window: Window | None) -> Image.Image:
    name = f"the array of shape {array.shape} and type {array.dtype}"
    return _picture(array, name, max_pixels, window)


def _picture(
    values: Values, name: str, max_pixels: int, window: Window | None, *, inverted: bool = False
) -> Image.Image:
    """The picture of an array's values."""
    if values.ndim == 3 and values.shape[0] in {1, 3, 4} and values.shape[2] not in {1, 3, 4}:
        raise ImageError(
            f"{name} has its channels first; give array.transpose(1, 2, 0), or a page of a file, FILE[1]"
        )
    if values.ndim not in {2, 3} or (values.ndim == 3 and values.shape[2] not in {1, 3, 4}):
        raise ImageError(
            f"{name} is not one picture; expected (height, width) or (height, width, channels) "
            "with 1, 3 or 4 channels"
        )
    height, width = values.shape[:2]
    check_size(width, height, name, max_pixels)
    found = scaled(values, name, window)
    levels = 255 - found.levels if inverted else found.levels
    if levels.ndim == 2 or levels.shape[2] == 1:
        return _noted(_grey(levels.reshape(height, width)), *_of_range(found))
    return _noted(
        _to_rgb(Image.fromarray(np.ascontiguousarray(levels)), name, None), *_of_range(found)
    )


def _grey(levels: Levels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(levels)).convert("RGB")


# ---- what has to be known -----------------------------------------------------------------------


def _noted(image: Image.Image, *notes: str) -> Image.Image:
    """The picture, with what has to be known of how it was made."""
    if notes:
        image.info[_NOTES] = (*image.info.get(_NOTES, ()), *notes)
    return image


def _of_range(found: Scaled) -> tuple[str, ...]:
    if found.own is None:
        return ()
    low, high = found.own
    said = (
        f"its 16-bit values run from {low} to {high} only, so these were taken for black and white; if the model "
        "was trained on another range, say it with FILE[window=LOW:HIGH], or scale the values yourself"
    )
    return (said,)


def _of_page(name: str, page: int | None, pages: int) -> tuple[str, ...]:
    if pages < 2 or page is not None:
        return ()
    return (
        f"{name} has {pages} pages or frames, of which the first is shown; FILE[2] is the second",
    )
