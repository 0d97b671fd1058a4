"""Opti-CAM against its slow reference, and the properties of the spec."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import (
    Cell,
    CosineSimilarity,
    Logit,
    LogitMargin,
    MethodError,
    Preprocess,
    Probability,
)
from camlucida.methods.opticam import OptiCAM
from reference import networks, state
from reference import opticam as slow

SIZE = (7, 9)


def make(signed=True, seed=0, **options):
    """The layer is smaller than the image, so that enlarging matters."""
    model = networks.build(head="deep", size=(4, 5), signed=signed, smooth=True, seed=seed)
    model.features = nn.Sequential(model.features, nn.AdaptiveAvgPool2d((4, 5)))
    return model, networks.images(3, 3, SIZE), options


@pytest.mark.parametrize("loss", ["plain", "norm"])
@pytest.mark.parametrize("how", ["minmax", "max", "sigmoid"])
def test_equals_the_slow_reference(loss, how):
    model, x, _ = make()
    method = OptiCAM(
        iterations=20, loss=loss, normalise=how, mask_space="input", early_stop=loss == "plain"
    )
    found = camlucida.explain(model, x, method=method, layers="features", target=[0, 1, 2])
    for i in range(3):

        def score(mask, plain, i=i):
            with torch.set_grad_enabled(not plain):
                return model((x[i] * mask)[None])[0, i]

        wanted, losses = slow.optimise(
            score,
            model.features(x)[i].detach(),
            SIZE,
            20,
            0.1,
            loss,
            how,
            early=loss == "plain",
        )
        np.testing.assert_allclose(found.maps[i].numpy(), wanted.numpy(), atol=1e-9)
        curve = found.details["loss"][i]
        np.testing.assert_allclose(curve[: len(losses)].numpy(), losses, atol=1e-9)
        assert curve[len(losses) :].isnan().all()


TARGETS = [
    Logit(), Logit([2, 0, 1]), Probability(1), LogitMargin(), LogitMargin(0, "lse"),
    CosineSimilarity(torch.tensor([1.0, -2.0, 0.5])), Cell("features", 1, 2), lambda z: z[:, 0] ** 2,
]  # fmt: skip


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_batch_equals_single_images(target):
    model, x, _ = make()
    if isinstance(target, Cell):
        target = Cell("head.0", 1, 2)
    method = OptiCAM(iterations=12)
    batch = camlucida.explain(model, x, method=method, layers="features", target=target)
    for i in range(3):
        own = target.take(torch.tensor([i])) if isinstance(target, camlucida.Target) else target
        if isinstance(target, Logit) and target.classes is not None:
            own = Logit(target.classes[i])
        one = camlucida.explain(model, x[i], method=method, layers="features", target=own)
        torch.testing.assert_close(batch.maps[i], one.maps[0], rtol=0, atol=1e-9)
        assert batch.details["steps"][i] == one.details["steps"][0]


def test_the_objective_increases():
    model, x, _ = make(signed=False)
    found = camlucida.explain(model, x, method="opticam", layers="features")
    objective = found.details["objective"]
    assert (objective[:, 1] > objective[:, 0]).all()
    weights = found.details["weights"]
    assert weights.shape == (3, 4)
    torch.testing.assert_close(weights.sum(1), torch.ones(3, dtype=torch.float64))


def test_each_image_stops_by_its_own_loss():
    """With a huge rate some images get worse at once, others do not."""
    model, x, _ = make()
    x = networks.images(8, 3, SIZE, seed=3)
    method = OptiCAM(iterations=20, learning_rate=5.0)
    found = camlucida.explain(model, x, method=method, layers="features", target=1)
    steps = found.details["steps"]
    assert len(set(steps.tolist())) > 1
    for i in range(8):
        curve = found.details["loss"][i]
        taken = int((~curve.isnan()).sum())
        checks = curve[:taken:2]
        if taken < 20:
            assert checks[-1] > checks[-2]
            assert steps[i] == taken - 1
        # No check before the last one rose.
        assert (checks[1:-1] <= checks[:-2]).all()


def test_best_is_never_worse_than_last():
    model, x, _ = make()
    last, best = (
        camlucida.explain(
            model, x, method=OptiCAM(iterations=15, learning_rate=2.0, keep=keep), layers="features"
        ).details["objective"][:, 1]
        for keep in ("last", "best")
    )
    assert (best >= last - 1e-12).all()
    assert (best > last + 1e-6).any()


def test_pixels_are_masked_where_the_preprocessing_is_known():
    model, _, _ = make(signed=False)
    preprocess = Preprocess.imagenet(size=9, resize=9)
    x = preprocess.normalise(torch.rand(2, 3, *SIZE, dtype=torch.float64))
    options = {"layers": "features", "preprocess": preprocess, "target": 1}
    auto = camlucida.explain(model, x, method=OptiCAM(iterations=8), **options)
    pixel = camlucida.explain(model, x, method=OptiCAM(iterations=8, mask_space="pixel"), **options)
    space = camlucida.explain(model, x, method=OptiCAM(iterations=8, mask_space="input"), **options)
    assert torch.equal(auto.maps, pixel.maps)
    assert not torch.allclose(auto.maps, space.maps, atol=1e-4)

    def score(mask, plain):
        with torch.set_grad_enabled(not plain):
            pixels = preprocess.denormalise(x[0]) * mask
            return model(preprocess.normalise(pixels)[None])[0, 1]

    wanted, _ = slow.optimise(score, model.features(x)[0].detach(), SIZE, 8, 0.1)
    np.testing.assert_allclose(pixel.maps[0].numpy(), wanted.numpy(), atol=1e-9)
    with pytest.raises(MethodError, match="preprocess"):
        camlucida.explain(model, x, method=OptiCAM(mask_space="pixel"), layers="features")
    unknown = camlucida.explain(model, x, method=OptiCAM(iterations=2), layers="features")
    assert any("preprocessing is not known" in m for m in unknown.diagnostics[0].messages)


def test_average_drop_is_that_of_the_returned_mask():
    model, x, _ = make(signed=False)
    found = camlucida.explain(
        model, x, method=OptiCAM(iterations=10, mask_space="input"), layers="features", target=2
    )
    p = model(x).softmax(1)[:, 2]
    o = model(x * found.maps[:, None]).softmax(1)[:, 2]
    wanted = 100 * (p - o).clamp_min(0) / p
    torch.testing.assert_close(found.details["average_drop"], wanted.detach())
    assert found.diagnostics[0].messages[0].startswith("Average Drop")
    embedding = camlucida.explain(
        model, x, method=OptiCAM(iterations=2), layers="features",
        target=CosineSimilarity(torch.ones(3)),
    )  # fmt: skip
    assert "average_drop" not in embedding.details


def test_several_layers_are_optimised_on_their_own():
    model, x, _ = make()
    names = ["features.0", "features"]
    method = OptiCAM(iterations=6)
    both = camlucida.explain(model, x, method=method, layers=names)
    for name in names:
        one = camlucida.explain(model, x, method=method, layers=name)
        torch.testing.assert_close(both.layer_maps[name], one.maps, rtol=0, atol=1e-12)
        torch.testing.assert_close(both.details[f"loss[{name}]"], one.details["loss"])
    torch.testing.assert_close(both.maps, sum(both.layer_maps.values()) / 2)


@pytest.mark.parametrize("how", ["minmax", "max"])
def test_zero_activation_gives_zeros(how):
    model, x, _ = make()
    model.features = nn.Sequential(
        nn.Conv2d(3, 4, 1).double().requires_grad_(False), nn.ReLU(), nn.AdaptiveAvgPool2d((4, 5))
    )
    model.features[0].weight.zero_()
    model.features[0].bias.fill_(-1)
    found = camlucida.explain(
        model, x, method=OptiCAM(iterations=4, normalise=how), layers="features"
    )
    assert not found.maps.any()
    assert any("no gradient" in m for m in found.diagnostics[0].messages)


def test_constant_map_and_dead_head_are_finite():
    model, x, _ = make()
    nn.init.zeros_(model.head[-1].weight)
    found = camlucida.explain(model, x, method=OptiCAM(iterations=4), layers="features", target=1)
    assert found.maps.isfinite().all()
    assert any("no gradient" in m for m in found.diagnostics[0].messages)
    # The map of equal weights.
    mixed = model.features(x).clamp_min(0).mean(1, keepdim=True)
    wanted = nn.functional.interpolate(mixed, SIZE, mode="bilinear")[:, 0].detach()
    torch.testing.assert_close(found.maps, camlucida.engine.maps.normalise(wanted))


def test_autocast_is_for_the_model():
    """The mask, which is the map, is made in single precision."""
    model, x, _ = make()
    model, x = model.float(), x.float()
    method = OptiCAM(iterations=3, mask_space="input")
    plain = camlucida.explain(model, x, method=method, layers="features", target=1)
    with torch.autocast("cpu", torch.bfloat16):
        found = camlucida.explain(model, x, method=method, layers="features", target=1)
    assert found.maps.dtype == torch.float32
    assert len(found.maps.unique()) > 0.9 * len(plain.maps.unique())
    torch.testing.assert_close(found.maps, plain.maps, rtol=0, atol=0.05)


def test_nan_in_one_image_leaves_the_others_alone():
    model, x, _ = make()
    x[0, 0, 0, 0] = torch.nan
    found = camlucida.explain(model, x, method=OptiCAM(iterations=5), layers="features", target=1)
    alone = camlucida.explain(
        model, x[1], method=OptiCAM(iterations=5), layers="features", target=1
    )
    torch.testing.assert_close(found.maps[1], alone.maps[0])
    assert not found.diagnostics[0].finite


def test_the_model_is_given_back_as_it_was_also_under_no_grad():
    model, x, _ = make()
    model.train()
    before = state.snapshot(model)
    inside = {}
    with torch.no_grad():
        inside["no_grad"] = camlucida.explain(
            model, x, method=OptiCAM(iterations=5), layers="features"
        )
    with torch.inference_mode():
        inside["inference"] = camlucida.explain(
            model, x + 0, method=OptiCAM(iterations=5), layers="features"
        )
    plain = camlucida.explain(model, x, method=OptiCAM(iterations=5), layers="features")
    assert not state.differences(before, state.snapshot(model))
    for found in inside.values():
        assert torch.equal(found.maps, plain.maps)


def test_progress_and_vision_transformer():
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2).eval()
    seen = []
    found = camlucida.explain(
        model,
        torch.randn(2, 3, 32, 32),
        method=OptiCAM(iterations=4),
        target=3,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert found.maps.amax((1, 2)).tolist() == [1, 1]
    assert seen[-1] == (2, 2)
    assert [d for d, _ in seen] == sorted(d for d, _ in seen)


@pytest.mark.parametrize(
    "options",
    [{"iterations": 0}, {"learning_rate": 0}, {"loss": "L"}, {"normalise": "none"},
     {"mask_space": "red"}, {"keep": "first"}],
)  # fmt: skip
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        OptiCAM(**options)
