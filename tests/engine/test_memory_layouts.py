"""Images are laid out channels-last for hooked passes only where that is faster and the same."""

import pytest
import torch
from torch import nn

from camlucida.engine import layouts
from camlucida.engine.layouts import in_fast_layout

X = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def channels_last(images):
    return images.is_contiguous(memory_format=torch.channels_last)


def passes(monkeypatch, model, seconds, number=6):
    """The layouts of so many passes; ``seconds`` are what one takes in the usual layout and in the other."""
    clock, got = [0.0], []
    monkeypatch.setattr(layouts.time, "perf_counter", lambda: clock[0])

    def work(images):
        got.append(channels_last(images))
        clock[0] += seconds[got[-1]]
        return model(images)

    with torch.no_grad():
        found = [in_fast_layout(model, X, work, lambda outputs: outputs) for _ in range(number)]
        for one in found:
            torch.testing.assert_close(one, model(X))
    return got


def test_the_faster_layout_is_taken_after_a_few_passes(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert passes(monkeypatch, model, (2, 1)) == [False] * 4 + [True] * 3
    assert passes(monkeypatch, model, (2, 1), 1) == [True]


def test_the_slower_layout_is_not_taken(monkeypatch):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert passes(monkeypatch, model, (1, 2)) == [False] * 4 + [True] + [False] * 2


class Viewing(nn.Conv2d):
    def forward(self, x):
        return super().forward(x).view(len(x), -1)


class Reading(nn.Conv2d):
    """Reads the memory itself, which means something else in another layout."""

    def forward(self, x):
        return super().forward(torch.as_strided(x, x.shape, (192, 64, 8, 1)))


@pytest.mark.parametrize("kind", [Viewing, Reading])
def test_a_model_that_wants_the_usual_layout_gets_it(monkeypatch, kind):
    model = kind(3, 4, 3)
    assert passes(monkeypatch, model, (2, 1)) == [False] * 4 + [True] + [False] * 2


def test_a_model_without_convolutions_is_not_tried(monkeypatch):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    assert passes(monkeypatch, model, (2, 1)) == [False] * 6
