"""Boxes and masks in the pixels of the model's input: against the picture itself, and as published."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camlucida import CamlucidaError
from camlucida.data.boxes import map_boxes, map_mask
from camlucida.data.preprocess import Preprocess
from reference.metrics_localisation import map_boxes_as_published

FAME = Preprocess(size=(224, 224), resize=232)
SIZES = [(500, 375), (375, 500), (224, 224), (1024, 333), (232, 232)]
KINDS = [
    Preprocess(size=(24, 24), resize=30, interpolation="nearest"),
    Preprocess(size=(20, 28), resize=(26, 31), interpolation="nearest"),
    Preprocess(size=(20, 28), resize=(20, 28), crop=False, interpolation="nearest"),
    Preprocess(size=(40, 44), resize=None, interpolation="nearest"),  # pads small photos
    Preprocess(size=(24, 20), resize=(30, 26), cover=True, interpolation="nearest"),
]


def some_boxes(size, n=6, seed=0):
    g = np.random.default_rng(seed)
    found = []
    for _ in range(n):
        x, y = sorted(g.uniform(0, size[0], 2)), sorted(g.uniform(0, size[1], 2))
        found.append([x[0], y[0], x[1], y[1]])
    return found


def black_where(mask):
    return Image.fromarray(np.repeat((mask.numpy() * 255).astype(np.uint8)[:, :, None], 3, axis=2))


@pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("size", [(37, 51), (51, 37), (33, 33), (24, 90)])
def test_a_mask_goes_where_its_picture_goes(kind, size):
    torch.manual_seed(1)
    mask = torch.rand(size[1], size[0]) < 0.5
    if kind.resize is None and size != (51, 37):
        mask = mask[:30, :30]
    expected = kind.pixels(black_where(mask))[0] > 0.5
    assert map_mask(mask, kind).equal(expected)
    assert map_mask(torch.stack([mask, ~mask]).long(), kind)[0].equal(expected)


@pytest.mark.parametrize("kind", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("size", [(370, 510), (511, 377), (333, 333)])
def test_a_box_goes_where_its_picture_goes(kind, size):
    """The filled box in the photo, sent through the preprocessing, lies within a pixel of the box."""
    for box in np.round(some_boxes(size, seed=3)).astype(int):
        mask = torch.zeros(size[1], size[0], dtype=torch.bool)
        mask[box[1] : box[3], box[0] : box[2]] = True
        seen = (kind.pixels(black_where(mask))[0] > 0.5).nonzero()
        (x0, y0, x1, y1) = map_boxes([box.tolist()], size, kind, truncate=False)[0].tolist()
        if len(seen) == 0:
            assert min(x1 - x0, y1 - y0) < 1
            continue
        (top, left), (bottom, right) = seen.amin(0).tolist(), (seen.amax(0) + 1).tolist()
        assert max(abs(x0 - left), abs(y0 - top), abs(x1 - right), abs(y1 - bottom)) <= 0.5 + 1e-9


@pytest.mark.parametrize("size", SIZES)
def test_the_published_formula_is_less_than_a_pixel_away(size):
    boxes = some_boxes(size)
    exact = map_boxes(boxes, size, FAME, truncate=False)
    published = torch.tensor(map_boxes_as_published(boxes, size), dtype=torch.float64)
    assert (exact - published).abs().max() < 1
    if size[0] == size[1]:
        torch.testing.assert_close(exact, published)


@pytest.mark.parametrize("size", SIZES)
def test_legacy_boxes_are_the_published_formula(size):
    boxes = some_boxes(size, seed=5)
    published = torch.tensor(map_boxes_as_published(boxes, size, legacy=True), dtype=torch.float64)
    torch.testing.assert_close(map_boxes(boxes, size, FAME, legacy=True, truncate=False), published)
    cut = map_boxes(boxes, size, FAME, legacy=True)
    assert cut.tolist() == [[int(v) for v in row] for row in published.tolist()]


def test_legacy_boxes_are_far_off_where_a_photo_is_not_square():
    size = (500, 375)
    box = [[0, 0, 50, 50]]
    off = map_boxes(box, size, FAME, legacy=True, truncate=False) - map_boxes(
        box, size, FAME, truncate=False
    )
    assert off.abs().max() > 15


@given(
    width=st.integers(20, 400),
    height=st.integers(20, 400),
    x=st.floats(-50, 450),
    y=st.floats(-50, 450),
)
def test_boxes_stay_inside_and_in_order(width, height, x, y):
    found = map_boxes([[x, y, x + 30, y + 9]], (width, height), FAME)
    x0, y0, x1, y1 = found[0].tolist()
    assert 0 <= x0 <= x1 <= 224
    assert 0 <= y0 <= y1 <= 224


def test_the_whole_photo_is_the_whole_input():
    for size in SIZES:
        whole = [[0, 0, *size]]
        assert map_boxes(whole, size, FAME).tolist() == [[0, 0, 224, 224]]
        assert map_boxes(whole, size, FAME, legacy=True).tolist() == [[0, 0, 224, 224]]


def test_boxes_keep_their_places():
    found = map_boxes([[0, 0, 5, 5], [200, 100, 300, 200]], (500, 375), FAME)
    assert found.dtype == torch.int64
    assert (found[0, 2:] - found[0, :2]).prod() == 0  # cropped away, but still the first
    assert (found[1, 2:] - found[1, :2]).prod() > 0
    assert map_boxes([], (500, 375), FAME).shape == (0, 4)


@pytest.mark.parametrize("factor", [3, 49, 103])
def test_a_box_on_a_pixels_edge_stays_there(factor):
    """49 times 1/49 is below 1 in floating point, and must not become 0."""
    side = 10 * factor
    kind = Preprocess(size=(10, 10), resize=10)
    edges = [[factor * k, 0, side, side] for k in range(10)]
    assert map_boxes(edges, (side, side), kind)[:, 0].tolist() == list(range(10))


def test_padding_belongs_to_no_mask():
    kind = Preprocess(size=(40, 40), resize=None)
    found = map_mask(torch.ones(20, 30, dtype=torch.bool), kind)
    assert found.sum() == 600
    assert map_boxes([[0, 0, 30, 20]], (30, 20), kind).tolist() == [[5, 10, 35, 30]]
    assert found[10:30, 5:35].all()


def test_errors_say_what_was_given():
    with pytest.raises(CamlucidaError, match=r"\(n, 4\)"):
        map_boxes([[0, 0, 5]], (10, 10), FAME)
    with pytest.raises(CamlucidaError, match="finite"):
        map_boxes([[0, 0, 5, math.nan]], (10, 10), FAME)
    with pytest.raises(CamlucidaError, match="legacy"):
        map_boxes([[0, 0, 5, 5]], (10, 10), KINDS[2], legacy=True)
    with pytest.raises(CamlucidaError, match=r"\(0, 4\)"):
        map_mask(torch.zeros(0, 4), FAME)
