"""AblationCAM against its definition, with and without the closed form, and its edge cases."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import (
    Cell,
    CosineSimilarity,
    ExpLogit,
    Grid,
    Logit,
    LogitMargin,
    LogProbability,
    MethodError,
    Probability,
)
from camlucida.engine.replay.replay import replay
from camlucida.methods import ablationcam
from camlucida.methods.ablationcam import AblationCAM
from camlucida.targets import Custom
from reference import networks
from reference import perturbation as slow

TARGETS = [
    Logit(1), Probability(), LogProbability(2), ExpLogit(0), LogitMargin(), LogitMargin(1, "max"),
    LogitMargin(aggregator="lse"), CosineSimilarity(torch.tensor([1.0, -2.0, 0.5])),
    Custom(lambda z: z.square().sum(1)),
]  # fmt: skip


def slow_weights(model, x, target, **options):
    """Each image by itself, from the pieces of the network."""
    pinned = target.pin(model(x))
    found = []
    for i in range(len(x)):
        own = pinned.take(torch.tensor([i]))
        activation = model.features(x[i : i + 1])[0].detach().numpy()
        found.append(
            slow.ablation_weights(
                lambda a, own=own: own(model.head(torch.from_numpy(a)[None])).item(),
                activation,
                **options,
            )
        )
    return np.array(found)


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("head", ["gap", "deep"])
@pytest.mark.parametrize("denominator", ["score", "abs"])
def test_equals_the_slow_reference(target, head, denominator):
    model = networks.build(head=head)
    x = networks.images(3, 3, (5, 6))
    method = AblationCAM(denominator=denominator)
    found = camlucida.explain(model, x, method=method, target=target, layers="features")
    wanted = slow_weights(model, x, target, denominator=denominator)
    np.testing.assert_allclose(found.details["weights"].numpy(), wanted, rtol=2e-6, atol=1e-7)
    for i in range(3):
        A = model.features(x)[i].detach().numpy()
        np.testing.assert_allclose(
            found.signed[i].numpy(), slow.weighted(wanted[i], A), rtol=1e-9, atol=1e-9
        )


@pytest.mark.parametrize("target", TARGETS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("value", [0.0, 0.7])
@pytest.mark.parametrize("relu", [False, True])
def test_closed_form_equals_passes(target, value, relu, monkeypatch):
    head = nn.Sequential(nn.ReLU(), networks.Gap(), nn.Linear(4, 3))
    model = networks.build() if not relu else networks.Split(networks.build().features, head)
    model = networks.randomise(model.double().eval(), 5)
    x = networks.images(3, 3, (5, 6))
    method = AblationCAM(ablation_value=value)
    closed = camlucida.explain(model, x, method=method, target=target, layers="features")
    assert closed.details["passes"].tolist() == [0, 0, 0]
    monkeypatch.setattr(ablationcam, "find_head", lambda *_: None)
    passes = camlucida.explain(model, x, method=method, target=target, layers="features")
    assert passes.details["passes"].tolist() == [4, 4, 4]
    torch.testing.assert_close(closed.signed, passes.signed, rtol=1e-10, atol=1e-12)


def test_negative_ablation_values_take_passes():
    """Behind non-negative activations a ReLU would not show in the head."""
    model = networks.build(signed=False)
    model = networks.Split(model.features, nn.Sequential(nn.ReLU(), model.head)).eval()
    x = networks.images(2, 3, (5, 6))
    method = AblationCAM(ablation_value=-0.5)
    found = camlucida.explain(model, x, method=method, target=0, layers="features")
    wanted = slow_weights(model, x, Logit(0), value=-0.5)
    np.testing.assert_allclose(found.details["weights"].numpy(), wanted, rtol=2e-6, atol=1e-7)


@pytest.mark.parametrize("relu", [False, True])
def test_weights_of_pooling_and_linear_without_bias_sum_to_one(relu):
    model = networks.build(bias=False, signed=not relu)
    x = networks.images(4, 3, (5, 6))
    found = camlucida.explain(model, x, method=AblationCAM(), layers="features")
    torch.testing.assert_close(found.details["weights"].sum(1), torch.ones(4))


def test_on_pooling_and_linear_it_is_the_logits_share():
    """Closed by hand: w_k = W_ck mean(A^k) / z_c."""
    model = networks.build(bias=False)
    x = networks.images(2, 3, (5, 6))
    found = camlucida.explain(model, x, method=AblationCAM(), target=2, layers="features")
    pooled = model.features(x).mean((2, 3))
    wanted = model.head[1].weight[2] * pooled / model(x)[:, 2:]
    torch.testing.assert_close(found.details["weights"], wanted.detach().float())


def test_batch_equals_single_images():
    model = networks.build(head="deep")
    x = networks.images(4, 3, (5, 6))
    batch = camlucida.explain(model, x, method=AblationCAM(chunk=3), layers="features")
    for i in range(4):
        single = camlucida.explain(model, x[i], method=AblationCAM(), layers="features")
        torch.testing.assert_close(batch.signed[i], single.signed[0], rtol=1e-10, atol=1e-12)


def test_dead_and_constant_channels_and_ties():
    model = networks.build(head="deep", k=4)
    with torch.no_grad():
        conv = model.features[0]
        conv.weight[0], conv.bias[0] = 0, 0  # dead
        conv.weight[1], conv.bias[1] = 0, 0.8  # constant
        conv.weight[2], conv.bias[2] = conv.weight[3], conv.bias[3]  # equal
        model.head[0].weight[:, 2] = model.head[0].weight[:, 3]
    x = networks.images(1, 3, (5, 6))
    found = camlucida.explain(model, x, method=AblationCAM(), target=0, layers="features")
    weights = found.details["weights"][0]
    assert weights[0] == 0
    assert weights[1] != 0
    assert weights[2] == weights[3]
    assert found.details["passes"].tolist() == [3]
    wanted = slow_weights(model, x, Logit(0))
    np.testing.assert_allclose(weights.numpy(), wanted[0], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("head", ["gap", "deep"])
def test_zero_activation_gives_a_zero_map_and_says_so(head):
    model = networks.build(head=head)
    nn.init.zeros_(model.features[0].weight)
    nn.init.zeros_(model.features[0].bias)
    x = networks.images(2, 3, (5, 6))
    found = camlucida.explain(model, x, method=AblationCAM(), layers="features")
    assert found.maps.abs().max() == 0
    assert any("no channel" in m for m in found.diagnostics[1].messages)


@pytest.mark.parametrize("head", ["gap", "deep"])
def test_a_tiny_target_leaves_differences_and_says_so(head):
    model = networks.build(head=head)
    x = networks.images(1, 3, (5, 6))
    z = model(x)[0, 1].item()
    target = Custom(lambda outputs: outputs[:, 1] - z)
    found = camlucida.explain(model, x, method=AblationCAM(), target=target, layers="features")
    wanted = slow_weights(model, x, target)
    np.testing.assert_allclose(found.details["weights"].numpy(), wanted, rtol=1e-6, atol=1e-7)
    assert any("too small to divide by" in m for m in found.diagnostics[0].messages)


def test_a_negative_target_says_so():
    model = networks.build(head="deep")
    x = networks.images(1, 3, (5, 6))
    lowest = int(model(x).argmin())
    assert model(x)[0, lowest] < 0
    score = camlucida.explain(model, x, method=AblationCAM(), target=lowest, layers="features")
    assert any("flips" in m for m in score.diagnostics[0].messages)
    absolute = AblationCAM(denominator="abs")
    turned = camlucida.explain(model, x, method=absolute, target=lowest, layers="features")
    torch.testing.assert_close(turned.signed, -score.signed)
    assert not any("flips" in m for m in turned.diagnostics[0].messages)


def test_positive_rescaling_of_the_target_changes_nothing():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    once = camlucida.explain(model, x, method=AblationCAM(), target=0, layers="features")
    target = Custom(lambda z: 7 * z[:, 0])
    more = camlucida.explain(model, x, method=AblationCAM(), target=target, layers="features")
    torch.testing.assert_close(once.signed, more.signed)


def test_several_layers_each_by_itself():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    layers = ["features.0", "head.1"]
    both = camlucida.explain(model, x, method=AblationCAM(), target=0, layers=layers)
    for name in layers:
        one = camlucida.explain(model, x, method=AblationCAM(), target=0, layers=name)
        torch.testing.assert_close(both.layer_maps[name], one.signed)
        torch.testing.assert_close(both.details[f"weights[{name}]"], one.details["weights"])


def test_target_that_stops_at_a_layer():
    model = networks.build(head="deep")
    x = networks.images(2, 3, (5, 6))
    target = Cell("head.0", row=torch.tensor([1, 2]), col=torch.tensor([3, 0]))
    found = camlucida.explain(model, x, method=AblationCAM(), target=target, layers="features")
    for i, (r, c) in enumerate([(1, 3), (2, 0)]):
        wanted = slow.ablation_weights(
            lambda a, r=r, c=c: (
                model.head[0](torch.from_numpy(a)[None])[0, :, r, c].abs().sum().item()
            ),
            model.features(x)[i].detach().numpy(),
        )
        np.testing.assert_allclose(
            found.details["weights"][i].numpy(), wanted, rtol=1e-5, atol=1e-7
        )


def test_progress_counts_passes():
    model = networks.build(head="deep")
    seen = []
    camlucida.explain(
        model,
        networks.images(2, 3, (5, 6)),
        method=AblationCAM(chunk=3),
        layers="features",
        progress=lambda done, total: seen.append(done / total),
    )
    assert seen == sorted(seen)
    assert len(seen) >= 3
    assert seen[-1] == 1


def test_the_model_is_given_back_also_after_an_interrupt():
    model = networks.build(head="deep").train()
    model.features.eval()

    def interrupt(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        camlucida.explain(
            model, networks.images(2, 3, (5, 6)), method=AblationCAM(chunk=1), progress=interrupt
        )
    assert model.training
    assert not model.features.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize(
    "options",
    [{"denominator": "none"}, {"chunk": 0}, {"chunk": 2.5}, {"memory": 0}],
    ids=lambda o: next(iter(o)),
)
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        AblationCAM(**options)


def test_half_precision():
    model = networks.build(head="gap").to(torch.bfloat16)
    x = networks.images(2, 3, (5, 6)).to(torch.bfloat16)
    found = camlucida.explain(model, x, method=AblationCAM(), layers="features")
    assert found.maps.dtype == torch.float32
    assert found.maps.isfinite().all()


def test_vision_transformer_keeps_its_class_token():
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, patch_size=8, depth=2).eval()
    nn.init.normal_(model.head.weight)
    x = torch.randn(2, 3, 32, 32)
    layer = "blocks.1.norm1"
    found = camlucida.explain(model, x, method=AblationCAM(), target=3, layers=layer)
    grid = Grid("tokens", 1, (4, 4))
    with replay(model, x, layer, 3, path="full") as again:
        activation = again.tapped.activations[layer]
        for k in (0, 100):
            altered = activation.clone()
            altered[:, k] = 0
            own = again.run(layer, altered, torch.arange(2))[:, 3]
            wanted = (model(x)[:, 3] - own) / model(x)[:, 3]
            weights = found.details["weights"][:, k]
            torch.testing.assert_close(weights, wanted, rtol=1e-3, atol=1e-5)
    explicit = camlucida.explain(model, x, method=AblationCAM(), target=3, layers=layer, grid=grid)
    torch.testing.assert_close(explicit.maps, found.maps)


def test_equals_pytorch_grad_cam_behind_a_relu():
    """Theirs is right there, for a single image (of a batch every further row is lowered by 1e7)."""
    package = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU(), networks.Gap(),
        nn.Linear(5, 4),
    ).eval()  # fmt: skip
    x = torch.randn(1, 3, 12, 12)
    found = camlucida.explain(model, x, method=AblationCAM(), target=2, layers="3")
    with package.AblationCAM(model, [model[3]]) as cam:
        cam.batch_size = 5
        wanted = cam(x, [targets.ClassifierOutputTarget(2)])
    np.testing.assert_allclose(found.maps.numpy(), wanted, atol=1e-4)
