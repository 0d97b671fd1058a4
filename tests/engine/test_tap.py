"""The engine: right activations and gradients, on every kind of model, at the promised cost."""

import warnings
from collections import namedtuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camlucida import (
    Cell,
    Grid,
    LayerError,
    Logit,
    LogitMargin,
    ModelError,
    Probability,
    TargetError,
    default_layer,
    explain,
    list_layers,
    tap,
)
from camlucida.engine.tap import sharing
from reference import networks

X = torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0))


def small(dtype=torch.float32):
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(5, 3),
    ).to(dtype)


# ---------------------------------------------------------------------------------- right numbers


@given(
    st.integers(0, 1000),
    st.integers(1, 3),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    st.sampled_from(["gap", "dense", "deep"]),
)
def test_against_differentiating_the_head(seed, n, size, head):
    model = networks.build(size=size, head=head, seed=seed)
    x = networks.images(n, 3, size, seed)
    target = LogitMargin(aggregator="lse").pin(model(x))
    activation, gradient, values = networks.parts(model, x, target)
    tapped = tap(model, x, "features", LogitMargin(aggregator="lse"))
    torch.testing.assert_close(tapped.only[0], activation, rtol=0, atol=0)
    torch.testing.assert_close(tapped.only[1], gradient, rtol=1e-13, atol=1e-15)
    torch.testing.assert_close(tapped.values, values)
    torch.testing.assert_close(tapped.outputs, model(x).detach())
    assert tapped.connected == {"features": True}
    assert torch.equal(tapped.target.classes, model(x).argmax(1))


def test_against_finite_differences():
    model = networks.build(size=(3, 3), head="deep", smooth=True)
    x = networks.images(1, 3, (3, 3))
    a, g = tap(model, x, "features", Probability(1)).only
    step = 1e-6
    for entry in range(a.numel()):
        moved = torch.zeros_like(a).flatten()
        moved[entry] = step
        up, down = (model.head(a + s * moved.view_as(a)).softmax(1)[0, 1].item() for s in (1, -1))
        assert g.flatten()[entry].item() == pytest.approx((up - down) / (2 * step), abs=1e-8)


def test_input_layer():
    model = small(torch.float64)
    x = X.double().requires_grad_()
    (expected,) = torch.autograd.grad(model(x)[:, 1].sum(), x)
    tapped = tap(model, X.double(), "input", 1)
    torch.testing.assert_close(tapped.gradients["input"], expected)
    assert torch.equal(tapped.activations["input"], X.double())
    assert x.grad is None


def test_several_layers_are_what_each_is_alone():
    model = small(torch.float64)
    names = ["input", "0", "1", "2", "3"]
    together = tap(model, X.double(), names, LogitMargin())
    assert list(together.activations) == names
    for name in names:
        alone = tap(model, X.double(), name, LogitMargin())
        torch.testing.assert_close(together.activations[name], alone.activations[name])
        torch.testing.assert_close(together.gradients[name], alone.gradients[name])


def test_order_is_the_callers():
    names = ["3", "input", "0"]
    assert list(tap(small(), X, names).gradients) == names


def test_nested_layers():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))

        def forward(self, x):
            return 2 * self.inner(x)

    model = nn.Sequential(Block(), nn.Conv2d(4, 5, 3), nn.Flatten(), nn.Linear(40, 3)).double()
    x = X.double()
    names = ["0", "0.inner", "0.inner.0", "0.inner.1"]
    together = tap(model, x, names)
    for name in names:
        alone = tap(model, x, name)
        torch.testing.assert_close(together.activations[name], alone.activations[name])
        torch.testing.assert_close(together.gradients[name], alone.gradients[name])
    torch.testing.assert_close(together.gradients["0.inner"], 2 * together.gradients["0"])


def test_layers_by_module_and_by_name():
    model = small()
    a = tap(model, X, model[2])
    b = tap(model, X, "2")
    assert list(a.activations) == ["2"]
    assert torch.equal(a.only[1], b.only[1])


def test_batch_is_the_images_one_by_one():
    model = small(torch.float64)
    together = tap(model, X.double(), "2", LogitMargin([0, 2]))
    for n, c in enumerate((0, 2)):
        alone = tap(model, X.double()[n : n + 1], "2", LogitMargin(c))
        torch.testing.assert_close(together.gradients["2"][n], alone.gradients["2"][0])


