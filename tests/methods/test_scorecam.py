"""Score-CAM, SS-CAM and IS-CAM against their definitions, and what makes them fast against what is slow."""

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
from camlucida.methods import scoring
from camlucida.methods.scorecam import ISCAM, SSCAM, ScoreCAM
from camlucida.targets import Custom
from reference import networks
from reference import perturbation as slow

SIZE = (9, 11)
TARGETS = [
    Logit(1), Probability(), LogitMargin(aggregator="lse"), LogitMargin(),
    CosineSimilarity(torch.tensor([1.0, -2.0, 0.5])), Custom(lambda z: z.square().sum(1)),
]  # fmt: skip


@pytest.fixture
def net():
    """Feature maps of a quarter of the image's size; signed."""
    features = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Tanh(), nn.Conv2d(5, 4, 3, stride=2)
    )
    head = nn.Sequential(nn.Tanh(), networks.Gap(), nn.Linear(4, 3))
    return networks.randomise(networks.Split(features, head).double().eval(), 2)


def images(n=3, seed=1):
    return networks.images(n, 3, SIZE, seed)


def scorer(model, target, x, i):
    own = target.pin(model(x)).take(torch.tensor([i]))
    return lambda image: own(model(torch.as_tensor(image)[None])).item()


def maps(model, x, i):
    return model.features(x)[i].detach().numpy()


def explain(model, x, method, target=None, **options):
    return camlucida.explain(model, x, method=method, target=target, layers="features", **options)


# ------------------------------------------------------------------------------------- the definition


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
def test_equals_the_slow_reference(net, target):
    x = images()
    found = explain(net, x, ScoreCAM(chunk=5), target)
    for i in range(3):
        weights, wanted = slow.scorecam(scorer(net, target, x, i), x[i].numpy(), maps(net, x, i))
        np.testing.assert_allclose(found.details["weights"][i].numpy(), weights, rtol=1e-6)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)


def test_probability_as_weight(net):
    x = images()
    for target in (Logit(1), Probability(1)):
        found = explain(net, x, ScoreCAM(weighting="prob"), target)
        for i in range(3):
            score = scorer(net, Probability(1), x, i)
            weights, wanted = slow.scorecam_prob(score, x[i].numpy(), maps(net, x, i))
            np.testing.assert_allclose(found.details["weights"][i].numpy(), weights, rtol=1e-6)
            np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)


def test_probability_of_other_targets_is_their_logistic_function(net):
    x = images(1)
    margin = explain(net, x, ScoreCAM(weighting="prob"), LogitMargin(1, "lse"))
    probability = explain(net, x, ScoreCAM(weighting="prob"), Logit(1))
    torch.testing.assert_close(margin.signed, probability.signed)


def test_any_baseline_gives_the_same_map(net):
    x = images(1)
    found = explain(net, x, ScoreCAM(), 1)
    for baseline in (-3.0, 0.4, 11.0):
        score = scorer(net, Logit(1), x, 0)
        _, wanted = slow.scorecam(score, x[0].numpy(), maps(net, x, 0), baseline)
        np.testing.assert_allclose(found.signed[0].numpy(), wanted, atol=1e-12)
    shifted = explain(net, x, ScoreCAM(), Custom(lambda z: z[:, 1] + 5))
    torch.testing.assert_close(shifted.signed, found.signed)


@pytest.mark.parametrize("path", ["cumulative", "linear"])
def test_integration_equals_the_slow_reference(net, path):
    x = images(2)
    found = explain(net, x, ISCAM(samples=3, path=path, chunk=3), 1)
    for i in range(2):
        steps = slow.integration(3, path)
        score = scorer(net, Logit(1), x, i)
        weights, wanted = slow.scorecam(score, x[i].numpy(), maps(net, x, i), steps=steps)
        np.testing.assert_allclose(found.details["weights"][i].numpy(), weights, rtol=1e-6)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)


def test_one_step_of_integration_is_score_cam(net):
    x = images(2)
    torch.testing.assert_close(
        explain(net, x, ISCAM(samples=1), 1).signed, explain(net, x, ScoreCAM(), 1).signed
    )


def test_no_noise_is_score_cam(net):
    x = images(2)
    plain = explain(net, x, ScoreCAM(), 1)
    for place in ("map", "input"):
        still = explain(net, x, SSCAM(samples=3, std=0, place=place), 1)
        torch.testing.assert_close(still.signed, plain.signed)


