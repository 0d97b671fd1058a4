"""Which pixels go: numpy's percentiles, exact counts, ties, and the edge cases of spec 7.4."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import CamlucidaError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import ranks
from camlucida.metrics.ranking import removal_masks
from reference import road as slow

PERCENTAGES = (0, 1, 10, 33.3, 50, 90, 100)


def maps(n=3, size=(9, 11), levels=None):
    values = torch.rand(n, *size)
    return values if levels is None else (values * levels).floor() / levels


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("order", ["morf", "lerf"])
@pytest.mark.parametrize("rule", ["percentile", "rank"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_is_the_loop(levels, order, rule, dtype):
    values = maps(levels=levels).to(dtype)
    found = removal_masks(values, PERCENTAGES, rule, order)
    assert found.shape == (3, len(PERCENTAGES), 9, 11)
    reference = {"percentile": slow.by_percentile, "rank": slow.by_rank}[rule]
    for i, one in enumerate(values):
        for k, p in enumerate(PERCENTAGES):
            assert np.array_equal(found[i, k], reference(one.numpy(), p, order)), (i, p)


@given(st.floats(0, 100), st.integers(1, 30), st.integers(0, 2**31))
def test_percentiles_are_numpys(percent, length, seed):
    values = np.random.default_rng(seed).integers(0, 6, (1, 1, length)) / 4
    found = removal_masks(torch.from_numpy(values), [percent])[0, 0]
    assert np.array_equal(found, values[0] > np.percentile(values, 100 - percent))


def test_at_100_percent_the_least_survive_unless_by_rank():
    values = torch.arange(100.0).view(1, 10, 10)
    assert int(removal_masks(values, [100]).sum()) == 99
    assert int(removal_masks(values, [100], "rank").sum()) == 100


def test_a_constant_map_loses_nothing_unless_by_rank():
    values = torch.full((1, 10, 10), 0.5)
    assert not removal_masks(values, range(0, 101, 10)).any()
    counts = removal_masks(values, range(0, 101, 10), "rank").sum((2, 3))[0]
    assert counts.tolist() == list(range(0, 101, 10))


def test_a_map_that_is_half_zeros_stops_at_half():
    values = torch.rand(1, 10, 10) + 0.1
    values.view(-1)[::2] = 0
    counts = removal_masks(values, [40, 60, 80, 100]).sum((2, 3))[0].tolist()
    assert counts == [40, 50, 50, 50]
    assert removal_masks(values, [40, 60, 80], "rank").sum((2, 3))[0].tolist() == [40, 60, 80]


def test_ties_by_noise_are_seeded_per_image_and_only_break_ties():
    images = torch.rand(2, 3, 12, 12)
    values = maps(2, (12, 12), levels=2)

    def masks(x, m, seed=0, **options):
        generators = ImageGenerators.of(seed, x)
        return removal_masks(m, [30], "rank", tie_break="noise", generators=generators, **options)

    first = masks(images, values)
    assert torch.equal(first, masks(images, values))
    assert torch.equal(first[1:], masks(images[1:], values[1:]))
    assert not torch.equal(first, masks(images, values, seed=1))
    assert not torch.equal(first, removal_masks(values, [30], "rank"))
    for i in range(2):
        assert values[i][first[i, 0]].min() >= values[i][~first[i, 0]].max()
    # The noise is on the scaled map: its scale does not matter.
    assert torch.equal(first, masks(images, 1000 * values + 5))


def test_ranks():
    assert ranks(-torch.tensor([[3.0, 9.0, 3.0, 1.0]]), "order").tolist() == [[2, 1, 3, 4]]


def test_nan_loses_nothing():
    values = maps(2)
    values[0, 0, 0] = torch.nan
    for rule in ("percentile", "rank"):
        found = removal_masks(values, [50], rule)
        assert not found[0].any()
        assert found[1].any()


def test_errors():
    for options, text in (
        ({"percentages": [101]}, "0 to 100"),
        ({"percentages": []}, "0 to 100"),
        ({"mask": "top"}, "'percentile' or 'rank'"),
        ({"order": "first"}, "'morf' or 'lerf'"),
        ({"tie_break": "coin"}, "'index' or 'noise'"),
        ({"tie_break": "noise"}, "generators"),
    ):
        with pytest.raises(CamlucidaError, match=text):
            removal_masks(maps(), **{"percentages": [10], **options})