def test_only_activations():
    tapped = tap(small(), X, "2", LogitMargin(), gradients=False)
    assert tapped.gradients == {}
    assert not tapped.activations["2"].requires_grad
    torch.testing.assert_close(tapped.values, tap(small(), X, "2", LogitMargin()).values)


def test_nothing_returned_holds_a_graph():
    tapped = tap(small(), X, ["input", "2"])
    for tensor in (tapped.outputs, tapped.values, *tapped.activations.values(),
                   *tapped.gradients.values()):  # fmt: skip
        assert not tensor.requires_grad


def test_the_caller_owns_what_is_returned():
    """Writing to a result writes neither to the inputs nor to a weight."""
    x = X.clone()
    tapped = tap(nn.Sequential(nn.Identity(), nn.Flatten(), nn.Linear(144, 2)), x, ["input", "0"])
    for tensor in tapped.activations.values():
        tensor.zero_()
    assert torch.equal(x, X)


# ------------------------------------------------------------------------------- in-place operations


class Behind(nn.Module):
    """An in-place operation right behind the layer, as in DenseNet."""

    def __init__(self, inplace):
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.classifier = nn.Linear(4, 3)
        self.inplace = inplace

    def forward(self, x):
        a = F.relu(self.features(x), inplace=self.inplace)
        return self.classifier(a.mean((2, 3)))


def test_in_place_relu_behind_the_layer():
    model = Behind(inplace=True)
    tapped = tap(model, X, "features")
    plain = Behind(inplace=False)
    plain.load_state_dict(model.state_dict())
    expected = tap(plain, X, "features")
    assert (tapped.only[0] < 0).any()
    torch.testing.assert_close(tapped.only[0], model.features(X).detach())
    torch.testing.assert_close(tapped.only[1], expected.only[1])


def test_in_place_relu_module_behind_and_before():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(96, 3))
    tapped = tap(model, X, ["0", "1"])
    assert (tapped.activations["0"] < 0).any()
    assert torch.equal(tapped.activations["1"], tapped.activations["0"].clamp_min(0))


def test_in_place_operation_on_the_input():
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(96, 3))
    x = X.clone()
    for layers in ("input", "1", ["input", "0"]):
        tap(model, x, layers)
        assert torch.equal(x, X)


def test_torchvision_densenet_is_tapped_before_its_relu():
    models = pytest.importorskip("torchvision").models
    model = models.densenet121(weights=None).eval()
    x = torch.randn(1, 3, 64, 64)
    activation, gradient = tap(model, x, "features", 3).only
    with torch.no_grad():
        torch.testing.assert_close(activation, model.features(x))
    assert (activation < 0).any()
    # The gradient is that of the pre-ReLU value: none where the ReLU is closed.
    assert not gradient[activation < 0].any()
    assert gradient[activation > 0].any()


# -------------------------------------------------------------------------------------- outer modes


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("where", ["outside", "inside"])
def test_under_outer_modes(mode, where):
    model = small()
    expected = tap(model, X, ["input", "2"], LogitMargin())
    with mode():
        x = X if where == "outside" else X.clone()
        tapped = tap(model, x, ["input", "2"], LogitMargin())
    for name in ("input", "2"):
        torch.testing.assert_close(tapped.gradients[name], expected.gradients[name])
        assert not tapped.activations[name].is_inference()


@pytest.mark.parametrize(
    "name",
    ["cam", "gradcam", "gradcam++", "xgradcam", "hirescam", "gradcam-ew", "layercam", "eigencam",
     "fullgrad", "saliency", "inputxgradient", "integrated-gradients", "smoothgrad", "diffgradcam"],
)  # fmt: skip
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_every_method_under_outer_modes(name, mode):
    model = networks.build().float()
    x = torch.randn(2, 3, 5, 6)
    layers = "features" if name in {"cam", "eigencam"} or "cam" in name else None
    expected = explain(model, x, method=name, layers=layers)
    with mode():
        found = explain(model, x.clone(), method=name, layers=layers)
        torch.testing.assert_close(found.maps, expected.maps)


def test_inputs_made_in_inference_mode_used_outside():
    with torch.inference_mode():
        x = X.clone()
    model = small()
    torch.testing.assert_close(tap(model, x, "2").only[1], tap(model, X, "2").only[1])
    explain(model, x, method="fullgrad")
    explain(model, x, method="smoothgrad", n_samples=1)


