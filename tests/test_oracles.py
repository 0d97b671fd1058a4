"""Against captum and pytorch-grad-cam, where these are right; ``pytest -rP`` prints what is reached.

What remains is single precision, and the eps that they put into denominators.
"""

import numpy as np
import pytest
import torch
from torch import nn

from camlucida import Logit, explain
from camlucida.methods import GradCAMpp

torchvision = pytest.importorskip("torchvision")

CLASS = 3
NETWORKS = {"resnet18": "layer4.1", "vgg16": "features.29", "densenet121": "features"}
SIZES = {"resnet18": 96, "vgg16": 64, "densenet121": 96}


@pytest.fixture(scope="module", params=NETWORKS)
def case(request):
    """A random network with running statistics that are not the defaults, two images."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(request.param, weights=None, num_classes=10).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    size = SIZES[request.param]
    return request.param, model, torch.randn(2, 3, size, size)


def module_of(model, name):
    return model.get_submodule(name)


def relative(ours, theirs):
    theirs = torch.as_tensor(np.asarray(theirs), dtype=torch.float64)
    off = float((ours.double() - theirs).abs().max() / theirs.abs().max().clamp_min(1e-30))
    print(f"largest relative difference {off:.1e}")
    return off


# ---------------------------------------------------------------------------------------------- captum


@pytest.mark.parametrize("relu", [False, True])
def test_captum_layer_gradcam(case, relu):
    captum = pytest.importorskip("captum.attr")
    name, model, x = case
    layer = module_of(model, NETWORKS[name])
    # captum keeps the reference that DenseNet's in-place ReLU then writes to.
    if name == "densenet121":
        model = Undone(model)
        layer = model.features
    oracle = captum.LayerGradCam(model, layer)
    layers = NETWORKS[name]
    # A class whose map has something to rectify and something left.
    target = next(c for c in range(10) if explain(model, x, target=c, layers=layers).raw.any())
    theirs = oracle.attribute(x, target=target, relu_attributions=relu)[:, 0].detach()
    found = explain(model, x, target=target, layers=layers)
    # Reached: 1e-7 to 1e-6, single precision.
    assert relative(found.raw if relu else found.signed, theirs) < 1e-5


class Undone(nn.Module):
    """DenseNet without its in-place ReLU: the one thing that oracles on the CPU get wrong."""

    def __init__(self, model):
        super().__init__()
        self.features, self.classifier = model.features, model.classifier

    def forward(self, x):
        return self.classifier(torch.relu(self.features(x)).mean((2, 3)))


@pytest.mark.parametrize("method", ["saliency", "inputxgradient", "integrated-gradients"])
def test_captum_input_methods(method):
    captum = pytest.importorskip("captum.attr")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval().double()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    if method == "saliency":
        theirs = captum.Saliency(model).attribute(x.clone(), target=CLASS, abs=True).amax(1)
        ours = explain(model, x, method=method, target=CLASS)
    elif method == "inputxgradient":
        theirs = captum.InputXGradient(model).attribute(x.clone(), target=CLASS).abs().sum(1)
        ours = explain(model, x, method=method, target=CLASS)
    else:
        oracle = captum.IntegratedGradients(model)
        theirs = oracle.attribute(x, target=CLASS, n_steps=8, method="gausslegendre")
        theirs = theirs.abs().sum(1)
        ours = explain(model, x, method=method, target=CLASS, n_steps=8)
    # Reached: 1e-15; 1.5e-8 for integrated gradients, whose step sizes captum holds in single precision.
    tolerance = 1e-7 if method == "integrated-gradients" else 1e-12
    assert relative(ours.signed, theirs.detach()) < tolerance


# ------------------------------------------------------------------------------------ pytorch-grad-cam


def pgc_map(kind, model, layers, x, **options):
    """pytorch-grad-cam's map at the layer's resolution, before anything is rectified or scaled."""
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    with getattr(library, kind)(model=model, target_layers=layers, **options) as cam:
        wanted = [targets.ClassifierOutputTarget(CLASS)] * len(x)
        cam.outputs = cam.activations_and_grads(x.clone().requires_grad_())
        if cam.uses_gradients:
            model.zero_grad()
            sum(t(o) for t, o in zip(wanted, cam.outputs, strict=True)).backward()
        a = cam.activations_and_grads.activations[0].cpu().numpy()
        g = (
            cam.activations_and_grads.gradients[0].cpu().numpy()
            if cam.uses_gradients
            else np.zeros_like(a)
        )
        found = cam.get_cam_image(x, layers[0], wanted, a, g, eigen_smooth=False)
    model.zero_grad(set_to_none=True)
    return found


PAIRS = [
    ("GradCAM", "gradcam", {}, 1e-5),
    ("HiResCAM", "hirescam", {}, 1e-5),
    # Its 1e-7 in the denominator is below single precision for sums that are not tiny.
    ("XGradCAM", "xgradcam", {}, 1e-4),
    ("GradCAMPlusPlus", "gradcam++", {"eps": 1e-6}, 1e-4),
    ("LayerCAM", "layercam", {}, 1e-5),
    ("GradCAMElementWise", "gradcam-ew", {}, 1e-5),
]


@pytest.mark.parametrize(
    ("kind", "method", "options", "tolerance"), PAIRS, ids=[p[0] for p in PAIRS]
)
def test_pytorch_grad_cam(case, kind, method, options, tolerance):
    name, model, x = case
    if name == "densenet121":
        model = Undone(model)
    layer = module_of(model, NETWORKS[name])
    theirs = pgc_map(kind, model, [layer], x)
    ours = explain(model, x, method=method, target=CLASS, layers=NETWORKS[name], **options)
    assert relative(ours.signed, theirs) < tolerance


def test_pytorch_grad_cam_eigencam(case):
    """With numpy's sign their map, with ours the same up to the sign."""
    name, model, x = case
    if name == "densenet121":
        model = Undone(model)
    layer = module_of(model, NETWORKS[name])
    theirs = pgc_map("EigenCAM", model, [layer], x)
    found = explain(model, x, method=["eigencam", "eigencam:sign=none"], layers=NETWORKS[name])
    ours, numpys = (e.signed for e in found.values())
    for n in range(len(x)):
        off = min(relative(sign * ours[n], theirs[n]) for sign in (1, -1))
        assert max(off, relative(numpys[n], theirs[n])) < 1e-3  # single precision singular vectors


