"""Candidate layers, told by the graph and not by name."""

import pytest
import torch
from torch import nn

from camlucida.engine.layers.blocks import candidate_layers

transformers = pytest.importorskip("transformers")
tv = pytest.importorskip("torchvision.models")
timm = pytest.importorskip("timm")


def of(model, size=64, **options):
    return candidate_layers(model.eval(), torch.randn(1, 3, size, size), **options)


def test_resnet50_gives_its_16_bottlenecks():
    names = of(tv.resnet50(weights=None))
    assert names == tuple(f"layer{s + 1}.{i}" for s, n in enumerate((3, 4, 6, 3)) for i in range(n))


def test_vgg16_gives_the_relu_behind_each_convolution():
    model = tv.vgg16(weights=None)
    names = of(model)
    assert len(names) == 13
    assert all(isinstance(model.get_submodule(n), nn.ReLU) for n in names)
    assert names[-1] == "features.29"


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [
        ("densenet121", "_DenseBlock", 4),
        ("efficientnet_b0", "MBConv", 16),
        ("mobilenet_v2", "InvertedResidual", 17),
        ("mobilenet_v3_small", "InvertedResidual", 11),
        ("squeezenet1_1", "Fire", 8),
        ("regnet_y_400mf", "ResBottleneckBlock", 16),
        ("convnext_tiny", "CNBlock", 18),
        ("swin_t", "SwinTransformerBlock", 12),
    ],
)
def test_torchvision_blocks(name, kind, count):
    model = getattr(tv, name)(weights=None)
    names = of(model)
    assert len(names) == count
    kinds = {type(model.get_submodule(n)).__name__ for n in names}
    assert kinds == {kind}
    assert of(model) == names


@pytest.mark.parametrize(
    ("name", "size", "count"),
    [
        ("efficientnet_lite0", 64, 16),
        ("resnet26d", 64, 8),
        ("convnext_atto", 64, 12),
        ("mobilenetv1_100", 64, 27),
        ("vit_tiny_patch16_224", 224, 11),
        ("deit_tiny_distilled_patch16_224", 224, 11),
        ("mixer_s16_224", 224, 8),
    ],
)
def test_timm_blocks(name, size, count):
    assert len(of(timm.create_model(name, pretrained=False), size)) == count


def test_transformers_blocks():
    small = {
        "num_hidden_layers": 3,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "intermediate_size": 32,
    }
    vit = transformers.ViTForImageClassification(transformers.ViTConfig(image_size=64, **small))
    names = of(vit)
    assert len(names) == 2  # the patch tokens of the last block are thrown away
    config = transformers.ResNetConfig(
        layer_type="basic", depths=[2, 1], hidden_sizes=[8, 16], embedding_size=8
    )
    resnet = transformers.ResNetForImageClassification(config)
    names = of(resnet)
    assert {type(resnet.get_submodule(n)).__name__ for n in names} == {"ResNetBasicLayer"}
    assert len(names) == 3


def test_rectified_names_the_last_activation_of_a_linear_bottleneck():
    model = timm.create_model("efficientnet_lite0", pretrained=False)
    names = of(model, rectified=True)
    assert names[:3] == ("blocks.0.0.bn1", "blocks.1.0.bn2", "blocks.1.1.bn2")
    assert len(names) == 16
    resnet = tv.resnet18(weights=None)
    assert of(resnet, rectified=True) == of(resnet)


def test_plain_chain_and_functional_activations():
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )  # fmt: skip
    assert of(chain, 32) == ("2", "4")


def test_single_functional_residual_without_blocks_and_the_model_is_given_back():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
            self.side = nn.Conv2d(4, 4, 1)
            self.head = nn.Linear(4, 2)

        def forward(self, x):
            x = self.a(x)
            x = x + self.side(x).relu()
            return self.head(self.b(x).mean((2, 3)))

    net = Net().train()
    assert candidate_layers(net, torch.randn(2, 3, 8, 8)) == ("a", "b")
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert not any(m._forward_hooks for m in net.modules())


def test_zero_head_still_has_blocks():
    model = tv.resnet18(weights=None)
    nn.init.zeros_(model.fc.weight)
    nn.init.zeros_(model.fc.bias)
    assert len(of(model)) == 8


def test_choice_does_not_depend_on_the_images():
    model = tv.mobilenet_v2(weights=None).eval()
    names = candidate_layers(model, torch.zeros(1, 3, 64, 64), rectified=True)
    fresh = tv.mobilenet_v2(weights=None).eval()
    assert candidate_layers(fresh, torch.randn(1, 3, 64, 64), rectified=True) == names
