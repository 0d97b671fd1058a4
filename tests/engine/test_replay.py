"""Replay: the part behind a layer gives the same numbers traced and untraced, on every kind of model."""

import warnings
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camlucida import Cell, Grid, LayerError
from camlucida.engine.replay.replay import replay
from reference import networks
from reference.replays import INDEX, Skips, X, altered, compare, outputs
from reference.state import differences, snapshot

# -------------------------------------------------------------------------------- models people use


def torchvision_model(name, **options):
    models = pytest.importorskip("torchvision.models")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return awake(models.get_model(name, weights=None, **options).eval())


def timm_model(name, **options):
    timm = pytest.importorskip("timm")
    return awake(timm.create_model(name, pretrained=False, **options).eval())


def awake(model):
    """Some heads start at zero, which would hide everything."""
    for parameter in model.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.1)
    return model


FAST = [
    ("torchvision", "resnet18", "layer3.1.conv1", 48, {}),
    ("torchvision", "mobilenet_v3_small", "features.6.block.1", 48, {}),
    ("timm", "efficientnet_lite0", "blocks.3.1.conv_pw", 48, {}),
    ("timm", "vit_tiny_patch16_224", "blocks.5.norm2", 32, {"img_size": 32, "patch_size": 8}),
    ("timm", "regnety_002", "s3.b2", 48, {}),
    ("timm", "mobilevit_xxs", "stages.2.1", 64, {}),
]
SLOW = [
    ("torchvision", "densenet121", "features.denseblock3.denselayer5", 48, {}),
    ("torchvision", "densenet121", "features.denseblock3.denselayer5.conv1", 48, {}),
    ("torchvision", "densenet121", "features", 48, {}),
    ("torchvision", "efficientnet_b0", "features.4.1.block.1", 48, {}),
    ("torchvision", "swin_t", "features.5.1.norm2", 64, {}),
    ("torchvision", "swin_t", "features.3.0", 64, {}),
    ("torchvision", "convnext_tiny", "features.5.3.block.0", 48, {}),
    ("torchvision", "googlenet", "inception4b.branch2", 64, {"init_weights": False}),
    ("torchvision", "inception_v3", "Mixed_6b.branch7x7_2", 96, {}),
    ("torchvision", "squeezenet1_0", "features.7.expand1x1", 64, {}),
    ("torchvision", "vgg11", "features.9", 48, {}),
    ("torchvision", "shufflenet_v2_x0_5", "stage3.1.branch2", 64, {}),
    ("torchvision", "mnasnet0_5", "layers.9", 48, {}),
    ("torchvision", "vit_b_32", "encoder.layers.encoder_layer_3.ln_2", 64, {"image_size": 64}),
    ("timm", "resnet26d", "layer2.1.conv2", 48, {}),
    ("timm", "mixer_s16_224", "blocks.3.norm2", 64, {"img_size": 64}),
    ("timm", "ghostnet_100", "blocks.6.0", 64, {}),
    ("timm", "convnextv2_atto", "stages.2.blocks.1", 64, {}),
    ("timm", "poolformer_s12", "stages.1.blocks.0", 64, {}),
    ("timm", "deit_tiny_distilled_patch16_224", "blocks.3", 32, {"img_size": 32, "patch_size": 8}),
    ("timm", "edgenext_xx_small", "stages.2", 64, {}),
]


@pytest.mark.parametrize(
    ("source", "name", "layer", "size", "options"),
    [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_both_paths_agree(source, name, layer, size, options):
    make = torchvision_model if source == "torchvision" else timm_model
    compare(make(name, **options), torch.randn(2, 3, size, size), layer)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["layers.1.blocks.1.norm2", "layers.1.blocks.1"])
def test_inside_and_at_a_block_with_control_flow(layer):
    model = timm_model("swin_tiny_patch4_window7_224", img_size=64, window_size=4)
    compare(model, torch.randn(2, 3, 64, 64), layer)


@pytest.mark.slow
@pytest.mark.parametrize("layer", ["vit.layers.1.layernorm_before", "vit.layers.0"])
def test_transformers_model(layer):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64,
        image_size=32, patch_size=8, num_labels=5,
    )  # fmt: skip
    model = transformers.ViTForImageClassification(config).eval()
    compare(model, torch.randn(2, 3, 32, 32), layer)


# ---------------------------------------------------------------------------- everything that may go wrong


def test_skips_numbers_parameters_reused_modules_in_place_and_dictionaries():
    compare(Skips(), X, "block")
    compare(Skips(), X, "stem")


def test_half_precision_and_autocast():
    model = Skips().to(torch.bfloat16)
    traced, full = (
        outputs(model, X.to(torch.bfloat16), "block", path) for path in ("traced", "full")
    )
    assert traced.dtype == torch.bfloat16
    torch.testing.assert_close(traced, full)
    model = Skips()
    with torch.autocast("cpu", torch.bfloat16):
        traced, full = (outputs(model, X, "block", path) for path in ("traced", "full"))
    torch.testing.assert_close(traced, full, rtol=0.02, atol=0.02 * float(full.abs().amax()))


class Named(NamedTuple):
    map: torch.Tensor
    nothing: None


