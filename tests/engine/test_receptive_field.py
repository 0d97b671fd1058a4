"""Receptive fields against the spec's figures and against gradient support."""

import pytest
import torch
from torch import nn

from camlucida.engine.layers.receptive_field import receptive_fields


@pytest.mark.parametrize(
    ("name", "layer", "size", "stride"),
    [
        ("resnet18", "layer4.1", 435, 32),
        ("resnet50", "layer4.2", 427, 32),
        ("vgg16", "features.29", 196, 16),
    ],
)
def test_published_sizes(name, layer, size, stride):
    models = pytest.importorskip("torchvision").models
    model = models.get_model(name, weights=None)
    field = receptive_fields(model, torch.randn(1, 3, 64, 64))[layer]
    assert field.size == (size, size)
    assert field.stride == (stride, stride)


def test_efficientnet_lite0_sees_851_pixels():
    timm = pytest.importorskip("timm")
    model = timm.create_model("tf_efficientnet_lite0")
    field = receptive_fields(model, torch.randn(1, 3, 64, 64))["bn2"]
    assert str(field) == "851x851"


def test_last_map_of_vgg_sees_up_to_row_16r_plus_105():
    models = pytest.importorskip("torchvision").models
    field = receptive_fields(models.vgg16(weights=None), torch.randn(1, 3, 64, 64))["features.29"]
    for row in range(3):
        assert field.box(row, 0)[2] - 1 == 16 * row + 105


def _support(model, layer, x, row, col):
    """Rows and columns of the input on which one cell depends, by its gradient."""
    seen = {}
    handle = model.get_submodule(layer).register_forward_hook(lambda *a: seen.update(y=a[2]))
    x = x.clone().requires_grad_()
    model(x)
    handle.remove()
    (gradient,) = torch.autograd.grad(seen["y"][0, :, row, col].sum(), x)
    cells = gradient[0].abs().sum(0).nonzero()
    return cells.min(0).values.tolist(), (cells.max(0).values + 1).tolist()


class _Odd(nn.Module):
    """Skips of different depth, dilation, asymmetric kernels and padding, average pooling, upsampling."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(2, 3, (3, 5), padding=(1, 2))
        self.b = nn.Conv2d(3, 3, 3, stride=2, padding=1)
        self.c = nn.Conv2d(3, 3, 3, padding=2, dilation=2)
        self.d = nn.Conv2d(3, 3, 1)
        self.pool = nn.AvgPool2d(2)
        self.pad = nn.ZeroPad2d((1, 2, 0, 1))
        self.e = nn.Conv2d(6, 2, 2)

    def forward(self, x):
        x = self.b(self.a(x))
        x = torch.cat([self.c(x), self.d(x)], dim=1)
        return self.e(self.pad(self.pool(x)))


def test_box_equals_gradient_support():
    torch.manual_seed(0)
    model, x = _Odd(), torch.randn(1, 2, 48, 40)
    fields = receptive_fields(model, x)
    for layer in ("a", "b", "c", "pool", "e"):
        for row, col in ((3, 4), (2, 5)):
            top, left, bottom, right = fields[layer].box(row, col)
            (r0, c0), (r1, c1) = _support(model, layer, x, row, col)
            assert (r0, c0) == (max(top, 0), max(left, 0)), layer
            assert (r1, c1) == (min(bottom, 48), min(right, 40)), layer


def test_attention_token_mixing_and_squeeze_excite_are_global():
    timm = pytest.importorskip("timm")
    x = torch.randn(1, 3, 224, 224)
    vit = receptive_fields(timm.create_model("vit_tiny_patch16_224"), x)
    assert vit["blocks.0.norm1"].size == (16, 16)
    assert vit["blocks.0"].is_global
    assert receptive_fields(timm.create_model("mixer_s32_224"), x)["blocks.0"].is_global
    squeezing = receptive_fields(timm.create_model("mobilenetv3_small_050"), x)
    assert squeezing["conv_stem"].size == (3, 3)
    assert squeezing["blocks.0"].is_global
