"""FGGB against its slow reference; sums of weights, memory, targets, edge cases."""

import numpy as np
import pytest
import torch
from torch import nn

import camlucida
from camlucida import (
    CosineSimilarity,
    DotProduct,
    MethodError,
    NegativeDistance,
    Preprocess,
    TargetError,
)
from camlucida.engine.maps import normalise, smooth
from camlucida.methods import fggb as module
from camlucida.methods.fggb import FGGB, shares
from reference import faces as slow
from reference import networks, state

SIZE = (9, 11)


@pytest.fixture
def net():
    return networks.build(head="deep", size=SIZE, m=7, seed=3, smooth=True)


def images(n=2):
    return networks.images(n, 3, SIZE)


def references(n=2):
    return torch.randn(n, 7, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("theta", [0.0, 0.4])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_equals_the_slow_reference(net, theta, chunk):
    x, refs = images(), references()
    found = camlucida.explain(
        net, x, method=FGGB(theta=theta, chunk=chunk), target=CosineSimilarity(refs)
    )
    for i in range(2):
        wanted, weights = slow.fggb(net, x[i], refs[i], theta)
        np.testing.assert_allclose(found.signed[i].numpy(), wanted, atol=1e-12)
        np.testing.assert_allclose(found.details["weights"][i].numpy(), weights, atol=1e-12)
        map_ = normalise(smooth(torch.tensor(wanted)[None].clamp_min(0), 5, 25))[0]
        torch.testing.assert_close(found.maps[i], map_, rtol=0, atol=1e-10)


def test_weights_sum_to_the_cosine_minus_theta(net):
    x, refs = images(3), references(3)
    found = camlucida.explain(net, x, method=FGGB(theta=0.3), target=CosineSimilarity(refs))
    cosine = torch.cosine_similarity(net(x), refs).detach()
    torch.testing.assert_close(found.details["weights"].sum(1), cosine - 0.3)
    torch.testing.assert_close(found.target_values, cosine)


@pytest.mark.parametrize(
    ("target", "value"),
    [
        (DotProduct, lambda a, b: (a * b).sum(1)),
        (NegativeDistance, lambda a, b: -(a - b).square().sum(1)),
        (lambda r: NegativeDistance(r, squared=False), lambda a, b: -(a - b).norm(dim=1)),
        (lambda r: CosineSimilarity(r, detach_norms=True), torch.cosine_similarity),
    ],
)  # fmt: skip
def test_shares_sum_to_the_similarity(net, target, value):
    x, refs = images(3), references(3)
    embeddings = net(x).detach()
    _, found = shares(target(refs), embeddings)
    torch.testing.assert_close(found.sum(1), value(embeddings, refs))
    _, one = shares(target(refs[0]), embeddings)
    torch.testing.assert_close(one[0], found[0])


def test_the_distance_of_equal_embeddings_has_no_nan(net):
    x = images(1)
    target = NegativeDistance(net(x).detach(), squared=False)
    found = camlucida.explain(net, x, method=FGGB(), target=target)
    assert found.signed.isfinite().all()
    assert not found.signed.any()


def test_gradients_go_through_the_norm():
    """A network that only scales its embedding has nothing to show."""

    class Scaled(nn.Module):
        def forward(self, x):
            return x.mean((1, 2, 3))[:, None] * torch.tensor([1.0, 2.0, -1.0], dtype=x.dtype)

    x = images(1).abs() + 0.1
    ref = torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    found = camlucida.explain(Scaled(), x, method=FGGB(), target=CosineSimilarity(ref))
    assert found.signed.abs().max() < 1e-6
    dot = camlucida.explain(Scaled(), x, method=FGGB(), target=DotProduct(ref))
    assert dot.signed.abs().max() > 1e-2


def test_batch_equals_single_images(net):
    x, refs = images(4), references(4)
    batch = camlucida.explain(net, x, method=FGGB(), target=CosineSimilarity(refs))
    for i in range(4):
        one = camlucida.explain(net, x[i], method=FGGB(), target=CosineSimilarity(refs[i]))
        torch.testing.assert_close(batch.signed[i], one.signed[0], rtol=0, atol=1e-12)


def test_at_most_chunk_images_times_dimensions_at_a_time(net, monkeypatch):
    seen = []
    plain = module._by_vmap

    def watching(embedding, leaf, start, stop):
        seen.append((stop - start) * len(leaf))
        return plain(embedding, leaf, start, stop)

    monkeypatch.setattr(module, "_by_vmap", watching)
    camlucida.explain(net, images(), method=FGGB(chunk=6), target=CosineSimilarity(references()))
    assert seen == [6, 6, 2]


def test_an_operation_that_vmap_does_not_know_costs_time_only(net):
    class Odd(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):  # noqa: ARG004
            return x * 2

        @staticmethod
        def backward(ctx, gradient):  # noqa: ARG004
            return gradient * 2 if float(gradient.sum()) == float(gradient.sum()) else gradient

    class Wrapped(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return self.inner(Odd.apply(x))

    x, target = images(), CosineSimilarity(references())
    found = camlucida.explain(Wrapped(net), x, method=FGGB(), target=target)
    plain = camlucida.explain(net, 2 * x, method=FGGB(), target=target)
    torch.testing.assert_close(found.signed, plain.signed)


def test_pixels_and_inputs_differ_where_channels_are_scaled_differently(net):
    preprocess = Preprocess(
        size=SIZE, resize=None, crop=False, mean=(0.0, 0.0, 0.0), std=(1.0, 0.1, 3.0)
    )
    x, target = images(1), CosineSimilarity(references(1))
    at_input = camlucida.explain(net, x, method=FGGB(input_space="input"), target=target)
    same = camlucida.explain(net, x, method=FGGB(), target=target)
    at_pixels = camlucida.explain(net, x, method=FGGB(), target=target, preprocess=preprocess)
    assert torch.equal(at_input.signed, same.signed)
    assert not torch.allclose(at_pixels.signed, at_input.signed, atol=1e-3)
    pixels = preprocess.denormalise(x)
    wanted, _ = slow.fggb(
        lambda p: net(preprocess.normalise(p)), pixels[0], target.reference[0], 0.0
    )
    np.testing.assert_allclose(at_pixels.signed[0].numpy(), wanted, atol=1e-12)
    with pytest.raises(MethodError, match="preprocess"):
        camlucida.explain(net, x, method=FGGB(input_space="pixel"), target=target)


def test_only_similarities_are_explained(net):
    with pytest.raises(TargetError, match="reference embedding, not Logit"):
        camlucida.explain(net, images(), method="fggb", target=1)


def test_state_and_progress(net):
    net.train()
    before = state.snapshot(net)
    seen = []
    camlucida.explain(
        net, images(), method="fggb", target=CosineSimilarity(references()),
        progress=lambda done, of: seen.append(done / of),
    )  # fmt: skip
    assert not state.differences(before, state.snapshot(net))
    assert seen == sorted(seen)
    assert seen[-1] == 1


@pytest.mark.parametrize("options", [{"chunk": 0}, {"sigma": -1}, {"input_space": "x"}])
def test_bad_options_are_refused(options):
    with pytest.raises(MethodError, match=next(iter(options))):
        FGGB(**options)
