"""Augmentation and eigen smoothing around any method."""

import numpy as np
import pytest
import torch

import camlucida
from camlucida import Cell, Logit, LogitMargin, MethodError
from camlucida.methods import (
    CAM,
    FAME,
    EigenCAM,
    FullGrad,
    GradCAM,
    GradCAMEW,
    GradCAMpp,
    HiResCAM,
    LayerCAM,
    Saliency,
    SmoothGrad,
    XGradCAM,
)
from camlucida.methods.eigencam import EigenGradCAM
from camlucida.methods.opticam import OptiCAM
from camlucida.methods.refinecam import RefineCAM
from camlucida.methods.rise import RISE
from camlucida.methods.scorecam import ScoreCAM
from camlucida.methods.shapleycam import ShapleyCAM
from camlucida.methods.smoothing import AugSmooth, EigenSmooth, wrapped
from reference import networks, steps
from reference import relatives as slow

SIZE = (5, 6)
ANY = [
    GradCAM(), GradCAMpp(), CAM(), EigenCAM(), LayerCAM(), ShapleyCAM(), RefineCAM(base="layercam"),
    OptiCAM(iterations=3), RISE(masks=20), Saliency(), SmoothGrad(n_samples=2), FullGrad(),
    FAME(iterations=2, sigma=1, kernel=3),
]  # fmt: skip
ADDING = [
    GradCAM(), GradCAMpp(), GradCAMpp(eps=1e-6), XGradCAM(), HiResCAM(), GradCAMEW(), LayerCAM(),
    ShapleyCAM(), OptiCAM(iterations=3),
]  # fmt: skip


def name(method):
    return type(method).__name__


def explain(model, x, method, target=None, **options):
    if method.uses_layers:
        options.setdefault("layers", "features")
    return camlucida.explain(model, x, method=method, target=target, **options)


def test_aug_smooth_equals_the_slow_reference():
    model, x = networks.build(head="deep"), networks.images(2, 3, SIZE)
    found = explain(model, x, AugSmooth(GradCAM()), [2, 0])
    for i, c in enumerate((2, 0)):
        maps = []
        for flip in (False, True):
            for factor in (0.9, 1.0, 1.1):
                image = factor * (x[i].flip(-1) if flip else x[i])
                one = explain(model, image, GradCAM(), c)
                drawn = steps.finish(one.signed[0].numpy(), SIZE)
                maps.append(drawn[:, ::-1] if flip else drawn)
        mean = np.mean(maps, axis=0)
        np.testing.assert_allclose(found.signed[i].numpy(), mean, atol=1e-12)
        np.testing.assert_allclose(found.maps[i].numpy(), steps.normalise(mean), atol=1e-12)


@pytest.mark.parametrize("method", ANY, ids=name)
def test_aug_smooth_works_with_every_method(method):
    model, x = networks.build(signed=False), networks.images(3, 3, SIZE)
    wrapped = AugSmooth(method)
    batch = explain(model, x, wrapped)
    assert batch.maps.isfinite().all()
    assert batch.maps.shape == (3, *SIZE)
    for i in range(3):
        one = explain(model, x[i], wrapped)
        torch.testing.assert_close(batch.maps[i], one.maps[0], rtol=0, atol=1e-9)
    torch.testing.assert_close(batch.target_values, explain(model, x, method).target_values)


def test_agrees_with_pytorch_grad_cam():
    peer = pytest.importorskip("pytorch_grad_cam")
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    model = networks.build(head="deep", smooth=True, signed=False).float()
    x = networks.images(2, 3, SIZE).float()
    targets = [ClassifierOutputTarget(2), ClassifierOutputTarget(0)]
    theirs = peer.GradCAM(model=model, target_layers=[model.features])
    ours = explain(model, x, AugSmooth(GradCAM()), [2, 0])
    wanted = theirs(input_tensor=x, targets=targets, aug_smooth=True)
    # They do not scale the mean once more.
    np.testing.assert_allclose(ours.signed.numpy(), wanted, atol=1e-4)
    eigen = explain(model, x, EigenSmooth(GradCAM(), sign="none"), [2, 0], steps="pytorch-grad-cam")
    wanted = theirs(input_tensor=x, targets=targets, eigen_smooth=True)
    np.testing.assert_allclose(eigen.maps.numpy(), wanted, atol=1e-3)


def test_aug_smooth_without_augmentation_is_the_method():
    model, x = networks.build(head="deep"), networks.images(2, 3, SIZE)
    alone = explain(model, x, AugSmooth(LayerCAM(), flip=False, factors=(1,)), 1)
    torch.testing.assert_close(alone.maps, explain(model, x, LayerCAM(), 1).maps)


