"""What models of all kinds return is shown as it is, and what was assumed is said."""

from __future__ import annotations

import math
from collections import namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida.common.errors import CamlucidaError, MethodError, ModelError, TargetError
from camlucida.engine.finding import find_outputs
from camlucida.engine.reading import Outputs, original, outputs_of, probabilities, reading
from camlucida.targets import ExpLogit, Logit, LogitMargin, LogProbability, Probability

X = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
Pair = namedtuple("Pair", "first second")  # noqa: PYI024


def body(k=4, gain=40.0):
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, k)
    )  # fmt: skip
    with torch.no_grad():
        net[-1].weight *= gain
    return net.eval()


class Wrap(nn.Module):
    """A body, and any function of its logits."""

    def __init__(self, end, k=4):
        super().__init__()
        self.body = body(k)
        self.end = end

    def forward(self, x):
        return self.end(self.body(x))


@dataclass(slots=True)
class Slotted:
    logits: torch.Tensor
    extra: torch.Tensor


@dataclass
class Answer:
    score: torch.Tensor
    mask: torch.Tensor


def softmax(row):
    """Of numbers, one by one."""
    powers = [math.exp(z - max(row)) for z in row]
    return [p / sum(powers) for p in powers]


def sigmoid(row):
    return [1 / (1 + math.exp(-z)) for z in row]


# ---- finding --------------------------------------------------------------------------------------

# What is behind the logits, how many there are, kind and activation that are found, and a word of what is said.
FOUND = {
    "logits": (lambda z: z, 4, "classes", "logits", "exclude each other"),
    "softmax": (lambda z: z.softmax(1), 4, "classes", "softmax", "logarithms"),
    "softmax by hand": (lambda z: z.exp() / z.exp().sum(1, keepdim=True), 4, "classes", "softmax", "logarithms"),
    "a mixture of two": (lambda z: (z.softmax(1) + (2 * z).softmax(1)) / 2, 4, "classes", "softmax", "logarithms"),
    "a view of a softmax": (lambda z: z.softmax(1)[:, :, None].squeeze(2), 4, "classes", "softmax", "logarithms"),
    "log-softmax": (lambda z: z.log_softmax(1), 4, "classes", "log-softmax", "log-probabilities"),
    "sigmoid": (lambda z: z.sigmoid(), 4, "labels", "sigmoid", "label of its own"),
    "mean of sigmoids": (lambda z: (z.sigmoid() + (z / 2).sigmoid()) / 2, 4, "labels", "sigmoid", "label"),
    "absence": (lambda z: 1 - z.sigmoid(), 4, "labels", "sigmoid", "label of its own"),
    "one logit": (lambda z: z, 1, "binary", "logits", "class 1 against class 0"),
    "one sigmoid": (lambda z: z.sigmoid(), 1, "binary", "sigmoid", "probability of class 1"),
    "one sigmoid, flat": (lambda z: z.sigmoid()[:, 0], 1, "binary", "sigmoid", "probability of class 1"),
    "one number, flat": (lambda z: z[:, 0], 1, "regression", "none", "regression"),
    "unit length": (nn.functional.normalize, 32, "embedding", "none", ""),
    "a map": (lambda z: z[:, :, None, None].expand(-1, -1, 5, 6), 4, "dense", "logits", "dense"),
    "a dictionary": (lambda z: {"loss": None, "logits": z.sigmoid()}, 4, "labels", "sigmoid", "label"),
    "an object": (lambda z: SimpleNamespace(logits=z.softmax(1)), 4, "classes", "softmax", "logarithms"),
    "a tuple": (lambda z: (z, z[:, :2]), 4, "classes", "logits", "first tensor"),
}  # fmt: skip


@pytest.mark.parametrize("case", FOUND)
def test_outputs_are_found(case):
    end, k, kind, activation, words = FOUND[case]
    found = find_outputs(Wrap(end, k), X)
    assert (found.kind, found.activation) == (kind, activation)
    assert words in " ".join(found.notes)
    assert bool(words) == bool(found.notes)


