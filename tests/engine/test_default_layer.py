"""The layers that run, and the default choice on the common architectures."""

import pytest
import torch
from torch import nn

from camlucida import LayerError, default_layer, list_layers, tap

X64 = torch.randn(1, 3, 64, 64)


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