def test_aug_smooth_of_a_mirrored_image_is_the_mirrored_map():
    model, x = networks.build(head="deep"), networks.images(2, 3, SIZE)
    a = explain(model, x, AugSmooth(GradCAM()), 1)
    b = explain(model, x.flip(-1), AugSmooth(GradCAM()), 1)
    torch.testing.assert_close(a.maps, b.maps.flip(-1))


def test_the_class_is_that_of_the_image_itself():
    model, x = networks.build(head="deep", seed=5), networks.images(30, 3, SIZE)
    changed = model(x).argmax(1) != model(x.flip(-1)).argmax(1)
    assert changed.any()
    found = explain(model, x, AugSmooth(GradCAM(), factors=(0.9,)))
    assert torch.equal(found.target.classes, model(x).argmax(1))
    torch.testing.assert_close(found.target_values, model(x).amax(1).detach())


def test_places_are_not_mirrored():
    model, x = networks.build(head="deep"), networks.images(1, 3, SIZE)
    with pytest.raises(MethodError, match="flip=False"):
        explain(model, x, AugSmooth(GradCAM()), Cell("head.0", 1, 1))
    found = explain(model, x, AugSmooth(GradCAM(), flip=False), Cell("head.0", 1, 1))
    assert found.maps.isfinite().all()


@pytest.mark.parametrize("method", ADDING, ids=name)
def test_eigen_smooth_is_the_component_of_what_is_added(method):
    model, x = networks.build(head="deep", smooth=True), networks.images(2, 3, SIZE)
    found = explain(model, x, EigenSmooth(method), 1)
    plain = explain(model, x, method, 1)
    assert found.maps.isfinite().all()
    # Products from weights that a method must have had: solve for them in the channel-weight family.
    activation = model.features(x).detach()
    gradient = networks.parts(model, x, Logit(1))[1]
    products = {
        "GradCAM": activation * gradient.mean((2, 3), keepdim=True),
        "HiResCAM": activation * gradient,
        "GradCAMEW": (activation * gradient).clamp_min(0),
        "LayerCAM": activation * gradient.clamp_min(0),
    }.get(name(method))
    if "weights" in plain.details:
        products = activation * plain.details["weights"][:, :, None, None]
    if products is not None:
        for i in range(2):
            wanted = slow.eigen(products[i].numpy())
            np.testing.assert_allclose(found.layer_maps["features"][i].numpy(), wanted, atol=1e-9)
    for i in range(2):
        one = explain(model, x[i], EigenSmooth(method), 1)
        torch.testing.assert_close(found.signed[i], one.signed[0], rtol=0, atol=1e-9)


def test_eigen_smooth_of_hirescam_is_eigengradcam():
    model, x = networks.build(head="deep"), networks.images(2, 3, SIZE)
    torch.testing.assert_close(
        explain(model, x, EigenSmooth(HiResCAM()), 1).signed,
        explain(model, x, EigenGradCAM(), 1).signed,
    )


@pytest.mark.parametrize(
    "method", [EigenCAM(), EigenGradCAM(), Saliency(), RISE(), FullGrad(), FAME()], ids=name
)
def test_methods_that_add_up_no_channels_are_refused(method):
    model, x = networks.build(), networks.images(1, 3, SIZE)
    with pytest.raises(MethodError, match="eigen_smooth"):
        explain(model, x, EigenSmooth(method), 1)


def test_both_together_and_several_layers():
    model, x = networks.build(head="deep", signed=False), networks.images(2, 3, SIZE)
    method = wrapped(GradCAM(), aug_smooth=True, eigen_smooth=True)
    found = explain(model, x, method, 1, layers=["features.0", "features"])
    assert found.maps.isfinite().all()
    assert list(found.layer_maps) == ["features.0", "features"]
    assert method.describe() == {
        "method": "GradCAM", "options": {"eigen_smooth": True, "aug_smooth": True},
    }  # fmt: skip
    assert wrapped(GradCAM()) == GradCAM()


def test_autocast_is_for_the_model():
    """The component of what the channel weights of Score-CAM add up is found in single precision."""
    model = networks.build(head="deep", signed=False).float()
    x = networks.images(2, 3, SIZE).float()
    method = wrapped(ScoreCAM(), eigen_smooth=True)
    plain = explain(model, x, method, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(model, x, method, 1)
    assert found.signed.dtype == torch.float32
    assert len(found.signed.unique()) > 0.9 * len(plain.signed.unique())


def test_vision_transformer():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2).eval()
    method = wrapped(GradCAM(), aug_smooth=True, eigen_smooth=True)
    found = camlucida.explain(model, torch.randn(2, 3, 32, 32), method=method, target=3)
    assert found.maps.shape == (2, 32, 32)