def test_inputs_that_require_a_gradient_get_none():
    x = X.clone().requires_grad_()
    tap(small(), x, ["input", "2"])
    assert x.grad is None
    assert x.requires_grad


def test_frozen_parameters():
    model = small().requires_grad_(False)
    assert tap(model, X, "2").only[1].any()


def test_bf16_model():
    model = small()
    expected = tap(model, X, "2")
    tapped = tap(small().bfloat16(), X.bfloat16(), "2")
    for tensor in (*tapped.only, tapped.values):
        assert tensor.dtype == torch.float32
    torch.testing.assert_close(tapped.only[1], expected.only[1], rtol=0.02, atol=1e-3)


def test_autocast():
    model = small()
    with torch.autocast("cpu", torch.bfloat16):
        tapped = tap(model, X, "2", LogitMargin(aggregator="lse"))
        assert torch.is_autocast_enabled("cpu")
    assert tapped.values.dtype == torch.float32
    assert tapped.only[1].dtype == torch.float32
    expected = tap(model, X, "2", LogitMargin(aggregator="lse"))
    torch.testing.assert_close(tapped.only[1], expected.only[1], rtol=0.05, atol=1e-2)
    assert not torch.equal(tapped.only[0], expected.only[0])  # autocast was on in the model


def test_double_stays_double():
    tapped = tap(small(torch.float64), X.double(), "2")
    assert tapped.only[1].dtype == tapped.values.dtype == torch.float64


# ------------------------------------------------------------------------------------ model outputs

Named = namedtuple("Named", "aux logits")  # noqa: PYI024


class Returning(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.body = small()
        self.wrap = wrap

    def forward(self, x):
        return self.wrap(self.body(x))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda z: {"aux": z * 0, "logits": z},
        lambda z: (z, z * 0),
        lambda z: [z],
        lambda z: Named(z * 0, z),
        lambda z: {"only": z},
    ],
    ids=["dict", "tuple", "list", "named tuple", "one entry"],
)
def test_model_outputs(wrap):
    model = Returning(wrap)
    torch.testing.assert_close(tap(model, X, "body.2", 1).only[1], tap(small(), X, "2", 1).only[1])


def test_huggingface_output():
    transformers = pytest.importorskip("transformers")

    def wrap(z):
        return transformers.modeling_outputs.ImageClassifierOutput(logits=z)

    model = Returning(wrap)
    torch.testing.assert_close(tap(model, X, "body.2", 1).only[1], tap(small(), X, "2", 1).only[1])


class LayerReturns(nn.Module):
    def __init__(self, wrap, unwrap):
        super().__init__()
        self.body = Returning(wrap)
        self.body.body = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)
        self.unwrap = unwrap

    def forward(self, x):
        return self.head(self.unwrap(self.body(x)).mean((2, 3)))


One = namedtuple("One", "states")  # noqa: PYI024


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [
        (lambda a: (a,), lambda t: t[0]),
        (lambda a: [a], lambda t: t[0]),
        (lambda a: (a, None), lambda t: t[0]),
        (One, lambda t: t.states),
    ],
    ids=["tuple", "list", "with none", "named tuple"],
)
def test_layer_returning_one_tensor_in_a_tuple(wrap, unwrap):
    model = LayerReturns(wrap, unwrap)
    a, g = tap(model, X, "body").only
    b, h = tap(model, X, "body.body").only
    assert torch.equal(a, b)
    assert torch.equal(g, h)
    assert g.any()


@pytest.mark.parametrize(
    ("wrap", "unwrap"),
    [(lambda a: (a, a), lambda t: t[0]), (lambda a: {"a": a}, lambda t: t["a"])],
    ids=["two", "dict"],
)
def test_layer_returning_several_tensors(wrap, unwrap):
    with pytest.raises(LayerError, match=r"'body' \(Returning\) returns no single tensor"):
        tap(LayerReturns(wrap, unwrap), X, "body")


# --------------------------------------------------------------------------------------- wrapped models


def test_data_parallel():
    model = small()
    wrapped = nn.DataParallel(model)
    expected = tap(model, X, "2").only[1]
    for name in ("2", "module.2"):
        torch.testing.assert_close(tap(wrapped, X, name).only[1], expected)


def counting_backend():
    runs = []

    def backend(graph, _):
        def run(*args):
            runs.append(1)
            return graph.forward(*args)

        return run

    return backend, runs


