"""Replay: the part behind a layer gives the same numbers traced and untraced, on every kind of model."""

import gc
import logging
import warnings
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from camlucida import Cell, Grid, LayerError, explain
from camlucida.methods.ablationcam import AblationCAM
from camlucida.replay import _CUTS, replay
from reference import networks
from reference.state import differences, snapshot

INDEX = torch.tensor([1, 0, 0, 1, 1])


def altered(activation, index=INDEX):
    """A different feature map for every copy."""
    generator = torch.Generator().manual_seed(4)
    factor = torch.rand(len(index), activation.shape[1], 1, 1, generator=generator)
    return activation[index] * factor.to(activation)


def outputs(model, x, layer, path, target=0, index=INDEX, **options):
    with replay(model, x, layer, target, path=path, **options) as again:
        (name,) = again.tapped.activations
        found = again.run(name, altered(again.tapped.activations[name], index), index)
        assert again.paths == {name: path}
        return found


def compare(model, x, layer, target=0, path="traced", **options):
    """Both paths agree, on copies and on the images themselves, and the copies differ."""
    before = snapshot(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = outputs(model, x, layer, path, target, **options)
        full = outputs(model, x, layer, "full", target, **options)
        with replay(model, x, layer, target, **options) as again:
            (name,) = again.tapped.activations
            same = again.run(name, again.tapped.activations[name], torch.arange(len(x)))
            whole = again.tapped.outputs
    scale = float(full.abs().amax())
    torch.testing.assert_close(traced, full, rtol=1e-5, atol=1e-6 * scale)
    torch.testing.assert_close(same, whole.to(same), rtol=1e-5, atol=1e-5 * scale)
    assert not torch.allclose(full[0], full[3], rtol=0, atol=1e-7 * scale)
    assert differences(before, snapshot(model)) == []


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


class Skips(nn.Module):
    """Values of every kind go around ``block``: a map, a number, a parameter, a buffer."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.block = nn.Conv2d(4, 4, 3, padding=1)
        self.again = nn.ReLU(inplace=True)
        self.scale = nn.Parameter(torch.randn(4, 1, 1))
        self.register_buffer("offset", torch.randn(4, 1, 1))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        n, c = x.shape[0], self.stem.out_channels
        skip = self.again(self.stem(x))
        scale = self.scale.exp() + self.offset
        a = self.again(self.block(skip))
        a += skip * scale
        a = torch.cat([a, skip.mul_(2)], 1).reshape(n, 2 * c, -1).mean(2)
        return {"hidden": [a], "logits": self.head(a)}


X = torch.randn(2, 3, 6, 8)


def test_skips_numbers_parameters_reused_modules_in_place_and_dictionaries():
    compare(Skips(), X, "block")
    compare(Skips(), X, "stem")


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
            self.power = 1

        def forward(self, x):
            return self.rest(self.a(x)) ** self.power

    model = Chosen()
    for change in (
        lambda: None,
        lambda: setattr(model, "power", 2),
        lambda: setattr(model, "rest", nn.Sequential(networks.Gap(), nn.Linear(4, 3))),
    ):
        change()
        compare(model, X, "a")


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


def test_a_layer_that_returns_a_tuple():
    class Pair(nn.Module):
        def forward(self, x):
            return F.relu(x), None

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.pair, self.head = nn.Conv2d(3, 4, 3), Pair(), nn.Linear(4, 2)

        def forward(self, x):
            a, nothing = self.pair(self.conv(x))
            assert nothing is None
            return self.head(a.mean((2, 3)))

    model = Model()
    full = outputs(model, X, "pair", "full")
    with replay(model, X, "pair", 0) as again:
        found = again.run("pair", altered(again.tapped.activations["pair"]), INDEX)
    torch.testing.assert_close(found, full)


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


# ------------------------------------------------------------------------------------------- falling back


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


# ------------------------------------------------------------------------------------------- housekeeping


def test_nothing_keeps_the_model_alive():
    model = Skips()
    outputs(model, X, "block", "traced")
    explain(model, X, method=AblationCAM(), target=0, layers="block")
    known = weakref.ref(model)
    del model
    gc.collect()
    assert known() is None


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
