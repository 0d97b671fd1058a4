"""FAME on similarities: L+ lowers, L- raises, and the authors' settings for faces."""

import torch

import camlucida
from camlucida import CosineSimilarity
from camlucida.methods import FAME
from reference.embedders import picture, small


def setup():
    embedder = small()
    x = embedder.inputs([picture(1), picture(2)])
    return embedder, x, CosineSimilarity(embedder.embed(x).flip(0))


def test_plus_lowers_and_minus_raises_the_similarity():
    embedder, x, target = setup()
    before = torch.cosine_similarity(*embedder.embed(x), dim=0)
    kwargs = {"iterations": 15, "input_space": "pixel"}
    down = camlucida.explain(embedder, x, method=FAME(**kwargs), target=target)
    up = camlucida.explain(embedder, x, method=FAME(loss="raise", **kwargs), target=target)
    for found, sign in ((down, -1), (up, 1)):
        losses = found.details["loss"]
        assert (losses[:, 1] < losses[:, 0]).all()
        start = before if sign < 0 else 1 - before
        torch.testing.assert_close(losses[:, 0], start.expand(2))


def test_the_authors_settings_for_faces():
    method = FAME(preset="reference_code_faces")
    assert (method.input_space, method.epsilon, method.early_stop) == ("pixel", 0.01, "batch_mean")
    assert (method.normalise, method.eps) == ("minmax", 1e-8)
    plain = FAME(preset="reference_code")
    assert (plain.input_space, plain.epsilon) == ("input", None)


def test_an_impostor_below_epsilon_has_an_empty_map_and_is_told_why():
    embedder, x, target = setup()
    far = CosineSimilarity(-target.reference.flip(0))  # minus its own embedding
    found = camlucida.explain(
        embedder, x, method=FAME(iterations=3, epsilon=0.01, input_space="pixel"), target=far
    )
    assert not found.maps.any()
    assert any("many an impostor" in m for m in found.diagnostics[0].messages)
