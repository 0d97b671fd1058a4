"""From a photo to a tensor and back, and where its pixels come from."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida.common.errors import CamlucidaError, ImageError, ModelError
from camlucida.data.preprocess import Preprocess

# landscape, portrait, square, odd, smaller than the crop in one or both sides
SIZES = [(451, 300), (300, 451), (256, 256), (333, 257), (500, 230), (97, 61), (120, 331), (1, 9)]


def noise(width: int, height: int) -> Image.Image:
    generator = np.random.default_rng(width * 1000 + height)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_pixels_are_the_photo_itself_where_nothing_is_resized():
    image = noise(10, 8)
    preprocess = Preprocess(size=(8, 10), resize=None, crop=False)
    expected = torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255
    torch.testing.assert_close(preprocess.pixels(image), expected)
    assert preprocess.pixels(image).is_contiguous()


def test_channel_orders():
    image = noise(8, 8)
    rgb = Preprocess(size=(8, 8), resize=None).pixels(image)
    bgr = Preprocess(size=(8, 8), resize=None, channels="bgr").pixels(image)
    grey = Preprocess(size=(8, 8), resize=None, channels="gray", mean=(0.1,), std=(0.3,))
    assert torch.equal(rgb.flip(0), bgr)
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    torch.testing.assert_close(
        grey.pixels(image)[0], (rgb * weights).sum(0), atol=1.01 / 255, rtol=0
    )


def test_normalise_and_denormalise_are_inverse_and_differentiable():
    preprocess = Preprocess.imagenet()
    pixels = torch.rand(2, 5, 3, 4, 6, dtype=torch.float64, requires_grad=True)
    inputs = preprocess.normalise(pixels)
    torch.testing.assert_close(preprocess.denormalise(inputs), pixels)
    inputs.sum().backward()
    expected = (1 / torch.tensor(preprocess.std, dtype=torch.float64))[:, None, None]
    torch.testing.assert_close(pixels.grad, expected.expand_as(pixels).contiguous())


@pytest.mark.parametrize("shape", [(3, 4), (1, 4, 4), (2, 4, 5, 5)])
def test_normalise_names_a_wrong_shape(shape):
    with pytest.raises(ImageError, match=str(shape).replace("(", r"\(").replace(")", r"\)")):
        Preprocess.imagenet().normalise(torch.zeros(shape))


def test_normalise_refuses_integers():
    with pytest.raises(ImageError, match="uint8"):
        Preprocess.imagenet().normalise(torch.zeros(3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize("size", SIZES[:-1])
@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess.imagenet(),
        Preprocess(size=(64, 96), resize=(80, 100), interpolation="nearest"),
        Preprocess(size=(64, 96), resize=(70, 100), cover=True),
        Preprocess(size=(50, 40), resize=(50, 40), crop=False),
        Preprocess(size=(600, 600), resize=None),
    ],
)
def test_crop_box_is_where_the_pixels_come_from(preprocess, size):
    # a photo whose red is its x and whose green is its y: pixels tell where they come from
    width, height = size
    ramp = np.zeros((height, width, 3), dtype=np.uint8)
    ramp[..., 0] = np.linspace(20, 250, width)[None, :]
    ramp[..., 1] = np.linspace(20, 250, height)[:, None]
    seen = preprocess.pixels(Image.fromarray(ramp))
    left, top, right, bottom = preprocess.crop_box(width, height)
    rows, columns = preprocess.size
    x = left + (torch.arange(columns) + 0.5) * (right - left) / columns
    y = top + (torch.arange(rows) + 0.5) * (bottom - top) / rows
    inside_x, inside_y = (x > 1) & (x < width - 1), (y > 1) & (y < height - 1)
    block = seen[:, inside_y][:, :, inside_x] * 255
    expected_x = 20 + 230 * (x[inside_x] - 0.5) / (width - 1)
    expected_y = 20 + 230 * (y[inside_y] - 0.5) / (height - 1)
    tolerance = 2.5 + 230 / min(size)
    assert (block[0] - expected_x[None, :]).abs().max() < tolerance
    assert (block[1] - expected_y[:, None]).abs().max() < tolerance
    outside = (x < -1) | (x > width + 1)
    assert not seen[:, :, outside].any()


def test_crop_box_of_the_usual_case():
    box = Preprocess.imagenet().crop_box(512, 256)
    assert box == (144.0, 16.0, 368.0, 240.0)


def test_only_rgb_photos():
    with pytest.raises(ImageError, match="mode L; read it with"):
        Preprocess.imagenet()(Image.new("L", (300, 300)))


def test_fixed_size_without_resize_and_crop():
    with pytest.raises(ImageError, match=r"9 x 8 pixels .* exactly 8 x 8"):
        Preprocess(size=(8, 8), resize=None, crop=False)(noise(8, 9))


def test_elongated_photo_does_not_fill_the_memory():
    with pytest.raises(ImageError, match="too elongated"):
        Preprocess.imagenet()(Image.new("RGB", (1, 60_000)).resize((1, 1_000_000)))
    with pytest.raises(ImageError, match="no content"):
        Preprocess.imagenet().crop_box(0, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": (0, 8)}, "size"),
        ({"size": (99_999, 99_999)}, "pixels that an input may have"),
        ({"size": "8"}, "size"),
        ({"resize": 0}, "resize"),
        ({"resize": (8, 0)}, "resize"),
        ({"interpolation": "cubic"}, "interpolation must be one of"),
        ({"channels": "rgba"}, "channels"),
        ({"std": (1.0, 0.0, 1.0)}, "std"),
        ({"mean": (0.5,)}, "3 values"),
        ({"mean": 0.5}, "mean is 0.5, but must be one number per channel"),
        ({"std": None}, "std is None"),
        ({"mean": (float("nan"), 0.0, 0.0)}, "finite"),
        ({"channels": "gray"}, "1 values"),
        ({"crop": False}, "without a crop"),
        ({"cover": True}, "cover"),
        ({"offset": "up"}, "offset"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(CamlucidaError, match=message):
        Preprocess(**{"size": (8, 8), "resize": 9, **values})


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess.imagenet(),
        Preprocess(size=(64, 96), resize=(70, 100), cover=True, interpolation="lanczos"),
        Preprocess(size=(2, 2), resize=None, channels="gray", mean=(0.5,), std=(1,)),
    ],
)
def test_json_round_trip(preprocess):
    again = Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict())))
    assert again == preprocess
    assert hash(again) == hash(preprocess)


def test_from_dict_names_what_is_wrong():
    with pytest.raises(ModelError, match=r"unknown \['colour'\], missing \['resize'\]"):
        Preprocess.from_dict({"size": [2, 2], "colour": 1})


def test_defaults_are_the_usual_ones():
    assert Preprocess() == Preprocess.imagenet()
    assert Preprocess(size=112) == Preprocess.imagenet(112, 128)
    assert Preprocess(size=(8, 12)).resize == (8, 12)
    assert Preprocess(size=8, crop=False).resize == (8, 8)
    assert Preprocess(size=8, resize=None).resize is None
    assert "224 x 224 cut from the centre of 256, bilinear; rgb, mean 0.485" in Preprocess().words
    assert Preprocess.from_dict(Preprocess(size=9).to_dict()) == Preprocess(size=9)


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"size": 112}, {"size": (112, 112), "resize": 128}),
        ({"size": 112, "resize": 112}, {"size": (112, 112), "resize": 112}),
        ({"size": (64, 96), "crop": False}, {"size": (64, 96), "resize": (64, 96), "crop": False}),
        ({"crop": False}, {"resize": (224, 224), "crop": False}),
        ({"mean": 0.5, "std": 2}, {"mean": (0.5,) * 3, "std": (2.0,) * 3}),
        ({"interpolation": "nearest"}, {"interpolation": "nearest"}),
    ],
)
def test_some_values_changed(values, wanted):
    made = Preprocess().changed(**values)
    assert made == Preprocess(**{**Preprocess().to_dict(), **wanted})
    with pytest.raises(CamlucidaError, match="unknown seize"):
        Preprocess().changed(seize=3)


@pytest.mark.parametrize(
    "values", [{"mean": (123.675, 116.28, 103.53), "std": (58, 57, 57)}, {"mean": 0, "std": 255}]
)
def test_means_of_pixels_in_0_to_255_are_told(values):
    with pytest.raises(ModelError, match="0 to 255"):
        Preprocess().changed(**values)