@pytest.mark.parametrize("kind", [lambda *items: items, lambda *items: [*items], Named])
@pytest.mark.parametrize("untraceable", [False, True])
def test_a_layer_that_returns_a_tuple(kind, untraceable):
    class Pair(nn.Module):
        def forward(self, x):
            return kind(F.relu(x), None)

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pair, self.head = nn.Conv2d(3, 4, 3), Pair(), nn.Linear(4, 2)

        def forward(self, x):
            a, nothing = self.pair(self.conv(x))
            assert untraceable is False or nothing is None
            return self.head(a.mean((2, 3)))

    model = Model()
    full = outputs(model, X, "pair", "full")
    with replay(model, X, "pair", 0) as again:
        found = again.run("pair", altered(again.tapped.activations["pair"]), INDEX)
    torch.testing.assert_close(found, full)
    assert again.paths == {"pair": "full" if untraceable else "traced"}


def test_target_that_stops_at_a_layer():
    class Broken(nn.Module):
        def forward(self, _):
            raise AssertionError("the pass went on")

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 2, 3),
        nn.ReLU(inplace=True),
        Broken(),
    )
    target = Cell("2", 0, 1)
    traced, full = (outputs(model, X, "0", path, target) for path in ("traced", "full"))
    assert traced.shape == (5, 2, 2, 4)
    torch.testing.assert_close(traced, full)


def test_prefix_tokens_are_those_of_the_image():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2).eval()
    x = torch.randn(2, 3, 32, 32)
    with replay(model, x, "blocks.0", 0, grid=Grid("tokens", 1, (4, 4))) as again:
        a = again.tapped.activations["blocks.0"]
        swapped = again.run("blocks.0", a.flip(0), torch.arange(2))
        tokens = again._outputs.raw["blocks.0"]
        mixed = torch.cat([tokens[:, :1], tokens.flip(0)[:, 1:]], 1)
        wanted = model.forward_head(model.norm(model.blocks[1](mixed)))
    torch.testing.assert_close(swapped, wanted)


def test_the_altered_maps_stay_as_they_are():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), networks.Gap())
    with replay(model, X, "0", 0) as again:
        a = altered(again.tapped.activations["0"])
        copy = a.clone()
        first = again.run("0", a, INDEX)
        assert torch.equal(a, copy)
        assert torch.equal(again.run("0", a, INDEX), first)


def test_a_model_that_writes_to_its_input():
    class Scales(Skips):
        def forward(self, x):
            return super().forward(x.sub_(0.5).div_(0.2))

    x = X.clone()
    compare(Scales(), x, "block")
    assert torch.equal(x, X)


def test_the_input_is_a_layer():
    model = networks.build(size=(6, 8)).float()
    with replay(model, X, "input", 0) as again:
        found = again.run("input", X[INDEX] / 2, INDEX)
        assert again.paths == {"input": "full"}
    torch.testing.assert_close(found, model(X[INDEX] / 2).detach())


def test_several_layers_each_with_its_own_cut():
    model = Skips()
    with replay(model, X, ["stem", "block"], 0, path="traced") as again:
        for name in ("stem", "block"):
            found = again.run(name, altered(again.tapped.activations[name]), INDEX)
            torch.testing.assert_close(found, outputs(model, X, name, "full"))
        assert again.paths == {"stem": "traced", "block": "traced"}


# ------------------------------------------------------------------------------------------ what is refused


def test_a_layer_that_runs_twice_is_refused():
    model = Skips()
    with pytest.raises(LayerError, match="more than once"), replay(model, X, "again", 0):
        pass


def test_wrong_shapes_and_grids_are_refused():
    model = Skips()
    with replay(model, X, "block", 0) as again:
        a = again.tapped.activations["block"]
        with pytest.raises(LayerError, match="feature maps"):
            again.run("block", a[:, :2], torch.arange(2))
        with pytest.raises(LayerError, match="feature maps"):
            again.run("block", a, torch.arange(1))
    with (
        replay(model, X, "block", 0, grid=lambda a: a) as again,
        pytest.raises(LayerError, match="cannot write"),
    ):
        again.run("block", again.tapped.activations["block"], torch.arange(2))


# ------------------------------------------------------------------------------------------- housekeeping


def test_the_model_is_given_back_after_an_error():
    model = Skips().train()
    before = snapshot(model)

    def fail():
        with replay(model, X, "block", 0) as again:
            assert not model.training
            again.run("block", again.tapped.activations["block"], torch.arange(2))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert differences(before, snapshot(model)) == []


def test_only_the_part_behind_the_layer_runs():
    model = Skips().eval()
    outputs(model, X, "block", "traced")
    calls = []
    model.stem.register_forward_hook(lambda *_: calls.append("stem"))
    model.head.register_forward_hook(lambda *_: calls.append("head"))
    with replay(model, X, "block", 0) as again:
        a = again.tapped.activations["block"]
        calls.clear()
        for _ in range(3):
            again.run("block", a, torch.arange(2))
    assert calls == ["stem", "head", "head", "head"]


def test_works_under_inference_mode_and_on_wrapped_models():
    model = Skips().eval()
    wanted = outputs(model, X, "block", "full")
    with torch.inference_mode():
        torch.testing.assert_close(outputs(model, X, "block", "traced"), wanted)
    wrapped = nn.DataParallel(model)
    torch.testing.assert_close(outputs(wrapped, X, "module.block", "traced"), wanted)
