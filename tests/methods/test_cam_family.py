"""Every method of the CAM family against its slow reference, by itself and on small networks."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from camlucida import (
    Cell,
    CosineSimilarity,
    DotProduct,
    ExpLogit,
    Logit,
    LogitMargin,
    LogProbability,
    MethodError,
    NegativeDistance,
    Probability,
    Segmentation,
)
from camlucida.methods import (
    CAM,
    EigenCAM,
    GradCAM,
    GradCAMEW,
    GradCAMpp,
    HiResCAM,
    LayerCAM,
    Task,
    XGradCAM,
)
from reference import cams as slow
from reference import networks

TOLERANCE = 1e-11  # double precision; relative to the largest value

METHODS = [
    pytest.param(GradCAM(), slow.gradcam, id="gradcam"),
    pytest.param(XGradCAM(), slow.xgradcam, id="xgradcam-sum"),
    pytest.param(XGradCAM("l1"), lambda a, g: slow.xgradcam(a, g, "l1"), id="xgradcam-l1"),
    pytest.param(HiResCAM(), slow.hirescam, id="hirescam"),
    pytest.param(GradCAMEW(), slow.gradcam_ew, id="gradcam-ew"),
    pytest.param(LayerCAM(), slow.layercam, id="layercam"),
    pytest.param(
        GradCAMpp(), lambda a, g: slow.gradcampp(a, g, slow.alpha_exp(a, g)), id="gradcam++"
    ),
    pytest.param(
        GradCAMpp(eps=1e-6),
        lambda a, g: slow.gradcampp(a, g, slow.alpha_exp(a, g, 1e-6)),
        id="gradcam++eps",
    ),
    pytest.param(
        GradCAMpp("tf_original"),
        lambda a, g: slow.gradcampp(a, g, slow.alpha_tf_original(a, g)),
        id="gradcam++tf",
    ),
]

shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 5), st.integers(1, 5))
seeds = st.integers(0, 10_000)


def draw(shape, seed, *, signed, scale=1.0):
    """Values with exact zeros, a channel of zeros and a constant one, on a grid that sums exactly."""
    generator = torch.Generator().manual_seed(seed)
    a = (8 * torch.randn(shape, generator=generator, dtype=torch.float64)).round() / 8
    a = torch.where(torch.rand(shape, generator=generator) < 0.25, 0.0, a)
    if seed % 3 == 0:
        a[:, 0] = 0
    if seed % 4 == 0:
        a[:, -1] = 0.625
    return scale * (a if signed else a.abs())


def close(fast, reference, tolerance=TOLERANCE):
    reference = np.stack(reference)
    assert fast.shape == reference.shape
    assert fast.isfinite().all()
    np.testing.assert_allclose(
        fast.numpy(), reference, rtol=0, atol=tolerance * max(1.0, np.abs(reference).max())
    )


def run(method, model, x, target, layers="features"):
    return method.run(Task.of(model, x, target, layers))


@pytest.mark.parametrize(("method", "reference"), METHODS)
@given(shapes, seeds, st.booleans(), st.sampled_from([1e-4, 1.0, 30.0]))
def test_combine(method, reference, shape, seed, signed, scale):
    activation = draw(shape, seed, signed=signed)
    gradient = draw(shape, seed + 1, signed=True, scale=scale)
    if signed and isinstance(method, GradCAMpp):
        # Next to a pole rounding decides; the pole itself has a test of its own.
        below = 2 + gradient * activation.sum((2, 3), keepdim=True)
        assume(float(below[gradient != 0].abs().min() if gradient.any() else 1) > 1e-6)
    expected = [reference(a, g) for a, g in zip(activation.numpy(), gradient.numpy(), strict=True)]
    close(method.combine(activation, gradient), expected)


TARGETS = [
    Logit(),
    Logit(0),
    ExpLogit(1),
    Probability(),
    LogProbability(1),
    *(LogitMargin(aggregator=a) for a in ("mean", "max", "lse", "lae")),
    CosineSimilarity(torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)),
    CosineSimilarity(torch.tensor([0.3, -1.0, 2.0]), detach_norms=True),
    DotProduct(torch.tensor([0.3, -1.0, 2.0])),
    NegativeDistance(torch.tensor([0.3, -1.0, 2.0]), squared=False),
]


@pytest.mark.parametrize("head", ["gap", "dense", "deep"])
@pytest.mark.parametrize(("method", "reference"), METHODS)
@given(
    st.integers(1, 3),
    st.tuples(st.integers(2, 5), st.integers(2, 5)),
    seeds,
    st.booleans(),
    st.sampled_from(TARGETS),
)
def test_on_networks(method, reference, head, n, size, seed, signed, target):
    """Activation and gradient are taken without hooks; everything else as a user gets it."""
    model = networks.build(size=size, head=head, signed=signed, seed=seed)
    x = networks.images(n, 3, size, seed + 1)
    target = target.pin(model(x))
    activation, gradient, values = networks.parts(model, x, target)
    if isinstance(method, GradCAMpp):
        below = 2 + gradient * activation.sum((2, 3), keepdim=True)
        assume(float(below[gradient != 0].abs().min() if gradient.any() else 1) > 1e-3)
    raw = run(method, model, x, target)
    expected = [reference(a, g) for a, g in zip(activation.numpy(), gradient.numpy(), strict=True)]
    close(raw.fused, expected, 1e-9)
    torch.testing.assert_close(raw.values, values)
    assert raw.fused is raw.layers["features"]


@given(st.integers(1, 3), st.tuples(st.integers(1, 5), st.integers(1, 5)), seeds, st.booleans())
def test_cam(n, size, seed, signed):
    model = networks.build(size=size, signed=signed, seed=seed)
    x = networks.images(n, 3, size, seed)
    rows = model.head[1].weight.detach().numpy()
    activation = model.features(x).detach().numpy()
    predicted = model(x).argmax(1).tolist()
    close(
        run(CAM(), model, x, Logit()).fused,
        [slow.cam(a, rows[c]) for a, c in zip(activation, predicted, strict=True)],
    )
    # A margin weighs the rows as it weighs the logits.
    mean = [rows[0] - (rows[1] + rows[2]) / 2] * n
    close(
        run(CAM(), model, x, LogitMargin(0)).fused,
        [slow.cam(a, row) for a, row in zip(activation, mean, strict=True)],
    )


def test_cam_is_not_rectified_unless_asked():
    assert not CAM().steps.rectify
    assert CAM(relu=True).steps.rectify
    for method in (GradCAM(), GradCAMpp(), XGradCAM(), HiResCAM(), LayerCAM(), GradCAMEW()):
        assert method.steps.rectify


class ReluBetween(torch.nn.Module):
    """A DenseNet's end: the hooked map is signed, its ReLU is functional."""

    def __init__(self):
        super().__init__()
        self.features = torch.nn.Conv2d(3, 4, 3, padding=1)
        self.classifier = torch.nn.Linear(4, 3)

    def forward(self, x):
        a = torch.nn.functional.relu(self.features(x), inplace=True)
        return self.classifier(a.mean((2, 3)))


