"""Pictures of other trades: arrays, DICOM, HEIC; and files that only other programs read."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, features

from camlucida.common.errors import ImageError, ModelError
from camlucida.common.optional import first_line, has, require
from camlucida.data.levels import Values
from camlucida.data.place import Window

_ARRAY, _DICOM = b"\x93NUMPY", b"DICM"
_LARGEST_RANGE = 1e300


@dataclass(frozen=True)
class Scan:
    """One page of a file, as numbers.

    Attributes:
        values: ``(height, width)`` or ``(height, width, channels)``.
        pages: how many the file has.
        window: which values the file says become black and white; ``None`` where it says nothing.
        inverted: whether small values are bright.
    """

    values: Values
    pages: int = 1
    window: Window | None = None
    inverted: bool = False


@dataclass(frozen=True)
class Kind:
    """Files of pictures that Pillow does not read by itself.

    Attributes:
        suffixes: of their names.
        name: what they are called.
        package: of Python, with which they are read here; empty where they are not.
        instead: what to do where they are not.
    """

    suffixes: tuple[str, ...]
    name: str
    package: str = ""
    instead: str = ""

    @property
    def is_read(self) -> bool:
        """Whether such files are read here and now."""
        if self.package == "PIL":
            return features.check("avif") is True
        return bool(self.package) and has(self.package)

    @property
    def advice(self) -> str:
        """What reads them."""
        if not self.package:
            return self.instead
        return f'{self.name} is read after pip install "camlucida[scans]"'


KINDS = (
    Kind((".npy",), "an array of numpy", "numpy"),
    Kind((".dcm", ".dicom", ".ima"), "DICOM", "pydicom"),
    Kind((".heic", ".heif"), "HEIC", "pillow_heif"),
    Kind((".avif",), "AVIF", "PIL"),
    Kind((".nii", ".nii.gz", ".mha", ".mhd", ".nrrd"), "", instead="SimpleITK reads them; save their slices as .npy"),
    Kind((".svs", ".ndpi", ".mrxs", ".czi"), "", instead="OpenSlide reads them; save their tiles as TIFF"),
    Kind(
        (".cr2", ".cr3", ".nef", ".arw", ".dng", ".raf", ".orf", ".rw2"), "",
        instead="rawpy reads these raw photos; save them as TIFF",
    ),
    Kind((".mp4", ".mov", ".avi", ".mkv", ".webm"), "", instead="ffmpeg reads these videos; save their frames as PNG"),
    Kind((".pdf", ".svg", ".eps", ".ai", ".psd", ".xcf"), "", instead="a drawing program reads them; save them as PNG"),
    Kind((".exr", ".hdr", ".fits", ".fit"), "", instead="imageio or astropy reads them; save their values as .npy"),
    Kind((".npz", ".mat", ".h5", ".hdf5"), "", instead="they hold several arrays; save one picture each as .npy"),
)  # fmt: skip
"""What is said of files in a folder, and of a file that cannot be read."""


def kind_of(path: str | os.PathLike[str]) -> Kind | None:
    """The kind of a file by its name; ``None`` for those that Pillow reads, and for all that are no pictures."""
    name = Path(path).name.lower()
    return next((kind for kind in KINDS if name.endswith(kind.suffixes)), None)


def left_out(paths: Iterable[Path]) -> list[str]:
    """Of the files of a folder, which kinds are not read and what reads them, a sentence each."""
    found: dict[str, list[str]] = {}
    for path in paths:
        kind = kind_of(path)
        if kind is not None and not kind.is_read:
            ending = next(one for one in kind.suffixes if path.name.lower().endswith(one))
            found.setdefault(kind.advice, []).append(ending)
    return [
        f"{len(kinds)} file{'s' * (len(kinds) > 1)} ({', '.join(sorted(set(kinds)))}) left out: {advice}"
        for advice, kinds in found.items()
    ]


def register_heif() -> None:
    """Have Pillow read HEIC, where that is installed."""
    if has("pillow_heif") and "HEIF" not in Image.OPEN:
        require("pillow_heif", "scans").register_heif_opener()


def read_scan(path: Path, name: str, page: int | None, max_pixels: int) -> Scan | None:
    """A page of an array or of DICOM, told by what stands in the file; ``None`` of any other file.

    Raises:
        ImageError: it cannot be read, is too large, or has no such page.
    """
    with path.open("rb") as file:
        start = file.read(132)
    if start.startswith(_ARRAY):
        return _array(path, name, page, max_pixels)
    if start[128:] == _DICOM:
        return _dicom(path, name, page, max_pixels)
    return None


def checked_page(page: int | None, pages: int, name: str) -> int:
    """The position of a page, from 0; of the first where none is said.

    Raises:
        ImageError: there is no such page.
    """
    if page is not None and page > pages:
        raise ImageError(f"{name} has {pages} page{'s' * (pages > 1)}, so there is no page {page}")
    return 0 if page is None else page - 1


def check_size(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse a picture of too many pixels, or of none, by what its header says.

    Raises:
        ImageError: saying so.
    """
    if min(width, height) < 1:
        raise ImageError(f"{name} has {width} x {height} pixels: nothing to see")
    if width * height > max_pixels:
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than the {max_pixels} allowed; shrink it, or raise "
            "max_pixels if you trust the file"
        )


