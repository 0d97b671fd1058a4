"""A model is given back exactly as it was, whatever was done with it."""

import pytest
import torch
from torch import nn

from camlucida import Logit, ModelError, explain, list_layers, tap
from camlucida.engine.borrow import borrowed, check_inputs, unwrap
from camlucida.engine.layers import default_layer
from camlucida.methods import full_gradient, list_methods
from reference import networks
from reference.state import differences, snapshot

# Methods for transformers refuse other networks before they run.
METHODS = [
    row.name for row in list_methods() if not {"attention", "reference embedding"} & {*row.needs}
]
QUICK = {
    "opticam": {"iterations": 3},
    "rise": {"masks": 100},
    "integrated-gradients": {"n_steps": 2},
    "smoothgrad": {"n_samples": 2},
    "fame": {"iterations": 2},
}


class Nasty(nn.Module):
    """Counts its calls, moves a buffer, reassigns another, draws random numbers, and may fail."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5)
        )
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))
        self.register_buffer("last", torch.zeros(3))
        self.register_buffer("hidden", torch.zeros(2), persistent=False)
        self.fail = False

    def forward(self, x):
        self.calls += 1
        self.last = x.detach().mean((0, 2, 3)).float()
        self.hidden.copy_(torch.rand(2))
        noise = 1e-3 * torch.randn(()).to(x)
        a = self.norm(self.features(x))
        if self.fail:
            raise RuntimeError("the model broke")
        return self.head((a + noise).mean((2, 3)))


def nasty():
    """In training mode with one norm frozen, some parameters frozen, some gradients there already."""
    model = Nasty()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
    model.train()
    model.norm.eval()
    model.features[0].weight.requires_grad_(False)
    model.norm.bias.requires_grad_(False)
    model.head.weight.grad = torch.full_like(model.head.weight, 7.0)
    model.features[1].weight.grad = torch.ones(4)
    return model


X = torch.randn(2, 3, 6, 8)


@pytest.fixture
def untouched():
    """The model, and a check at the end that nothing about it or about torch changed."""
    model = nasty()
    before = snapshot(model)
    kept = model.head.weight.grad
    yield model
    assert differences(before, snapshot(model)) == []
    assert model.head.weight.grad is kept
    assert (kept == 7).all()


@pytest.mark.parametrize("name", METHODS)
def test_after_every_method(request, name):
    if name == "cam":  # the nasty head adds noise; a plain network stands in
        model = networks.build().float().train()
        model.head[1].weight.requires_grad_(False)
        x = torch.randn(2, 3, 5, 6)
        before = snapshot(model)
        explain(model, x, method=name, layers="features")
        assert differences(before, snapshot(model)) == []
        return
    explain(request.getfixturevalue("untouched"), X, method=name, **QUICK.get(name, {}))


@pytest.mark.parametrize("name", METHODS)
def test_after_the_model_raised(name):
    model = nasty()
    model.fail = True
    before = snapshot(model)
    with pytest.raises(ModelError, match="the model broke"):
        explain(model, X, method=name, **QUICK.get(name, {}))
    assert differences(before, snapshot(model)) == []


def raising(*_):
    raise ZeroDivisionError("raised on purpose")


@pytest.mark.parametrize("name", METHODS)
def test_after_the_target_raised(untouched, name):
    if name.startswith("diff") or name == "finercam":
        pytest.skip("takes margins only")
    with pytest.raises(ZeroDivisionError):
        explain(untouched, X, method=name, target=raising, layers=None, **QUICK.get(name, {}))


def test_after_the_layers_hook_raised(untouched):
    with pytest.raises(ZeroDivisionError):
        tap(untouched, X, ["features.0", "norm"], grid=raising)
    handle = untouched.features[2].register_forward_hook(raising)
    try:
        with pytest.raises(ModelError, match="raised on purpose"):
            tap(untouched, X, "norm")
    finally:
        handle.remove()


def test_after_a_keyboard_interrupt(untouched):
    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tap(untouched, X, "norm", target=interrupt)


def test_after_looking_around(untouched):
    default_layer(untouched, X)
    list_layers(untouched, X)
    full_gradient(untouched, X, Logit(0))
    tap(untouched, X, "features", gradients=False)
    for wrong in ("features.9", "nothing"):
        with pytest.raises(ValueError, match="layer"):
            tap(untouched, X, wrong)


def test_a_users_own_hooks_stay_and_run(untouched):
    list_layers(untouched, X)
    seen = []
    handle = untouched.head.register_forward_hook(lambda *_: seen.append(1))
    tap(untouched, X, "norm")
    assert seen == [1]
    assert len(untouched.head._forward_hooks) == 1
    handle.remove()


def test_inside_everything_is_frozen_in_evaluation_mode(untouched):
    with borrowed(untouched, X) as module:
        assert module is untouched
        assert not any(m.training for m in module.modules())
        assert not any(p.requires_grad for p in module.parameters())
        assert torch.is_grad_enabled()
        with borrowed(untouched, X) as again:
            assert again is module
        assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_outer_modes_are_lifted_and_come_back(mode):
    model = nasty()
    with mode():
        with borrowed(model):
            assert torch.is_grad_enabled()
            assert not torch.is_inference_mode_enabled()
        assert not torch.is_grad_enabled()
        assert torch.is_inference_mode_enabled() == (mode is torch.inference_mode)


def test_the_random_state_is_the_callers():
    model = nasty()
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    tap(model, X, "norm")
    assert torch.equal(torch.rand(3), expected)


class Cached(nn.Module):
    """Fills an empty buffer on its first call, as models with cached positions do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.head = nn.Linear(4, 2)
        self.register_buffer("cache", None)

    def forward(self, x):
        self.cache = torch.ones(4)
        return self.head(self.conv(x).mean((2, 3)) + self.cache)


