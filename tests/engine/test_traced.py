"""Cutting a model behind a layer: when it is done again, and when it is left alone."""

import gc
import logging
import types
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camlucida import LayerError, explain
from camlucida.engine.replay.replay import replay
from camlucida.engine.replay.traced import _CUTS
from camlucida.methods.ablationcam import AblationCAM
from reference import networks
from reference.replays import INDEX, Skips, X, altered, compare, outputs
from reference.state import differences, snapshot


def test_batches_of_any_size_share_a_cut():
    model = Skips()
    for n in (3, 1, 2):
        x = torch.randn(n, 3, 6, 8)
        for copies in (1, n, 5):
            index = torch.arange(copies) % n
            traced = outputs(model, x, "block", "traced", index=index)
            torch.testing.assert_close(traced, outputs(model, x, "block", "full", index=index))
    assert len(_CUTS[model]) == 1


def test_parameters_are_read_live():
    model = Skips().eval()
    outputs(model, X, "block", "traced")
    for change in (
        lambda: model.scale.data.add_(1),
        lambda: model.offset.add_(1),
        lambda: setattr(model, "head", nn.Linear(8, 5)),
        lambda: setattr(model, "scale", nn.Parameter(torch.zeros(4, 1, 1))),
        lambda: model.load_state_dict(
            {name: value + 1 for name, value in model.state_dict().items()}
        ),
        lambda: model.double().float(),
    ):
        change()
        traced, full = (outputs(model, X, "block", path) for path in ("traced", "full"))
        torch.testing.assert_close(traced, full)


def test_a_changed_model_is_traced_again():
    class Chosen(nn.Module):
        twice = False

        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 4, 3)
            self.rest = nn.Sequential(nn.ReLU(), networks.Gap(), nn.Linear(4, 2))
            self.power, self.signs, self.end = 1, [1], torch.tanh

        def forward(self, x):
            return self.end(self.rest(self.a(x)) ** self.power) * sum(self.signs, 1)

    model = Chosen()
    bound = types.MethodType(lambda self, x: self.rest(self.a(x)).sigmoid(), model)
    for change in (
        lambda: None,
        lambda: setattr(model, "power", 2),
        lambda: setattr(model, "end", torch.sigmoid),
        lambda: model.signs.append(-1),
        lambda: setattr(model, "rest", nn.Sequential(networks.Gap(), nn.Linear(4, 3))),
    ):
        change()
        compare(model, X, "a")
    model.forward = bound
    compare(model, X, "a", path="full")


class Branches(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x):
        a = self.conv(x).relu_()
        if a.sum() > 0:
            a = a * 2
        return self.head(a.mean((2, 3)))


class Reads(Branches):
    """Branches on a number that was read off a tensor."""

    def forward(self, x):
        a = self.conv(x).relu_()
        if a.sum().item() > 0:
            a = a * 2
        return self.head(a.mean((2, 3)))


class Counts(Branches):
    """Branches on the number of images."""

    def forward(self, x):
        a = self.conv(x).relu_()
        if len(a.shape) == 4 and a.shape[0] > 2:
            a = a * 2
        return self.head(a.mean((2, 3)))


