"""The values of scans and arrays as levels of 8 bits, and what a user has to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from camlucida.common.errors import ImageError
from camlucida.data.place import Window

Values = npt.NDArray[np.generic]
Levels = npt.NDArray[np.uint8]

_FULL = 65535


@dataclass(frozen=True)
class Scaled:
    """Levels of 0 to 255.

    Attributes:
        levels: in the shape of the values.
        own: the values' own range, where that was taken for black and white.
    """

    levels: Levels
    own: tuple[int, int] | None = None


def scaled(values: Values, name: str, window: Window | None = None) -> Scaled:
    """Values of any type as levels.

    Args:
        values: bool, uint8 (0 to 255), uint16 (0 to 65535) or float (0 to 1); with a window any numbers.
        name: what they are called in errors.
        window: the values that become black and white; what lies beyond is cut off.

    Raises:
        ImageError: the type or range is another.
    """
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name} has values that are no numbers; {_EXPECTED}")
    if window is not None:
        return Scaled(_windowed(values, window, name))
    if values.dtype.kind == "b":
        return Scaled(values.astype(np.uint8) * np.uint8(255))
    if values.dtype == np.uint8:
        return Scaled(values.astype(np.uint8))
    if values.dtype.kind == "f":
        return Scaled(_from_floats(values, name))
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:  # of either byte order
        return from_integers(values, name)
    raise ImageError(f"{name} has an unsupported type; {_EXPECTED}, or {_SAY}")


_EXPECTED = "expected uint8 (0 to 255), uint16 (0 to 65535), bool, or float (0 to 1)"
_SAY = "say which values become black and white, as in FILE[window=LOW:HIGH]"


def _windowed(values: Values, window: Window, name: str) -> Levels:
    low, high = window
    exact = values.astype(np.float64)
    if not np.isfinite(exact).all():
        raise ImageError(f"{name} has values that are not finite; replace NaN and infinity")
    levels: Levels = np.rint(((exact - low) / (high - low)).clip(0, 1) * 255).astype(np.uint8)
    return levels


def from_integers(values: Values, name: str) -> Scaled:
    """0..65535, or the values' own range where it is less than half of that, to 0..255, rounded."""
    wide = values.astype(np.int64)
    low, high = int(wide.min()), int(wide.max())
    if low < 0 or high > _FULL:
        raise ImageError(
            f"{name} has integer values from {low} to {high}; expected 0 to 65535, so {_SAY}"
        )
    if 0 < high - low < _FULL / 2:
        return Scaled(np.rint((wide - low) * (255 / (high - low))).astype(np.uint8), (low, high))
    return Scaled(((wide + 128) // 257).astype(np.uint8))


def _from_floats(values: Values, name: str) -> Levels:
    """0..1 to 0..255, rounded."""
    exact = values.astype(np.float64)
    low, high = float(exact.min()), float(exact.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(f"{name} has values that are not finite; replace NaN and infinity")
    if low < -1e-6 or high > 1 + 1e-6:
        hint = "divide by 255" if low >= 0 and high <= 255 else _SAY
        raise ImageError(
            f"{name} has float values from {low:.6g} to {high:.6g}; expected 0 to 1, so {hint}"
        )
    levels: Levels = np.rint(exact.clip(0, 1) * 255).astype(np.uint8)
    return levels