def test_a_buffer_that_was_empty_is_empty_again():
    model = Cached()
    tap(model, X, "conv")
    assert model.cache is None


class Writes(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.register_buffer("scale", scale)

    def forward(self, x):
        self.scale.copy_(x.detach().amax((0, 2, 3)))
        return x


class Reads(Writes):
    def forward(self, x):
        return x / self.scale.view(1, -1, 1, 1)


def test_two_modules_may_share_a_buffer():
    """What one writes the other reads, inside as outside."""
    scale = torch.ones(3)
    model = nn.Sequential(
        Writes(scale), nn.Conv2d(3, 3, 3), Reads(scale), nn.Flatten(), nn.Linear(72, 2)
    )
    outputs = tap(model, 7 * X, "1").outputs
    assert torch.equal(scale, torch.ones(3))
    torch.testing.assert_close(outputs, model(7 * X).detach())


class CountingNorm(nn.BatchNorm2d):
    """A norm with a buffer of its own."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class AdaptingNorm(nn.BatchNorm2d):
    """A norm that updates its statistics in evaluation mode too (test-time adaptation)."""

    def forward(self, x):
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=True
        )


@pytest.mark.parametrize("norm", [CountingNorm, AdaptingNorm])
def test_a_norm_that_writes_in_evaluation_mode(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), norm(4), nn.Flatten(), nn.Linear(96, 2)).eval()
    before = snapshot(model)
    tap(model, X, "0")
    assert differences(before, snapshot(model)) == []


def test_nan_in_a_buffer_is_no_change():
    model = nasty()
    model.last.fill_(torch.nan)
    tap(model, X, "norm")
    assert model.last.isnan().all()


def test_a_second_explanation_does_not_make_the_first_look_stale():
    """Restored buffers count as unchanged: the weights are what they were."""
    model = nasty()
    first = explain(model, X)
    explain(model, X, method="hirescam")
    assert len(first.provenance.weights) == 64


# --------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (torch.zeros(3, 8, 8), r"\(3, 8, 8\).*inputs\[None\]"),
        (torch.zeros(0, 3, 8, 8), "N >= 1"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.float64), "float64.*float32.*autocast"),
        (torch.zeros(1, 3, 8, 8, device="meta"), "meta.*cpu"),
        ([[1.0]], "list"),
    ],
)
def test_inputs_that_do_not_fit(inputs, words):
    with pytest.raises(ModelError, match=words):
        check_inputs(nasty(), inputs)
    with pytest.raises(ModelError, match=words):
        tap(nasty(), inputs, "norm")


def test_parameters_made_in_inference_mode():
    with torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(ModelError, match="inference_mode"):
        tap(model, X, "0")


def test_unwrap():
    model = nasty()
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(torch.compile(model, backend="eager")) is model
    assert unwrap(nn.DataParallel(torch.compile(model, backend="eager"))) is model
