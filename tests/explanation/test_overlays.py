"""Maps to pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida.common.errors import CamlucidaError
from camlucida.explanation.overlays import (
    COLOURS,
    SIGNED,
    Style,
    View,
    colourise,
    grid,
    overlay,
    png,
    scaled,
)


def view(size=(40, 60), box=None, colour=(200, 40, 90)):
    pixels = np.full((*size, 3), colour, np.uint8)
    pixels[size[0] // 2, size[1] // 2] = 0  # something to see
    return View(Image.fromarray(pixels), box or (0, 0, size[1], size[0]))


def test_colourise():
    mpl = pytest.importorskip("matplotlib")
    maps = torch.linspace(0, 1, 12).view(3, 4)
    array = np.asarray(colourise(maps))
    assert array.shape == (3, 4, 3)
    for value, pixel in zip(maps.flatten(), array.reshape(-1, 3), strict=True):
        expected = np.array(mpl.colormaps["inferno"](float(value))[:3]) * 255
        assert np.abs(pixel - expected).max() <= 0.5
    clamped = np.asarray(colourise(torch.tensor([[-1.0, 2.0]])))
    ends = np.asarray(colourise(torch.tensor([[0.0, 1.0]])))
    assert (clamped == ends).all()
    assert (np.asarray(colourise(maps, "gray")) != array).any()


def test_a_signed_map_has_its_zero_in_the_middle():
    maps = torch.tensor([[-2.0, 0.0, 1.0, 2.0]])
    values, colours = scaled(maps)
    assert values.tolist() == [[0.0, 0.5, 0.75, 1.0]]
    assert colours == SIGNED
    plain, usual = scaled(maps.clamp_min(0) / 2)
    assert plain.tolist() == [[0.0, 0.0, 0.5, 1.0]]
    assert usual == COLOURS
    assert scaled(torch.zeros(2, 2))[0].tolist() == [[0, 0], [0, 0]]
    assert scaled(torch.zeros(2, 2), signed=True)[0].tolist() == [[0.5, 0.5], [0.5, 0.5]]


def test_photo_is_grey_under_the_map():
    drawn = np.asarray(overlay(view(), torch.ones(4, 6), Style(alpha=0.0)))
    grey = np.asarray(view().picture.convert("L"))
    assert (drawn == grey[..., None]).all()


def test_alpha():
    photo, maps = view(), torch.rand(40, 60)
    full = np.asarray(overlay(photo, maps, Style(alpha=1.0)), dtype=int)
    assert np.abs(full - np.asarray(colourise(maps), dtype=int)).max() <= 1
    half = np.asarray(overlay(photo, maps, Style(alpha=0.5)), dtype=int)
    grey = np.asarray(photo.picture.convert("L"), dtype=int)[..., None]
    assert np.abs(half - (full + grey) / 2).max() <= 1


def test_outside_of_the_box_is_dark_and_unpainted():
    photo = view(box=(20, 10, 50, 30))
    drawn = np.asarray(overlay(photo, torch.ones(4, 6), Style(alpha=1.0)), dtype=int)
    inside = np.zeros((40, 60), bool)
    inside[10:30, 20:50] = True
    top = np.asarray(colourise(torch.ones(1, 1)), dtype=int)[0, 0]
    assert (drawn[inside] == top).all()
    grey = int(np.asarray(photo.picture.convert("L"))[0, 0])
    assert np.abs(drawn[~inside] - 0.25 * grey).max() <= 1


@pytest.mark.parametrize("box", [(-10, -5, 30, 20), (40, 30, 80, 60), (-10, -10, 70, 50)])
def test_box_that_reaches_outside(box):
    """The model saw padding: only the part on the photo is drawn, in its place."""
    left, top, right, bottom = box
    maps = torch.zeros(bottom - top, right - left)
    maps[15, 20] = 1
    drawn = np.asarray(overlay(view(box=box), maps, Style(alpha=1.0)), dtype=int).sum(2)
    row, column = 15 + top, 20 + left
    if row < 40 and column < 60:
        assert np.unravel_index(drawn.argmax(), drawn.shape) == (row, column)
    assert drawn.shape == (40, 60)


def test_box_wholly_outside():
    drawn = overlay(view(box=(100, 100, 120, 120)), torch.ones(4, 4))
    assert drawn.size == (60, 40)


def test_large_photos_are_scaled_with_their_box():
    big = view((3000, 1500), box=(0, 1500, 1500, 3000))
    small = big.scaled()
    assert small.picture.size == (512, 1024)
    assert small.box == pytest.approx((0, 512, 512, 1024))
    drawn = np.asarray(overlay(big, torch.ones(2, 2), Style(alpha=1.0)), dtype=int).sum(2)
    assert drawn.shape == (1024, 512)
    assert (drawn[520:] > drawn[:500].max()).all()
    assert view().scaled().picture.size == (60, 40)


def test_cropped():
    assert view(box=(20, 10, 50, 30)).cropped().size == (30, 20)
    padded = np.asarray(view(box=(-10, 0, 60, 40)).cropped())
    assert padded.shape == (40, 70, 3)
    assert not padded[:, :10].any()
    assert view(box=(5, 5, 5.2, 5.2)).cropped().size == (1, 1)


def test_bf16_and_gradients_can_be_drawn():
    maps = torch.rand(4, 6).bfloat16().requires_grad_()
    assert overlay(view(), maps).size == (60, 40)


def test_names_of_files_are_no_formulas():
    name = "IMG_$1_$.png"
    figure = grid([[Image.new("RGB", (8, 8))]], columns=[name], rows=[name])
    assert png(figure)
    assert figure.axes[0].get_title() == name


def test_grid():
    figure = grid(
        [[view().picture] * 3, [view((90, 20)).picture] * 2],
        columns=["a", "b", "c"],
        rows=["first", "second"],
    )
    assert [a.get_title() for a in figure.axes[:3]] == ["a", "b", "c"]
    assert sum(bool(a.images) for a in figure.axes[:6]) == 5
    assert png(figure)[:4] == b"\x89PNG"


def test_a_fixed_scale_keeps_a_weak_map_dark():
    weak = torch.tensor([[0.0, 0.02]])
    torch.testing.assert_close(scaled(weak, Style(largest=0.2))[0], torch.tensor([[0.0, 0.1]]))
    signed = scaled(-weak, Style(largest=0.2))[0]
    torch.testing.assert_close(signed, torch.tensor([[0.5, 0.45]]))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"alpha": 2}, "alpha must be"),
        ({"colours": "infermo"}, "did you mean 'inferno'"),
        ({"largest": -1}, "largest"),
    ],
)
def test_a_style_that_cannot_be_drawn(values, words):
    with pytest.raises(CamlucidaError, match=words):
        Style(**values)


def test_a_view_knows_whether_something_was_cut_away():
    assert view(box=(20, 10, 50, 30)).cut
    assert not view().cut
    assert not view(box=(-10, -5, 70, 50)).cut


def test_a_map_that_is_empty_or_of_nothing_is_marked():
    def marked(seen, some):
        return (np.asarray(overlay(seen, some)) > 200).all(2).any()  # the mark's letters

    some = torch.zeros(6, 8)
    assert marked(view((240, 320)), some)
    some[2, 3] = 1e-3
    assert not marked(view((240, 320)), some)
    assert marked(View.whole(Image.new("RGB", (320, 240), (90, 90, 90))), some)
