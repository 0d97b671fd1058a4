"""Other pictures of the same face."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

from camlucida.common.errors import ImageError
from camlucida.faces.align import five_points, similarity_transform
from camlucida.faces.detect import Face
from camlucida.faces.variations import VARIATIONS, varied_face, vary

# Eyes, nose and mouth corners in a picture of 200 x 200 pixels.
FIVE = np.array([(75.0, 80), (125, 80), (100, 110), (80, 140), (120, 140)])


def _picture(size=200):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(60, 200, (size // 4, size // 4, 3), dtype=np.uint8))
    return coarse.resize((size, size), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("kind", [*VARIATIONS, "glasses+turned+small"])
def test_a_variation_depends_on_its_seed_alone(kind):
    picture = _picture()
    before = np.asarray(picture).copy()
    a, b, c = (vary(picture, FIVE, kind, seed=seed) for seed in (3, 3, 4))
    assert a.image.size == picture.size
    assert np.array_equal(np.asarray(a.image), np.asarray(b.image))
    assert not np.array_equal(np.asarray(a.image), np.asarray(c.image))
    assert np.array_equal(np.asarray(picture), before)
    assert set(a.facts) == set(kind.split("+"))


@pytest.mark.parametrize("seed", range(5))
def test_glasses_cover_the_eyes_and_nothing_below(seed):
    varied = vary(_picture(), FIVE, "glasses", seed=seed)
    for x, y in FIVE[:2].astype(int):
        assert varied.covered[y - 3 : y + 4, x - 8 : x + 9].all()
        assert np.asarray(varied.image)[y, x].max() < 70
    nose, mouth = FIVE[2].astype(int), FIVE[3:].mean(0).astype(int)
    assert not varied.covered[nose[1], nose[0]]
    assert not varied.covered[mouth[1]].any()
    same = np.asarray(varied.image) == np.asarray(_picture())
    assert same[mouth[1] :].all()
    assert 0.01 < varied.covered.mean() < 0.15


def test_glasses_turn_with_the_face():
    quarter = np.array([[0.0, -1, 200], [1, 0, 0]])  # a quarter turn clockwise
    turned = vary(_picture(), FIVE @ quarter[:, :2].T + quarter[:, 2], "glasses").covered
    upright = vary(_picture(), FIVE, "glasses").covered
    overlap = turned & np.rot90(upright, -1)
    assert overlap.sum() / (turned | np.rot90(upright, -1)).sum() > 0.9


@pytest.mark.parametrize("seed", range(5))
def test_a_scarf_covers_the_mouth_but_not_the_eyes(seed):
    varied = vary(_picture(), FIVE, "scarf", seed=seed)
    for x, y in FIVE[3:].astype(int):
        assert varied.covered[y, x]
    for x, y in FIVE[:2].astype(int):
        assert not varied.covered[y, x]
    assert not varied.covered[:90].any()
    assert np.array_equal(np.asarray(varied.image)[:85], np.asarray(_picture())[:85])


def test_a_small_face_has_lost_its_detail():
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    sharp = Image.fromarray(noise)
    varied = vary(sharp, FIVE, "small")
    assert varied.covered is None
    assert 24 <= varied.facts["small"]["pixels"] <= 40

    def detail(image):
        return np.abs(np.diff(np.asarray(image, dtype=float), axis=1)).mean()

    assert detail(varied.image) < 0.2 * detail(sharp)
    assert np.array_equal(varied.landmarks, FIVE)


@pytest.mark.parametrize("seed", range(6))
def test_landmarks_follow_a_turned_face(seed):
    picture = Image.new("RGB", (200, 200), "black")
    pen = ImageDraw.Draw(picture)
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255)]
    for (x, y), colour in zip(FIVE, colours, strict=True):
        pen.rectangle((x - 3, y - 3, x + 3, y + 3), fill=colour)
    varied = vary(picture, FIVE, "turned", seed=seed)
    levels = np.asarray(varied.image, dtype=int)
    for (x, y), colour in zip(varied.landmarks, colours, strict=True):
        near = np.abs(levels - colour).sum(2) < 150
        rows, columns = np.nonzero(near)
        assert np.hypot(columns.mean() - x, rows.mean() - y) < 1
    # It is more than a shift, turn and scale, which alignment would undo.
    fit = similarity_transform(FIVE, varied.landmarks)
    left = varied.landmarks - (FIVE @ fit[:, :2].T + fit[:, 2])
    assert np.abs(left).max() > 1


def test_the_cover_turns_with_the_face():
    plain = vary(_picture(), FIVE, "glasses", seed=1)
    both = vary(_picture(), FIVE, "glasses+turned", seed=1)
    eyes = five_points(both.landmarks)[:2].round().astype(int)
    for x, y in eyes:
        assert both.covered[y, x]
    assert not np.array_equal(plain.covered, both.covered)


def test_light_darkens_one_side():
    grey = Image.new("RGB", (200, 200), (128, 128, 128))
    levels = np.asarray(vary(grey, FIVE, "light", seed=2).image, dtype=float).mean(2)
    assert levels.max() - levels.min() > 30
    assert vary(grey, FIVE, "light").covered is None


@pytest.mark.parametrize("to", ["arcface-112", "dlib-150"])
def test_a_varied_face_is_aligned_again(to):
    face = Face((50, 40, 150, 160), FIVE, 1.0, scheme="5")
    plain = face.crop(_picture(), to)
    crop, covered = varied_face(_picture(), face, "glasses", to)
    assert crop.size == plain.size
    assert covered.shape == crop.size
    for x, y in plain.landmarks[:2].round().astype(int):
        assert covered[y, x]
    # Everything else is as it was, up to one more resampling.
    apart = np.abs(np.asarray(crop.image, dtype=float) - np.asarray(plain.image)).mean(2)
    rows = slice(int(plain.landmarks[3, 1]), None)
    assert apart[rows].mean() < 6
    turned, none = varied_face(_picture(), face, "turned", to)
    assert none is None
    nose = turned.landmarks[2] - plain.landmarks[2]
    assert np.hypot(*nose) < 12


def test_unknown_variations_are_named():
    with pytest.raises(ImageError, match=r"'hat'.*glasses"):
        vary(_picture(), FIVE, "hat")
    with pytest.raises(ImageError, match="'hat'"):
        vary(_picture(), FIVE, "glasses+hat")
    with pytest.raises(ImageError, match="no mouth"):
        vary(_picture(), FIVE, "scarf", scheme="dlib-5")