def _array(path: Path, name: str, page: int | None, max_pixels: int) -> Scan:
    try:
        # A map into the file: what its header promises is not made.
        values: Values = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:
        raise ImageError(f"{name} is a damaged array: {first_line(error)}") from error
    pages, channels = 1, (1, 3, 4)
    apart = values.ndim == 3 and values.shape[0] in channels and values.shape[2] not in channels
    several = values.ndim == 4 or (values.ndim == 3 and values.shape[2] not in channels)
    if several:
        pages = values.shape[0]
        if pages < 1:
            raise ImageError(f"{name} holds no page")
        if not (apart and page is None):  # channels first is refused where it is read
            values = values[checked_page(page, pages, name)]
    elif values.ndim > 1:
        checked_page(page, 1, name)
    if values.ndim > 1:
        check_size(values.shape[1], values.shape[0], name, max_pixels)
    return Scan(np.asarray(values), pages)  # not read before its shape is known to be a picture's


def _dicom(path: Path, name: str, page: int | None, max_pixels: int) -> Scan:
    try:
        pydicom = require("pydicom", "scans")
    except ModelError as error:
        raise ImageError(f"{name} is a DICOM file; {error}") from error
    try:
        header = pydicom.dcmread(path, stop_before_pixels=True)
        size = (int(header.Columns), int(header.Rows))
        pages = int(header.get("NumberOfFrames") or 1)
    except Exception as error:
        raise ImageError(
            f"{name} is a DICOM file without a picture: {first_line(error)}"
        ) from error
    check_size(*size, name, max_pixels)
    index = checked_page(page, pages, name)
    try:
        pixels = require("pydicom.pixels", "scans")
        values: Values = pixels.pixel_array(path, index=index)
        kind = str(header.PhotometricInterpretation)
        if kind == "PALETTE COLOR":
            return Scan(_eight_bits(pixels.apply_color_lut(values, header)), pages)
        if values.ndim == 3:
            return Scan(_eight_bits(values, int(header.BitsStored)), pages)
        values = pixels.apply_rescale(values, header)
    except Exception as error:
        raise ImageError(f"the pixels of {name} cannot be read: {first_line(error)}") from error
    return Scan(values, pages, _window(header, values), kind == "MONOCHROME1")


def _eight_bits(values: Any, bits: int | None = None) -> Values:
    """Colours of so many bits as those of 8."""
    shift = (bits or 8 * values.dtype.itemsize) - 8
    found: Values = (values >> shift if shift > 0 else values).astype(np.uint8)
    return found


def _window(header: Any, values: Any) -> Window:
    """What the file says becomes black and white, or the smallest and largest value."""
    middle, width = (_first(header.get(word)) for word in ("WindowCenter", "WindowWidth"))
    # The linear function of the standard, PS3.3 C.11.2.1.2.
    low, high = middle - 0.5 - (width - 1) / 2, middle - 0.5 + (width - 1) / 2
    if -_LARGEST_RANGE < low < high < _LARGEST_RANGE:
        return low, high
    low, high = float(values.min()), float(values.max())
    return low, max(high, low + 1)


def _first(value: Any) -> float:
    """A number, or the first of several; NaN where there is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return float(value[0]) if value else math.nan