def test_compiled_wrapper_runs_the_original():
    model = small()
    backend, runs = counting_backend()
    compiled = torch.compile(model, backend=backend)
    torch.testing.assert_close(tap(compiled, X, "2").only[1], tap(model, X, "2").only[1])
    assert not runs
    compiled(X)
    assert runs


def test_compiled_in_place_runs_the_original_and_stays_compiled():
    model = small()
    expected = tap(model, X, "2").only[1]
    backend, runs = counting_backend()
    model.compile(backend=backend)
    torch.testing.assert_close(tap(model, X, "2").only[1], expected)
    assert not runs
    model(X)
    assert runs


def test_compiled_submodule():
    model = small()
    expected = tap(model, X, "2").only[1]
    backend, _ = counting_backend()
    model[0].compile(backend=backend)
    torch.testing.assert_close(tap(model, X, "2").only[1], expected)
    torch.testing.assert_close(tap(model, X, "0").only[0], model[0](X).detach())


# -------------------------------------------------------------------------------------------- errors


class Reused(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.relu = nn.ReLU()
        self.unused = nn.Conv2d(3, 3, 3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.relu(self.conv(self.relu(self.conv(x)))).mean((2, 3)))


def test_layer_that_runs_twice():
    with pytest.raises(LayerError, match=r"'relu' \(ReLU\) runs more than once"):
        tap(Reused(), X, "relu")


class Twofold(nn.Module):
    """Computes its trunk anew for each of its heads."""

    def __init__(self, inplace=False):
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.ReLU(inplace), nn.Conv2d(4, 4, 3), nn.ReLU(inplace)
        )
        self.one, self.other = nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        heads = [head(self.trunk(x).mean((2, 3))) for head in (self.one, self.other)]
        return torch.cat(heads, 1)


class Onefold(Twofold):
    """The same with one trunk."""

    def forward(self, x):
        z = self.trunk(x).mean((2, 3))
        return torch.cat([self.one(z), self.other(z)], 1)


@pytest.mark.parametrize("layer", ["trunk", "trunk.1", "trunk.2"])
@pytest.mark.parametrize("target", [1, 4, lambda z: z.sum(1)])
def test_layer_that_runs_again_on_the_same_images(layer, target):
    """It is one map, used twice: as in a model that keeps what the trunk returned."""
    twice, once = Twofold().eval(), Onefold().eval()
    once.load_state_dict(twice.state_dict())
    assert default_layer(twice, X) == default_layer(once, X)
    for found, wanted in zip(
        tap(twice, X, layer, target).only, tap(once, X, layer, target).only, strict=True
    ):
        torch.testing.assert_close(found, wanted)


def test_layer_whose_first_map_is_overwritten_before_it_runs_again():
    with pytest.raises(LayerError, match="more than once"):
        tap(Twofold(inplace=True).eval(), X, "trunk.2")
    assert tap(Twofold(inplace=True).eval(), X, "trunk").only[1].any()


def test_layer_that_does_not_run():
    with pytest.raises(LayerError, match="'unused' did not run"):
        tap(Reused(), X, "unused")


def test_layer_without_space():
    with pytest.raises(LayerError, match=r"'head' is no feature map.*\(N, 2\)"):
        tap(Reused(), X, "head")


def test_torchscript():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated in torch, and still met
        scripted = torch.jit.trace(small().eval(), X)
    for call in (lambda: tap(scripted, X, "2"), lambda: explain(scripted, X)):
        with pytest.raises((LayerError, ModelError), match="TorchScript"):
            call()


def test_inputs_on_another_device():
    with pytest.raises(ModelError, match=r"inputs are on meta but the model is on cpu"):
        tap(small(), X.to("meta"), "2")
    with pytest.raises(ModelError, match="on the meta device"):
        tap(small().to("meta"), X, "2")


def test_inputs_of_another_type_or_shape():
    with pytest.raises(ModelError, match="float64"):
        tap(small(), X.double(), "2")
    with pytest.raises(ModelError, match=r"\(3, 6, 8\)"):
        tap(small(), X[0], "2")


def test_grid_function_of_the_wrong_shape():
    with pytest.raises(LayerError, match=r"grid function.*\(2, 5\)"):
        tap(small(), X, "2", grid=lambda output: output.mean((2, 3)))


def test_grid_by_name():
    tapped = tap(small(), X, ["0", "2"], grid={"2": lambda output: output[:, :2]})
    assert tapped.activations["0"].shape[1] == 4
    assert tapped.activations["2"].shape[1] == tapped.gradients["2"].shape[1] == 2