@pytest.mark.parametrize("gain", [0.0, 1e-3, 1.0])
def test_logits_that_look_like_probabilities_are_logits(gain):
    """Small logits of a linear layer may all lie in [0, 1]: what made them decides."""
    net = body(2, gain)
    with torch.no_grad():
        net[-1].bias[:] = torch.tensor([0.3, 0.6])
    assert find_outputs(net, X).activation == "logits"


def test_config_and_names_are_believed():
    net = body()
    net.config = SimpleNamespace(problem_type="multi_label_classification")
    found = find_outputs(net, X)
    assert (found.kind, found.notes) == ("labels", ())
    net.config.problem_type = "regression"
    assert find_outputs(net, X).kind == "regression"
    assert "exclude each other" in find_outputs(body(), X, named=4).notes[0]
    with pytest.raises(TargetError, match=r"9 class names.* 4 classes"):
        find_outputs(body(), X, named=9)
    with pytest.raises(TargetError, match=r"3 class names.* 2 classes .one logit"):
        find_outputs(body(1), X, named=3)
    assert find_outputs(body(1), X, named=2).notes == ()
    assert find_outputs(Wrap(lambda z: z[:, 0], 1), X, named=2).kind == "binary"


def test_what_is_said_is_held_against_the_output():
    for said, made, word in (
        ("softmax", lambda z: z * 5 - 3, "no probabilities"),
        ("softmax", lambda z: z.softmax(1) / 2, "off 1"),
        ("log-softmax", lambda z: z * 5 + 3, "logarithms"),
        ("labels:activation=sigmoid", lambda z: z * 5 - 3, "no probabilities"),
        ("binary:activation=sigmoid", torch.sigmoid, "one number"),
        ("regression:activation=none", lambda z: z[:, :, None], "does not fit"),
    ):
        with pytest.raises(TargetError, match=word):
            camlucida.explain(Wrap(made).eval(), X, outputs=said)


def test_numbers_between_0_and_1_that_are_taken_for_logits_are_spoken_of():
    notes = find_outputs(Wrap(lambda z: 1 / (1 + (-z).exp())), X).notes
    assert "in [0, 1]" in notes[0]
    assert "in [0, 1]" not in find_outputs(Wrap(lambda z: z * 9 - 4), X).notes[0]
    assert find_outputs(Wrap(nn.functional.hardsigmoid), X).activation == "sigmoid"


def test_decisions_are_no_logits():
    for made in (lambda z: z.argmax(1), lambda z: z > 0):
        with pytest.raises(TargetError, match="no gradient"):
            camlucida.explain(Wrap(made).eval(), X)


def test_a_dataclass_with_slots_has_heads():
    found = camlucida.explain(Wrap(lambda z: Slotted(z, -z)).eval(), X, head="extra")
    assert found.outputs.structure == "Slotted (logits, extra)"


def test_what_is_said_goes_first():
    found = find_outputs(body(), X, "labels:threshold=0.25")
    assert (found.kind, found.activation, found.threshold, found.notes) == (
        "labels",
        "logits",
        0.25,
        (),
    )
    assert find_outputs(body(1), X, "regression").kind == "regression"
    assert find_outputs(Wrap(lambda z: z.sigmoid()), X, "logits").activation == "logits"


def test_a_changed_model_is_looked_at_again():
    net = Wrap(lambda z: z)
    assert find_outputs(net, X).activation == "logits"
    net.end = nn.Softmax(1)
    assert find_outputs(net, X).activation == "softmax"
    net.body[-1] = nn.Linear(8, 1)
    net.end = nn.Identity()
    assert find_outputs(net, X).kind == "binary"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sigmod", "did you mean 'sigmoid'"),
        ("labels:treshold=1", "mean 'threshold'"),
        ("", "says nothing"),
        (":", "says nothing"),
        ("classes:kind=labels", "the kind twice"),
        ("none", "regression, dense or embedding"),
        ("labels:activation=none", "regression, dense or embedding"),
        ("labels:threshold=a", "finite number"),
        ("labels:threshold=2", "in [0, 1]"),
        ("labels:activation=softmax", "do not come out of softmax"),
        (3, "got int"),
    ],
)
def test_wrong_words(text, words):
    with pytest.raises(TargetError) as caught:
        Outputs.of(text)
    assert words in str(caught.value)


