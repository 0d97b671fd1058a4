"""A map in words, for who cannot see it and for who wants to be sure."""

from __future__ import annotations

import torch
from torch import Tensor

from camlucida.metrics import effective_area

_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def described(attribution: Tensor, sides: tuple[str, str]) -> str:
    """Where a map ``(H, W)`` is strong, and how much of the picture it takes.

    Args:
        attribution: the map, signed or not.
        sides: what negative and positive values speak for.
    """
    if not bool(attribution.any()):
        return "The map is empty."
    signed = bool((attribution < 0).any())
    said = []
    parts = ((attribution.clamp_min(0), sides[1]), ((-attribution).clamp_min(0), sides[0]))
    for values, side in parts if signed else parts[:1]:
        if bool(values.any()):
            what = f"evidence {side}" if signed else "the map"
            said.append(f"{what} is strongest in the {_place(values)}")
    area = float(effective_area(attribution.abs()[None].double())[0])
    text = "; ".join(said)
    return f"{text[0].upper()}{text[1:]}. It spreads over about {area:.0%} of what the model saw."


def _place(values: Tensor) -> str:
    """The ninth of the picture that holds most of the map."""
    shares = torch.nn.functional.adaptive_avg_pool2d(values[None, None].float(), 3)[0, 0]
    row, column = divmod(int(shares.argmax()), 3)
    if (row, column) == (1, 1):
        return "centre"
    return f"{_ROWS[row]} {_COLUMNS[column]}"