@pytest.mark.parametrize("place", ["map", "input"])
def test_noise_equals_the_slow_reference(net, place, monkeypatch):
    """With noise that can be known: the same picture for each channel and repeat."""
    torch.manual_seed(3)
    pictures = torch.randn(4, 2, 3, *SIZE)
    calls = []

    def known(_self, _rows, channels, repeat, masks):
        calls.append(repeat)
        return lambda number: pictures[channels, repeat, :number].to(masks)

    monkeypatch.setattr(scoring.Channels, "_noise", known)
    x = images(2)
    found = explain(net, x, SSCAM(samples=2, std=0.3, place=place), 1)
    noise = pictures.numpy().astype(float)
    steps = {
        "map": [lambda a, H, k, s=s: a * (H + 0.3 * noise[k, s, 0]) for s in range(2)],
        "input": [lambda a, H, k, s=s: a * H + 0.3 * noise[k, s] for s in range(2)],
    }[place]
    for i in range(2):
        score = scorer(net, Logit(1), x, i)
        _, wanted = slow.scorecam(score, x[i].numpy(), maps(net, x, i), steps=steps)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)
    assert set(calls) == {0, 1}


def test_noise_is_that_of_its_image_channel_and_repeat(net):
    """Neither chunk nor batch change it; the seed does; it is standard normal."""
    x = images(3)
    method = SSCAM(samples=2, chunk=64)
    whole = explain(net, x, method, 1)
    torch.testing.assert_close(explain(net, x, SSCAM(samples=2, chunk=5), 1).signed, whole.signed)
    for i in range(3):
        torch.testing.assert_close(explain(net, x[i], method, 1).signed[0], whole.signed[i])
    assert not torch.allclose(explain(net, x, method, 1, seed=1).signed, whole.signed)
    seen = []

    class Spy(SSCAM):
        def masked(self, images, masks, repeat, noise):
            seen.append(noise(3))
            return super().masked(images, masks, repeat, noise)

    explain(net, x, Spy(samples=6), 1)
    drawn = torch.cat(seen)
    assert drawn.shape[0] == 6 * 3 * 4
    assert drawn.mean().abs() < 0.02
    assert abs(drawn.std() - 1) < 0.02
    flat = drawn.flatten(1)
    assert (flat @ flat.T / flat.shape[1] - torch.eye(len(flat))).abs().max() < 0.35  # 297 numbers


# ---------------------------------------------------------------------------------------- edge cases


def test_constant_channels_share_one_pass_of_nothing(net):
    with torch.no_grad():
        last = net.features[2]
        last.weight[:2] = 0
        last.bias[0], last.bias[1] = 0.0, 0.7
    x = images(3)
    shown = []
    net.register_forward_pre_hook(lambda _, args: shown.append(args[0].detach().clone()))
    found = explain(net, x, ScoreCAM(chunk=2), 1)
    masked = shown[-4:]
    assert masked[0].shape[0] == 1
    assert masked[0].abs().max() == 0
    assert [len(m) for m in masked[1:]] == [2, 2, 2]
    assert found.details["passes"].tolist() == [2, 2, 2]
    for i in range(3):
        weights, wanted = slow.scorecam(scorer(net, Logit(1), x, i), x[i].numpy(), maps(net, x, i))
        np.testing.assert_allclose(found.details["weights"][i].numpy(), weights, rtol=1e-6)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)
        assert weights[0] == weights[1]


def test_zero_activation_weighs_all_channels_alike_and_gives_a_zero_map(net):
    nn.init.zeros_(net.features[2].weight)
    nn.init.zeros_(net.features[2].bias)
    for method in (ScoreCAM(), SSCAM(samples=2), ISCAM(samples=2), ScoreCAM(weighting="prob")):
        found = explain(net, images(2), method, 1)
        assert found.maps.abs().max() == 0
        assert found.details["weights"].std() == 0
    assert explain(net, images(2), ScoreCAM()).details["weights"][0].tolist() == [0.25] * 4


def test_equal_channels_get_equal_weights(net):
    with torch.no_grad():
        net.features[2].weight[1], net.features[2].bias[1] = (
            net.features[2].weight[0], net.features[2].bias[0]
        )  # fmt: skip
    weights = explain(net, images(1), ScoreCAM(chunk=1), 1).details["weights"][0]
    assert weights[0] == weights[1]