# --------------------------------------------------------------------------- targets inside the network


def test_cell_stops_the_forward_pass():
    model = small(torch.float64)
    list_layers(model, X.double())
    ran = []
    model[4].register_forward_hook(lambda *_: ran.append(1))
    tapped = tap(model, X.double(), ["input", "1"], Cell("3", 1, 2))
    assert not ran
    x = X.double().requires_grad_()
    feature = model[:4](x)
    (expected,) = torch.autograd.grad(feature[:, :, 1, 2].abs().sum(), x)
    torch.testing.assert_close(tapped.gradients["input"], expected)
    torch.testing.assert_close(tapped.outputs, feature.detach())


def test_cell_of_the_tapped_layer_itself():
    model = small()
    a, g = tap(model, X, "3", Cell("3", 1, 2)).only
    expected = torch.zeros_like(g)
    expected[:, :, 1, 2] = a[:, :, 1, 2].sign()
    torch.testing.assert_close(g, expected)


def test_layer_behind_the_targets():
    with pytest.raises(LayerError, match="'3' did not run before the target's layer '1'"):
        tap(small(), X, "3", Cell("1", 0, 0))


def test_target_layer_that_does_not_run():
    with pytest.raises(TargetError, match="'unused' did not run"):
        tap(Reused(), X, "input", Cell("unused", 0, 0))


class Forgiving(nn.Module):
    """A model that catches what its blocks raise."""

    def __init__(self):
        super().__init__()
        self.block = nn.Conv2d(3, 4, 3)

    def forward(self, x):
        try:
            return self.block(x)
        except Exception:
            return None


def test_no_except_clause_of_the_model_swallows_the_stop():
    assert tap(Forgiving(), X, "input", Cell("block", 0, 0)).values.shape == (2,)


# ----------------------------------------------------------------------------- disconnected targets


def test_disconnected_target():
    tapped = tap(small(), X, "2", lambda z: torch.arange(float(len(z))))
    assert tapped.connected == {"2": False}
    assert not tapped.only[1].any()


class TwoArms(nn.Module):
    def __init__(self):
        super().__init__()
        self.used, self.ignored = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 1)

    def forward(self, x):
        self.ignored(x)
        return self.used(x).mean((2, 3))


def test_one_layer_disconnected_of_two():
    tapped = tap(TwoArms(), X, ["used", "ignored"])
    assert tapped.connected == {"used": True, "ignored": False}
    assert tapped.gradients["used"].any()
    assert not tapped.gradients["ignored"].any()


# ----------------------------------------------------------------------------------------------- cost


def saved_bytes(run):
    """What autograd keeps for the backward pass."""
    sizes = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        run()
    return sum(sizes.values())


def test_the_trunk_keeps_no_graph():
    models = pytest.importorskip("torchvision").models
    model = models.resnet18(weights=None).eval()
    x = torch.randn(4, 3, 128, 128)
    whole = saved_bytes(lambda: model(x.requires_grad_()))
    weights = sum(p.numel() for p in model.fc.parameters()) * 4
    head = saved_bytes(lambda: tap(model, x.detach(), "layer4"))
    assert whole > 50e6
    assert head <= weights + 1e6
    block = saved_bytes(lambda: tap(model, x.detach(), "layer4.0"))
    # The second block: two convolutions of 512 channels and their small maps.
    assert block < weights + 2 * 512 * 512 * 9 * 4 + 3e6


def test_one_forward_pass_once_the_layers_are_known():
    model = small()
    list_layers(model, X)
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    tap(model, X, ["input", "0", "2"], LogitMargin())
    assert len(calls) == 1


def test_parameters_receive_nothing():
    model = small()
    tap(model, X, ["input", "2"])
    assert all(p.grad is None for p in model.parameters())


# ----------------------------------------------------------------------------------- differentiable


def gradcam_loss(model, x):
    a, g = tap(model, x, "features", Logit(1), differentiable=True).only
    return (torch.einsum("nk,nkhw->nhw", g.mean((2, 3)), a) ** 2).sum()


def test_differentiable_reaches_the_parameters():
    model = networks.build(size=(3, 4), head="deep", smooth=True, signed=False)
    loss = gradcam_loss(model, networks.images(2, 3, (3, 4)))
    loss.backward()
    assert all(p.grad is not None for p in model.features.parameters())
    assert model.head[0].weight.grad.any()
    assert model.head[3].weight.grad.any()


