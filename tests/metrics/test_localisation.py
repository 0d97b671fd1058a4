"""Localisation metrics against pixel loops, closed forms, and quantus where it is right."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from camlucida import CamlucidaError
from camlucida.metrics import (
    box_iou,
    energy_pointing,
    fill_boxes,
    iou,
    pointing_game,
    saliency_score,
    top_k_mass,
)
from camlucida.metrics.regions import (
    bounding_boxes,
    dilate,
    label_regions,
    largest_region,
    whole_boxes,
)
from reference import metrics_localisation as slow

NAN = math.nan


def draw(seed, n=4, size=(9, 12), levels=None):
    """Maps in [0, 1], with ties where levels are given, and masks."""
    g = torch.Generator().manual_seed(seed)
    maps = torch.rand(n, *size, generator=g, dtype=torch.float64)
    if levels:
        maps = (maps * levels).floor() / levels
    return maps, torch.rand(n, *size, generator=g) < 0.3


def boxes_of(seed, n=4, size=(9, 12)):
    g = torch.Generator().manual_seed(seed)
    found = []
    for i in range(n):
        corner = torch.rand(i % 3 + 1, 2, generator=g) * torch.tensor([size[1], size[0]]) * 0.6
        sides = 1 + torch.rand(i % 3 + 1, 2, generator=g) * torch.tensor([size[1], size[0]]) * 0.6
        found.append(torch.cat([corner, corner + sides], dim=1))
    return found


def each_image(function, *lists):
    return torch.tensor([function(*row) for row in zip(*lists, strict=True)], dtype=torch.float64)


# ------------------------------------------------------------------------------------------ regions


@given(seed=st.integers(0, 10**6), share=st.floats(0.1, 0.9), connectivity=st.sampled_from([4, 8]))
def test_regions_are_those_of_flooding(seed, share, connectivity):
    g = torch.Generator().manual_seed(seed)
    masks = torch.rand(3, 8, 11, generator=g) < share
    found = label_regions(masks, connectivity)
    largest = largest_region(masks, connectivity)
    for label, mask, most in zip(found, masks, largest, strict=True):
        expected = slow.regions(mask.numpy(), connectivity)
        assert (label >= 0).equal(mask)
        for region in expected:
            first = min(r * 11 + c for r, c in region)
            assert {label[p].item() for p in region} == {first}
        assert len(label[mask].unique()) == len(expected)
        biggest = max(expected, key=len, default=set())
        assert {tuple(p) for p in most.nonzero().tolist()} == biggest


def test_a_snake_is_one_region():
    mask = torch.zeros(1, 41, 41, dtype=torch.bool)
    mask[0, ::2] = True
    mask[0, 1::4, -1] = True
    mask[0, 3::4, 0] = True
    assert label_regions(mask, 4)[mask].unique().tolist() == [0]
    assert largest_region(mask, 4).equal(mask)


def test_regions_agree_with_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    _, masks = draw(3, n=6, size=(40, 50))
    for connectivity, structure in ((4, None), (8, np.ones((3, 3)))):
        for label, mask in zip(label_regions(masks, connectivity), masks, strict=True):
            count = ndimage.label(mask.numpy(), structure)[1]
            assert len(label[mask].unique()) == count


def test_empty_masks_have_no_region_and_an_empty_box():
    none = torch.zeros(2, 4, 5, dtype=torch.bool)
    assert (label_regions(none) == -1).all()
    assert not largest_region(none).any()
    assert bounding_boxes(none).tolist() == [[0, 0, 0, 0]] * 2


def test_bounding_boxes_fill_back():
    masks = fill_boxes([torch.tensor([[2, 1, 5, 4]]), torch.tensor([[0, 0, 6, 5]])], (5, 6))
    assert bounding_boxes(masks).tolist() == [[2, 1, 5, 4], [0, 0, 6, 5]]


@pytest.mark.parametrize("which", ["first", "union"])
def test_filled_boxes(which):
    boxes = [*boxes_of(0), torch.empty(0, 4), torch.tensor([[-3.7, -1.2, 400.0, 2.9]])]
    found = fill_boxes(boxes, (9, 12), which)
    for mask, own in zip(found, boxes, strict=True):
        expected = slow.fill(own.tolist(), (9, 12), first=which == "first")
        assert mask.numpy().tolist() == expected.tolist()
    assert whole_boxes(torch.tensor([[1.9, -4.0, 30.0, 2.0]]), (9, 12)).tolist() == [[1, 0, 12, 2]]


@pytest.mark.parametrize("radius", [0, 1, 1.5, 2.9, 40])
def test_dilation_is_by_distance(radius):
    mask = torch.zeros(2, 9, 12, dtype=torch.bool)
    mask[0, 4, 5] = mask[0, 0, 11] = mask[1, 8, 0] = True
    for grown, own in zip(dilate(mask, radius), mask, strict=True):
        for y, x in np.ndindex(9, 12):
            near = min((y - r) ** 2 + (x - c) ** 2 for r, c in own.nonzero().tolist())
            assert bool(grown[y, x]) == (near <= radius**2 + 1e-9)


# ------------------------------------------------------------------------------------------ IoU


@pytest.mark.parametrize("levels", [None, 10])
def test_iou_is_the_pixel_loop(levels):
    maps, masks = draw(1, levels=levels)
    for t in (0.3, 0.5, 0.7):
        expected = each_image(lambda m, b, t=t: slow.iou(m.numpy(), b.numpy(), t), maps, masks)
        torch.testing.assert_close(iou(maps, masks, t), expected)
        single = [iou(m[None], b[None], t) for m, b in zip(maps, masks, strict=True)]
        assert torch.cat(single).equal(iou(maps, masks, t))
    several = iou(maps, masks, torch.tensor([0.3, 0.5, 0.7], dtype=torch.float64))
    assert several[:, 1].equal(iou(maps, masks, 0.5))


def test_iou_threshold_is_inclusive_in_the_maps_precision():
    maps = torch.full((1, 2, 2), 0.3)
    maps[0, 0, 0] = 0.2
    mask = maps > 0.25
    assert iou(maps, mask, 0.3).item() == 1


def test_iou_edge_cases():
    maps = torch.zeros(3, 4, 4)
    masks = torch.zeros(3, 4, 4, dtype=torch.bool)
    masks[1, :2] = True
    maps[2] = 0.5
    assert iou(maps, masks, 0.3).tolist() == [0, 0, 0]
    assert iou(maps, masks, 0.0).tolist() == [0, 0.5, 0]
    maps[0, 0, 0] = NAN
    assert iou(maps, masks, 0.3).isnan().tolist() == [True, False, False]


@pytest.mark.parametrize("gt", ["best", "first", "union"])
@pytest.mark.parametrize("component", ["largest", "all"])
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.9])
def test_box_iou_is_the_pixel_loop(gt, component, threshold):
    maps, _ = draw(5, levels=7)
    maps = torch.nn.functional.avg_pool2d(maps, 3, 1, 1)  # so that there are regions
    boxes = boxes_of(6)
    found = box_iou(maps, boxes, threshold, component=component, gt=gt)
    expected = each_image(
        lambda m, b: slow.box_iou(m.numpy(), b.tolist(), threshold, component, gt), maps, boxes
    )
    torch.testing.assert_close(found, expected)
    single = [
        box_iou(m[None], [b], threshold, component=component, gt=gt)
        for m, b in zip(maps, boxes, strict=True)
    ]
    assert torch.cat(single).equal(found)


def test_box_iou_takes_the_largest_region_only():
    maps = torch.zeros(1, 10, 10)
    maps[0, 1:4, 1:5] = 0.6
    maps[0, 8, 8] = 1.0
    box = [torch.tensor([[1.0, 1.0, 5.0, 4.0]])]
    assert box_iou(maps, box).item() == 1
    assert box_iou(maps, box, component="all").item() == 12 / 64
    assert box_iou(maps, box, 0.7).item() == 0


def test_box_iou_threshold_is_inclusive():
    maps = torch.zeros(1, 6, 6)
    maps[0, 1:3, 1:3] = 0.25
    maps[0, 1, 1] = 0.5
    assert box_iou(maps, [torch.tensor([[1.0, 1.0, 3.0, 3.0]])]).item() == 1


def test_box_iou_counts_what_it_should():
    maps = torch.rand(4, 5, 5)
    maps[1] = 0
    maps[3, 0, 0] = NAN
    boxes = [torch.tensor([[0.0, 0.0, 3.0, 3.0]])] * 2 + [torch.empty(0, 4)]
    found = box_iou(maps, [*boxes, boxes[0]])
    assert found.isnan().tolist() == [False, False, True, True]
    assert found[1] == 0
    wrong = torch.tensor([False, True, True, True])
    assert box_iou(maps, [*boxes, boxes[0]], correct=wrong)[0].isnan()


# ------------------------------------------------------------------------------------------ mass


def test_shares_are_the_pixel_loop():
    maps, masks = draw(2)
    maps[0] -= 0.5  # negative values count as 0
    expected = each_image(lambda m, b: slow.share_inside(m.numpy(), b.numpy()), maps, masks)
    torch.testing.assert_close(saliency_score(maps, masks), expected)
    torch.testing.assert_close(energy_pointing(maps, masks), expected)


def test_shares_edge_cases():
    maps = torch.zeros(3, 4, 5)
    masks = torch.zeros(3, 4, 5, dtype=torch.bool)
    maps[1:] = 0.7
    masks[0, 0] = masks[1, :, 0] = True
    assert saliency_score(maps, masks).tolist() == pytest.approx([0, 0.2, 0])
    assert energy_pointing(maps, masks).tolist() == pytest.approx([0, 0.2, NAN], nan_ok=True)
    maps[1, 0, 0] = NAN
    assert saliency_score(maps, masks)[1].isnan()
    assert energy_pointing(maps, masks)[1].isnan()


def test_sums_in_half_precision_do_not_overflow():
    maps = torch.ones(1, 300, 300, dtype=torch.float16)
    mask = torch.zeros(1, 300, 300, dtype=torch.bool)
    mask[:, :100] = True
    assert energy_pointing(maps, mask).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("tolerance", [0, 1, 2.5])
@pytest.mark.parametrize("ties", ["mean", "any"])
@pytest.mark.parametrize("levels", [None, 3])
def test_pointing_game_is_the_pixel_loop(tolerance, ties, levels):
    maps, masks = draw(7, n=6, levels=levels)
    masks &= torch.rand(masks.shape) < 0.2
    masks[5] = False
    found = pointing_game(maps, masks, tolerance, ties=ties)
    expected = each_image(
        lambda m, b: slow.pointing(m.numpy(), b.numpy(), tolerance, ties == "any"), maps, masks
    )
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert found[5].isnan()  # an empty mask is no hit


def test_a_constant_map_points_by_chance():
    mask = torch.zeros(1, 10, 10, dtype=torch.bool)
    mask[0, :3] = True
    flat = torch.zeros(1, 10, 10)
    assert pointing_game(flat, mask).item() == pytest.approx(0.3)
    assert pointing_game(flat, mask, ties="any").item() == 1
    assert top_k_mass(flat, mask).item() == pytest.approx(0.3)


@pytest.mark.parametrize("k", [None, 1, 17, 108])
@pytest.mark.parametrize("levels", [None, 4])
def test_top_k_is_the_pixel_loop(k, levels):
    maps, masks = draw(8, levels=levels)
    masks[3] = False
    expected = each_image(lambda m, b: slow.top_k(m.numpy(), b.numpy(), k), maps, masks)
    torch.testing.assert_close(top_k_mass(maps, masks, k), expected, equal_nan=True)


def test_perfect_and_opposite_maps():
    _, masks = draw(9)
    maps = masks.double()
    for function in (energy_pointing, saliency_score, pointing_game, top_k_mass):
        assert function(maps, masks).tolist() == [1] * 4
        assert function(1 - maps, masks).tolist() == [0] * 4
    assert iou(maps, masks, 0.5).tolist() == [1] * 4


def test_against_quantus():
    quantus = pytest.importorskip("quantus")
    maps, masks = draw(11, n=5, size=(16, 16))
    a, s = maps[:, None].numpy(), masks[:, None].numpy()
    quiet = {"disable_warnings": True, "abs": False, "normalise": False}
    mass = quantus.RelevanceMassAccuracy(**quiet).evaluate_batch(a_batch=a.copy(), s_batch=s)
    rank = quantus.RelevanceRankAccuracy(**quiet).evaluate_batch(a_batch=a.copy(), s_batch=s)
    point = quantus.PointingGame(**quiet).evaluate_batch(a_batch=a.copy(), s_batch=s)
    top = quantus.TopKIntersection(k=20, **quiet).evaluate_batch(a_batch=a.copy(), s_batch=s)
    np.testing.assert_allclose(energy_pointing(maps, masks).numpy(), mass)
    np.testing.assert_allclose(top_k_mass(maps, masks).numpy(), rank)
    np.testing.assert_allclose(pointing_game(maps, masks).numpy(), np.asarray(point, dtype=float))
    np.testing.assert_allclose(top_k_mass(maps, masks, 20).numpy(), top)


@pytest.mark.parametrize("function", [energy_pointing, saliency_score, pointing_game, top_k_mass])
def test_batch_is_its_images_one_by_one(function):
    maps, masks = draw(10, levels=5)
    single = [function(m[None], b[None]) for m, b in zip(maps, masks, strict=True)]
    found = function(maps, masks)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.cat(single), rtol=0, atol=1e-15)


def test_errors_say_what_was_given():
    maps, masks = draw(1)
    with pytest.raises(CamlucidaError, match="boolean masks"):
        iou(maps, masks.double(), 0.5)
    with pytest.raises(CamlucidaError, match=r"\(4, 9, 12\)"):
        energy_pointing(maps, masks[:, :-1])
    with pytest.raises(CamlucidaError, match="0 lists of boxes"):
        box_iou(maps, [])
    with pytest.raises(CamlucidaError, match="share of the maximum"):
        box_iou(maps, boxes_of(0), 0)
    with pytest.raises(CamlucidaError, match="tolerance"):
        pointing_game(maps, masks, -1)
    with pytest.raises(CamlucidaError, match="1 to 108"):
        top_k_mass(maps, masks, 109)
