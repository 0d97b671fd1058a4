"""Masked images in chunks: sizes, memory, layouts, and the images themselves left alone."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import camlucida
from camlucida.engine import faster_forward
from camlucida.methods.scorecam import ScoreCAM
from reference import networks

SIZE = (9, 11)


@pytest.fixture
def net():
    """Feature maps of a quarter of the image's size; signed."""
    features = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(5, 4, 3, stride=2)
    )
    head = nn.Sequential(nn.Tanh(), networks.Gap(), nn.Linear(4, 3))
    return networks.randomise(networks.Split(features, head).double().eval(), 2)


def images(n=3, seed=1):
    return networks.images(n, 3, SIZE, seed)


def explain(model, x, method, target=None, **options):
    return camlucida.explain(model, x, method=method, target=target, layers="features", **options)


def test_masks_are_enlarged_per_chunk(net):
    largest = []

    class Spy(ScoreCAM):
        def masked(self, images, masks, repeat, noise):
            largest.append(len(masks))
            return super().masked(images, masks, repeat, noise)

    explain(net, images(3), Spy(chunk=5))
    assert largest == [5, 5, 2]


def test_out_of_memory_halves_the_chunk_and_goes_on(net, caplog):
    x = images(2)
    wanted = explain(net, x, ScoreCAM(chunk=8), 1)
    sizes = []

    def fail(_, args):
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    handle = net.register_forward_pre_hook(fail)
    found = explain(net, x, ScoreCAM(chunk=8), 1)
    handle.remove()
    assert sizes[1:] == [8, 4, 2, 2, 2, 2]
    torch.testing.assert_close(found.signed, wanted.signed)
    assert [r.message for r in caplog.records] == [
        f"out of memory: going on with {n} copies at a time" for n in (4, 2)
    ]


def test_out_of_memory_of_a_single_copy_is_raised(net):
    sizes = []
    masked = []

    class Spy(ScoreCAM):
        def masked(self, images, masks, repeat, noise):
            masked.append(len(masks))
            return super().masked(images, masks, repeat, noise)

    def fail(_, args):
        if masked:
            sizes.append(len(args[0]))
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    net.register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        explain(net, images(2), Spy(chunk=2), 1)
    assert sizes == [2, 1]


def test_a_model_that_views_its_maps_is_run_as_usual():
    class Views(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3, stride=2)
            self.head = nn.Linear(80, 3)

        def forward(self, x):
            a = self.conv(x)
            return self.head(a.view(len(a), -1))

    model = Views().eval()
    with pytest.raises(RuntimeError, match="view"):
        model(images(2).float().contiguous(memory_format=torch.channels_last))
    x = images(2).float()
    found = camlucida.explain(model, x, method=ScoreCAM(), target=0, layers="conv")
    A = model.conv(x)
    mask = F.interpolate(A[0, 1][None, None], size=SIZE, mode="bilinear")
    mask = (mask - mask.min()) / (mask.max() - mask.min())
    other = F.interpolate(A[0, 2][None, None], size=SIZE, mode="bilinear")
    other = (other - other.min()) / (other.max() - other.min())
    gap = model(x[:1] * mask)[0, 0] - model(x[:1] * other)[0, 0]
    weights = found.details["weights"][0]
    torch.testing.assert_close((weights[1] / weights[2]).log(), gap.detach())


def test_channels_last_gives_the_same_numbers(net, monkeypatch):
    x = images(2)
    usual = explain(net, x, ScoreCAM(), 1)
    faster_forward._KEPT.clear()
    monkeypatch.setattr(faster_forward, "_prefers_channels_last", lambda *_: False)
    torch.testing.assert_close(explain(net, x, ScoreCAM(), 1).signed, usual.signed)


def test_the_budget_holds_beside_other_methods(net):
    """A pass shared with another method shows nothing of what a pass needs."""
    sizes = []

    class Spy(ScoreCAM):
        def masked(self, images, masks, repeat, noise):
            sizes.append(len(masks))
            return super().masked(images, masks, repeat, noise)

    # What the model needs for an image, and the image under its mask.
    one = (4 * max(5 * 5 * 6, 3 * 9 * 11) + 3 * 3 * 9 * 11) * 8
    for methods in ([Spy(memory=3e-6 * one)], ["gradcam", Spy(memory=3e-6 * one)]):
        sizes.clear()
        explain(net, images(2), methods, 1)
        assert sizes == [3, 3, 2]


def test_a_model_that_writes_to_its_input():
    class Scales(networks.Split):
        def forward(self, x):
            return super().forward(x.sub_(0.5).div_(0.2))

    features = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4))
    head = nn.Sequential(nn.ReLU(), networks.Gap(), nn.Linear(4, 3))
    model = networks.randomise(Scales(features, head).double().eval(), 2)
    x = images(2)
    kept = x.clone()
    found = explain(model, x, ScoreCAM(), 1)
    assert torch.equal(x, kept)
    model.head[0].register_forward_hook(lambda *_: None)  # nothing is folded then
    torch.testing.assert_close(explain(model, x, ScoreCAM(), 1).signed, found.signed)