def test_cam_takes_the_layers_own_map_behind_a_functional_relu():
    model = networks.randomise(ReluBetween().double().eval(), 3)
    x = networks.images(2, 3, (4, 5))
    a = model.features(x).detach().numpy()
    row = model.classifier.weight.detach().numpy()[1]
    close(run(CAM(), model, x, Logit(1)).fused, [slow.cam(one, row) for one in a])


@pytest.mark.parametrize("head", ["dense", "deep"])
def test_cam_refuses_other_heads(head):
    model = networks.build(head=head)
    with pytest.raises(MethodError, match="global average pooling"):
        run(CAM(), model, networks.images(1, 3, (5, 6)), Logit())


def test_cam_refuses_a_norm_before_the_linear_layer():
    head = torch.nn.Sequential(networks.Gap(), torch.nn.LayerNorm(4), torch.nn.Linear(4, 3))
    model = networks.randomise(networks.Split(torch.nn.Conv2d(3, 4, 3), head).double().eval(), 0)
    with pytest.raises(MethodError, match="global average pooling"):
        run(CAM(), model, networks.images(1, 3, (5, 6)), Logit())


@pytest.mark.parametrize("center", [True, False])
@given(shapes, seeds, st.booleans())
def test_eigencam(center, shape, seed, signed):
    activation = draw(shape, seed, signed=signed)
    pairs = [slow.eigencam(a, center) for a in activation.numpy()]
    flat = [np.abs(a).max() == 0 or (center and np.ptp(a, axis=(1, 2)).max() == 0)
            for a in activation.numpy()]  # fmt: skip
    assume(all(gap > 0.05 or zero for (_, gap), zero in zip(pairs, flat, strict=True)))
    loose = EigenCAM(center=center, sign="none").project(activation)
    fixed = EigenCAM(center=center).project(activation)
    for n, (expected, _) in enumerate(pairs):
        if flat[n]:
            assert not fixed[n].any()
            continue
        top = np.abs(expected).max()
        off = min(np.abs(loose[n].numpy() - s * expected).max() for s in (1, -1))
        assert off < 1e-7 * top
        low, high = expected.min(), expected.max()
        undecided = abs(low + high) if center else abs(expected.sum())
        if undecided > 1e-6 * top:
            np.testing.assert_allclose(
                fixed[n].numpy(), slow.eigencam_sign(expected, center), atol=1e-7 * top
            )


