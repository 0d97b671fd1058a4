from __future__ import annotations

import pytest

import camlucida
from camlucida.common.errors import ImageError
from camlucida.data.images import read_image
from camlucida.data.offline_photos import picture, picture_names


@pytest.mark.parametrize("name", picture_names())
def test_every_picture_can_be_read(name):
    chosen = picture(name)
    image = read_image(chosen)
    assert image.mode == "RGB"
    assert min(image.size) >= 224
    assert chosen.name == name
    assert chosen.label
    assert chosen.path.stat().st_size < 200_000


def test_names_are_the_files_and_all_have_an_origin():
    folder = picture("lion").path.parent
    assert {path.stem for path in folder.glob("*.jpg")} == set(picture_names())
    origin = (folder / "ORIGIN.md").read_text(encoding="utf-8")
    assert all(f"`{name}.jpg`" in origin for name in picture_names())


def test_unknown_picture_suggests_the_nearest():
    with pytest.raises(ImageError, match="did you mean 'cheetah'"):
        picture("Cheeta")
    with pytest.raises(ImageError, match="there are cheetah"):
        picture("zzzzzz")


def test_an_explanation_names_the_file_of_a_picture():
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    how = {"preprocess": {"size": 32}}
    (source,) = camlucida.explain(net, camlucida.data.picture("lion"), **how).sources
    assert source.endswith("lion.jpg")