def test_words_that_do_not_fit_the_model():
    ends = {"dense": Wrap(lambda z: z), "regression": Wrap(lambda z: z[:, :, None, None])}
    for text, net in ends.items():
        with pytest.raises(TargetError, match="does not fit"):
            find_outputs(Wrap(lambda z: z[None]), X[:1], "classes")
        with pytest.raises(TargetError, match="does not fit"):
            find_outputs(net, X, text)
    with pytest.raises(TargetError, match="one number"):
        find_outputs(body(), X, "binary")
    with pytest.raises(TargetError, match="no entry per image"):
        find_outputs(Wrap(lambda z: z[0]), X)


# ---- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "k", "slow"),
    [
        (lambda z: z, 4, softmax),
        (lambda z: z.softmax(1), 4, softmax),
        (lambda z: z.log_softmax(1), 4, softmax),
        (lambda z: z.sigmoid(), 4, sigmoid),
        (lambda z: z, 1, lambda row: [1 - sigmoid(row)[0], sigmoid(row)[0]]),
        (lambda z: z.sigmoid(), 1, lambda row: [1 - sigmoid(row)[0], sigmoid(row)[0]]),
        (lambda z: z.sigmoid()[:, 0], 1, lambda row: [1 - sigmoid(row)[0], sigmoid(row)[0]]),
    ],
)
def test_probabilities_are_the_models_own(end, k, slow):
    net = Wrap(end, k)
    found = camlucida.explain(net, X)
    for shown, logits in zip(found.predictions, net.body(X).tolist(), strict=True):
        wanted = slow(logits)
        assert shown
        for one in shown:
            assert one.probability == pytest.approx(wanted[one.index], abs=1e-5)
    read = reading(net, found.outputs)
    own = probabilities(read, read(X))
    assert own.tolist() == [pytest.approx(slow(row), abs=1e-5) for row in net.body(X).tolist()]


def test_every_label_above_the_threshold_is_shown():
    net = Wrap(lambda z: z.sigmoid(), 9)
    p = net(X)
    for threshold in (0.5, 0.9):
        found = camlucida.explain(net, X, outputs=f"labels:threshold={threshold}", top=1)
        for shown, row in zip(found.predictions, p.tolist(), strict=True):
            assert {one.index for one in shown} == {k for k, v in enumerate(row) if v >= threshold}
    none = camlucida.explain(Wrap(lambda z: (z - 99).sigmoid()), X)
    assert none.predictions == ((), ())
    assert any("no label reaches" in said for said in none.diagnostics[0].messages)


def test_one_logit_explains_both_classes():
    net = body(1)
    z = net(X)[:, 0]
    for c, sign in ((1, 1), (0, -1)):
        found = camlucida.explain(net, X, target=c)
        torch.testing.assert_close(found.target_values, sign * z)
        assert found.explained[0].startswith(f"class {c}, Logit")
    one, other = (camlucida.explain(net, X, target=c).signed for c in (1, 0))
    torch.testing.assert_close(one, -other)
    with pytest.raises(TargetError, match="class 2 does not exist"):
        camlucida.explain(net, X, target=2)


def test_a_regression_shows_its_value():
    net = Wrap(lambda z: z[:, 0], 1)
    found = camlucida.explain(net, X)
    assert torch.equal(found.target_values, net(X))
    assert found.explained[0] == f"Value {net(X)[0].item():.3g}"
    several = camlucida.explain(body(3), X, outputs="regression", target=2)
    assert torch.equal(several.target_values, body(3)(X)[:, 2])
    assert several.explained[0] == f"value 2: {several.target_values[0].item():.3g}"
    assert not any("3 values" in said for said in several.diagnostics[0].messages)


