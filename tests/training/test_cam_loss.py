"""Losses on maps: against loops, their gradients, and what they train."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from camlucida import explain
from camlucida.common.errors import CamlucidaError
from camlucida.targets import Logit, LogitMargin
from camlucida.training.cam_loss import (
    HEO,
    CAMOptions,
    EntropyLoss,
    LocationFooling,
    SalienceLoss,
    TrainableCAM,
    fit_salience,
    set_mode,
)
from camlucida.training.sham import border_mask, sham_mask
from reference import sham as slow


class Gap(nn.Module):
    """Convolutions, an in-place ReLU outside of ``features``, pooling, one linear layer."""

    def __init__(self, rectified=True):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 5, 3, padding=1), nn.BatchNorm2d(5)
        )
        self.rectified = rectified
        self.classifier = nn.Linear(5, 4)

    def forward(self, x):
        maps = self.features(x)
        if self.rectified:
            maps = F.relu(maps, inplace=True)
        return self.classifier(maps.mean((2, 3)))


class Dense(nn.Module):
    """A head that is not linear in the pooled map."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.Tanh())
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(6 * 49, 8), nn.Tanh(), nn.Linear(8, 4))

    def forward(self, x):
        return self.head(self.features(x))


@pytest.fixture
def gap():
    torch.manual_seed(0)
    return Gap().double().eval()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, 3, 14, 14, generator=generator, dtype=torch.float64)
    return images, torch.tensor([0, 1, 2, 3, 1])


EVAL = CAMOptions(cam_layer="features", mode="eval")


def plain(model, images):
    with torch.no_grad():
        return model.features(images).numpy(), model(images).numpy()


@pytest.mark.parametrize("cam_class", ["label", "pred"])
@pytest.mark.parametrize("weight", [0.5, 0.2])
def test_salience_loss_is_the_loops(gap, batch, cam_class, weight):
    images, labels = batch
    salience = torch.rand(5, 7, 7, generator=torch.Generator().manual_seed(2)).double()
    cam = TrainableCAM(
        gap, images, CAMOptions(cam_layer="features", mode="eval", cam_class=cam_class)
    )
    found, logged = SalienceLoss(cam, weight)(gap, (images, labels, salience))
    activation, logits = plain(gap, images)
    classes = labels.numpy() if cam_class == "label" else logits.argmax(1)
    expected = slow.cyborg(
        logits, labels.numpy(), activation, gap.classifier.weight.detach().numpy(), salience.numpy(), weight,
        classes,
    )  # fmt: skip
    assert found.item() == pytest.approx(expected, abs=1e-12)
    assert logged["accuracy"].item() == pytest.approx((logits.argmax(1) == labels.numpy()).mean())
    assert (activation < 0).any(), (
        "the map is read before the ReLU that the network applies in place"
    )


def test_location_fooling_is_the_loops(gap, batch):
    images, labels = batch
    cam = TrainableCAM(gap, images, HEO)
    assert cam.layer == "features"
    found, _ = LocationFooling(cam, 1.5)(gap, batch)
    logits = plain(gap, images)[1]
    explained = explain(
        gap, images, method="gradcam", target=Logit(labels.tolist()), layers="features"
    )
    expected = slow.heo(
        logits, labels.numpy(), explained.signed.double().numpy(), slow.border(7, 7), 1.5
    )
    assert found.item() == pytest.approx(expected, abs=1e-9)


