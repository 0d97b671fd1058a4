"""Landmarks to crops, and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from camlucida.common.errors import ImageError
from camlucida.faces.align import (
    Crop,
    align,
    aligned,
    apply,
    five_points,
    inverse,
    resized,
    scheme_of,
    similarity_transform,
    template,
    warp,
)
from reference import alignment

FIVE = np.array([(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)])


def _smooth_photo(height=90, width=120, seed=0):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return small.resize((width, height), Image.Resampling.BICUBIC)


def _turn(angle, scale, shift):
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


@given(
    st.floats(-3.1, 3.1),
    st.floats(0.1, 8),
    st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_an_exact_similarity_is_found_again(angle, scale, shift):
    matrix = _turn(angle, scale, shift)
    found = similarity_transform(FIVE, apply(matrix, FIVE))
    assert found == pytest.approx(matrix, abs=1e-8)


def test_the_best_similarity_is_that_of_least_squares():
    rng = np.random.default_rng(1)
    for _ in range(5):
        target = FIVE + rng.normal(0, 6, FIVE.shape)
        found = similarity_transform(FIVE, target)
        assert found == pytest.approx(alignment.similarity(FIVE, target), abs=1e-9)


def test_mirrored_points_are_not_mirrored():
    found = similarity_transform(FIVE, FIVE * [-1, 1])
    assert np.linalg.det(found[:, :2]) > 0
    assert found == pytest.approx(alignment.similarity(FIVE, FIVE * [-1, 1]), abs=1e-9)


def test_agrees_with_scikit_image():
    transform = pytest.importorskip("skimage.transform")
    target = FIVE[::-1] * 1.3 + np.arange(10).reshape(5, 2)
    make = getattr(transform.SimilarityTransform, "from_estimate", None)
    if make is None:
        pytest.skip("an older scikit-image")
    other = make(FIVE, target)
    assert similarity_transform(FIVE, target) == pytest.approx(other.params[:2], abs=1e-8)


def test_points_on_one_spot_are_refused():
    with pytest.raises(ImageError, match="one point"):
        similarity_transform(np.ones((5, 2)), FIVE)
    with pytest.raises(ImageError, match="one point"):
        align(_smooth_photo(), np.ones((5, 2)) * 9, "dlib-150")


def test_the_inverse_undoes():
    matrix = _turn(0.4, 1.7, (3, -8))
    assert apply(inverse(matrix), apply(matrix, FIVE)) == pytest.approx(FIVE)


@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.3, 1.4), (-1.1, 0.7)])
def test_warping_equals_the_slow_one(angle, scale):
    photo = _smooth_photo()
    matrix = _turn(angle, scale, (10, 4))
    fast = np.asarray(warp(photo, matrix, (40, 30)), dtype=float)
    slow = alignment.warp(np.asarray(photo, dtype=float), matrix, 40, 30)
    assert np.abs(fast - slow).max() < 1.01  # rounded to 8 bits


def test_warping_by_nothing_changes_nothing():
    photo = _smooth_photo()
    same = warp(photo, np.array([[1.0, 0, 0], [0, 1, 0]]), photo.size)
    assert np.array_equal(np.asarray(same), np.asarray(photo))


def test_shrinking_averages_instead_of_picking():
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 2, (256, 256, 1), dtype=np.uint8).repeat(3, 2) * 255)
    small = np.asarray(warp(photo, _turn(0, 1 / 16, (0, 0)), (16, 16)), dtype=float)
    assert small[2:-2, 2:-2].std() < 25  # single pixels have 127
    assert small[2:-2, 2:-2].mean() == pytest.approx(127.5, abs=12)


def test_landmarks_land_on_the_template():
    places = template("arcface-112", "5")[1]
    photo = _smooth_photo(300, 300)
    landmarks = apply(inverse(_turn(0.5, 0.6, (20, 10))), places)
    crop = align(photo, landmarks)
    assert crop.size == (112, 112)
    assert crop.landmarks == pytest.approx(places, abs=1e-6)
    assert crop.scale == pytest.approx(0.6)
    assert crop.turned == pytest.approx(-np.degrees(0.5))


@pytest.mark.parametrize("to", ["arcface-112", "facenet-160"])
def test_sixty_eight_points_give_the_same_crop_as_their_five(to):
    landmarks = np.random.default_rng(0).uniform(20, 80, (68, 2))
    photo = _smooth_photo()
    a, b = align(photo, landmarks, to), align(photo, five_points(landmarks), to)
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))
    assert five_points(landmarks)[0] == pytest.approx(landmarks[36:42].mean(0))


def test_a_map_comes_back_to_where_the_crop_was_cut():
    photo = _smooth_photo(200, 240)
    landmarks = FIVE * 1.1 + [60, 30]
    crop = align(photo, landmarks)
    values = np.zeros((112, 112), dtype=np.float32)
    values[70:74, 54:58] = 1  # the tip of the nose
    laid, inside = crop.onto_photo(values)
    assert laid.shape == inside.shape == (200, 240)
    row, column = np.unravel_index(laid.argmax(), laid.shape)
    assert np.hypot(column - landmarks[2, 0], row - landmarks[2, 1]) < 3
    assert laid[~inside].max() == 0
    assert inside.mean() == pytest.approx((112 / crop.scale) ** 2 / (200 * 240), rel=0.03)


def test_a_constant_map_stays_constant_inside():
    crop = align(_smooth_photo(200, 240), FIVE * 1.1 + [60, 30])
    laid, inside = crop.onto_photo(np.ones((7, 7)))
    assert laid[inside] == pytest.approx(1)
    corners = crop.outline()
    assert corners.shape == (4, 2)
    assert apply(crop.matrix, corners)[0] == pytest.approx([-0.5, -0.5])


def test_a_crop_without_a_photo_is_its_own_photo():
    crop = aligned(_smooth_photo(50, 60))
    laid, inside = crop.onto_photo(np.eye(5))
    assert laid.shape == (50, 60)
    assert inside.all()
    assert crop.turned == 0
    assert crop.scale == 1


def test_a_resized_crop_keeps_its_place():
    crop = align(_smooth_photo(200, 240), FIVE * 1.1 + [60, 30])
    large = resized(crop, 224)
    assert large.size == (224, 224)
    assert large.outline() == pytest.approx(crop.outline(), abs=1e-9)
    assert large.scale == pytest.approx(2 * crop.scale)


@pytest.mark.parametrize(
    ("landmarks", "message"),
    [
        (np.zeros((4, 2)), "shape"),
        (np.zeros((68, 3)), "shape"),
        (np.full((5, 2), np.nan), "finite"),
        (FIVE + 5000, "outside the photo"),
    ],
)
def test_landmarks_that_do_not_fit_are_refused_in_words(landmarks, message):
    with pytest.raises(ImageError, match=message):
        align(_smooth_photo(), landmarks)


def test_unknown_alignment():
    with pytest.raises(ImageError, match="arcface-112"):
        align(_smooth_photo(), FIVE, "arcface-128")


def test_five_points_of_dlib_have_no_mouth():
    with pytest.raises(ImageError, match="no mouth"):
        align(_smooth_photo(), FIVE, "arcface-112", scheme="dlib-5")
    assert scheme_of(FIVE) == "5"


def test_a_crop_knows_its_size():
    assert Crop(Image.new("RGB", (5, 4))).size == (5, 4)
