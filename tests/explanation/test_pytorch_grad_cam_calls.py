"""The calls of pytorch-grad-cam, answered by us, with equal maps where it is right."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida.explanation import pytorch_grad_cam as ours
from camlucida.explanation.pytorch_grad_cam.utils import image as our_image
from camlucida.explanation.pytorch_grad_cam.utils import model_targets as our_targets


def _net(outputs=5):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, outputs),
    ).eval()  # fmt: skip


@pytest.fixture
def images():
    return torch.rand(3, 3, 32, 32)


EQUAL = ["GradCAM", "HiResCAM", "XGradCAM", "LayerCAM", "GradCAMElementWise", "ScoreCAM"]


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("smooth", [{}, {"aug_smooth": True}], ids=["plain", "aug"])
def test_maps_are_equal_where_it_is_right(name, smooth, images):
    theirs = pytest.importorskip("pytorch_grad_cam")
    net = _net()
    found = []
    for library in (theirs, ours):
        targets = pytest.importorskip(f"{library.__name__}.utils.model_targets")
        wanted = [targets.ClassifierOutputTarget(c) for c in (1, 4, 2)]
        with getattr(library, name)(model=net, target_layers=[net[4]]) as cam:
            found.append(cam(input_tensor=images, targets=wanted, **smooth))
    assert found[1].shape == (3, 32, 32)
    assert np.abs(found[0] - found[1]).max() < 1e-4


def test_several_layers_and_the_predicted_class(images):
    theirs = pytest.importorskip("pytorch_grad_cam")
    net = _net()
    found = [
        library.GradCAM(model=net, target_layers=[net[1], net[4]])(images, None)
        for library in (theirs, ours)
    ]
    assert np.abs(found[0] - found[1]).max() < 1e-4


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("ClassifierOutputSoftmaxTarget", (2,)),
        ("ClassifierOutputReST", (2,)),
        ("BinaryClassifierOutputTarget", (0,)),
        ("FinerWeightedTarget", (1, [0, 3], 0.5)),
        ("RawScoresOutputTarget", ()),
        ("SoftmaxOutputTarget", ()),
    ],
)
def test_targets_are_equal(name, arguments):
    theirs = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    output = torch.randn(1 if name.startswith("Binary") else 5)
    one, other = (getattr(module, name)(*arguments)(output) for module in (theirs, our_targets))
    assert torch.allclose(one, other, atol=1e-6)


def test_a_function_of_the_users_own_for_each_image(images):
    net = _net()
    wanted = [
        lambda output: output[0] - output[1],
        lambda output: output[2],
        our_targets.RawScoresOutputTarget(),
    ]
    cam = ours.GradCAM(net, [net[4]])
    together = cam(images, wanted)
    alone = [cam(images[[i]], [wanted[i]])[0] for i in range(3)]
    assert np.abs(together - np.stack(alone)).max() < 1e-5
    assert cam.outputs.shape == (1, 5)


def test_dense_outputs():
    net = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 4, 1)).eval()
    mask = np.zeros((32, 32), dtype=np.float32)
    mask[:16] = 1
    target = our_targets.SemanticSegmentationTarget(1, mask)
    assert ours.HiResCAM(net, [net[1]])(torch.rand(1, 3, 32, 32), [target])[0, 18:].max() == 0


def test_what_is_wrong_there_is_said_here(images):
    net = _net()
    with pytest.raises(camlucida.TargetError, match="1 targets were given for 3 images"):
        ours.GradCAM(net, [net[4]])(images, [lambda output: output[0]])
    with (
        pytest.raises(camlucida.TargetError, match="does not exist"),
        ours.GradCAM(net, [net[4]]) as cam,
    ):
        cam(images, [our_targets.ClassifierOutputTarget(99)] * 3)


def test_the_model_is_left_as_it_was(images):
    net = _net().train()
    ours.GradCAMPlusPlus(net, [net[4]])(images)
    assert net.training
    assert all(p.grad is None for p in net.parameters())
    assert not net[4]._forward_hooks


@pytest.mark.parametrize(
    "name", ["EigenCAM", "EigenGradCAM", "AblationCAM", "FullGrad", "ShapleyCAM"]
)
def test_the_others_run(name, images):
    net = _net()
    found = getattr(ours, name)(net, [net[4]])(images)
    assert found.shape == (3, 32, 32)
    assert 0 <= found.min() <= found.max() <= 1


@pytest.mark.parametrize("use_rgb", [False, True])
def test_a_map_over_a_photo(use_rgb):
    theirs = pytest.importorskip("pytorch_grad_cam.utils.image")
    photo = np.random.default_rng(0).random((24, 32, 3), dtype=np.float32)
    heat = np.linspace(0, 1, 24 * 32, dtype=np.float32).reshape(24, 32)
    one, other = (
        library.show_cam_on_image(photo, heat, use_rgb=use_rgb, image_weight=0.3)
        for library in (theirs, our_image)
    )
    assert np.abs(one.astype(int) - other).max() <= 3  # two tables of the same colours
    assert torch.allclose(theirs.preprocess_image(photo), our_image.preprocess_image(photo))
    with pytest.raises(camlucida.ImageError, match="lie in"):
        our_image.show_cam_on_image(photo * 255, heat)
