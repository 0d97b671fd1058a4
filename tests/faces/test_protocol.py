"""The verification protocol against its slow reference, and the cases that the spec names."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import CamlucidaError
from camlucida.faces.protocol import (
    MODES,
    PERCENTAGES,
    RULES,
    accuracy,
    accuracy_curve,
    altered_scores,
    area,
    bootstrap,
    decision,
    eer_threshold,
    error_curves,
    held_out,
    kept_pixels,
    random_map,
)
from reference import faces as slow

_scores = st.lists(
    st.tuples(st.integers(0, 6).map(lambda v: v / 6), st.booleans()), min_size=2, max_size=25
).filter(lambda rows: 0 < sum(same for _, same in rows) < len(rows))


@given(_scores)
def test_threshold_equals_the_slow_reference(rows):
    scores, same = zip(*rows, strict=True)
    genuine = [s for s, g in rows if g]
    impostor = [s for s, g in rows if not g]
    found = eer_threshold(scores, same)
    assert found.value == slow.eer_threshold(genuine, impostor)
    assert found.fmr == pytest.approx(sum(s >= found.value for s in impostor) / len(impostor))
    assert found.fnmr == pytest.approx(sum(s < found.value for s in genuine) / len(genuine))
    right = slow.accuracy(scores, same, found.value)
    assert accuracy(scores, same, found.value) == pytest.approx(right)
    middle = eer_threshold(scores, same, eer_midpoint=True)
    assert middle.value <= found.value
    assert accuracy(scores, same, middle.value) == pytest.approx(right)


def test_ties_pick_the_largest_threshold():
    scores, same = [0.9, 0.5, 0.1], [True, False, True]
    curves = error_curves(scores, same)
    gaps = np.abs(curves.fmr - curves.fnmr)
    assert (gaps == gaps.min()).sum() > 1
    assert eer_threshold(scores, same).value == curves.thresholds[gaps == gaps.min()].max() == 0.9


def test_the_decision_is_inclusive():
    assert accuracy([0.5, 0.4], [True, False], 0.5) == 1
    assert accuracy([0.5, 0.4], [True, False], np.nextafter(0.5, 1)) == 0.5


def test_separable_scores():
    scores, same = [0.91234567, 0.8, 0.3, 0.1], [True, True, False, False]
    found = eer_threshold(scores, same)
    assert (found.value, found.eer) == (0.8, 0)
    assert eer_threshold(scores, same, eer_midpoint=True).value == pytest.approx(0.55)
    # Rounding up rejects the lowest genuine pair.
    rounded = eer_threshold([0.91234567, 0.80006, 0.3], [True, True, False], round_theta=True)
    assert rounded.value == 0.8001
    assert rounded.fnmr == 0.5


def test_roc_area_is_the_chance_of_the_right_order():
    rng = np.random.default_rng(0)
    genuine, impostor = rng.integers(2, 9, 12), rng.integers(0, 6, 15)
    wanted = np.mean([(g > i) + 0.5 * (g == i) for g in genuine for i in impostor])
    found = error_curves([*genuine, *impostor], [True] * 12 + [False] * 15)
    assert found.auc == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("scores", "same", "match"),
    [([1.0, 2.0], [True, True], "no impostor"), ([1.0], [False], "no genuine"),
     ([1.0, float("nan")], [True, False], "finite"), ([1.0], [True, False], "one length")],
)  # fmt: skip
def test_bad_scores_are_refused(scores, same, match):
    with pytest.raises(CamlucidaError, match=match):
        eer_threshold(scores, same)


# ------------------------------------------------------------------------------------------------ pixels


@pytest.mark.parametrize("mode", MODES)
def test_percentile_pixels_equal_the_slow_reference(mode):
    torch.manual_seed(2)
    maps = torch.stack(
        [torch.rand(7, 9), torch.randint(0, 3, (7, 9)) / 2, torch.rand(7, 9).clamp_min(0.6)]
    )
    pixels = torch.rand(3, 7, 9) + 0.1
    for i in range(3):
        kept = kept_pixels(maps[i : i + 1], PERCENTAGES, mode)[0]
        for k, p in enumerate(PERCENTAGES):
            wanted = slow.altered(pixels, maps[i].double(), p, mode == "insert")
            assert torch.equal(pixels * kept[k], wanted), (i, p)


def test_percentile_equals_numpy():
    maps = torch.rand(1, 20, 20, dtype=torch.float64)
    kept = kept_pixels(maps, PERCENTAGES, "insert")[0]
    for k, p in enumerate(PERCENTAGES):
        limit = np.percentile(maps[0].numpy(), 100 - p)
        np.testing.assert_array_equal(kept[k].numpy(), maps[0].numpy() > limit)


def test_rank_removes_exactly_so_many():
    maps = torch.stack([torch.zeros(6, 7), torch.rand(6, 7)])
    for mode in MODES:
        counts = kept_pixels(maps, PERCENTAGES, mode, "rank").sum((2, 3))
        removed = [round(p / 100 * 42) for p in PERCENTAGES]
        wanted = removed if mode == "insert" else [42 - n for n in removed]
        assert counts.tolist() == [wanted, wanted]
    kept = kept_pixels(maps[1:], [50], "insert", "rank")[0, 0]
    assert maps[1][kept].min() > maps[1][~kept].max()


def test_ends_and_constant_maps():
    maps = torch.rand(1, 5, 5)
    for rule in RULES:
        assert kept_pixels(maps, [0], "delete", rule).all()
        assert not kept_pixels(maps, [0], "insert", rule).any()
    assert not kept_pixels(maps, [100], "delete", "rank").any()
    # The least important pixel is never above its own percentile.
    assert kept_pixels(maps, [100], "delete", "percentile").sum() == 1
    constant = torch.full((1, 5, 5), 0.1)
    assert kept_pixels(constant, PERCENTAGES, "delete").all()
    assert not kept_pixels(constant, PERCENTAGES, "insert").any()


@pytest.mark.parametrize(
    ("arguments", "match"),
    [(([101], "delete"), "percentages"), (([5], "remove"), "'remove'"), (([5], "insert", "x"), "'x'")],
)  # fmt: skip
def test_bad_masks_are_refused(arguments, match):
    with pytest.raises(CamlucidaError, match=match):
        kept_pixels(torch.rand(1, 3, 3), *arguments)


def test_scores_of_a_pair_in_any_batch():
    map_, other = torch.rand(6, 6), torch.rand(6, 6)
    values = torch.rand(6, 6, dtype=torch.float64)

    def score(probe, gallery):
        found = (probe * values).sum((1, 2))
        return found if gallery is None else found + 10 * (gallery * values).sum((1, 2))

    one = altered_scores(score, map_)
    assert set(one) == {(rule, mode) for rule in RULES for mode in MODES}
    for (rule, mode), found in one.items():
        kept = kept_pixels(map_[None], PERCENTAGES, mode, rule)[0]
        np.testing.assert_allclose(found, (kept * values).sum((1, 2)), rtol=1e-12)
    again = altered_scores(score, map_, batch_size=5)
    both = altered_scores(score, map_, other)
    for key in one:
        np.testing.assert_allclose(one[key], again[key], rtol=1e-12)
        kept = kept_pixels(other[None], PERCENTAGES, key[1], key[0])[0]
        np.testing.assert_allclose(
            both[key], one[key] + 10 * (kept * values).sum((1, 2)).numpy(), rtol=1e-12
        )


# ----------------------------------------------------------------------------------------------- outcome


def test_area_of_a_constant_curve_is_the_constant():
    assert area([0.5] * 11, PERCENTAGES) == pytest.approx(50)
    assert area([1.0] * 3, [0, 50, 100]) == pytest.approx(100)
    heights = np.random.default_rng(1).random(11)
    assert area(heights, PERCENTAGES) == pytest.approx(slow.auc(list(heights), PERCENTAGES))
    with pytest.raises(CamlucidaError, match="two rising"):
        area([1.0], [0])


def test_accuracy_curve_equals_the_slow_reference():
    rng = np.random.default_rng(3)
    scores, same = rng.random((14, 11)), rng.random(14) < 0.5
    found = accuracy_curve(scores, same, 0.45, seed=1)
    wanted = [slow.accuracy(scores[:, k], same, 0.45) for k in range(11)]
    np.testing.assert_allclose(found.accuracy, wanted)
    assert found.auc == pytest.approx(slow.auc(wanted, PERCENTAGES))
    assert found.low < found.auc < found.high
    with pytest.raises(CamlucidaError, match="one row per pair"):
        accuracy_curve(scores, same[:3], 0.45)


def test_bootstrap_covers_the_mean_and_draws_whole_groups():
    rng = np.random.default_rng(4)
    inside = 0
    for trial in range(200):
        low, high = bootstrap(rng.normal(1, 1, 40), resamples=400, seed=trial)
        inside += low <= 1 <= high
    assert 0.88 <= inside / 200 <= 0.99
    values = np.repeat(rng.normal(0, 1, 20), 10)
    names = np.repeat([f"p{i}" for i in range(20)], 10)
    alone, grouped = bootstrap(values), bootstrap(values, names)
    assert grouped[1] - grouped[0] > 2 * (alone[1] - alone[0])
    assert bootstrap(values) == bootstrap(values)
    assert np.isnan(bootstrap([1.0])).all()


def test_random_maps_are_each_their_own_and_repeat():
    a, b = random_map((8, 9), 1, 0), random_map((8, 9), 1, 1)
    assert a.shape == (8, 9)
    assert not torch.equal(a, b)
    assert torch.equal(a, random_map((8, 9), 1, 0))
    smooth = random_map((40, 40), 0, sigma=4.0)
    assert smooth.min() == 0
    assert smooth.max() == 1
    assert smooth.diff(dim=0).abs().mean() < random_map((40, 40), 0).diff(dim=0).abs().mean() / 4


@pytest.mark.parametrize(
    ("similarity", "threshold", "compare", "said"),
    [
        (-0.4189, -0.6, "distance", "distance 0.419 <= 0.600: match"),
        (-0.75, -0.6, "distance", "distance 0.750 > 0.600: no match"),
        (-0.60001, -0.6, "distance", "distance 0.60001 > 0.60000: no match"),
        (0.5, 0.5, "cosine", "cosine 0.500 >= 0.500: match"),
        (0.1, 0.4, "cosine", "cosine 0.100 < 0.400: no match"),
        (-0.0, None, "distance", "distance 0.000, no threshold known"),
    ],
)
def test_a_decision_reads_as_people_say_it(similarity, threshold, compare, said):
    assert decision(similarity, threshold, compare) == said


def test_a_threshold_is_tried_on_people_that_it_was_not_fitted_on():
    random = np.random.default_rng(0)
    people = [f"p{i // 4}" for i in range(80)]
    same = np.arange(80) % 2 == 0
    scores = random.normal(size=80) + 2 * same
    found = held_out(scores, same, people, folds=5, seed=1)
    right = np.zeros(80)
    order = np.random.default_rng(1).permutation(20)
    names = np.unique(people, return_inverse=True)[1]
    for part in np.array_split(order, 5):
        out = np.isin(names, part)
        theta = eer_threshold(scores[~out], same[~out]).value
        right[out] = (scores[out] >= theta) == same[out]
    assert found.accuracy == pytest.approx(right.mean())
    assert found.low < found.accuracy < found.high
    # scores that say nothing: what is fitted on the pairs flatters itself
    noise, labels = random.normal(size=8), np.arange(8) % 2 == 0
    alone = held_out(noise, labels, [str(i) for i in range(8)])
    assert alone.accuracy <= accuracy(noise, labels, eer_threshold(noise, labels).value)
    assert held_out([0.1, 0.9], [False, True], ["a", "b"]) is None