class Attention(nn.Module):
    """Four by four patches, a class token, and one block of fused attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.norm = nn.LayerNorm(8)
        self.mix = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        patches = self.patches(x).flatten(2).transpose(1, 2)
        tokens = self.norm(torch.cat([self.token.expand(len(x), -1, -1), patches], 1))
        q, k, v = (part[:, None] for part in self.mix(tokens).chunk(3, 2))
        return self.head(F.scaled_dot_product_attention(q, k, v)[:, 0, 0] + tokens[:, 0])


def test_maps_of_attention_are_differentiated_twice():
    torch.manual_seed(0)
    model = Attention()
    generator = torch.Generator().manual_seed(1)
    images, labels = torch.randn(5, 3, 16, 12, generator=generator), torch.tensor([0, 1, 2, 3, 1])
    cam = TrainableCAM(model, images, CAMOptions("gradcam", cam_layer="norm"))
    assert cam.size == (4, 3)
    loss = SalienceLoss(cam, 0.0, sham_mask(cam.size))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value, _ = loss(model, (images, labels))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert model.mix.weight.grad.abs().sum() > 0
    assert values[-1] < 0.8 * values[0]


@pytest.mark.parametrize("kind", ["droid", "fmmce", "hb-cam"])
def test_entropy_losses_are_the_loops(gap, batch, kind):
    images, labels = batch
    found, _ = EntropyLoss(TrainableCAM(gap, images, EVAL), kind, 0.7)(gap, batch)
    activation, logits = plain(gap, images)
    maps = slow.class_weight_cam(activation, gap.classifier.weight.detach().numpy(), labels.numpy())
    expected = slow.cross_entropy(logits, labels.numpy()) + 0.7 * slow.entropy_loss(kind, maps)
    assert found.item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("cam", "aggregator", "target"),
    [
        ("gradcam", None, Logit),
        ("diffgradcam", "max", lambda c: LogitMargin(c, "max")),
        ("diffgradcam", None, LogitMargin),
        ("hirescam", "lse", lambda c: LogitMargin(c, "lse")),
        ("layercam", None, Logit),
        ("xgradcam", "mean", LogitMargin),
        ("gradcam++", None, Logit),
        ("gradcam-ew", None, Logit),
    ],
)
@pytest.mark.parametrize("kind", [Gap, Dense])
def test_a_methods_map_is_that_of_explain_and_trains_the_weights(
    batch, cam, aggregator, target, kind
):
    torch.manual_seed(3)
    model = kind().double().eval()
    images, labels = batch
    options = CAMOptions(cam, aggregator, cam_layer="features", scaling="none", mode="eval")
    logits, maps = TrainableCAM(model, images, options)(model, images, labels)
    name = "gradcam" if cam == "diffgradcam" else cam
    explained = explain(
        model, images, method=name, target=target(labels.tolist()), layers="features"
    )
    assert torch.allclose(maps.double(), explained.signed.double(), atol=1e-9)
    assert torch.equal(logits, model(images))
    maps.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for n, p in model.named_parameters()
        if "weight" in n
    )
    assert model.features[0].weight.grad.abs().max() > 0


@pytest.mark.parametrize("cam", ["weights", "gradcam", "hirescam"])
def test_the_gradient_of_the_loss_is_its_slope(cam, batch):
    torch.manual_seed(4)
    model = (Gap(rectified=False) if cam == "weights" else Dense()).double().eval()
    images = batch[0]
    loss = SalienceLoss(
        TrainableCAM(model, images, CAMOptions(cam, cam_layer="features", mode="eval")),
        0.5,
        sham_mask(),
    )
    value, _ = loss(model, batch)
    value.backward()
    for p in model.parameters():
        place = p.grad.abs().flatten().argmax()
        h = 1e-6
        values = []
        for step in (h, -h):
            with torch.no_grad():
                p.view(-1)[place] += step
            values.append(float(loss(model, batch)[0]))
            with torch.no_grad():
                p.view(-1)[place] -= step
        slope = (values[0] - values[1]) / (2 * h)
        assert slope == pytest.approx(float(p.grad.flatten()[place]), rel=1e-4, abs=1e-8)


def test_classifier_and_features_both_learn_from_the_maps(gap, batch):
    images, labels = batch
    _, maps = TrainableCAM(gap, images, EVAL)(gap, images, labels)
    (maps - sham_mask()).square().mean().backward()
    assert gap.classifier.weight.grad.abs().max() > 0
    assert gap.classifier.bias.grad is None or not gap.classifier.bias.grad.any()
    assert gap.features[0].weight.grad.abs().max() > 0


def test_a_constant_map_becomes_zeros_with_a_finite_gradient(gap, batch):
    images = batch[0]
    with torch.no_grad():
        gap.classifier.weight.zero_()
    loss = SalienceLoss(TrainableCAM(gap, images, EVAL), 0.5, sham_mask())
    value, logged = loss(gap, batch)
    value.backward()
    assert float(logged["cam_mse"]) == pytest.approx(28 / 49)
    assert all(p.grad is None or p.grad.isfinite().all() for p in gap.parameters())


def test_one_forward_pass_updates_the_norms_once(batch):
    torch.manual_seed(5)
    model = Gap()
    images, labels = batch[0].float(), batch[1]
    cam = TrainableCAM(model, images, CAMOptions(cam_layer="features"))
    assert int(model.features[3].num_batches_tracked) == 0, "finding the head changes nothing"
    cam(model, images, labels)
    assert int(model.features[3].num_batches_tracked) == 1
    set_mode(model, "norms")
    assert model.training
    assert not model.features[3].training
    TrainableCAM(model, images, CAMOptions(cam_layer="features", mode="norms"))(
        model, images, labels
    )
    assert int(model.features[3].num_batches_tracked) == 1


@pytest.mark.parametrize(
    "options", [CAMOptions(), CAMOptions("gradcam"), CAMOptions("diffgradcam")]
)
def test_training_brings_the_maps_to_the_mask(options):
    pytest.importorskip("lightning_fabric")
    from camlucida.training.loop import FitOptions, fit

    torch.manual_seed(6)
    model = Gap(rectified=False)
    images = torch.randn(32, 3, 14, 14)
    labels = torch.arange(32) % 4
    images += 2 * torch.randn(4, 3, 1, 1)[labels]
    loss = SalienceLoss(TrainableCAM(model, images, options), 0.5, sham_mask())
    fitted = fit(
        model,
        lambda _: [(images, labels)] * 5,
        loss,
        options=FitOptions(epochs=12, optimizer="adam", learning_rate=0.01, accelerator="cpu"),
    )
    first, last = fitted.curves[0], fitted.curves[-1]
    assert last["cam_mse"] < 0.7 * first["cam_mse"]
    assert last["accuracy"] > 0.9


def test_salience_is_resized_as_photos_are():
    from PIL import Image

    maps = torch.rand(2, 56, 56, generator=torch.Generator().manual_seed(7))
    found = fit_salience(maps, (7, 7))
    for ours, one in zip(found, maps, strict=True):
        small = Image.fromarray(one.numpy()).resize((7, 7), Image.Resampling.BILINEAR)
        assert np.allclose(ours.numpy(), slow.minmax(np.asarray(small)), atol=1e-5)
    assert fit_salience(torch.ones(1, 14, 14, dtype=torch.bool), (7, 7)).abs().max() == 0


def test_refusals(gap, batch):
    images = batch[0]
    for make, says in (
        (lambda: CAMOptions("weights", "mean"), "name a method"),
        (lambda: CAMOptions("scorecam"), "cannot take part"),
        (lambda: CAMOptions("gradcam++", options={"form": "true"}), "cannot take part"),
        (lambda: CAMOptions("nothing"), "unknown method"),
        (lambda: CAMOptions(cam_class="both"), "cam_class must be"),
        (lambda: CAMOptions(mode="fast"), "mode must be"),
        (lambda: TrainableCAM(Dense().double(), images), "cam='gradcam'"),
        (lambda: TrainableCAM(gap, images, CAMOptions(cam_layer="input")), "not of the input"),
        (lambda: SalienceLoss(TrainableCAM(gap, images, EVAL), 2.0), "weight must be"),
        (lambda: SalienceLoss(TrainableCAM(gap, images, EVAL))(gap, batch), "give salience"),
        (
            lambda: SalienceLoss(TrainableCAM(gap, images, EVAL), 0.5, border_mask(6))(gap, batch),
            "shape",
        ),
        (lambda: EntropyLoss(TrainableCAM(gap, images, EVAL), "other"), "kind must be"),
    ):
        with pytest.raises(CamlucidaError, match=says):
            make()


def test_describe_is_plain():
    import json

    assert json.loads(json.dumps(CAMOptions("gradcam", "lse").describe()))["aggregator"] == "lse"
    assert CAMOptions(cam_layer=nn.ReLU()).describe()["cam_layer"] == "ReLU"
