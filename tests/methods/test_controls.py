"""Controls: maps that know nothing of the model, and the exact effect of hiding a place."""

import pytest
import torch

import camlucida
from camlucida.audits.candidates import usual
from camlucida.methods import CellOcclusion, Occlusion, list_methods

NEGATIVE = [row.name for row in list_methods() if row.control in {"blind", "unlearned"}]


@pytest.fixture(scope="module")
def planted():
    data = camlucida.data.open_data("planted:wall,count=3")
    return camlucida.load_model("planted:wall"), [s.picture() for s in data]


def test_controls_are_methods_that_audits_do_not_test_unless_told():
    assert {"random", "centre", "edges", "brightness", "redrawn"} == set(NEGATIVE)
    assert not {row.name for row in list_methods() if row.control} & set(usual(quick=False))


@pytest.mark.parametrize("name", [n for n in NEGATIVE if n != "redrawn"])
def test_blind_maps_are_the_same_for_another_model(planted, name):
    model, pictures = planted
    other = camlucida.load_model("planted:texture")
    one, two = (camlucida.explain(m, pictures, method=name, seed=3) for m in (model, other))
    assert torch.equal(one.signed, two.signed)
    assert (one.signed.flatten(1).amax(1) > one.signed.flatten(1).amin(1)).all()


def test_the_redrawn_map_leaves_the_model_and_tells_its_own_score(planted):
    model, pictures = planted
    before = {k: v.clone() for k, v in model.module.state_dict().items()}
    plain = camlucida.explain(model, pictures, method="gradcam")
    redrawn = camlucida.explain(model, pictures, method="redrawn")
    assert torch.equal(plain.target_values, redrawn.target_values)
    assert not torch.allclose(plain.signed, redrawn.signed)
    assert all(torch.equal(v, before[k]) for k, v in model.module.state_dict().items())


@pytest.mark.parametrize("way", ["hide", "show", "both"])
def test_occlusion_is_what_hiding_and_showing_by_hand_give(planted, way):
    model, pictures = planted
    found = camlucida.explain(model, pictures[:1], method=Occlusion(cells=4, way=way), target=1)
    inputs = model.preprocess(pictures[0])[None]

    def logit(x):
        return float(model.module(x)[0, 1].detach())

    expected = torch.zeros(4, 4)
    for row in range(4):
        for column in range(4):
            mask = torch.zeros(64, 64)
            mask[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 1
            hide = logit(inputs) - logit(inputs * (1 - mask))
            show = logit(inputs * mask) - logit(inputs * 0)
            expected[row, column] = {"hide": hide, "show": show, "both": (hide + show) / 2}[way]
    torch.testing.assert_close(found.signed[0], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("world", ["texture", "wall"])
def test_cells_behind_a_linear_head_add_what_hirescam_says(world):
    data = camlucida.data.open_data(f"planted:{world},count=3")
    model, pictures = camlucida.load_model(f"planted:{world}"), [s.picture() for s in data]
    exact = camlucida.explain(model, pictures, method=CellOcclusion(way="hide")).signed
    hires = camlucida.explain(model, pictures, method="hirescam").signed
    torch.testing.assert_close(exact, hires, atol=1e-5, rtol=1e-3)


def test_either_of_two_is_found_by_showing_and_not_by_hiding():
    data = camlucida.data.open_data("planted:or,count=2")
    model = camlucida.load_model("planted:or")
    sample = data[0]
    own = torch.from_numpy(sample.truth().own == 0.5)
    hide, both = (
        camlucida.explain(
            model, [sample.picture()], method=CellOcclusion(way=way), steps="signed"
        ).maps[0]
        for way in ("hide", "both")
    )
    assert hide[own].mean() < 0.1 * both[own].mean()
