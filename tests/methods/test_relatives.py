"""EigenGradCAM, ShapleyCAM, RefineCAM and the targets of Finer-CAM and ShapleyCAM."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import (
    Cell,
    CosineSimilarity,
    ExpLogit,
    Logit,
    LogitMargin,
    MethodError,
    Probability,
    TargetError,
)
from camlucida.methods import GradCAM, GradCAMpp, HiResCAM, LayerCAM
from camlucida.methods.eigencam import EigenGradCAM, principal
from camlucida.methods.refinecam import RefineCAM
from camlucida.methods.shapleycam import ShapleyCAM
from camlucida.targets.finer import FinerMargin, ResidualSoftmax
from reference import networks, steps
from reference import relatives as slow

SIZE = (5, 6)
METHODS = [
    EigenGradCAM(), ShapleyCAM(), ShapleyCAM(form="elementwise"), ShapleyCAM(rest=False),
    RefineCAM(base="layercam"),
]  # fmt: skip
TARGETS = [
    Logit(), Logit([2, 0, 1]), ExpLogit(1), Probability(0), LogitMargin(), ResidualSoftmax(),
    FinerMargin(similar=2), CosineSimilarity(torch.tensor([1.0, -2.0, 0.5])), lambda z: z[:, 0] ** 2,
]  # fmt: skip


def explain(model, x, method, target=None, **options):
    options.setdefault("layers", "features")
    return camlucida.explain(model, x, method=method, target=target, **options)


# ------------------------------------------------------------------------------------------ EigenGradCAM


@pytest.mark.parametrize("seed", range(6))
def test_principal_equals_the_slow_reference(seed):
    products = networks.images(2, 4, (3, 5), seed=seed)
    found = principal(products)
    for one, wanted in zip(found, products.numpy(), strict=True):
        np.testing.assert_allclose(one.numpy(), slow.eigen(wanted), atol=1e-9)


def test_eigengradcam_equals_the_slow_reference():
    model, x = networks.build(head="deep", smooth=True), networks.images(3, 3, SIZE)
    activation, gradient, _ = networks.parts(model, x, Logit(1))
    found = explain(model, x, EigenGradCAM(), 1)
    for i in range(3):
        wanted = slow.eigen((activation * gradient)[i].numpy())
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-9)


def test_sign_rules():
    """Strong evidence against the class must not light up."""
    products = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    products[0, :, 1, 1] = -5.0
    products[0, :, 0, 3] = 1.0
    evidence = principal(products)
    extreme = principal(products, "extreme")
    assert evidence[0, 1, 1] < 0 < evidence[0, 0, 3]
    assert extreme[0, 1, 1] > 0
    torch.testing.assert_close(principal(products, "none").abs(), evidence.abs())


def test_one_channel_is_the_centred_map():
    products = networks.images(2, 1, SIZE)
    torch.testing.assert_close(
        principal(products), products[:, 0] - products[:, 0].mean((1, 2), keepdim=True)
    )


# -------------------------------------------------------------------------------------------- ShapleyCAM


def quadratic(cells, seed=0):
    """A head whose target is a quadratic function of the cells: the expansion is exact."""
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(cells, cells, generator=generator, dtype=torch.float64)
    vector = torch.randn(cells, generator=generator, dtype=torch.float64)

    class Head(nn.Module):
        def forward(self, a):
            flat = a.flatten(1)
            value = flat @ vector + torch.einsum("ni,ij,nj->n", flat, matrix, flat)
            return torch.stack([value, -value], 1)

    return Head(), vector.numpy(), (matrix + matrix.T).numpy()


def test_elementwise_values_are_the_exact_shapley_values_of_a_quadratic_target():
    head, vector, hessian = quadratic(6)
    a = networks.images(1, 1, (2, 3))
    model = networks.Split(nn.Identity(), head).eval()
    found = explain(model, a, ShapleyCAM(form="elementwise", rest=False), 0)
    values = a.flatten().numpy()

    def utility(v):
        return v @ vector + 0.5 * v @ hessian @ v

    wanted = slow.shapley_exact(utility, values).reshape(2, 3)
    np.testing.assert_allclose(found.signed[0].numpy(), wanted, atol=1e-12)
    # Efficiency: they add up to the target.
    assert float(found.signed.sum()) == pytest.approx(float(found.target_values))


@pytest.mark.parametrize("form", ["mean", "elementwise"])
@pytest.mark.parametrize("target", [Logit(1), ResidualSoftmax(2), Probability(0), LogitMargin()])
def test_shapleycam_equals_the_slow_reference(form, target):
    model, x = networks.build(head="deep", smooth=True), networks.images(2, 3, SIZE)
    found = explain(model, x, ShapleyCAM(form=form, rest=False), target)
    pinned = target.pin(model(x).detach())
    activation, gradient, _ = networks.parts(model, x, pinned)
    for i in range(2):
        own = pinned.take(torch.tensor([i]))
        hessian = torch.autograd.functional.hessian(
            lambda flat, own=own: own(model.head(flat.view(1, *activation.shape[1:]))).sum(),
            activation[i].flatten(),
        )
        wanted = slow.shapleycam(activation[i].numpy(), gradient[i].numpy(), hessian.numpy(), form)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-11)


def test_a_class_is_explained_through_the_residual_softmax():
    model, x = networks.build(), networks.images(2, 3, SIZE)
    found = explain(model, x, "shapleycam", 1)
    torch.testing.assert_close(
        found.signed, explain(model, x, ShapleyCAM(), ResidualSoftmax(1)).signed
    )
    assert isinstance(found.target, ResidualSoftmax)
    assert not found.diagnostics[0].notes
    margin = explain(model, x, "shapleycam", LogitMargin(1))
    assert isinstance(margin.target, LogitMargin)


def test_without_a_hessian_it_is_gradcam_and_says_so():
    model, x = networks.build(head="deep", signed=False), networks.images(2, 3, SIZE)
    for form, plain in (("mean", GradCAM()), ("elementwise", HiResCAM())):
        found = explain(model, x, ShapleyCAM(form=form, rest=False), 1)
        torch.testing.assert_close(found.signed, explain(model, x, plain, 1).signed)
        assert any("no second derivative" in m for m in found.diagnostics[0].messages)


def test_single_output_has_no_softmax():
    model, x = networks.build(m=1), networks.images(2, 3, SIZE)
    torch.testing.assert_close(
        explain(model, x, ShapleyCAM()).signed, explain(model, x, GradCAM()).signed
    )


def test_shapleycam_refuses_a_grid_function():
    model, x = networks.build(), networks.images(1, 3, SIZE)
    with pytest.raises(MethodError, match="Grid"):
        explain(model, x, ShapleyCAM(), 0, grid=lambda output: output)


def test_shapleycam_through_fused_attention():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2).eval()
    x = torch.randn(2, 3, 32, 32)
    found = camlucida.explain(model, x, method=ShapleyCAM(), target=3)
    plain = camlucida.explain(model, x, method=GradCAM(), target=ResidualSoftmax(3))
    assert found.maps.isfinite().all()
    assert not torch.allclose(found.signed, plain.signed)


# --------------------------------------------------------------------------------------------- RefineCAM


class Pyramid(nn.Module):
    """Three resolutions."""

    def __init__(self):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
        self.two = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU())
        self.three = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(self.three(self.two(self.one(x))).mean((2, 3)))


@pytest.mark.parametrize(
    ("base", "method"),
    [("gradcam++", GradCAMpp()), ("layercam", LayerCAM()), ("gradcam", GradCAM())],
)
def test_refinecam_is_the_product_of_finished_maps(base, method):
    model = networks.randomise(Pyramid().double().eval(), 4)
    x = networks.images(2, 3, (12, 16))
    names = ["one", "two", "three"]
    found = camlucida.explain(model, x, method=RefineCAM(base=base), layers=names, target=1)
    for i in range(2):
        wanted = np.ones((12, 16))
        for name in names:
            one = camlucida.explain(model, x[i], method=method, layers=name, target=1)
            wanted *= steps.finish(one.signed[0].numpy(), (12, 16))
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-11)
        np.testing.assert_allclose(found.maps[i].numpy(), steps.normalise(wanted), atol=1e-11)
    preset = camlucida.explain(
        model, x, method=RefineCAM(base=base), layers=names, target=1, steps="pytorch-grad-cam"
    )
    torch.testing.assert_close(preset.maps, found.maps, rtol=0, atol=1e-5)


def test_refinecam_default_layers():
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18().eval()
    layers = RefineCAM().default_layers(model, torch.randn(1, 3, 64, 64))
    assert layers == ("layer1.1", "layer2.1", "layer3.1", "layer4.1")


def test_refinecam_of_one_layer_says_so():
    model, x = networks.build(signed=False), networks.images(1, 3, SIZE)
    found = explain(model, x, RefineCAM(), 1)
    torch.testing.assert_close(found.maps, explain(model, x, GradCAMpp(), 1).maps)
    assert any("one layer only" in m for m in found.diagnostics[0].messages)


def test_refinecam_names_an_empty_factor():
    model = networks.randomise(Pyramid().double().eval(), 4)
    nn.init.constant_(model.head.weight, -1.0)
    x = networks.images(1, 3, (12, 16))
    found = camlucida.explain(
        model, x, method=RefineCAM(base="gradcam"), layers=["two", "three"], target=1
    )
    assert not found.maps.any()
    assert any("product is empty" in m and "three" in m for m in found.diagnostics[0].messages)


def test_refinecam_of_a_base_that_stands_for_a_target():
    model = networks.randomise(Pyramid().double().eval(), 4)
    x = networks.images(2, 3, (12, 16))
    margin, found, lone = (
        camlucida.explain(
            model, x, method=RefineCAM(base=base), target=target, layers=["two", "three"]
        )
        for base, target in (("gradcam", LogitMargin(1)), ("diffgradcam", 1), ("gradcam", 1))
    )
    torch.testing.assert_close(found.maps, margin.maps)
    assert not torch.allclose(found.maps, lone.maps)
    assert type(found.target) is LogitMargin
    with pytest.raises(MethodError, match="diffgradcam explains LogitMargin"):
        camlucida.explain(model, x, method=RefineCAM(base="diffgradcam"), target=Probability(1))


def test_refinecam_refuses_a_base_without_layers():
    with pytest.raises(MethodError, match="saliency"):
        RefineCAM(base="saliency")
    with pytest.raises(MethodError, match="unknown method"):
        RefineCAM(base="gradcm")


# ----------------------------------------------------------------------------------- pytorch-grad-cam


@pytest.fixture
def peer():
    return pytest.importorskip("pytorch_grad_cam")


def pyramid(seed=8):
    """Smooth and positive, in single precision, which is what pytorch-grad-cam computes in."""
    model = networks.randomise(Pyramid().double().eval(), seed).float()
    for stage in (model.one, model.two, model.three):
        stage[-1] = nn.Softplus()
    return model, networks.images(2, 3, (12, 16)).float()


def test_shapleycam_agrees_with_pytorch_grad_cam(peer):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputReST

    model, x = pyramid(6)
    theirs = peer.ShapleyCAM(model=model, target_layers=[model.two])(
        input_tensor=x, targets=[ClassifierOutputReST(2), ClassifierOutputReST(0)]
    )
    ours = explain(
        model, x, "shapleycam", [2, 0], layers="two", steps="pytorch-grad-cam"
    )  # fmt: skip
    np.testing.assert_allclose(ours.maps.numpy(), theirs, atol=1e-4)
    assert (theirs.std((1, 2)) > 0.05).all()
    plain = explain(model, x, GradCAM(), [2, 0], layers="two", steps="pytorch-grad-cam")
    assert np.abs(plain.maps.numpy() - theirs).max() > 0.01


def test_eigengradcam_agrees_with_pytorch_grad_cam(peer):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = pyramid()
    theirs = peer.EigenGradCAM(model=model, target_layers=[model.two])(
        input_tensor=x, targets=[ClassifierOutputTarget(2), ClassifierOutputTarget(0)]
    )
    ours = explain(model, x, EigenGradCAM(), [2, 0], layers="two")
    for signed, wanted in zip(ours.signed, theirs, strict=True):
        # Their sign is whatever LAPACK returns.
        off = [
            np.abs(steps.finish(sign * signed.numpy(), (12, 16)) - wanted).max() for sign in (1, -1)
        ]
        assert min(off) < 2e-3


def test_refinecam_agrees_with_pytorch_grad_cam(peer):
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model, x = pyramid()
    theirs = peer.RefineCAM(
        model=model, target_layers=[model.one, model.two, model.three], base_method=peer.LayerCAM
    )(input_tensor=x[:1], targets=[ClassifierOutputTarget(2)])
    ours = explain(
        model, x[:1], RefineCAM("layercam"), 2, layers=["one", "two", "three"]
    )  # fmt: skip
    np.testing.assert_allclose(ours.maps.numpy(), theirs, atol=2e-3)


def test_finercam_agrees_with_pytorch_grad_cam(peer):
    model, x = pyramid()
    for alpha in (0.6, 1.0):
        theirs = peer.FinerCAM(model=model, target_layers=[model.two])(
            input_tensor=x, targets=None, alpha=alpha, comparison_categories=[1, 2]
        )
        ours = explain(
            model, x, "finercam", layers="two", similar=2, alpha=alpha, steps="pytorch-grad-cam"
        )
        # They add 1e-9 to the sum of the probabilities and 1e-7 to the map's maximum.
        np.testing.assert_allclose(ours.maps.numpy(), theirs, atol=5e-3)


# --------------------------------------------------------------------------------------- all three of them


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_batch_equals_single_images(method, target):
    model, x = networks.build(head="deep", smooth=True), networks.images(3, 3, SIZE)
    layers = ["features.0", "features"] if isinstance(method, RefineCAM) else "features"
    batch = explain(model, x, method, target, layers=layers)
    for i in range(3):
        own = target
        if isinstance(target, Logit) and target.classes is not None:
            own = Logit(target.classes[i])
        one = explain(model, x[i], method, own, layers=layers)
        torch.testing.assert_close(batch.signed[i], one.signed[0], rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_edge_cases(method):
    head = networks.randomise(nn.Sequential(networks.Gap(), nn.Linear(3, 3)).double(), 1)
    model = networks.Split(nn.Identity(), head).eval()
    rand = torch.rand(2, 3, 4, 5, dtype=torch.float64)
    for a in (torch.zeros_like(rand), torch.full_like(rand, 0.7), rand[..., :1, :1]):
        found = explain(model, a, method, 1)
        assert found.maps.isfinite().all()
        assert not found.maps.any()
    nn.init.zeros_(head[1].weight)
    found = explain(model, rand, method, 1)
    assert not found.maps.any()
    assert found.diagnostics[0].messages
    rand[0, 0, 0, 0] = torch.nan
    found = explain(model, rand, method, 1)
    assert found.maps.isfinite().all()


def test_cell_target_inside_the_network():
    model, x = networks.build(head="deep", smooth=True), networks.images(2, 3, SIZE)
    target = Cell("head.0", 1, 2, absolute=False)
    found = explain(model, x, EigenGradCAM(), target)
    outside = torch.ones(SIZE, dtype=torch.bool)
    outside[0:3, 1:4] = False
    constant = found.signed[:, outside]
    assert (constant - constant[:, :1]).abs().max() < 1e-12
    assert explain(model, x, ShapleyCAM(), target).signed.isfinite().all()


# ----------------------------------------------------------------------------------------------- targets


@pytest.mark.parametrize("weights", ["probability", "mean"])
@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("similar", [1, 3, 9])
def test_finer_margin_equals_the_slow_reference(weights, alpha, similar):
    logits = 3 * networks.images(4, 6, (1, 1)).flatten(1)
    logits[1, 2] = logits[1, 4]  # a tie
    target = FinerMargin([0, 2, 5, 1], similar=similar, alpha=alpha, weights=weights)
    found = target(logits)
    for i, c in enumerate((0, 2, 5, 1)):
        wanted = slow.finer(logits[i].tolist(), c, similar, alpha, weights)
        assert float(found[i]) == pytest.approx(wanted, abs=1e-12)
    pinned = target.pin(logits)
    assert pinned.rivals.shape == (4, min(similar, 5))
    torch.testing.assert_close(pinned(logits), found)
    taken = pinned.take(torch.tensor([2, 0]))
    torch.testing.assert_close(taken(logits[[2, 0]]), found[[2, 0]])


def test_finer_margin_without_comparison_is_the_logit():
    logits = networks.images(3, 5, (1, 1)).flatten(1)
    torch.testing.assert_close(FinerMargin(1, alpha=0)(logits), logits[:, 1])
    margin = FinerMargin(1, similar=4, weights="mean")(logits)
    torch.testing.assert_close(margin, LogitMargin(1)(logits))


def test_finer_margin_keeps_finite_for_a_sure_model():
    logits = torch.tensor([[200.0, -300.0, -310.0, -500.0]], requires_grad=True)
    value = FinerMargin()(logits)
    (gradient,) = torch.autograd.grad(value.sum(), logits)
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-4)


def test_finer_margin_pins_rivals_of_the_image():
    model, x = networks.build(m=5), networks.images(2, 3, SIZE)
    found = explain(model, x, "finercam", similar=2)
    assert found.target.rivals.shape == (2, 2)
    assert (found.target.rivals != found.target.classes[:, None]).all()
    given = explain(model, x, GradCAM(), FinerMargin(rivals=torch.tensor([0, 3])))
    assert given.target.rivals.tolist() == [[0, 3]] * 2


def test_finer_margin_refuses():
    with pytest.raises(TargetError, match="weights"):
        FinerMargin(weights="max")
    with pytest.raises(TargetError, match="similar"):
        FinerMargin(similar=0)
    with pytest.raises(TargetError, match="single output"):
        FinerMargin()(torch.zeros(2, 1))
    with pytest.raises(TargetError, match="does not exist"):
        FinerMargin(rivals=torch.tensor([7]))(torch.zeros(2, 3))


def test_residual_softmax_gradient():
    logits = networks.images(3, 4, (1, 1)).flatten(1).requires_grad_()
    (gradient,) = torch.autograd.grad(ResidualSoftmax(2)(logits).sum(), logits)
    p = logits.softmax(1)
    wanted = -p
    wanted[:, 2] = 2 - p[:, 2]
    torch.testing.assert_close(gradient, wanted)
