"""Agreement of maps: slow loops, scipy, scikit-image, identities."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import CamlucidaError
from camlucida.common.statistics import ranks
from camlucida.metrics import pearson, rank_correlation, similarity, ssim, susceptibility
from reference import metrics_maps as slow

FUNCTIONS = [similarity, pearson, rank_correlation, ssim]


def draw(seed=0, n=4, size=(12, 14), levels=None):
    g = torch.Generator().manual_seed(seed)
    maps = torch.rand(n, *size, generator=g, dtype=torch.float64)
    return (maps * levels).floor() / levels if levels else maps


def pairs(seed=0, levels=None):
    a, noise = draw(seed, levels=levels), draw(seed + 1, levels=levels)
    return a, (a + noise) / 2


@pytest.mark.parametrize(
    ("function", "loop"),
    [
        (similarity, slow.mse),
        (pearson, lambda a, b: slow.pearson(a.flat, b.flat)),
        (rank_correlation, slow.spearman),
        (ssim, slow.ssim),
    ],
)
@pytest.mark.parametrize("levels", [None, 4])
def test_against_loops(function, loop, levels):
    a, b = pairs(levels=levels)
    expected = [loop(x.numpy(), y.numpy()) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(function(a, b), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_equal_maps_batches_and_symmetry(function):
    a, b = pairs()
    same = function(a, a)
    torch.testing.assert_close(same, torch.full_like(same, 0 if function is similarity else 1))
    found = function(a, b)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, function(b, a))
    single = [function(x[None], y[None]) for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(found, torch.cat(single), rtol=0, atol=1e-14)


@given(seed=st.integers(0, 10**6), levels=st.sampled_from([None, 2, 5]))
def test_ranks_and_spearman_are_scipys(seed, levels):
    stats = pytest.importorskip("scipy.stats")
    a, b = pairs(seed, levels)
    assert ranks(a.flatten(1)).tolist() == stats.rankdata(a.flatten(1).numpy(), axis=1).tolist()
    for x, y, found in zip(a, b, rank_correlation(a, b), strict=True):
        expected = stats.spearmanr(x.numpy().ravel(), y.numpy().ravel()).statistic
        assert found.item() == pytest.approx(expected, abs=1e-12)


def test_ssim_is_scikit_images():
    metrics = pytest.importorskip("skimage.metrics")
    a, b = draw(3, size=(40, 33)), draw(4, size=(40, 33))
    for x, y, found in zip(a, b, ssim(a, b), strict=True):
        expected = metrics.structural_similarity(
            x.numpy(),
            y.numpy(),
            data_range=1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        assert found.item() == pytest.approx(expected, abs=1e-10)


def test_ranks_do_not_change_under_increasing_functions():
    a, b = pairs()
    torch.testing.assert_close(rank_correlation(a, b), rank_correlation(a.exp(), b**3))
    torch.testing.assert_close(rank_correlation(a, -a), -torch.ones(4, dtype=torch.float64))


def test_scale_and_offset_do_not_change_similarity_nor_correlation():
    a, b = pairs()
    for function in (similarity, pearson):
        torch.testing.assert_close(function(a, b), function(3 * a - 7, 1e-180 * b))


def test_similarity_closed_forms():
    a = torch.zeros(1, 2, 2)
    a[0, 0] = 5
    assert similarity(a, -a).item() == 1
    assert similarity(a, torch.full_like(a, 3)).item() == 0.5  # a constant map counts as zeros
    assert similarity(torch.ones(1, 2, 2), torch.zeros(1, 2, 2)).item() == 0
    assert susceptibility(a, -a).item() == 1


def test_constant_maps_have_no_correlation():
    a = draw(n=1)
    flat = torch.full_like(a, 0.1)
    for function in (pearson, rank_correlation):
        assert function(a, flat).isnan().all()
        assert function(flat, flat).isnan().all()
    assert ssim(flat, flat).item() == pytest.approx(1)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_not_a_number_stays_one(function):
    a, b = pairs()
    b[2, 3, 3] = math.nan
    assert function(a, b).isnan().tolist() == [False, False, True, False]
    a[2] = math.nan
    assert function(a, b).isnan().tolist() == [False, False, True, False]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_errors_say_what_was_given(function):
    with pytest.raises(CamlucidaError, match=r"\(4, 12, 14\)"):
        function(draw(), draw(size=(12, 12)))


def test_ssim_needs_a_window():
    with pytest.raises(CamlucidaError, match="11 pixels"):
        ssim(draw(size=(7, 7)), draw(size=(7, 7)))


def test_large_maps_are_quick():
    """50176 pixels: one sort, no table of pairs."""
    a = torch.from_numpy(np.random.default_rng(0).random((2, 224, 224)))
    assert rank_correlation(a, a.flip(0)).abs().max() < 0.05
