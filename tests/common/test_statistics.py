"""Intervals, ranks and tests against scipy, loops and closed forms."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import scipy.stats

from camlucida.common import statistics
from camlucida.common.statistics import holm, interval, mean_ranks, rank_sum, signed_rank


@pytest.mark.parametrize("n", [12, 60, 400])
@pytest.mark.parametrize("kind", ["normal", "skewed", "hits"])
def test_the_interval_is_scipy_s_bca(n, kind):
    random = np.random.default_rng(n)
    values = {
        "normal": lambda: random.normal(5, 2, (n, 2)),
        "skewed": lambda: random.lognormal(0, 1, (n, 2)),
        "hits": lambda: (random.random((n, 2)) < 0.3).astype(float),
    }[kind]()
    low, high = interval(values, seed=1, resamples=9999)
    for j in range(2):
        theirs = scipy.stats.bootstrap(
            (values[:, j],), np.mean, n_resamples=9999, method="BCa", rng=np.random.default_rng(2)
        ).confidence_interval
        # The mean of hits moves in steps of 1/n.
        near = max(0.06 * (theirs.high - theirs.low), 1.01 / n if kind == "hits" else 0)
        assert abs(low[j] - theirs.low) < near
        assert abs(high[j] - theirs.high) < near


def test_the_skew_moves_the_interval_to_the_right():
    values = np.random.default_rng(0).lognormal(0, 1, (40, 1))
    low, high = interval(values, resamples=9999)
    mean = values.mean()
    assert high[0] - mean > 1.2 * (mean - low[0])


def test_intervals_hold_the_mean_about_as_often_as_they_say():
    random = np.random.default_rng(0)
    values = random.exponential(1, (50, 400))  # 400 samples of 50
    low, high = interval(values, resamples=999)
    covered = ((low < 1) & (high > 1)).mean()
    assert 0.88 < covered < 0.98


def test_intervals_of_columns_do_not_depend_on_their_neighbours():
    values = np.random.default_rng(0).normal(size=(30, 3))
    low, high = interval(values)
    for j in range(3):
        alone = interval(values[:, j : j + 1])
        assert alone[0][0] == pytest.approx(low[j], abs=1e-12)
        assert alone[1][0] == pytest.approx(high[j], abs=1e-12)
    again = interval(values)
    assert np.array_equal(low, again[0])
    assert not np.array_equal(low, interval(values, seed=9)[0])


def test_many_values_have_the_normal_interval_and_the_bootstrap_agrees(monkeypatch):
    values = np.random.default_rng(0).lognormal(0, 0.5, (20_000, 1))
    low, high = interval(values)
    monkeypatch.setattr(statistics, "MANY", 20_000)
    plain = interval(values)
    half = 1.959964 * values.std(ddof=1) / np.sqrt(20_000)
    assert plain[0][0] == pytest.approx(values.mean() - half, rel=1e-6)
    assert plain[1][0] == pytest.approx(values.mean() + half, rel=1e-6)
    assert abs(low[0] - plain[0][0]) < 0.1 * half
    assert abs(high[0] - plain[1][0]) < 0.1 * half


def test_intervals_at_the_edges():
    assert np.isnan(interval(np.ones((1, 2)))).all()
    low, high = interval(np.full((5, 1), 0.25))
    assert (low[0], high[0]) == (0.25, 0.25)
    assert interval(np.empty((5, 0)))[0].shape == (0,)
    low, high = interval(np.array([[0.0], [0.0], [0.0], [1.0]]))
    assert 0 <= low[0] <= 0.25 <= high[0] <= 1


def test_mean_ranks_by_hand():
    values = np.array([[0.9, 0.5, 0.5], [0.1, 0.2, 0.3], [0.4, np.nan, 0.2]])
    assert mean_ranks(values, "higher").tolist() == [(1 + 3) / 2, (2.5 + 2) / 2, (2.5 + 1) / 2]
    assert mean_ranks(values, "lower").tolist() == [(3 + 1) / 2, (1.5 + 2) / 2, (1.5 + 3) / 2]
    assert np.isnan(mean_ranks(values, "none")).all()
    assert np.isnan(mean_ranks(values[:, :1], "higher")).all()
    assert np.isnan(mean_ranks(values[2:, :2], "higher")).all()
    # A method without any value takes no ranks from the others.
    broken = np.insert(values[:2], 1, np.nan, axis=1)
    found = mean_ranks(broken, "higher")
    assert np.isnan(found[1])
    assert np.delete(found, 1).tolist() == mean_ranks(values[:2], "higher").tolist()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("n", "m"), [(8, 8), (40, 55), (300, 2)])
def test_rank_sum_is_the_normal_approximation_with_ties(n, m, ties):
    random = np.random.default_rng(n)
    one, other = random.normal(size=n), random.normal(0.4, 1, m)
    if ties:
        one, other = one.round(1), other.round(1)
    theirs = scipy.stats.mannwhitneyu(
        one, other, alternative="two-sided", method="asymptotic", use_continuity=False
    ).pvalue
    assert rank_sum(np.sort(one), np.sort(other)) == pytest.approx(theirs, rel=1e-9)
    if not ties:
        plain = scipy.stats.ranksums(one, other).pvalue
        assert rank_sum(np.sort(one), np.sort(other)) == pytest.approx(plain, rel=1e-9)


def test_rank_sum_at_the_edges():
    assert np.isnan(rank_sum(np.empty(0), np.ones(3)))
    assert rank_sum(np.ones(4), np.ones(3)) == 1.0
    assert rank_sum(np.zeros(30), np.ones(30)) < 1e-10


@pytest.mark.parametrize("n", [5, 12, 49, 200])
def test_signed_rank_is_scipy_s(n):
    differences = np.random.default_rng(n).normal(0.2, 1, n)
    assert signed_rank(differences) == pytest.approx(
        scipy.stats.wilcoxon(differences).pvalue, rel=1e-9
    )


@pytest.mark.parametrize("n", [3, 7, 11])
def test_signed_rank_of_equal_differences_counts_all_signs(n):
    differences = np.random.default_rng(n).integers(-2, 4, n).astype(float)
    changed = differences[differences != 0]
    ranks = scipy.stats.rankdata(abs(changed))
    signs = np.array(list(itertools.product([0, 1], repeat=len(changed))))
    off = abs(signs @ ranks - ranks.sum() / 2)
    own = abs(ranks[changed > 0].sum() - ranks.sum() / 2)
    assert signed_rank(differences) == pytest.approx((off >= own - 1e-9).mean(), rel=1e-9)


def test_signed_rank_of_many_equal_differences_is_the_normal_approximation():
    differences = np.random.default_rng(0).normal(0.2, 1, 200).round(1)
    changed = differences[differences != 0]
    theirs = scipy.stats.wilcoxon(changed, method="asymptotic").pvalue
    assert signed_rank(differences) == pytest.approx(theirs, rel=1e-9)


def test_signed_rank_at_the_edges():
    assert np.isnan(signed_rank(np.empty(0)))
    assert signed_rank(np.zeros(5)) == 1.0
    assert signed_rank(np.arange(1.0, 6.0)) == pytest.approx(2 / 2**5)


def test_holm_by_hand():
    p = [0.01, 0.04, np.nan, 0.03]
    found = holm(p)
    assert found[[0, 1, 3]] == pytest.approx([0.03, 0.06, 0.06])
    assert np.isnan(found[2])
    assert np.isnan(holm([np.nan])).all()
    assert holm([]).shape == (0,)