def test_the_sign_of_the_activation_matters_only_in_the_sum(net):
    """A channel and its shift have the same mask."""
    x = images(1)
    before = explain(net, x, ScoreCAM(), 1).details["weights"]

    class Shift(nn.Module):
        def forward(self, a):
            return a - 5

    moved = networks.Split(nn.Sequential(net.features, Shift()), net.head)
    moved.head = nn.Sequential(Plus(), net.head)
    after = explain(moved, x, ScoreCAM(), 1)
    torch.testing.assert_close(after.details["weights"], before)
    assert after.signed.max() < 0
    assert after.maps.max() == 0


class Plus(nn.Module):
    def forward(self, a):
        return a + 5


def test_batch_equals_single_images(net):
    x = images(4)
    for method in (ScoreCAM(chunk=7), ScoreCAM(weighting="prob"), ISCAM(samples=2)):
        batch = explain(net, x, method)
        for i in range(4):
            torch.testing.assert_close(explain(net, x[i], method).signed[0], batch.signed[i])


def test_several_layers_and_a_target_that_stops_at_a_layer(net):
    x = images(2)
    layers = ["features.1", "features.2"]
    both = camlucida.explain(net, x, method=ScoreCAM(), target=1, layers=layers)
    for name in layers:
        one = camlucida.explain(net, x, method=ScoreCAM(), target=1, layers=name)
        torch.testing.assert_close(both.layer_maps[name], one.signed)
        torch.testing.assert_close(both.details[f"weights[{name}]"], one.details["weights"])
    target = Cell("features.2", 1, 1)
    found = camlucida.explain(net, x, method=ScoreCAM(), target=target, layers="features.1")
    A = net.features[:2](x)[0].detach().numpy()
    _, wanted = slow.scorecam(
        lambda image: net.features(torch.as_tensor(image)[None])[0, :, 1, 1].abs().sum().item(),
        x[0].numpy(),
        A,
    )
    np.testing.assert_allclose(found.signed[0].numpy(), wanted, atol=1e-12)


def test_pixels_are_masked_before_mean_and_std(net):
    preprocess = Preprocess.imagenet(size=12, resize=12)
    pixels = torch.rand(1, 3, 12, 12).double()
    x = preprocess.normalise(pixels)
    found = explain(net, x, ScoreCAM(mask_space="pixel"), 1, preprocess=preprocess)

    def score(image):
        image = torch.as_tensor(image)[None]
        return net(preprocess.normalise(image))[0, 1].item()

    _, wanted = slow.scorecam(score, pixels[0].numpy(), maps(net, x, 0))
    np.testing.assert_allclose(found.signed[0].numpy(), wanted, atol=1e-6)
    with pytest.raises(MethodError, match="preprocess"):
        explain(net, x, ScoreCAM(mask_space="pixel"), 1)
    assert any(
        "not black" in m
        for m in explain(net, x, ScoreCAM(mask_space="auto"), 1).diagnostics[0].messages
    )


def test_vision_transformer():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=1).eval()
    found = camlucida.explain(model, torch.randn(2, 3, 32, 32), method=ScoreCAM(), target=3)
    assert found.signed.shape == (2, 4, 4)
    torch.testing.assert_close(found.details["weights"].sum(1), torch.ones(2))


# -------------------------------------------------------------------------------------- approximations


def test_few_channels_are_an_approximation_that_tells_its_error(net):
    x = images(2)
    exact = explain(net, x, ScoreCAM(), 1)
    found = explain(net, x, ScoreCAM(top_k=2, check=True), 1)
    energy = net.features(x).square().sum((2, 3))
    for i in range(2):
        kept = energy[i].argsort(descending=True)[:2]
        weights = found.details["weights"][i]
        assert sorted(weights.nonzero().flatten().tolist()) == sorted(kept.tolist())
        own = exact.details["weights"][i][kept]
        torch.testing.assert_close(weights[kept], own / own.sum())
    error = (found.maps - exact.maps).abs().amax((1, 2))
    torch.testing.assert_close(found.details["error"], error)
    messages = found.diagnostics[0].messages
    assert any("the 2 of 4 channels" in m for m in messages)
    assert any(f"off by {error[0].item():.2g} at most" in m for m in messages)
    all_of_them = explain(net, x, ScoreCAM(top_k=9), 1)
    torch.testing.assert_close(all_of_them.maps, exact.maps)
    assert not any("approximation" in m for m in all_of_them.diagnostics[0].messages)


