"""Preprocessing of the user's own: taken as it is, its colours and geometry measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from camlucida.common.errors import ImageError, ModelError
from camlucida.data.images import read_image
from camlucida.data.offline_photos import picture
from camlucida.data.preprocess import Preprocess, as_preprocess

SIZES = [(640, 480), (300, 801), (52, 80), (1200, 1200)]
"""Width and height of photos."""


def tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image, np.float32) / 255).permute(2, 0, 1)


def letterbox(image):
    """Inside a grey square, with the aspect ratio kept."""
    small = image.resize(tuple(max(1, round(side * 64 / max(image.size))) for side in image.size))
    square = Image.new("RGB", (64, 64), (114, 114, 114))
    square.paste(small, ((64 - small.width) // 2, (64 - small.height) // 2))
    return tensor(square)


class Albumentation:
    """Called as that package's transforms are."""

    def __call__(self, *args, **data):
        if args:
            raise KeyError("You have to pass data to augmentations as named arguments")
        small = Image.fromarray(data["image"]).resize((40, 30), Image.Resampling.BILINEAR)
        return {"image": np.array(small, np.float32) / 255}


Albumentation.__module__ = "albumentations.core.composition"


class Processor:
    """Called as an image processor of transformers is."""

    def __call__(self, images, return_tensors):
        assert return_tensors == "pt"
        return {"pixel_values": [(tensor(images.resize((48, 32))) - 0.5) / 0.5]}


Processor.__module__ = "transformers.models.own"

PLAIN = Preprocess(size=64, resize=72, mean=(0.1, 0.2, 0.3), std=(0.5, 0.4, 0.3))
# A function, and a Preprocess that does the same to where pixels go.
KNOWN = {
    "a crop of the centre": (PLAIN.__call__, PLAIN),
    "squashed": (lambda image: tensor(image.resize((48, 32))), Preprocess((32, 48), (32, 48))),
    "first rows": (lambda image: tensor(image.resize((50, 50)).crop((0, 0, 50, 20))), None),
    "in other units": (lambda image: 255 * tensor(image.resize((48, 48))), Preprocess(48, (48, 48))),
    "an array": (
        lambda image: np.array(image.resize((48, 48)), np.float32) / 255, Preprocess(48, (48, 48)),
    ),
    "a batch of one": (lambda image: tensor(image.resize((48, 48)))[None], Preprocess(48, (48, 48))),
    "of albumentations": (Albumentation(), Preprocess((30, 40), (30, 40))),
    "of transformers": (Processor(), Preprocess((32, 48), (32, 48))),
    "letterbox": (letterbox, None),
    "nearest neighbour": (
        lambda image: tensor(image.resize((96, 96), Image.Resampling.NEAREST)), Preprocess(96, (96, 96)),
    ),
}  # fmt: skip


def wanted_box(kind, width, height):
    if kind == "first rows":
        return 0, 0, width, 0.4 * height
    if kind == "letterbox":
        side = max(width, height)
        return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2
    return KNOWN[kind][1].crop_box(width, height)


@pytest.mark.parametrize("kind", KNOWN)
@pytest.mark.parametrize("size", SIZES)
def test_geometry_is_measured(kind, size):
    function, _ = KNOWN[kind]
    own = as_preprocess(function)
    assert own.notes == ()
    pixel = max(size) / min(own.size)  # of the input, in the photo's pixels
    for found, wanted in zip(own.crop_box(*size), wanted_box(kind, *size), strict=True):
        assert abs(found - wanted) < 0.5 * pixel + 0.5


def test_it_is_taken_as_it_is():
    photo = read_image(picture("chelsea"))
    own = as_preprocess(KNOWN["a crop of the centre"][0])
    assert torch.equal(own(photo), PLAIN(photo))
    assert own.size == (64, 64)
    assert own.mean == pytest.approx(PLAIN.mean, abs=1e-5)
    assert own.std == pytest.approx(PLAIN.std, abs=1e-5)
    torch.testing.assert_close(own.pixels(photo), PLAIN.pixels(photo), atol=1e-5, rtol=0)
    assert "function" in own.to_dict()
    assert as_preprocess(PLAIN) is PLAIN
    assert as_preprocess(None) is None


def test_colours_are_measured():
    flipped = as_preprocess(lambda image: tensor(image.resize((32, 32))).flip(0))
    assert flipped.channels == "bgr"
    grey = as_preprocess(lambda image: tensor(image.resize((32, 32))).mean(0, keepdim=True))
    assert (grey.channels, grey.mean, len(grey.std)) == ("gray", (0.0,), 1)


# Functions whose geometry or colours cannot be told.
ODD = {
    "mirrored": lambda image: tensor(image.resize((48, 48))).flip(2),
    "turned": lambda image: tensor(image.rotate(20).resize((48, 48))),
    "tiny": lambda image: tensor(image.resize((4, 4))),
    "constant": lambda _: torch.zeros(3, 32, 32),
    "random": lambda image: tensor(image.resize((48, 48)).rotate(float(torch.rand(())) * 90)),
}


@pytest.mark.parametrize("kind", ODD)
def test_geometry_that_cannot_be_told(kind):
    own = as_preprocess(ODD[kind])
    assert (kind == "random") == any("random" in note for note in own.notes)
    with pytest.raises(ImageError, match="your preprocessing"):
        own.crop_box(100, 80)


def test_colours_that_cannot_be_told():
    def stretched(image):
        made = tensor(image.resize((48, 48)))
        return (made - made.mean()) / (made.std() + 1e-6)

    own = as_preprocess(stretched)
    assert own.mean == ()
    assert any("colours" in note for note in own.notes)
    with pytest.raises(ImageError, match="pixels in"):
        own.denormalise(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda image: image, "returned an object of type Image"),
        (lambda image: torch.from_numpy(np.array(image)), "torch.uint8 of shape"),
        (lambda image: tensor(image)[0], "of shape (256, 320)"),
        (lambda _: 1 / 0, "ZeroDivisionError"),
        (lambda: None, "TypeError"),
        (3, "got int"),
    ],
)  # fmt: skip
def test_what_is_no_preprocessing_is_refused(function, words):
    with pytest.raises(ModelError) as caught:
        as_preprocess(function)
    assert words in str(caught.value)


@pytest.mark.parametrize("size", SIZES)
def test_transforms_of_libraries(size):
    transforms = pytest.importorskip("torchvision.transforms")
    known = Preprocess(size=56, resize=64)
    own = as_preprocess(
        transforms.Compose([
            transforms.Resize(64), transforms.CenterCrop(56), transforms.ToTensor(),
            transforms.Normalize(known.mean, known.std),
        ])
    )  # fmt: skip
    photo = read_image(picture("rocket"))
    torch.testing.assert_close(own(photo), known(photo), atol=1e-6, rtol=0)
    for found, wanted in zip(own.crop_box(*size), known.crop_box(*size), strict=True):
        assert abs(found - wanted) < 0.5 * max(size) / 64 + 0.5
