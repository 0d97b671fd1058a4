"""Bring what a layer returns into the form of a feature map."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from camlucida.common.errors import LayerError

_MAX_PREFIX = 17  # a class token and up to 16 registers


@dataclass(frozen=True)
class Grid:
    """How a layer's output is read as a feature map ``(N, K, h, w)``, and written back.

    Attributes:
        layout: ``"nchw"``; ``"nhwc"``; or ``"tokens"``, ``(N, T, K)`` in row-major order.
        prefix: number of class and register tokens in front, which are no part of the map.
        size: (h, w) of a token grid.
    """

    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    size: tuple[int, int] | None = None

    def to_map(self, output: Tensor) -> Tensor:
        """The feature map ``(N, K, h, w)`` in a layer's output."""
        if self.layout == "nchw":
            return output
        if self.layout == "nhwc":
            return output.permute(0, 3, 1, 2)
        assert self.size is not None  # noqa: S101
        tokens = output[:, self.prefix :]
        return tokens.reshape(tokens.shape[0], *self.size, -1).permute(0, 3, 1, 2)

    def to_output(self, feature_map: Tensor, output: Tensor) -> Tensor:
        """The layer's output with its feature map replaced; prefix tokens stay ``output``'s own."""
        if self.layout == "nchw":
            return feature_map
        if self.layout == "nhwc":
            return feature_map.permute(0, 2, 3, 1)
        tokens = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : self.prefix], tokens], dim=1) if self.prefix else tokens


GridRule: TypeAlias = Grid | Callable[[Tensor], Tensor]
"""A grid, or a function from a layer's output to ``(N, K, h, w)`` (a ``reshape_transform``)."""


def find_grid(output: Tensor, input_size: tuple[int, int], name: str = "layer") -> Grid:
    """Read the grid off an output's shape and the input's size.

    A map has the input's aspect ratio up to rounding: that decides between channels first and last, and
    which factors of a token count, after how many prefix tokens, are its height and width. Where both
    readings fit, channels first and the smaller prefix win.

    Args:
        output: what the layer returned.
        input_size: (H, W) of the model's input.
        name: the layer's name, for the error.

    Raises:
        LayerError: when the output has no spatial extent.
    """
    if output.ndim == 4:
        first, last = tuple(output.shape[2:4]), tuple(output.shape[1:3])
        if mismatch(last, input_size) < mismatch(first, input_size):
            return Grid("nhwc")
        return Grid()
    tokens = output.shape[1] if output.ndim == 3 and output.shape[2] > 1 else 0
    if tokens and (found := _token_grid(tokens, input_size)):
        return Grid("tokens", *found)
    raise LayerError(
        f"layer {name!r} returns shape {tuple(output.shape)}, which is no feature map (N, K, h, w), "
        f"(N, h, w, K) or token grid of a {input_size[0]}x{input_size[1]} input; choose a layer before "
        "pooling, or pass grid= a function from its output to (N, K, h, w)"
    )


def mismatch(size: tuple[int, ...], input_size: tuple[int, int]) -> float:
    """How far the two strides that a map of this size implies differ, beyond rounding."""
    best = math.inf
    for rows, columns in ((size[0], size[1]), (size[0] - 1, size[1]), (size[0], size[1] - 1)):
        if rows > 0 and columns > 0:
            ratio = (input_size[0] / rows) / (input_size[1] / columns)
            best = min(best, abs(math.log(ratio)))
    return best


def _token_grid(tokens: int, input_size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    height, width = input_size
    for exact in (True, False):
        for prefix in range(min(_MAX_PREFIX, tokens - 1) + 1):
            for stride in range(1, min(height, width) + 1):
                if exact and (height % stride or width % stride):
                    continue
                for rows, columns in {
                    (height // stride, width // stride),
                    (-(-height // stride), -(-width // stride)),
                }:
                    if rows * columns == tokens - prefix and rows * columns > 1:
                        return prefix, (rows, columns)
    return None


def single_tensor(output: Any) -> Tensor | None:
    """The one tensor that a layer returned, also inside a tuple of its own; ``None`` if not exactly one."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        tensors = [item for item in output if isinstance(item, Tensor)]
        if len(tensors) == 1 and isinstance(output[0], Tensor):
            return output[0]
    return None
