"""Means, rank correlation and a permutation test, where values may be missing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[np.float64]

_PERMUTATIONS = 9999


def number(value: Tensor) -> float | None:
    """A finite number, else ``None``."""
    number = float(value)
    return number if math.isfinite(number) else None


def mean(values: Sequence[float | None]) -> float | None:
    """Mean of those that are known; ``None`` where none is."""
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def correlation(a: Tensor, b: Tensor) -> float | None:
    """Pearson's, ``None`` where a map is constant."""
    x, y = (t.double().flatten() - t.double().mean() for t in (a, b))
    length = float(x.norm() * y.norm())
    return float(x @ y) / length if length > 0 else None


def ranks(values: Array) -> Array:
    """Ranks from 1; equal values share theirs."""
    _, which, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = counts.cumsum() - (counts - 1) / 2
    return np.asarray(middle[which], dtype=np.float64)


def spearman(x: Array, y: Array) -> float | None:
    """Spearman's rank correlation; ``None`` for fewer than three values."""
    if len(x) < 3:
        return None
    return correlation(torch.from_numpy(ranks(x)), torch.from_numpy(ranks(y)))


def permutation_p(a: Array, b: Array, seed: int) -> float | None:
    """Two-sided p of the difference of two means, by reassigning the values at random."""
    if not len(a) or not len(b):
        return None
    both, generator = np.concatenate([a, b]), np.random.default_rng(seed)
    observed = abs(a.mean() - b.mean())
    reached = 1
    for _ in range(_PERMUTATIONS):
        shuffled = generator.permutation(both)
        reached += abs(shuffled[: len(a)].mean() - shuffled[len(a) :].mean()) >= observed - 1e-12
    return float(reached / (_PERMUTATIONS + 1))
