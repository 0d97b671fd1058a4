"""A layer is read as a map only on evidence."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn

from camlucida import Grid, LayerError, default_layer, explain, list_layers, tap
from camlucida.engine.layers import reading
from camlucida.engine.layers.blocks import candidate_layers
from reference import own_architectures as own
from reference.state import differences, snapshot

X64 = torch.rand(1, 3, 64, 64)


def built(name):
    torch.manual_seed(0)
    model, size = own.BUILDERS[name]()
    return model.eval(), torch.rand(1, 3, *size)


@pytest.mark.parametrize(
    ("name", "layer", "shape"),
    [
        ("LSTM over columns", "cnn", (32, 8, 32)),
        ("learned queries", "cnn", (32, 4, 4)),
        ("ViT with attention of its own", "norms.1", (32, 8, 8)),
        ("ViT with 30 prompts", "norms.1", (32, 14, 14)),
        ("ViT with its class token behind", "norms.1", (32, 8, 8)),
        ("ViT with tokens on both sides", "norms.1", (32, 8, 12)),
        ("ViT column by column", "norms.1", (32, 8, 12)),
        ("ViT block by block", "norms.1", (32, 8, 12)),
        ("ViT with shuffled tokens", "patch", (32, 8, 8)),
        ("Vision Mamba", "patch", (32, 8, 8)),
        ("one map comes out", "features", (8, 64, 64)),
    ],
)
def test_default_layer(name, layer, shape):
    model, x = built(name)
    assert default_layer(model, x) == layer
    assert tuple(tap(model, x, layer, lambda z: z.flatten(1).sum(1)).only[0].shape[1:]) == shape


@pytest.mark.parametrize(
    ("name", "layer", "words"),
    [
        (
            "LSTM over columns",
            "rnn",
            "cells change in the matching place|no token grid|no single tensor",
        ),
        ("learned queries", "decoder", "could be read as"),
        (
            "ViT with attention of its own",
            "mixers.0.drop",
            "relates positions to positions|order of their own",
        ),
        ("ViT with shuffled tokens", "norms.1", "cells change in the matching place"),
        ("Vision Mamba", "blocks.2", "cells change in the matching place"),
        ("lying on its side", "cnn", "exchanged"),
        ("mirrored", "cnn", "flipped"),
        ("spatial transformer, 180 degrees", "cnn", "cells change in the matching place"),
        ("one map comes out", "head", "no channels"),
    ],
)
def test_a_named_layer_that_is_no_map_is_refused(name, layer, words):
    model, x = built(name)
    with pytest.raises(LayerError, match=words) as error:
        explain(model, x, layers=layer, target=lambda z: z.flatten(1).sum(1))
    assert "grid=" in str(error.value)


def test_a_grid_that_is_given_is_taken_as_it_is():
    model, x = built("ViT with shuffled tokens")
    given = Grid("tokens", 1, (8, 8))
    a, _ = tap(model, x, "norms.1", grid=given).only
    assert a.shape == (1, 32, 8, 8)
    for wrong in (Grid("tokens", 2, (8, 8)), Grid("tokens", 1, (9, 8)), Grid()):
        with pytest.raises(LayerError, match="cannot be read as"):
            tap(model, x, "norms.1", grid=wrong)


def test_stride_on_one_axis_is_channels_first():
    for size, channels in (((64, 1000), 4), ((128, 1000), 16), ((8, 512), 8)):
        model = nn.Sequential(
            nn.Conv2d(1, channels, 3, stride=(1, 8), padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(channels, 2),
        ).eval()  # fmt: skip
        x = torch.rand(1, 1, *size)
        assert tap(model, x, "0").only[0].shape == model[0](x).shape


def test_hiera_is_unscrambled():
    timm = pytest.importorskip("timm")
    model = timm.create_model("hiera_tiny_224", num_classes=5).eval()
    x = torch.rand(1, 3, 224, 224)
    y = x.clone()
    y[:, :, :112, 112:] = torch.rand(1, 3, 112, 112)
    for layer in ("blocks.2", "blocks.5", "blocks.11"):
        a, b = (tap(model, i, layer, gradients=False).activations[layer] for i in (x, y))
        changed = (a - b).abs().sum((0, 1))
        half = changed.shape[0] // 2
        quarters = [
            changed[:half, :half],
            changed[:half, half:],
            changed[half:, :half],
            changed[half:, half:],
        ]
        assert max(range(4), key=lambda q: float(quarters[q].mean())) == 1
        assert quarters[1].mean() > 1.5 * changed.mean()


def test_evidence_is_shown():
    model, x = built("ViT with 30 prompts")
    found = {info.name: info for info in list_layers(model, x)}
    info = found["norms.1"]
    assert info.evidence.kind == "operations"
    assert info.grid == Grid("tokens", 31, (14, 14))
    assert not info.reason
    assert found["mixers.0.drop"].evidence is None
    assert found["mixers.0.drop"].reason
    model, x = built("global Fourier filter")
    info = {info.name: info for info in list_layers(model, x)}["last"]
    assert info.evidence.kind == "probe"
    assert info.evidence.agreement > 0.8
    assert "quarters" in str(info.evidence)


class Declares(nn.Module):
    """Tokens that lose their way in an operation that is not followed, in a model that says its grid."""

    def __init__(self, mixed=False, grid=(4, 4)):
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 16, 16, 16)
        self.patch_embed.grid_size = grid
        self.num_prefix_tokens = 0
        self.norm, self.head, self.mixed = nn.LayerNorm(16), nn.Linear(16, 4), mixed

    def forward(self, x):
        z = self.patch_embed(x).flatten(2).mT
        z = z[:, torch.arange(16).flip(0) if self.mixed else torch.arange(16)]
        return self.head(self.norm(z).mean(1))


def test_what_a_model_declares_is_weighed_against_what_it_does():
    found = reading(Declares().eval(), X64, "norm")
    assert found.grid == Grid("tokens", 0, (4, 4))
    assert found.evidence.kind == "declared"
    found = reading(Declares(mixed=True).eval(), X64, "norm")
    assert found.grid is None
    assert found.reason


# ------------------------------------------------------------------------------------------------ passes


def counting(model):
    sizes = []
    handle = model.register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    return sizes, handle


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4),
    ).eval()  # fmt: skip


def test_operations_cost_one_small_pass_and_only_once():
    model, x = net(), torch.rand(4, 3, 32, 32)
    sizes, _ = counting(model)
    tap(model, x, "4")
    tap(model, x, "2")
    assert sizes == [1, 4, 4]
    tap(model, torch.rand(4, 3, 48, 48), "4")
    assert sizes == [1, 4, 4, 1, 4]


class Views(nn.Module):
    """Looks at something else than the image as it is."""

    def __init__(self, view):
        super().__init__()
        self.view = view
        self.conv, self.act = nn.Conv2d(3, 16, 5, 4, 2), nn.ReLU()
        self.head = nn.Linear(16, 5)

    def forward(self, x):
        return self.head(self.act(self.conv(self.view(x))).mean((2, 3)))


def zoomed(x, factor, shift=0.0):
    theta = torch.tensor([[factor, 0.0, shift], [0.0, factor, shift]]).expand(len(x), 2, 3)
    grid = nn.functional.affine_grid(theta, list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False)


def within_quarters(x):
    back = torch.cat([torch.arange(31, -1, -1), torch.arange(63, 31, -1)])
    return x[:, :, back][..., back]


MIDDLE = torch.arange(16, 48)
PART = {
    "its middle": (lambda x: x[:, :, 16:48, 16:48], "run from 25% to 75%"),
    "a corner with steps": (lambda x: x[..., 32::2, 32::2], "run from 50% to 100%"),
    "negative padding": (lambda x: nn.functional.pad(x, (-16,) * 4), "run from 25% to 75%"),
    "letters in a box": (
        lambda x: nn.functional.pad(x, (0, 0, 32, 32)),
        r"rows run from -50% to 1(48|50)%",
    ),
    "on a larger canvas": (
        lambda x: nn.functional.pad(x, (0, 64, 0, 64)),
        r"run from 0% to (19\d|200)%",
    ),
    "its middle by indices": (lambda x: x[:, :, MIDDLE][..., MIDDLE], "within the quarters"),
    "its middle by sampling": (lambda x: zoomed(x, 0.5), "within the quarters"),
    "small by sampling": (lambda x: zoomed(x, 2.0), "within the quarters"),
    "each quarter turned": (within_quarters, "within the quarters"),
}


@pytest.mark.parametrize("name", PART)
def test_what_shows_another_part_of_the_image_is_no_map_of_it(name):
    torch.manual_seed(0)
    view, words = PART[name]
    model = Views(view).eval()
    with pytest.raises(LayerError, match=words):
        default_layer(model, X64)
    with pytest.raises(LayerError, match=words):
        explain(model, X64, layers="conv")
    with pytest.raises(LayerError, match=words):
        candidate_layers(model, X64)
    assert not any(layer.candidate for layer in list_layers(model, X64))


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:, :, 4:60, 4:60],
        lambda x: nn.functional.pad(x, (2, 2, 2, 2)),
        lambda x: nn.functional.pad(x, (9, 9, 9, 9))[..., 9:-9, 9:-9],
        lambda x: zoomed(x, 1.1),
    ],
)
def test_what_hardly_lies_beside_the_image_is_a_map_of_it(view):
    torch.manual_seed(0)
    assert default_layer(Views(view).eval(), X64) == "act"


def test_the_probe_costs_one_more_of_nine_images():
    model, x = built("global Fourier filter")
    sizes, _ = counting(model)
    tap(model, x, "last")
    tap(model, x, "last")
    assert sizes == [1, 9, 1, 1]


def test_no_probe_where_operations_tell():
    model, x = net(), torch.rand(4, 3, 32, 32)
    sizes, _ = counting(model)
    explain(model, x)
    explain(model, x)
    # Once each to see what the output is, to follow the operations, and to see what the output depends on.
    assert sizes == [1, 1, 1, 4, 4]


def test_new_weights_are_probed_again_and_new_modules_followed_again():
    model, x = built("global Fourier filter")
    assert reading(model, x, "last").grid == Grid()
    with torch.no_grad():
        model.stem.weight.zero_()
    assert reading(model, x, "last").grid is None
    model.last = nn.Identity()
    assert reading(model, x, "last").shape == (1, 16, 16, 16)
    model = net()
    assert default_layer(model, X64) == "4"
    model[4] = nn.Conv2d(16, 16, 1)
    assert reading(model, X64, "4").shape == (1, 16, 16, 16)


def test_models_are_not_kept_alive():
    model, x = built("global Fourier filter")
    explain(model, x)
    list_layers(model, x)
    candidate_layers(model, x)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize(
    "name", ["global Fourier filter", "ViT with 30 prompts", "learned queries"]
)
def test_the_model_comes_back_bit_for_bit(name):
    model, x = built(name)
    model.train()
    model.register_buffer("calls", torch.zeros(2))
    before = snapshot(model)
    default_layer(model, x)
    list_layers(model, x)
    candidate_layers(model, x)
    assert differences(before, snapshot(model)) == []


def test_a_copy_is_read_by_itself():
    model, x = built("ViT with 30 prompts")
    assert default_layer(model, x) == default_layer(copy.deepcopy(model), x)


class OnePerBatch(nn.Module):
    def __init__(self, images):
        super().__init__()
        self.images, (self.inner, _) = images, own.BUILDERS["global Fourier filter"]()

    def forward(self, x):
        assert len(x) == self.images
        return self.inner(x)


@pytest.mark.parametrize("images", [1, 3])
def test_models_for_batches_of_one_size(images):
    model = OnePerBatch(images).eval()
    x = torch.rand(images, 3, 64, 64)
    assert default_layer(model, x) == "inner.last"
    assert reading(model, x, "inner.last").evidence.kind == "probe"
    assert candidate_layers(model, x)


# ------------------------------------------------------------------------------------------- dense models


class Segments(nn.Module):
    def __init__(self, end):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU()
        )
        self.classifier = nn.Conv2d(12, 5, 1)
        self.end = end

    def forward(self, x):
        return self.end(self.classifier(self.body(x)))


@pytest.mark.parametrize(
    "end",
    [
        nn.Identity(),
        nn.Upsample(scale_factor=2, mode="bilinear"),
        nn.Sigmoid(),
        nn.Softmax(1),
        nn.Flatten(2),
        nn.Sequential(nn.Upsample(scale_factor=2), nn.Softmax(1)),
    ],
)
def test_a_dense_model_is_explained_by_its_features_not_by_its_prediction(end):
    assert default_layer(Segments(end).eval(), X64) == "body"


def test_a_backbone_is_explained_by_what_it_returns():
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU()).eval()
    assert default_layer(model, X64) == "2"


# -------------------------------------------------------------------------------------- I-CAM's layers


@pytest.mark.parametrize(
    ("name", "size", "sizes"),
    [
        ("lcnet_035", 128, {64, 32, 16, 8, 4}),
        ("efficientvim_m1", 224, {14, 7, 4}),
        ("swin_tiny_patch4_window7_224", 112, {28, 14, 7, 4}),
        ("hiera_tiny_224", 224, {56, 28, 14, 7}),
        ("resnet18", 64, {16, 8, 4, 2}),
    ],
)
def test_automatic_layers_cover_the_stages(name, size, sizes):
    timm = pytest.importorskip("timm")
    options = {"img_size": size} if name.startswith("swin") else {}
    model = timm.create_model(name, num_classes=4, **options).eval()
    x = torch.rand(1, 3, size, size)
    layers = candidate_layers(model, x, rectified=True)
    found = {info.name: info.shape[1] for info in list_layers(model, x) if info.candidate}
    assert {found[layer] for layer in layers} >= sizes
    assert not any("softmax" in layer or layer.endswith("se") for layer in layers)


class Sometimes(nn.Module):
    """A branch that bright images take, and a layer that they run twice."""

    def __init__(self):
        super().__init__()
        self.stem, self.more, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 4)

    def forward(self, x):
        z = self.stem(x)
        if x.mean() > 10:
            z = self.more(z)
        return self.head(z.mean((2, 3)))


def test_a_layer_that_runs_for_some_images_only_has_no_evidence():
    model = Sometimes().eval()
    dim, bright = torch.rand(1, 3, 16, 16), torch.full((1, 3, 16, 16), 20.0)
    bright[0, 0, 0, 0] = -200.0  # noise of this range is dim
    assert default_layer(model, dim) == "stem"
    with pytest.raises(LayerError, match="did not run"):
        tap(model, dim, "more")
    with pytest.raises(LayerError, match="for every image"):
        tap(model, bright, "more")
    assert tap(model, bright, "more", grid=Grid()).only[0].shape == (1, 8, 12, 12)