class Remembers(nn.Module):
    """Writes to itself and looks at what it was given."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)
        self.seen = []
        self.last = None

    def forward(self, x):
        a = self.conv(x)
        self.last = type(a).__name__
        self.seen.append(self.last)
        if not isinstance(a, torch.Tensor):
            a = a + 1
        return self.head(a.mean((2, 3)))


class TokensFirst(nn.Module):
    """The skip has the batch in its second dimension."""

    def __init__(self):
        super().__init__()
        self.conv, self.mix, self.head = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x):
        a = self.conv(x)
        skip = a.flatten(2).permute(2, 0, 1)
        return self.head((self.mix(a).flatten(2).permute(2, 0, 1) * skip).mean(0))


@pytest.mark.parametrize(
    ("kind", "layer"),
    [
        (Branches, "conv"),
        (Reads, "conv"),
        (Counts, "conv"),
        (Remembers, "conv"),
        (TokensFirst, "mix"),
    ],
)
@pytest.mark.parametrize("size", [(6, 8), (3, 5), (3, 3)])
def test_the_whole_model_runs_where_tracing_would_be_wrong(kind, layer, size, caplog):
    model = kind().eval()
    if kind is TokensFirst and size == (3, 3):
        size = (1, 3)
    x = torch.randn(2, 3, *size)
    caplog.set_level(logging.INFO, "camlucida")
    before = snapshot(model)
    for _ in range(2):
        compare(model, x, layer, path="full")
        with replay(model, x, layer, 0) as again:
            found = again.run(layer, altered(again.tapped.activations[layer]), INDEX)
            assert again.paths == {layer: "full"}
        torch.testing.assert_close(found, outputs(model, x, layer, "full"))
    assert differences(before, snapshot(model)) == []
    assert getattr(model, "last", None) in (None, "Tensor")
    assert set(getattr(model, "seen", ())) <= {"Tensor"}
    messages = [r.message for r in caplog.records]
    assert len(messages) == 1
    assert "the whole model runs" in messages[0]
    with (
        replay(model, x, layer, 0, path="traced") as again,
        pytest.raises(LayerError, match="cannot be cut behind"),
    ):
        again.run(layer, again.tapped.activations[layer], torch.arange(2))


def test_hooks_of_the_user_keep_working():
    model = Skips()
    seen = []
    model.register_forward_hook(lambda *_: seen.append(type(_[2]["logits"])))
    compare(model, X, "block", path="full")
    assert set(seen) == {torch.Tensor}
    inner = Skips()
    inner.head.register_forward_hook(lambda _m, _a, out: out + 100)
    compare(inner, X, "block")
    assert outputs(inner, X, "block", "traced").mean() > 50


def test_hooks_that_come_later_are_run():
    model = Skips()
    compare(model, X, "block")
    handle = model.register_forward_hook(lambda *_: {"logits": _[2]["logits"] * 10})
    compare(model, X, "block", path="full")
    handle.remove()
    compare(model, X, "block")


class Pads(nn.Module):
    """Branches on shapes and types, which are the same for all copies."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x):
        if x.dtype != self.head.weight.dtype:
            x = x.to(self.head.weight.dtype)
        a = self.conv(x)
        skip = a * self.norm.weight[:, None, None]
        a = self.norm(a)
        n, c, h, w = a.shape
        if h % 4 or w % 4:
            a = F.pad(a, (0, -w % 4, 0, -h % 4), value=1.0)
            skip = F.pad(skip, (0, -w % 4, 0, -h % 4))
        return self.head((a * skip).view(n, c, -1).mean(2))


@pytest.mark.parametrize("size", [(6, 8), (6, 6), (7, 9)])
@pytest.mark.parametrize("layer", ["conv", "norm"])
def test_branches_on_shapes_are_taken(size, layer):
    model = Pads()
    compare(model, torch.randn(2, 3, *size), layer)
    compare(model, torch.randn(2, 3, 10, 10), layer)
    compare(model.double(), torch.randn(2, 3, *size).double(), layer)


def test_out_of_memory_is_no_reason_to_run_the_whole_model():
    model = Skips()
    calls = []

    def fail(_, args):
        calls.append(len(args[0]))
        if len(calls) == 2:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")

    model.stem.register_forward_hook(lambda module, args, _: fail(module, args))
    with pytest.raises(torch.OutOfMemoryError):
        outputs(model, X, "block", "traced")
    compare(model, X, "block")


def test_nothing_keeps_the_model_alive():
    model = Skips()
    outputs(model, X, "block", "traced")
    explain(model, X, method=AblationCAM(), target=0, layers="block")
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None
