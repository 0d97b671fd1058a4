"""Ranks and the permutation test behind the four cases."""

import numpy as np
import pytest
import torch

from camlucida.common.statistics import permutation_p, ranks, spearman


def test_statistics():
    x = np.arange(6.0)
    assert spearman(x, x**3) == pytest.approx(1)
    assert spearman(x, -x) == pytest.approx(-1)
    assert spearman(x[:2], x[:2]) is None
    assert ranks(torch.tensor([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]
    assert permutation_p(np.array([]), x, 0) is None
    assert permutation_p(x + 100, x, 0) == pytest.approx(2 / 924, abs=0.002)
    assert permutation_p(x, x, 0) == 1
