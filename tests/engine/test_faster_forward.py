"""Folded and compiled forward passes: the same function, and the model left alone."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from camlucida import explain
from camlucida.engine import faster_forward
from camlucida.engine.borrow import borrowed
from camlucida.engine.faster_forward import compiled, fast_forward, folded

X = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def trained(model):
    """Batch norms that do something."""
    generator = torch.Generator().manual_seed(1)
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            for t in (m.weight.data, m.bias.data, m.running_mean, m.running_var):
                t.copy_(torch.rand(t.shape, generator=generator) + 0.5)
    return model.eval().requires_grad_(False)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.fc = nn.Linear(6, 4)

    def forward(self, x):
        a = self.bn1(self.conv1(x)).relu()
        return self.fc((a + self.bn2(self.conv2(a))).mean((2, 3)))


def outputs(model, x=X):
    with torch.no_grad():
        return model(x)


def test_every_batch_norm_behind_a_convolution_is_folded():
    model = trained(Residual())
    before = copy.deepcopy(model.state_dict())
    found = folded(model, X, outputs(model))
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    assert torch.allclose(found(X), outputs(model), atol=1e-5)
    assert found.fc is model.fc
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_timm_norms_keep_their_activation():
    timm = pytest.importorskip("timm")
    model = trained(timm.create_model("tf_efficientnet_lite0", num_classes=5))
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        wanted = model(x)
    found = folded(model, x, wanted)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    assert torch.allclose(found(x), wanted, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def test_a_convolution_with_another_reader_stays():
    class Twice(Residual):
        def forward(self, x):
            a = self.conv1(x)
            return self.fc((a + self.bn1(a)).mean((2, 3)))

    model = trained(Twice())
    assert folded(model, X, outputs(model)) is None


def test_a_shared_convolution_stays():
    class Shared(Residual):
        def forward(self, x):
            a = self.conv2(self.bn1(self.conv1(x)))
            return self.fc(self.bn2(self.conv2(a)).mean((2, 3)))

    model = trained(Shared())
    found = folded(model, X, outputs(model))
    assert [type(m) for m in found.modules() if isinstance(m, nn.BatchNorm2d)] == [nn.BatchNorm2d]
    assert torch.allclose(found(X), outputs(model), atol=1e-5)


def test_where_nothing_can_be_folded():
    class Branches(Residual):
        def forward(self, x):
            return super().forward(x if x.mean() > 0 else -x)

    plain = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    assert folded(plain, X, outputs(plain)) is None
    branches = trained(Branches())
    assert folded(branches, X, outputs(branches)) is None


def test_hooks_of_the_user_keep_the_model_whole():
    model = trained(Residual())
    model.bn1.register_forward_hook(lambda *_: None)
    assert folded(model, X, outputs(model)) is None


def test_the_model_and_its_input_are_left_alone():
    class Keeps(Residual):
        def forward(self, x):
            a = self.bn1(self.conv1(x.sub_(torch.tensor(0.5)))).relu()
            self.last = a
            self.seen.append(a)
            return self.fc((a + self.bn2(self.conv2(a))).mean((2, 3)))

    model, x = trained(Keeps()), X.clone()
    model.seen = []
    wanted = outputs(model, x.clone())
    before = dict(vars(model))
    found = folded(model, x, wanted)
    assert torch.equal(x, X)
    assert {name: id(value) for name, value in vars(model).items()} == {
        name: id(value) for name, value in before.items()
    }
    assert len(model.seen) == 1
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    assert torch.allclose(found(x), wanted, atol=1e-5)


def test_another_output_is_not_accepted():
    model = trained(Residual())
    assert folded(model, X, outputs(model) + 1) is None


@pytest.mark.parametrize("method", ["scorecam", "rise"])
def test_methods_give_the_same_maps(method):
    model = trained(Residual())
    options = {"masks": 50} if method == "rise" else {"layers": "bn2"}
    fast = explain(model, X, method=method, **options)
    model.fc.register_forward_hook(lambda *_: None)
    assert torch.allclose(fast.maps, explain(model, X, method=method, **options).maps, atol=1e-4)


def test_what_is_compiled_follows_the_model(monkeypatch):
    """Also where ``data`` is written to, and although a borrowed model's buffers are copies."""

    class Norm(nn.BatchNorm2d):
        pass

    made = []
    monkeypatch.setattr(torch, "compile", lambda graph, **_: made.append(graph) or graph)
    model = Residual()
    model.bn2 = Norm(6)
    model = trained(model)
    model.power = 1.0
    for change, number in (
        (lambda: None, 1),
        (lambda: None, 1),
        (lambda: model.conv1.weight.data.mul_(2), 2),
        (lambda: model.bn2.running_mean.add_(1), 3),
        (lambda: setattr(model, "power", 2.0), 4),
        (lambda: None, 4),
    ):
        change()
        with borrowed(model, X) as module:
            compiled(module, X, outputs(model))
        assert len(made) == number


