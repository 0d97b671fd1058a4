"""Planted worlds: the networks decide by what the truth says, and by nothing else."""

import numpy as np
import pytest
import torch
from PIL import Image

import camlucida
from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.data.planted import Planted
from camlucida.data.planted_worlds import WORLDS
from camlucida.training import prove_planted

NAMES = [world.name for world in WORLDS]


@pytest.mark.parametrize("name", NAMES)
def test_the_network_names_every_label_and_ignores_what_does_not_matter(name):
    for seed in ("", "@3"):
        proof = prove_planted(name + seed, images=24, seed=1)
        assert proof.accuracy == 1
        assert proof.unmoved < 1e-3  # grey levels are rounded


@pytest.mark.parametrize("name", [n for n in NAMES if n != "or"])
def test_taking_a_thing_away_changes_the_logit_as_the_truth_says(name):
    data, model = Planted(name, count=3, seed=2), camlucida.load_model(f"planted:{name}")
    for sample in data:
        own = sample.truth().own
        for number, thing in enumerate(data.things(sample.index)):
            seen = thing.mask.copy()
            for later in data.things(sample.index)[number + 1 :]:
                seen &= ~later.mask
            pictures = [data.draw(sample.index), data.draw(sample.index, without=(number,))]
            inputs = torch.stack([model.preprocess(Image.fromarray(p)) for p in pictures])
            whole, without = model.module(inputs)[:, sample.label].tolist()
            said = own[seen].mean()
            if said == 0:
                assert abs(whole - without) < 1e-2
            else:
                assert np.sign(whole - without) == np.sign(said)


def test_either_of_two_is_enough_and_none_is_not():
    data, model = Planted("or", count=2), camlucida.load_model("planted:or")
    sample = data[0]
    own = [n for n, t in enumerate(data.things(0)) if t.look in data.world.speaks[sample.label]]

    def logit(without):
        picture = Image.fromarray(data.draw(0, without))
        return float(model.module(model.preprocess(picture)[None])[0, sample.label].detach())

    whole = logit(())
    assert all(abs(logit((one,)) - whole) < 1e-4 for one in own)
    assert whole - logit(own) > 0.9


def test_heads_of_a_mosaic_get_exactly_nothing_of_other_quarters():
    model = camlucida.load_model("planted:mosaic").module
    inputs = torch.randn(2, 3, 64, 64, requires_grad=True)
    model(inputs)[:, 4].sum().backward()  # of the upper right quarter
    outside = torch.ones(64, 64, dtype=torch.bool)
    outside[:32, 32:] = False
    assert bool((inputs.grad[:, :, outside] == 0).all())
    assert bool((inputs.grad[:, :, ~outside] != 0).any())


def test_a_planted_set_is_an_ordinary_one():
    data = camlucida.data.open_data("planted:watermark,count=4,seed=3")
    again = camlucida.data.open_data("planted:watermark,count=9,seed=3")
    assert data.name == "planted:watermark"
    assert [s.label for s in data] == [0, 1, 2, 0]
    for a, b in zip(data, again, strict=False):
        assert np.array_equal(a.picture(), b.picture())
        assert np.array_equal(a.mask(), b.mask())
        assert a.mask().any()
        inside = np.zeros((64, 64), bool)
        for left, top, right, bottom in a.boxes:
            inside[int(top) : int(bottom), int(left) : int(right)] = True
        assert not (a.mask() & ~inside).any()


def test_unknown_worlds_and_seeds_are_named():
    with pytest.raises(CamlucidaError, match="nearest: watermark"):
        camlucida.data.open_data("planted:watermarks")
    with pytest.raises(ModelError, match="nearest: creatures"):
        camlucida.load_model("planted:creature")
    with pytest.raises(ModelError, match="whole number"):
        camlucida.load_model("planted:wall@x")