def test_of_several_values_it_is_said_which():
    found = camlucida.explain(body(3), X, outputs="regression")
    assert found.explained[0] == f"value 0: {body(3)(X)[0, 0].item():.3g}"
    assert any("value 0 is explained" in said for said in found.diagnostics[0].messages)
    named = camlucida.explain(body(3), X, outputs="regression", class_names=["age", "x", "y"])
    assert named.explained[0].startswith("age: ")
    with pytest.raises(TargetError, match="value 7 does not exist"):
        camlucida.explain(body(3), X, outputs="regression", target=7)


def test_one_name_of_one_logit_leaves_the_other_class_its_negation():
    found = camlucida.explain(body(1), X, class_names=["dog"], target="dog", batch_size=1)
    torch.testing.assert_close(found.target_values, body(1)(X)[:, 0])
    assert found.explained[0].startswith("dog, Logit")
    assert {p.name for p in found.predictions[0]} == {"not dog", "dog"}
    assert any("single output" in said for said in found.diagnostics[0].messages)


class Maps(nn.Module):
    """A map per class; the last class never has the highest value."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.trunk = nn.Conv2d(3, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        z = self.head(self.trunk(x).relu())
        return torch.cat([z, z.amin(1, keepdim=True) - 9], 1)


def test_a_module_that_returns_maps_is_explained_as_when_that_is_said():
    said = camlucida.explain(Maps(), X, outputs="dense")
    found = camlucida.explain(Maps(), X)
    by_hand = camlucida.explain(Maps(), X, target=camlucida.Segmentation())
    for one in (said, by_hand):
        assert torch.equal(one.maps, found.maps)
        assert one.explained == found.explained
    messages = found.diagnostics[0].messages
    assert any("dense" in text for text in messages)
    assert any("pixels that the model assigns" in text for text in messages)


@pytest.mark.parametrize("mask", [None, torch.zeros(*X.shape[-2:])])
def test_a_class_of_no_pixel_is_said_to_have_none(mask):
    found = camlucida.explain(Maps(), X, target=camlucida.Segmentation(3, mask))
    for one in found:
        assert any("no pixel" in text for text in one.diagnostics[0].messages)
    seen = camlucida.explain(Maps(), X, target=camlucida.Segmentation())
    assert not any("no pixel" in text for text in seen.diagnostics[0].messages)


def test_methods_that_ask_for_no_class_explain_embedders():
    net = Wrap(nn.functional.normalize, 32)
    found = camlucida.explain(net, X, method="eigencam")
    assert torch.equal(found.maps, camlucida.explain(net.body, X, method="eigencam").maps)
    assert found.explained == ("no target",) * len(X)
    both = camlucida.explain(net, X, method=["eigencam", "gradcam"])
    assert "embeddings" in both.skipped["gradcam"]
    with pytest.raises(TargetError, match="embeddings"):
        camlucida.explain(net, X, method=["eigencam", "gradcam"], strict=True)


KINDS = {
    "classes": (body(), {}),
    "regression": (body(1), {"outputs": "regression"}),
    "embedding": (Wrap(nn.functional.normalize, 32), {"target": lambda z: z[:, 0]}),
    "dense": (Maps(), {}),
    "broken": (Wrap(lambda z: z * torch.nan), {}),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 32])
def test_every_image_has_its_predictions(kind, batch_size):
    net, how = KINDS[kind]
    found = camlucida.explain(net, X, batch_size=batch_size, **how)
    assert len(found.predictions) == len(X)
    assert [len(one.predictions) for one in found] == [1] * len(X)
    assert bool(found.predictions[0]) == (kind == "classes")


LOGITS = body()
SOFT = Wrap(lambda z: z.softmax(1))
SIGMOID = Wrap(lambda z: z.sigmoid())


@pytest.mark.parametrize(
    "target", [Probability(1), LogProbability(1), LogitMargin(1), LogitMargin(1, "lse")]
)
def test_targets_that_a_softmax_leaves_as_they_are(target):
    """Log-probabilities are the logits up to one constant per image, which these targets do not see."""
    plain = camlucida.explain(LOGITS, X, target=target)
    found = camlucida.explain(SOFT, X, target=target)
    torch.testing.assert_close(found.target_values, plain.target_values, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(found.signed, plain.signed, atol=1e-4, rtol=1e-3)


def test_logit_behind_a_softmax_is_the_log_probability_and_that_is_said():
    found = camlucida.explain(SOFT, X, target=Logit(2))
    torch.testing.assert_close(found.target_values, LOGITS(X).log_softmax(1)[:, 2])
    assert any("up to one constant" in said for said in found.diagnostics[0].messages)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (Logit(1), lambda z: z),
        (ExpLogit(1), math.exp),
        (Probability(1), lambda z: sigmoid([z])[0]),
        (LogProbability(1), lambda z: math.log(sigmoid([z])[0])),
    ],
)
def test_targets_of_labels(target, value):
    found = camlucida.explain(SIGMOID, X, target=target)
    wanted = [value(z) for z in LOGITS(X)[:, 1].tolist()]
    assert found.target_values.tolist() == pytest.approx(wanted, rel=1e-4)


def test_what_makes_no_sense_is_refused_in_true_words():
    for method in ("diffgradcam", "gradcam"):
        with pytest.raises(TargetError, match="do not exclude each other"):
            camlucida.explain(SIGMOID, X, method=method, target=LogitMargin())
    with pytest.raises(TargetError, match="is a value"):
        camlucida.explain(body(1), X, target=Probability(), outputs="regression")
    with pytest.raises(TargetError, match="embeddings"):
        camlucida.explain(Wrap(nn.functional.normalize, 32), X)


@pytest.mark.parametrize(
    "method", ["scorecam", "rise", "icam", "gradcam++", "shapleycam", "opticam", "ablationcam"]
)
@pytest.mark.parametrize("end", ["softmax", "sigmoid", "one"])
def test_methods_run_on_outputs_of_every_kind(method, end):
    options = {"rise": {"masks": 20}, "icam": {"n_perturb": 2}, "opticam": {"iterations": 2}}.get(
        method, {}
    )
    net = {"softmax": SOFT, "sigmoid": SIGMOID, "one": body(1)}[end]
    found = camlucida.explain(net, X, method=method, **options)
    assert found.maps.shape == (2, 16, 16)
    assert found.diagnostics[0].finite


def test_scores_of_labels_are_their_probabilities():
    """RISE weighs masks by the probability: of a label its sigmoid, of classes the softmax."""
    for net, outputs in ((SIGMOID, None), (LOGITS, "labels")):
        by_label = camlucida.explain(net, X[:1], method="rise", masks=30, target=1, outputs=outputs)
        direct = camlucida.explain(
            net, X[:1], method="rise", masks=30, target=Probability(1), outputs=outputs
        )
        torch.testing.assert_close(by_label.raw, direct.raw)


def test_a_saturated_end_is_said():
    net = Wrap(lambda z: (z + torch.tensor([0, 0, 500.0, 0])).softmax(1))
    found = camlucida.explain(net, X)
    assert found.predictions[0][0].probability == 1
    assert any("softmax is saturated" in said for said in found.diagnostics[0].messages)
    label = camlucida.explain(Wrap(lambda z: (z - 99).sigmoid()), X, target=1)
    assert any("sigmoid is saturated" in said for said in label.diagnostics[0].messages)


# ---- several outputs ------------------------------------------------------------------------------

HEADS = {
    "dictionary": lambda z: {"age": z[:, :1], "sex": z[:, 1:]},
    "tuple": lambda z: (z[:, :1], z[:, 1:]),
    "named tuple": lambda z: Pair(z[:, :1], z[:, 1:]),
    "nested": lambda z: {"out": {"age": z[:, :1]}, "rest": [z[:, 1:]]},
    "dataclass": lambda z: Answer(z[:, :1], z[:, 1:]),
    "list of dictionaries": lambda z: [{"scores": row} for row in z],
}  # fmt: skip
FUNCTIONS = {
    "dictionary": lambda o: o["sex"][:, 0],
    "tuple": lambda o: o[1][:, 0],
    "named tuple": lambda o: o.second[:, 0],
    "nested": lambda o: o["rest"][0][:, 0],
    "dataclass": lambda o: o.mask[:, 0],
    "list of dictionaries": lambda o: torch.stack([one["scores"][1] for one in o]),
}
NAMES = {
    "dictionary": "sex", "tuple": 1, "named tuple": "second", "nested": "rest.0", "dataclass": "mask",
}  # fmt: skip


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("method", ["gradcam", "scorecam", "ablationcam"])
def test_a_function_gets_the_models_own_output(kind, method):
    net = Wrap(HEADS[kind])
    found = camlucida.explain(net, X, target=FUNCTIONS[kind], method=method)
    plain = camlucida.explain(net.body, X, target=lambda z: z[:, 1], method=method)
    torch.testing.assert_close(found.target_values, net.body(X)[:, 1])
    torch.testing.assert_close(found.maps, plain.maps)
    assert found.predictions == ((),) * len(X)


class Twofold(nn.Module):
    """Computes its body anew for each of its heads."""

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, x):
        return {"age": self.body(x)[:, :1], "sex": self.body(x)[:, 1:]}


@pytest.mark.parametrize(
    "method",
    [
        "gradcam",
        "scorecam",
        "ablationcam",
        "layercam",
        "icam",
        "eigencam",
        "fullgrad",
        "fame",
        "rise",
    ],
)
def test_a_body_that_runs_anew_for_each_head(method):
    options = {"rise": {"masks": 20}, "icam": {"n_perturb": 2}, "fame": {"iterations": 2}}.get(
        method, {}
    )
    net = Twofold()
    found = camlucida.explain(net, X, method=method, target=lambda o: o["sex"][:, 0], **options)
    plain = camlucida.explain(net.body, X, method=method, target=lambda z: z[:, 1], **options)
    torch.testing.assert_close(found.maps, plain.maps, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", NAMES)
def test_a_head_by_name_or_position(kind):
    net = Wrap(HEADS[kind])
    found = camlucida.explain(net, X, head=NAMES[kind])
    torch.testing.assert_close(found.logits, net.body(X)[:, 1:])
    same = camlucida.explain(net, X, outputs=f"head={NAMES[kind]}")
    assert torch.equal(found.maps, same.maps)
    with pytest.raises(TargetError, match="no head 'hair'"):
        camlucida.explain(net, X, head="hair")


def test_heads_that_nobody_chose_are_refused_with_advice():
    with pytest.raises(TargetError, match="head="):
        camlucida.explain(Wrap(HEADS["dictionary"]), X)
    with pytest.raises(TargetError, match="returned float"):
        camlucida.explain(Wrap(HEADS["dictionary"]), X, target=lambda o: 3.0)  # noqa: ARG005


# ---- numbers that are none ------------------------------------------------------------------------


def broken(kind):
    net = body()
    with torch.no_grad():
        if kind == "weight":
            net[0].weight[0, 0, 0, 0] = torch.nan
        elif kind == "infinite weight":
            net[-1].weight[0, 0] = torch.inf
    ends = {"outputs": lambda z: z * torch.nan, "infinite": lambda z: z / 0}
    return Wrap(ends[kind]) if kind in ends else net


@pytest.mark.parametrize("kind", ["outputs", "infinite", "weight", "infinite weight", "value"])
@pytest.mark.parametrize("method", ["gradcam", "eigencam", "saliency", "scorecam"])
def test_nan_and_inf_are_a_message_and_never_a_picture(kind, method):
    target = (lambda z: z[:, 0].log() * torch.nan) if kind == "value" else None
    found = camlucida.explain(broken(kind), X, method=method, target=target)
    assert not found.maps.any()
    assert "NaN or infinite" in found.diagnostics[0].messages[0]
    assert not any(math.isnan(p.probability) for row in found.predictions for p in row)
    assert repr(found)


def test_one_broken_image_does_not_take_the_others_along():
    x = X.clone()
    x[0] = torch.nan
    found = camlucida.explain(body(), x)
    assert found.diagnostics[0].broken
    assert not found.diagnostics[1].broken
    assert found.maps[1].any()
    assert torch.equal(found.maps[1], camlucida.explain(body(), X).maps[1])


# ---- inputs ---------------------------------------------------------------------------------------


class Named(nn.Module):
    """Takes its images by name, behind others that may be left out."""

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, input_ids=None, pixel_values=None):
        assert input_ids is None
        return self.body(pixel_values)


class Two(Named):
    def forward(self, x, y):
        return self.body(x) + y


class Half(Named):
    def forward(self, x, scale=None):
        return self.body(x) * scale.item()


def test_images_by_name_and_in_tuples():
    wanted = camlucida.explain(body(), X).maps
    for net, inputs in (
        (body(), {"pixel_values": X}),
        (Named(), {"pixel_values": X, "input_ids": None}),
        (body(), (X,)),
        (body(), (X, None)),
    ):
        for method in ("gradcam", "scorecam"):
            found = camlucida.explain(net, inputs, method=method)
            assert found.layers
        assert torch.equal(camlucida.explain(net, inputs).maps, wanted)


def test_further_inputs_get_a_clear_word():
    with pytest.raises(ModelError, match=r"more than an image \(y\)"):
        camlucida.explain(Two(), X)
    with pytest.raises(ModelError, match=r"scale"):
        camlucida.explain(Half(), X)
    for inputs in ({"pixel_values": X, "input_ids": torch.ones(2, 3)}, (X, torch.ones(2))):
        with pytest.raises(ModelError, match="varies the image alone"):
            camlucida.explain(Named(), inputs)
    with pytest.raises(CamlucidaError, match="channels"):
        camlucida.explain(body(), X[:, :1])


# ---- the model stays what it is --------------------------------------------------------------------


class Sized(nn.Module):
    """Takes images of one size, and an option that has nothing to do with it."""

    img_size = (24, 24)

    def __init__(self):
        super().__init__()
        self.body = body()

    def forward(self, x, is_causal=False):  # noqa: ARG002
        if x.shape[-1] != 24:
            raise AssertionError(f"Input height ({x.shape[-1]}) does not match model (24)")
        return self.body(x)


class Masked(nn.Module):
    """Needs its option."""

    def forward(self, x, mask=None):
        return x.mean((2, 3)) * mask.shape[0]


def test_what_a_failure_is_put_down_to_is_its_cause():
    with pytest.raises(ModelError) as caught:
        camlucida.explain(Sized(), torch.rand(1, 3, 32, 32))
    assert "is made for 24 x 24 pixels: preprocess={'size': 24}" in str(caught.value)
    assert "is_causal" not in str(caught.value)
    with pytest.raises(ModelError, match="also takes mask"):
        camlucida.explain(Masked(), X)


def test_a_reading_is_the_model_itself_by_another_name():
    net = Wrap(lambda z: z.softmax(1))
    read = reading(net, Outputs("classes", "softmax"))
    assert read is reading(net, Outputs("classes", "softmax"))
    assert isinstance(read, Wrap)
    assert type(read).__name__ == "Wrap"
    assert [n for n, _ in read.named_modules()] == [n for n, _ in net.named_modules()]
    assert next(read.parameters()) is next(net.parameters())
    torch.testing.assert_close(read(X), net(X).log())
    net.end = lambda z: (2 * z).softmax(1)  # what is changed later is seen
    torch.testing.assert_close(read(X), net(X).log())
    read.train()
    assert net.training
    assert torch.equal(original(read).eval()(X), net(X))
    assert outputs_of(read).activation == "softmax"
    assert reading(net, Outputs("classes", "logits")) is net


def test_a_forward_of_the_users_own_is_kept():
    net = body()
    inside = net.forward
    net.forward = lambda x: inside(x).softmax(1)
    found = camlucida.explain(net, X)
    assert found.outputs.activation == "softmax"
    assert sum(p.probability for p in found.predictions[0]) == pytest.approx(1, abs=1e-5)
    assert "forward" in vars(net)


def test_explaining_a_model_that_ends_in_a_softmax_leaves_it_alone():
    net = Wrap(lambda z: z.softmax(1)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    hooks = [len(m._forward_hooks) for m in net.modules()]
    camlucida.explain(net, X, method=["gradcam", "scorecam", "saliency"])
    assert net.training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert hooks == [len(m._forward_hooks) for m in net.modules()]
    assert torch.allclose(net(X).sum(1), torch.ones(2))


def test_half_precision_of_probabilities():
    net = Wrap(lambda z: z.softmax(1)).double()
    found = camlucida.explain(net, X.double(), target=1)
    assert found.target_values.dtype == torch.float64
    low = camlucida.explain(Wrap(lambda z: z.softmax(1)).bfloat16(), X.bfloat16(), target=1)
    assert low.target_values.dtype == torch.float32
    assert low.diagnostics[0].finite


# ---- targets as people write them -------------------------------------------------------------------


def test_masks_and_rivals_as_arrays_and_lists():
    dense = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    mask = np.zeros((16, 16), np.float32)
    mask[3:6] = 1
    wanted = camlucida.explain(dense, X, target=camlucida.Segmentation(1, torch.as_tensor(mask)))
    for given in (mask, mask.tolist(), mask.astype(bool)):
        found = camlucida.explain(dense, X, target=camlucida.Segmentation(1, given))
        assert torch.equal(found.target_values, wanted.target_values)
    with pytest.raises(TargetError, match="numbers"):
        camlucida.Segmentation(1, [[1, 2], [3]])
    margin = camlucida.explain(body(), X, target=camlucida.FinerMargin(0, rivals=[1, 2]))
    same = camlucida.explain(
        body(), X, target=camlucida.FinerMargin(0, rivals=torch.tensor([1, 2]))
    )
    assert torch.equal(margin.maps, same.maps)
    by_class = camlucida.explain(dense, X, target=1, outputs="dense")
    assert torch.equal(
        by_class.maps, camlucida.explain(dense, X, target=camlucida.Segmentation(1)).maps
    )


def test_preprocessing_of_ones_own_and_scans():
    def own(image):
        return torch.from_numpy(np.array(image.resize((16, 16)), np.float32) / 255).permute(2, 0, 1)

    scan = (np.arange(40 * 30).reshape(40, 30) * 3).astype(np.uint16)
    found = camlucida.explain(body(), scan, preprocess=own)
    assert any("from 0 to 3597" in said for said in found.diagnostics[0].messages)
    assert found.views[0].picture.size == (30, 40)
    assert found.views[0].box == (0, 0, 30, 40)
    turned = camlucida.explain(body(), scan, preprocess=lambda image: own(image.rotate(20)))
    assert any("model's own input" in said for said in turned.diagnostics[0].messages)
    assert turned.views[0].picture.size == (16, 16)
    with pytest.raises(MethodError, match=r"pixel") as caught:
        camlucida.explain(body(), X, method="scorecam", mask_space="pixel")
    assert "preprocess" in str(caught.value)


def test_an_explanation_shows_itself_in_a_few_lines():
    many = camlucida.explain(body(), torch.cat([X] * 5), method="layercam")
    text = repr(many)
    assert len(text.splitlines()) <= 8
    assert "10 images" in text
    assert "layercam" in text
    assert "and 7 more" in text


# ---- quantized ------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_quantized_models():
    net = torch.ao.quantization.quantize_dynamic(body(), {nn.Linear}, dtype=torch.qint8)
    for method, options in {"eigencam": {}, "scorecam": {}, "rise": {"masks": 20}}.items():
        found = camlucida.explain(
            net, X, method=method, layers="1" if method != "rise" else None, **options
        )
        assert found.diagnostics[0].finite
    for method in ("fame", "saliency"):
        with pytest.raises(CamlucidaError, match="quantized"):
            camlucida.explain(net, X, method=method)