def test_edge_cases():
    model = networks.Split(
        torch.nn.Identity(), torch.nn.Sequential(networks.Gap(), torch.nn.Linear(3, 3))
    )
    model = model.double().eval()
    for a in (torch.zeros(1, 3, 4, 5), torch.full((1, 3, 4, 5), 0.7), torch.rand(1, 3, 1, 1)):
        for one in (AugSmooth(GradCAM()), EigenSmooth(GradCAM())):
            found = explain(model, a.double(), one, 1)
            assert not found.maps.any()
    with pytest.raises(MethodError, match="factors"):
        AugSmooth(GradCAM(), factors=())
    with pytest.raises(MethodError, match="sign"):
        EigenSmooth(GradCAM(), sign="up")


def test_progress():
    seen = []
    model, x = networks.build(), networks.images(2, 3, SIZE)
    explain(
        model, x, AugSmooth(OptiCAM(iterations=3)), 1,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen[-1] == (2, 2)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


# -------------------------------------------------------------------------------------- both sides


def test_both_sides_of_grad_cam_are_its_map_before_rectifying():
    model, x = networks.build(signed=False), networks.images(2, 3, SIZE)
    margin = LogitMargin(1, rivals=[0])
    whole = camlucida.explain(model, x, target=margin, layers="features", both_sides=True)
    plain = camlucida.explain(model, x, target=margin, layers="features", steps="signed")
    torch.testing.assert_close(whole.maps, plain.maps)
    assert whole.label == "gradcam (both sides)"
    assert whole.target.classes.tolist() == [1, 1]


@pytest.mark.parametrize("rivals", [[0], [0, 2]])
def test_both_sides_are_on_one_scale(rivals):
    model, x = networks.build(signed=False), networks.images(2, 3, SIZE)
    margin = LogitMargin(1, rivals=rivals)
    options = {"method": "layercam", "layers": "features"}
    whole = camlucida.explain(model, x, target=margin, both_sides=True, **options)
    steps = camlucida.Steps(normalise="none")
    sides = [
        camlucida.explain(model, x, target=t, steps=steps, **options).maps
        for t in (margin, camlucida.targets.Negated(margin))
    ]
    torch.testing.assert_close(whole.maps, sides[0] - sides[1])
    assert whole.maps.min() < 0 < whole.maps.max()


def test_a_method_that_asks_for_no_target_has_no_sides():
    with pytest.raises(MethodError, match="eigencam does not depend"):
        camlucida.methods.build("eigencam:both_sides=true")


@pytest.mark.parametrize("method", ["saliency", "fullgrad"])
def test_a_method_that_is_blind_to_signs_is_said_to_be(method):
    found = camlucida.explain(
        networks.build(), networks.images(2, 3, SIZE), method=method, both_sides=True,
        target=LogitMargin(1, rivals=[0]),
    )  # fmt: skip
    assert not found.maps.any()
    assert all("its opposite" in " ".join(d.messages) for d in found.diagnostics)


def test_rivals_in_the_words_of_a_method_are_names_too():
    found = camlucida.explain(
        networks.build(), networks.images(2, 3, SIZE), method="diffgradcam:rivals=b/c,both_sides=true",
        target="a", class_names=list("abc"), layers="features",
    )  # fmt: skip
    a, b, c = found.logits[0].tolist()
    assert found.explained[0].startswith(f"a {a:.3g} against b {b:.3g}, c {c:.3g}, LogitMargin")
    assert found.sides == ("for b, c", "for a")


@pytest.mark.parametrize(
    ("method", "options"),
    [("rise", {"masks": 60}), ("icam", {"n_perturb": 2}), ("opticam", {"iterations": 3})],
)
def test_two_sides_of_maps_without_a_scale_of_the_target_can_be_compared(method, options):
    model, x = networks.small(classes=4), torch.randn(3, 3, 24, 24)
    margin = camlucida.LogitMargin(1, rivals=[2])
    sides = (method, {**options, "both_sides": True})
    maps = camlucida.explain(model, x, method=sides, target=margin).maps.flatten(1)
    assert ((maps.amin(1) < 0) & (maps.amax(1) > 0)).all()
    assert maps.abs().max() <= 1 or method == "rise"
