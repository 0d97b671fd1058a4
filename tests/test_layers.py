"""Layers: names, grids, and the default choice on the common architectures."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from camlucida import Grid, LayerError, default_layer, list_layers, tap
from camlucida.layers import find_grid, resolve, resolve_all, single_tensor

X64 = torch.randn(1, 3, 64, 64)


def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.Sequential(nn.ReLU(), nn.Conv2d(4, 4, 3)),
        nn.ModuleList([nn.ReLU()]),
    )


# --------------------------------------------------------------------------------------------- naming


def test_resolve():
    m = model()
    assert resolve(m, "1.0") == ("1.0", m[1][0])
    assert resolve(m, m[1]) == ("1", m[1])
    assert resolve(m, "input") == ("input", None)
    assert resolve(m, "-2.-1") == ("1.1", m[1][1])
    assert resolve(m, "-3") == ("0", m[0])
    assert resolve(nn.DataParallel(m), "module.1.0") == ("1.0", m[1][0])
    assert list(resolve_all(m, ["1", "0", "input"])) == ["1", "0", "input"]


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("-4", "no layer '-4'"),
        ("9", "no layer '9'"),
        ("1.0.weight", "no layer"),
        ("", "no layer"),
        ("2", r"ModuleList.*'2.-1'"),
        (3, "int"),
        (nn.ReLU(), "not a module of this Sequential"),
    ],
)
def test_wrong_layers(layer, words):
    with pytest.raises(LayerError, match=words):
        resolve(model(), layer)


def test_wrong_name_suggests_the_nearest():
    models = pytest.importorskip("torchvision").models
    with pytest.raises(LayerError, match=r"no layer 'layer4\.3'; nearest: .*'layer4\.[01]'"):
        resolve(models.resnet18(weights=None), "layer4.3")
    with pytest.raises(LayerError, match=r"nearest: .*'layer4'"):
        resolve(models.resnet18(weights=None), "layr4")


def test_none_and_twice():
    with pytest.raises(LayerError, match="no layer was given"):
        resolve_all(model(), [])
    m = model()
    with pytest.raises(LayerError, match="'1' was given twice"):
        resolve_all(m, ["1", m[1]])


def test_single_tensor():
    a = torch.zeros(2)
    assert single_tensor(a) is a
    assert single_tensor((a,)) is a
    assert single_tensor([a, None]) is a
    for output in ((a, a), (None, a), {"a": a}, None, ()):
        assert single_tensor(output) is None


# ---------------------------------------------------------------------------------------------- grids

sizes = st.tuples(st.integers(1, 6), st.integers(1, 6))


@given(sizes, st.integers(0, 9), st.integers(1, 3), st.integers(1, 4))
def test_token_grid_is_row_major_behind_the_prefix(size, prefix, n, k):
    tokens = torch.randn(n, prefix + size[0] * size[1], k)
    grid = Grid("tokens", prefix, size)
    maps = grid.to_map(tokens)
    assert maps.shape == (n, k, *size)
    for row in range(size[0]):
        for column in range(size[1]):
            expected = tokens[:, prefix + row * size[1] + column]
            assert torch.equal(maps[:, :, row, column], expected)
    assert torch.equal(grid.to_output(maps, tokens), tokens)


@given(sizes, st.integers(1, 3), st.integers(1, 4), st.sampled_from(["nchw", "nhwc"]))
def test_four_dimensional_round_trip(size, n, k, layout):
    shape = (n, k, *size) if layout == "nchw" else (n, *size, k)
    output = torch.randn(shape)
    grid = Grid(layout)
    maps = grid.to_map(output)
    assert maps.shape == (n, k, *size)
    assert torch.equal(grid.to_output(maps, output), output)
    changed = grid.to_output(2 * maps, output)
    assert torch.equal(changed, 2 * output)


def test_prefix_tokens_stay():
    tokens = torch.randn(1, 1 + 4, 3)
    grid = Grid("tokens", 1, (2, 2))
    out = grid.to_output(torch.zeros(1, 3, 2, 2), tokens)
    assert torch.equal(out[:, 0], tokens[:, 0])
    assert not out[:, 1:].any()


@pytest.mark.parametrize(
    ("tokens", "size", "prefix", "grid"),
    [
        (196, (224, 224), 0, (14, 14)),
        (197, (224, 224), 1, (14, 14)),
        (198, (224, 224), 2, (14, 14)),  # DeiT distilled
        (201, (224, 224), 5, (14, 14)),  # a class token and four registers
        (200, (224, 224), 4, (14, 14)),  # registers alone
        (205, (224, 224), 9, (14, 14)),  # eight registers
        (257, (224, 224), 1, (16, 16)),  # patches of 14
        (261, (224, 224), 5, (16, 16)),
        (1370, (518, 518), 1, (37, 37)),
        (50, (224, 224), 1, (7, 7)),  # patches of 32
        (85, (112, 192), 1, (7, 12)),
        (84, (112, 192), 0, (7, 12)),
        (85, (192, 112), 1, (12, 7)),
        (577, (384, 384), 1, (24, 24)),
        (49, (224, 224), 0, (7, 7)),  # Swin
        (5, (32, 32), 1, (2, 2)),
        (99, (224, 112), 1, (14, 7)),
    ],
)
def test_find_token_grid(tokens, size, prefix, grid):
    assert find_grid(torch.zeros(1, tokens, 8), size) == Grid("tokens", prefix, grid)


@pytest.mark.parametrize(
    ("shape", "size", "layout"),
    [
        ((1, 512, 7, 7), (224, 224), "nchw"),
        ((1, 7, 7, 768), (224, 224), "nhwc"),
        ((1, 7, 14, 768), (224, 448), "nhwc"),
        ((1, 768, 7, 14), (224, 448), "nchw"),
        ((1, 64, 10, 7), (299, 200), "nchw"),
        ((1, 3, 224, 224), (224, 224), "nchw"),
        ((1, 7, 7, 7), (224, 224), "nchw"),
    ],
)
def test_find_layout(shape, size, layout):
    assert find_grid(torch.zeros(shape), size).layout == layout


@pytest.mark.parametrize("shape", [(1, 10), (1, 3, 4, 5, 6), (1, 1, 64), (1, 2, 64)])
def test_no_grid(shape):
    with pytest.raises(LayerError, match="no feature map"):
        find_grid(torch.zeros(shape), (224, 224), "head")


# -------------------------------------------------------------------------------------------- listing


def test_list_layers():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 2)  # registered before it runs
            self.stem = nn.Conv2d(3, 4, 3, padding=1)
            self.act = nn.ReLU()
            self.unused = nn.ReLU()

        def forward(self, x):
            return self.head(self.act(self.act(self.stem(x))).mean((2, 3)))

    found = {info.name: info for info in list_layers(Listed(), torch.randn(1, 3, 6, 8))}
    assert list(found) == ["head", "stem", "act"]
    assert found["stem"].shape == (4, 6, 8)
    assert found["stem"].candidate
    assert found["act"].calls == 2
    assert not found["act"].candidate
    assert found["head"].shape is None
    assert not found["head"].candidate
    assert found["stem"].kind == "Conv2d"


# ------------------------------------------------------------------------------------- default layers


def check(model, expected, x=X64, shape=None):
    model.eval()
    name = default_layer(model, x)
    assert name == expected
    a, g = tap(model, x, name, 1).only
    assert g.any(), "the target must depend on the layer's cells"
    if shape is not None:
        assert tuple(a.shape[1:]) == shape


TORCHVISION = {
    "resnet18": ("layer4.1", 64, (512, 2, 2)),
    "resnet50": ("layer4.2", 64, (2048, 2, 2)),
    "vgg16": ("features.29", 64, (512, 4, 4)),
    "densenet121": ("features", 64, (1024, 2, 2)),
    "convnext_tiny": ("features.7.2", 64, (768, 2, 2)),
    "mobilenet_v3_small": ("features.12", 64, (576, 2, 2)),
    "mobilenet_v2": ("features.18", 64, (1280, 2, 2)),
    "efficientnet_b0": ("features.8", 64, (1280, 2, 2)),
    "vit_b_16": ("encoder.layers.encoder_layer_11.ln_1", 224, (768, 14, 14)),
    "swin_t": (None, 224, (768, 7, 7)),
}


@pytest.mark.parametrize(
    "name",
    [n if n != "vit_b_16" else pytest.param(n, marks=pytest.mark.slow) for n in TORCHVISION],
)
def test_torchvision(name):
    models = pytest.importorskip("torchvision").models
    expected, size, shape = TORCHVISION[name]
    model = models.get_model(name, weights=None, num_classes=10).eval()
    if name.startswith("vit"):  # its head starts at zero
        nn.init.normal_(model.heads.head.weight)
    x = torch.randn(1, 3, size, size)
    found = default_layer(model, x)
    if expected is None:
        # The last norm, or the last block: the map before the pooling, channels last.
        assert found in {"norm", "features.7.1", "features.7", "permute"}
    else:
        assert found.removesuffix(".0") == expected or found == expected
    a, g = tap(model, x, found, 1).only
    assert tuple(a.shape[1:]) == shape
    assert g.any()


def test_vision_transformer_of_torchvision_small():
    models = pytest.importorskip("torchvision").models
    vit = models.VisionTransformer(
        image_size=64, patch_size=16, num_layers=3, num_heads=2, hidden_dim=16, mlp_dim=32,
        num_classes=5,
    )  # fmt: skip
    nn.init.normal_(vit.heads.head.weight)
    check(vit, "encoder.layers.encoder_layer_2.ln_1", shape=(16, 4, 4))


TIMM = [
    ("resnet18", {}, 64, "layer4.1", (512, 2, 2)),
    ("tf_efficientnet_lite0", {}, 64, "bn2", (1280, 2, 2)),
    ("convnext_atto", {}, 64, "stages.3.blocks.1", (320, 2, 2)),
    ("vit_tiny_patch16_224", {"img_size": 64}, 64, "blocks.11.norm1", (192, 4, 4)),
    ("deit_tiny_distilled_patch16_224", {"img_size": 64}, 64, "blocks.11.norm1", (192, 4, 4)),
    (
        "vit_tiny_patch16_224",
        {"img_size": 64, "reg_tokens": 4},
        64,
        "blocks.11.norm1",
        (192, 4, 4),
    ),
    ("vit_tiny_patch16_224", {"img_size": (64, 96)}, (64, 96), "blocks.11.norm1", (192, 4, 6)),
]


@pytest.mark.parametrize(("name", "options", "size", "expected", "shape"), TIMM)
def test_timm(name, options, size, expected, shape):
    timm = pytest.importorskip("timm")
    model = timm.create_model(name, num_classes=10, **options)
    size = size if isinstance(size, tuple) else (size, size)
    with torch.no_grad():  # some heads start at zero
        for parameter in (
            model.get_classifier().parameters()
            if not isinstance(model.get_classifier(), tuple)
            else [p for m in model.get_classifier() for p in m.parameters()]
        ):
            parameter.normal_()
    check(model, expected, torch.randn(1, 3, *size), shape)


def test_timm_with_a_head_that_is_still_zero():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=10)
    nn.init.zeros_(model.head.weight)
    assert default_layer(model, X64) == "blocks.11.norm1"


def test_timm_swin():
    timm = pytest.importorskip("timm")
    model = timm.create_model(
        "swin_tiny_patch4_window7_224", img_size=112, num_classes=10, depths=(1, 1, 1, 1)
    )
    name = default_layer(model, torch.randn(1, 3, 112, 112))
    assert name == "norm"
    assert tap(model, torch.randn(1, 3, 112, 112), name, 1).only[0].shape[1] == 768


def test_a_pooled_vector_is_no_token_grid():
    """1024 pooled channels ``(N, 1024, 1)`` are not 32 x 32 cells (Swin-B of transformers)."""

    class Pooled(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.Conv2d(3, 16, 8, stride=8)
            self.pooler = nn.AdaptiveAvgPool1d(1)
            self.head = nn.Linear(16, 2)

        def forward(self, x):
            return self.head(self.pooler(self.norm(x).flatten(2)).flatten(1))

    assert default_layer(Pooled(), X64) == "norm"


def transformer_models():
    t = pytest.importorskip("transformers")
    vit = {
        "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "image_size": 64, "patch_size": 16, "num_labels": 3,
    }  # fmt: skip
    return {
        "vit": lambda: t.ViTForImageClassification(t.ViTConfig(**vit)),
        "deit": lambda: t.DeiTForImageClassification(t.DeiTConfig(**vit)),
        "deit-distilled": lambda: t.DeiTForImageClassificationWithTeacher(t.DeiTConfig(**vit)),
        "dinov2": lambda: t.Dinov2ForImageClassification(t.Dinov2Config(**vit)),
        "dinov2-registers": lambda: t.Dinov2WithRegistersForImageClassification(
            t.Dinov2WithRegistersConfig(**vit, num_register_tokens=4)
        ),
        "swin": lambda: t.SwinForImageClassification(
            t.SwinConfig(
                image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[2, 2],
                window_size=4, num_labels=3,
            )
        ),
        "convnext": lambda: t.ConvNextForImageClassification(
            t.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=3)
        ),
        "resnet": lambda: t.ResNetForImageClassification(
            t.ResNetConfig(
                embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], num_labels=3,
                layer_type="basic",
            )
        ),
    }  # fmt: skip


HF_LAYERS = {
    "vit": ((16, 4, 4), {"layernorm_before"}),
    "deit": ((16, 4, 4), {"layernorm_before"}),
    "deit-distilled": ((16, 4, 4), {"layernorm_before"}),
    # Its head reads the mean of the patch tokens too: the last norm.
    "dinov2": ((16, 4, 4), {"layernorm"}),
    "dinov2-registers": ((16, 4, 4), {"layernorm"}),
    "swin": ((16, 8, 8), {"layernorm"}),
    "convnext": ((8, 2, 2), None),
    "resnet": ((8, 2, 2), None),
}


@pytest.mark.parametrize("name", HF_LAYERS)
def test_transformers(name):
    model = transformer_models()[name]().eval()
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.2)
    shape, last = HF_LAYERS[name]
    found = default_layer(model, X64)
    if last is not None:
        assert found.rpartition(".")[2] in last, found
    a, g = tap(model, X64, found, 1).only
    assert tuple(a.shape[1:]) == shape, found
    assert g.any()
    assert "pool" not in found


# ------------------------------------------------------------------------------- default layer: rules


def test_pooling_is_passed_over():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 2)
    )
    assert default_layer(model, torch.randn(1, 3, 8, 8)) == "1"


def test_the_choice_is_remembered_but_the_model_is_not_kept():
    import gc
    import weakref

    m = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    assert default_layer(m, torch.randn(1, 3, 8, 8)) == "0"
    ref = weakref.ref(m)
    del m
    gc.collect()
    assert ref() is None


def test_a_layer_that_is_gone_is_not_remembered():
    m = nn.Sequential()
    m.add_module("old", nn.Conv2d(3, 4, 3))
    m.add_module("flat", nn.Flatten())
    m.add_module("head", nn.Linear(144, 2))
    x = torch.randn(1, 3, 8, 8)
    assert default_layer(m, x) == "old"
    m._modules = {"new": nn.Conv2d(3, 4, 3), "flat": m.flat, "head": m.head}
    assert default_layer(m, x) == "new"


def test_no_map_at_all():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 2))
    with pytest.raises(LayerError, match="no module of Sequential"):
        default_layer(model, torch.randn(1, 3, 8, 8))


def test_embedding_models_have_one_too():
    class Embedder(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.fc = nn.Linear(4, 8)

        def forward(self, x):
            return nn.functional.normalize(self.fc(self.conv(x).mean((2, 3))))

    assert default_layer(Embedder(), torch.randn(1, 3, 8, 8)) == "conv"