def test_differentiable_equals_finite_differences():
    model = networks.build(size=(3, 4), head="deep", smooth=True, signed=False)
    x = networks.images(2, 3, (3, 4))
    gradcam_loss(model, x).backward()
    for weight in (model.features[0].weight, model.head[0].weight, model.head[3].weight):
        for entry in (0, 7, 20):
            flat, step = weight.data.view(-1), 1e-6
            before = flat[entry].item()
            values = []
            for sign in (1, -1):
                flat[entry] = before + sign * step
                values.append(gradcam_loss(model, x).item())
            flat[entry] = before
            expected = (values[0] - values[1]) / (2 * step)
            assert weight.grad.view(-1)[entry].item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_differentiable_in_the_input_passes_gradcheck():
    model = networks.build(size=(2, 3), head="deep", k=2, smooth=True, signed=False)

    def maps(x):
        a, g = tap(model, x, "features", Logit(1), differentiable=True).only
        return (g * a).sum(1)

    assert torch.autograd.gradcheck(maps, networks.images(1, 3, (2, 3)).requires_grad_())


def test_differentiable_gives_the_same_numbers():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    a = tap(model, x, ["input", "features"], Logit(1))
    b = tap(model, x, ["input", "features"], Logit(1), differentiable=True)
    for name in a.activations:
        torch.testing.assert_close(a.activations[name], b.activations[name].detach())
        torch.testing.assert_close(a.gradients[name], b.gradients[name].detach())
    assert b.values.requires_grad


def test_differentiable_keeps_the_training_mode():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(96, 2))
    model.train()
    before = model[1].running_mean.clone()
    tap(model, X, "1", differentiable=True)
    assert model.training
    assert not torch.equal(before, model[1].running_mean)


def test_differentiable_under_no_grad():
    model = networks.build(head="deep", smooth=True)
    with torch.no_grad():
        tapped = tap(model, networks.images(1, 3, (5, 6)), "features", differentiable=True)
    assert tapped.only[1].requires_grad


# --------------------------------------------------------------------------------------------- grids


def test_tokens_and_channels_last_reach_the_map():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(3, 4, 2, stride=2)
            self.norm = nn.LayerNorm(4)
            self.head = nn.Linear(4, 3)
            self.cls = nn.Parameter(torch.randn(1, 1, 4))

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.cls.expand(len(x), -1, -1), tokens], 1)
            tokens = self.norm(tokens)
            return self.head(tokens[:, 0] + tokens.mean(1))

    model = Tokens()
    x = torch.randn(2, 3, 6, 10)
    a, g = tap(model, x, "norm", 1).only
    assert a.shape == g.shape == (2, 4, 3, 5)
    own = tap(model, x, "norm", 1, grid=lambda t: t[:, 1:].transpose(1, 2).unflatten(2, (3, 5)))
    torch.testing.assert_close(own.only[0], a)
    torch.testing.assert_close(own.only[1], g)
    named = tap(model, x, "norm", 1, grid=Grid("tokens", 1, (3, 5)))
    torch.testing.assert_close(named.only[1], g)
    # Every cell has the same share: the row of the head over the number of tokens, prefix included.
    expected = (model.head.weight[1] / 16).detach()
    torch.testing.assert_close(g, expected.view(1, 4, 1, 1).expand_as(g))


def test_sharing_serves_several_targets_from_one_pass_and_only_these_inputs():
    m, x, layer = small(), X.clone(), "3"
    seen = []
    m.register_forward_hook(lambda *_: seen.append(1))
    apart = [tap(m, x, layer, target) for target in (Logit(0), LogitMargin(1), Probability(2))]
    seen.clear()
    with sharing(x):
        together = [
            tap(m, x, layer, target) for target in (Logit(0), LogitMargin(1), Probability(2))
        ]
        quiet = tap(m, x, layer, gradients=False)
        assert len(seen) == 1
        tap(m, x.clone(), layer)
        assert len(seen) == 2
    tap(m, x, layer)
    assert len(seen) == 3
    assert quiet.gradients == {}
    assert not quiet.outputs.requires_grad
    for one, other in zip(apart, together, strict=True):
        assert torch.equal(one.gradients[layer], other.gradients[layer])
        assert torch.equal(one.values, other.values)
        assert not other.activations[layer].requires_grad