def test_the_measured_error_is_that_of_the_approximation_alone(net):
    """The exact run sees the same noise; nothing is left of the error where nothing is approximated."""

    class Exact(SSCAM):
        approximate = True

    x, seen = images(2), []
    found = explain(
        net, x, Exact(samples=2, check=True), 1, progress=lambda done, _: seen.append(done)
    )
    assert found.details["error"].tolist() == [0, 0]
    assert seen == sorted(seen)
    few = explain(net, x, SSCAM(samples=2, top_k=2, check=True), 1)
    whole = explain(net, x, SSCAM(samples=2), 1)
    torch.testing.assert_close(few.details["error"], (few.maps - whole.maps).abs().amax((1, 2)))


def test_bfloat16_is_an_approximation_that_tells_its_error(net):
    model, x = net.float(), images(2).float()
    exact = explain(model, x, ScoreCAM(), 1)
    found = explain(model, x, ScoreCAM(precision="bf16", check=True), 1)
    error = found.details["error"]
    assert (error > 0).all()
    assert (error < 0.1).all()
    torch.testing.assert_close(error, (found.maps - exact.maps).abs().amax((1, 2)))
    assert any("bfloat16" in m for m in found.diagnostics[0].messages)


# ---------------------------------------------------------------------------- progress, interrupts, options


def test_progress_counts_passes(net):
    with torch.no_grad():
        net.features[2].weight[0] = 0
    seen = []
    explain(
        net, images(2), ISCAM(samples=3, chunk=4), 1,
        progress=lambda done, total: seen.append(done / total),
    )  # fmt: skip
    # One pass of nothing, then three times six masks, four at a time.
    counts = [round(share * 19) for share in seen]
    assert counts == [1, 5, 7, 11, 13, 17, 19, 19]


def test_an_interrupt_gives_the_model_back(net):
    net.train()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(net, images(2), ScoreCAM(chunk=1), 1, progress=interrupt)
    assert all(m.training for m in net.modules())
    assert all(p.requires_grad for p in net.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (ScoreCAM, {"weighting": "logit"}),
        (ScoreCAM, {"mask_space": "latent"}),
        (ScoreCAM, {"precision": "fp8"}),
        (ScoreCAM, {"top_k": 0}),
        (ScoreCAM, {"chunk": 0}),
        (ScoreCAM, {"memory": -1}),
        (SSCAM, {"samples": 0}),
        (SSCAM, {"std": -1}),
        (SSCAM, {"place": "weights"}),
        (ISCAM, {"samples": 0}),
        (ISCAM, {"path": "round"}),
    ],
    ids=str,
)
def test_bad_options_are_refused(method, options):
    with pytest.raises(MethodError, match=next(iter(options))):
        method(**options)


# ------------------------------------------------------------------------------------------- the peers


@pytest.fixture
def single():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2), nn.ReLU(), nn.Conv2d(6, 5, 3), networks.Gap(), nn.Linear(5, 4)
    ).eval()  # fmt: skip


def test_close_to_torch_cam(single):
    """They normalise before they enlarge, which leaves small differences."""
    peers = pytest.importorskip("torchcam.methods")
    x = torch.randn(2, 3, 24, 24)
    for ours, theirs in (
        (ScoreCAM(), peers.ScoreCAM(single, "2")),
        (ISCAM(samples=3), peers.ISCAM(single, "2", num_samples=3)),
    ):
        with theirs:
            wanted = theirs([1, 1], single(x))[0]
        found = camlucida.explain(single, x, method=ours, target=1, layers="2").raw
        both = torch.stack([found.flatten(), wanted.flatten()])
        assert torch.corrcoef(both)[0, 1] > 0.99


def test_equals_pytorch_grad_cam_with_aligned_corners(single):
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    x = torch.randn(2, 3, 24, 24)
    with package.ScoreCAM(single, [single[2]]) as cam:
        wanted = cam(x, [targets.ClassifierOutputTarget(1)] * 2)

    apart = []
    for align_corners in (True, False):
        method = ScoreCAM(align_corners=align_corners)
        found = camlucida.explain(
            single, x, method=method, target=1, layers="2", steps="pytorch-grad-cam"
        )
        apart.append(np.abs(found.maps.numpy() - wanted).max())
    assert apart[0] < 1e-5
    assert apart[1] > 1e-3