@pytest.mark.slow
def test_compiled_passes_are_kept_until_the_weights_change():
    model = trained(Residual())
    found = compiled(model, X, outputs(model))
    with torch.no_grad():
        assert torch.allclose(found(X), outputs(model), atol=1e-5)
    assert compiled(model, X, outputs(model)) is found
    model.conv1.weight.mul_(2)
    again = compiled(model, X, outputs(model))
    assert again is not found
    with torch.no_grad():
        assert torch.allclose(again(X), outputs(model), atol=1e-4)
    exact = explain(model, X, method="scorecam", layers="bn2")
    quick = explain(model, X, method="scorecam", layers="bn2", compiled=True, check=True, chunk=4)
    assert torch.allclose(quick.maps, exact.maps, atol=1e-4)
    assert float(quick.details["error"].max()) < 1e-4
    assert any("compiled" in note for note in quick.diagnostics[0].notes)


class Views(nn.Module):
    """Wants its maps as usual: ``view`` refuses channels-last ones."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4 * 14 * 14, 2)

    def forward(self, x):
        x = self.conv(x)
        return self.fc(x.view(len(x), -1))


@pytest.mark.parametrize("make", [Residual, Views])
def test_the_fast_forward_gives_the_outputs(make):
    model = trained(make())
    before = copy.deepcopy(model.state_dict())
    with borrowed(model, X) as module, torch.no_grad():
        fast = fast_forward(module, X)
        assert torch.allclose(fast(X.clone()), outputs(module), atol=1e-5)
        assert torch.equal(fast_forward(module, X, outputs(module))(X.clone()), fast(X.clone()))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_other_weights_are_noticed_however_they_were_written():
    model = trained(Residual())
    with borrowed(model, X) as module, torch.no_grad():
        old = fast_forward(module, X)(X.clone())
    model.conv1.weight.data.mul_(1.5)
    with borrowed(model, X) as module, torch.no_grad():
        new = fast_forward(module, X)(X.clone())
        assert torch.allclose(new, outputs(module), atol=1e-5)
    assert not torch.allclose(new, old)


def test_what_is_kept_goes_with_the_model():
    model = trained(Residual())
    with borrowed(model, X) as module, torch.no_grad():
        fast_forward(module, X)
    gone = weakref.ref(model)
    del model, module
    gc.collect()
    assert gone() is None


def test_the_clock_decides_only_where_it_is_clear(monkeypatch):
    model = trained(Residual())
    spent = {True: 1.0, False: 0.9}

    def seconds(forward, _):
        return spent[forward.__closure__[0].cell_contents == torch.channels_last]

    monkeypatch.setattr(faster_forward, "_seconds", seconds)
    with torch.no_grad():
        known = outputs(model)
        assert faster_forward._prefers_channels_last(model, X, known, True)
        assert not faster_forward._prefers_channels_last(model, X, known, False)
        spent[False] = 0.5
        assert not faster_forward._prefers_channels_last(model, X, known, True)


# ---- forward and backward -----------------------------------------------------------------------


def gradient(forward, x=X):
    leaf = x.clone().requires_grad_()
    with torch.enable_grad():
        return torch.autograd.grad(forward(leaf.clone())[:, 1].sum(), leaf)[0]


def test_the_fast_form_has_the_models_gradients():
    model = trained(Residual())
    with borrowed(model, X) as module, torch.no_grad():
        fast = fast_forward(module, X, gradients=True)
        assert faster_forward._KEPT[module].graph is not None
        assert [folds for folds, _ in faster_forward._KEPT[module].forms.values()] == [True]
        torch.testing.assert_close(gradient(fast), gradient(module), rtol=1e-4, atol=1e-6)


def test_a_part_without_gradients_keeps_the_model_as_it_is():
    """Tracing does not see ``no_grad``: the outputs are the same, the gradients are not."""

    class Cut(Residual):
        def forward(self, x):
            with torch.no_grad():
                b = self.bn2(self.conv2(self.bn1(self.conv1(x))))
            return self.fc((self.bn1(self.conv1(x)) + 3 * b).mean((2, 3)))

    class Once(Residual):
        def forward(self, x):
            a = self.bn1(self.conv1(x))
            with torch.no_grad():
                b = self.bn2(self.conv2(a))
            return self.fc((a + 3 * b).mean((2, 3)))

    for kind in (Cut, Once):
        model = trained(kind())
        with borrowed(model, X) as module, torch.no_grad():
            fast = fast_forward(module, X, gradients=True)
            torch.testing.assert_close(gradient(fast), gradient(module), rtol=1e-4, atol=1e-6)
    assert faster_forward._KEPT[module].graph is not None  # good enough for outputs
    assert [folds for folds, _ in faster_forward._KEPT[module].forms.values()] == [False]
