"""Images are laid out channels-last for hooked passes only where the model gives the same."""

import pytest
import torch
from torch import nn

from camlucida.engine.layouts import in_fast_layout

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def channels_last(images):
    return images.is_contiguous(memory_format=torch.channels_last)


def passes(model, number=3):
    """The layouts of so many passes."""
    got = []

    def work(images):
        got.append(channels_last(images))
        return model(images)

    with torch.no_grad():
        found = [in_fast_layout(model, X, work, lambda outputs: outputs) for _ in range(number)]
        assert all(torch.equal(one, found[0]) for one in found)
        torch.testing.assert_close(found[0], model(X))
    return got


def test_the_layout_that_convolutions_like_is_taken_from_the_first_pass_on():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert passes(model) == [False, True, True, True]


class Viewing(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).view(len(x), -1)


class Reading(nn.Conv2d):
    """Reads the memory itself, which means something else in another layout."""

    def forward(self, x):
        return super().forward(torch.as_strided(x, x.shape, (192, 64, 8, 1)))


@pytest.mark.parametrize("kind", [Viewing, Reading])
def test_a_model_that_wants_the_usual_layout_gets_it(kind):
    model = kind(3, 4, 3)
    assert passes(model) == [False, True, False, False]


def test_a_model_without_convolutions_is_not_tried():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert passes(model) == [False] * 3