def test_eigencam_knows_no_class():
    model = networks.build()
    x = networks.images(2, 3, (5, 6))
    assert torch.equal(
        run(EigenCAM(), model, x, Logit(0)).fused, run(EigenCAM(), model, x, Logit(2)).fused
    )


def test_cell_and_segmentation_targets_reach_the_reference():
    """A target inside the network, and one of a dense output."""
    features = torch.nn.Conv2d(3, 4, 3, padding=1)
    head = torch.nn.Conv2d(4, 3, 3, padding=1)
    model = networks.randomise(networks.Split(features, head).double().eval(), 5)
    x = networks.images(2, 3, (4, 5))
    mask = torch.rand(4, 5)
    for target in (Segmentation([0, 2], mask=mask), Segmentation(), Cell("head", [1, 3], -1)):
        pinned = target.pin(model(x).detach())
        activation, gradient, _ = networks.parts(model, x, pinned)
        raw = run(GradCAM(), model, x, target)
        close(
            raw.fused,
            [slow.gradcam(a, g) for a, g in zip(activation.numpy(), gradient.numpy(), strict=True)],
        )


def test_layers_of_different_sizes_are_fused_after_scaling():
    from reference import steps

    features = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.MaxPool2d(2)
    )
    head = torch.nn.Sequential(networks.Gap(), torch.nn.Linear(4, 3))
    model = networks.randomise(networks.Split(features, head).double().eval(), 2)
    x = networks.images(2, 3, (6, 8))
    raw = run(LayerCAM(), model, x, Logit(1), ["features.1", "features"])
    assert [tuple(m.shape) for m in raw.layers.values()] == [(2, 6, 8), (2, 3, 4)]
    expected = [
        np.mean(
            [steps.finish(raw.layers[name][n].numpy(), (6, 8)) if name == "features.1"
             else steps.resize(
                 steps.normalise(steps.rectify(raw.layers[name][n].numpy())), (6, 8)
             ) for name in raw.layers],
            axis=0,
        )
        for n in range(2)
    ]  # fmt: skip
    close(raw.fused, expected)


def test_a_raw_map_shows_itself_in_a_few_lines():
    raw = GradCAM().run(
        Task.of(networks.build(), networks.images(5, 3, (5, 6)), Logit(1), "features")
    )
    text = repr(raw)
    assert len(text.splitlines()) == 2
    assert "5 images at features" in text
    assert "and 2 more" in text