@pytest.mark.parametrize("method", ["GradCAM", "GradCAMPlusPlus", "HiResCAM"])
def test_preset_is_pytorch_grad_cams_own_output(case, method):
    """The finished map, resized by OpenCV and scaled with 1e-7 twice."""
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    name, model, x = case
    if name == "densenet121":
        model = Undone(model)
    layer = module_of(model, NETWORKS[name])
    with getattr(library, method)(model=model, target_layers=[layer]) as cam:
        theirs = cam(x.clone(), targets=[targets.ClassifierOutputTarget(CLASS)] * len(x))
    ours = explain(
        model, x, target=CLASS, layers=NETWORKS[name], steps="pytorch-grad-cam",
        method=GradCAMpp(eps=1e-6) if method == "GradCAMPlusPlus" else method.lower(),
    )  # fmt: skip
    # Reached: 5e-7 to 5e-6 of a map in [0, 1].
    assert float((ours.maps - torch.as_tensor(theirs)).abs().max()) < 1e-4


def test_preset_with_several_layers():
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    torch.manual_seed(0)
    model = torchvision.models.resnet18(weights=None, num_classes=10).eval()
    x = torch.randn(2, 3, 96, 96)
    with library.LayerCAM(model=model, target_layers=[model.layer3[-1], model.layer4[-1]]) as cam:
        theirs = cam(x.clone(), targets=[targets.ClassifierOutputTarget(CLASS)] * 2)
    ours = explain(
        model, x, target=CLASS, layers=["layer3.1", "layer4.1"], method="layercam",
        steps="pytorch-grad-cam",
    )  # fmt: skip
    assert float((ours.maps - torch.as_tensor(theirs)).abs().max()) < 1e-4


def test_densenet_itself_on_a_cpu_is_where_we_differ():
    """pytorch-grad-cam's activation aliases the tensor that DenseNet's ReLU overwrites."""
    pytest.importorskip("pytorch_grad_cam")
    torch.manual_seed(0)
    model = torchvision.models.densenet121(weights=None, num_classes=10).eval()
    x = torch.randn(1, 3, 96, 96)
    ours = explain(model, x, target=CLASS, layers="features").signed
    right = explain(Undone(model), x, target=CLASS, layers="features").signed
    torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)
    theirs = pgc_map("GradCAM", model, [model.features], x)
    assert relative(ours, theirs) > 1e-2


class TwoLayers(nn.Module):
    """Convolution and norm layers that pytorch-grad-cam's FullGrad finds, all with biases."""

    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.b = nn.Conv2d(4, 5, 3, padding=1)
        self.head = nn.Linear(5, 10)

    def forward(self, x):
        h = torch.relu(self.norm(self.a(x)))
        return self.head(torch.relu(self.b(h)).mean((2, 3)))


def test_pytorch_grad_cam_fullgrad():
    library = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    torch.manual_seed(0)
    model = TwoLayers().eval()
    nn.init.normal_(model.norm.running_mean)
    nn.init.normal_(model.norm.bias)
    with torch.no_grad():  # its 1e-7 per channel is 2 % of a term at the usual scale of gradients
        model.head.weight.mul_(1e4)
    x = torch.randn(1, 3, 24, 32)
    with library.FullGrad(model=model, target_layers=[]) as cam:
        theirs = cam(x.clone(), targets=[targets.ClassifierOutputTarget(CLASS)])
    ours = explain(model, x, method="fullgrad", target=CLASS, steps="pytorch-grad-cam")
    # Reached: about 1e-6 once its eps does not matter.
    assert float((ours.maps - torch.as_tensor(theirs)).abs().max()) < 1e-4


def test_vision_transformer_with_a_reshape_transform():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", img_size=(64, 96), num_classes=10, reg_tokens=2
    ).eval()
    nn.init.normal_(model.head.weight, std=0.1)
    x = torch.randn(2, 3, 64, 96)
    layer = model.blocks[-1].norm1

    def reshape(tokens):
        return tokens[:, 3:].reshape(tokens.shape[0], 4, 6, -1).permute(0, 3, 1, 2)

    for kind, method in (
        ("GradCAM", "gradcam"),
        ("HiResCAM", "hirescam"),
        ("LayerCAM", "layercam"),
    ):
        theirs = pgc_map(kind, model, [layer], x, reshape_transform=reshape)
        ours = explain(model, x, method=method, target=Logit(CLASS), layers="blocks.11.norm1")
        assert relative(ours.signed, theirs) < 1e-4
        own = explain(model, x, method=method, target=CLASS, layers="blocks.11.norm1", grid=reshape)
        torch.testing.assert_close(own.signed, ours.signed)
