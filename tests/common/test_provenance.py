"""The weights' hash, and what a record says when they have changed."""

import pickle

import pytest
import torch

from camlucida import explain
from camlucida.common.provenance import Provenance, fingerprint
from reference import networks

X = networks.images(1, 3, (5, 6))


def test_same_weights_same_hash():
    a, b = networks.build(seed=1), networks.build(seed=1)
    assert fingerprint(a) == fingerprint(b)
    assert fingerprint(a) == fingerprint(a)
    assert len(fingerprint(a)) == 64
    assert fingerprint(a) != fingerprint(networks.build(seed=2))


def step(m):
    optimiser = torch.optim.SGD(m.parameters(), lr=0.1)
    m(X).sum().backward()
    optimiser.step()


CHANGES = {
    "no_grad": lambda m: m.head[1].weight.detach().add_(1),
    "one bit": lambda m: m.head[1].bias.detach()[0].add_(1e-15),
    "load": lambda m: m.load_state_dict(networks.build(seed=9).state_dict(), strict=False),
    "optimiser": step,
    "data": lambda m: m.head[1].weight.data.mul_(2),
    "assigned data": lambda m: setattr(
        m.head[1].weight, "data", torch.zeros_like(m.head[1].weight.data)
    ),
    "half": lambda m: m.half(),
    "new parameter": lambda m: setattr(
        m.head[1], "bias", torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    ),
    "buffer": lambda m: m.scale.fill_(2),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_changes_when_the_weights_do(change):
    m = networks.build(seed=1)
    m.register_buffer("scale", torch.ones(1))
    before = fingerprint(m)
    CHANGES[change](m)
    assert fingerprint(m) != before


# Writing to .data escapes torch's own version counter: the hash sees it, the record of an older run cannot.
@pytest.mark.parametrize("change", [name for name in CHANGES if name != "data"])
def test_a_record_says_when_the_weights_have_changed(change):
    m = networks.build(seed=1)
    m.register_buffer("scale", torch.ones(1))
    expected = fingerprint(m)
    early, late = explain(m, X, layers="features"), explain(m, X, layers="features")
    assert early.provenance.weights == expected
    CHANGES[change](m)
    # Asked before, it is known; asked afterwards, it cannot be told any more.
    assert early.provenance.weights == expected
    assert "changed after this explanation" in late.provenance.weights


def test_names_and_shapes_count():
    a = torch.nn.Linear(2, 3, bias=False)
    b = torch.nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        a.weight.fill_(1)
        b.weight.fill_(1)
    assert fingerprint(a) != fingerprint(b)
    c = torch.nn.Sequential(a)
    assert fingerprint(c) != fingerprint(a)


def test_any_type_of_weight_can_be_hashed():
    m = networks.build().bfloat16()
    m.register_buffer("flags", torch.tensor([True, False]))
    m.register_buffer("empty", torch.zeros(0))
    m.register_buffer("number", torch.tensor(3))
    assert len(fingerprint(m)) == 64


def test_the_record():
    m = networks.build()
    found = explain(m, X, method="gradcam++", form="tf_original", layers="features", seed=5)
    record = found.provenance.to_dict()
    assert record["model"] == "Split"
    assert record["method"] == "GradCAMpp"
    assert record["options"] == {"form": "tf_original", "eps": 0.0, "max_entries": 4096}
    assert record["target"]["target"] == "Logit"
    assert record["layers"] == ["features"]
    assert record["seed"] == 5
    assert record["input_size"] == [3, 5, 6]
    assert record["dtype"] == "torch.float64"
    assert record["torch"] == torch.__version__


def test_a_pickled_record_does_not_hold_the_model():
    p = Provenance(networks.build(), {"method": "x"})
    again = pickle.loads(pickle.dumps(p))  # noqa: S301
    assert again.weights == p.weights
    assert not list(again.model.parameters())
