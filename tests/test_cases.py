"""The four cases, patchiness, and I-CAM's numerics varied."""

import json
import math
import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from camlucida import explain
from camlucida.cases import (
    DIALLED,
    _permutation_p,
    _ranks,
    _spearman,
    box_mask,
    four_cases,
    saliency_score,
)
from camlucida.errors import CamlucidaError, ImageError, MethodError
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel
from camlucida.patchiness import VARIANTS, grey_levels, islands, numerics, patchiness
from camlucida.preprocess import Preprocess

FAST = ICAM(n_perturb=1)


@pytest.fixture
def net():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


@pytest.fixture
def model(net):
    with torch.no_grad():
        net[-1].weight.mul_(8)
    names = ("red", "green", "<blue>")
    return LoadedModel(net, "tiny", Preprocess(size=(12, 12), resize=None), names)


@pytest.fixture
def folder(tmp_path):
    for label in range(3):
        (tmp_path / "photos" / str(label)).mkdir(parents=True)
        for seed in range(3):
            pixels = np.random.default_rng(10 * label + seed).integers(0, 256, (12, 16, 3))
            file = tmp_path / "photos" / str(label) / f"{label}{seed}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(file)
    return tmp_path / "photos"


# ---- patchiness ---------------------------------------------------------------------------------


def slow_geary(x):
    cells = [(r, c) for r in range(x.shape[0]) for c in range(x.shape[1])]
    steps = weight = 0.0
    for a in cells:
        for b in cells:
            if abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1:
                steps += float(x[a] - x[b]) ** 2
                weight += 1
    return (len(cells) - 1) * steps / (2 * weight * float(((x - x.mean()) ** 2).sum()))


def test_patchiness_is_geary_s_c():
    maps = torch.rand(3, 4, 5, dtype=torch.float64)
    torch.testing.assert_close(
        patchiness(maps), torch.tensor([slow_geary(m) for m in maps], dtype=torch.float64)
    )
    torch.testing.assert_close(patchiness(maps), patchiness(7 * maps - 3))


def test_noise_is_patchy_and_a_ramp_is_not():
    noise = torch.rand(1, 28, 28, generator=torch.Generator().manual_seed(0))
    ramp = torch.linspace(0, 1, 28).expand(1, 28, 28)
    board = ((torch.arange(28)[:, None] + torch.arange(28)) % 2)[None].float()
    assert patchiness(noise) == pytest.approx(1, abs=0.1)
    assert patchiness(ramp) < 0.01
    assert patchiness(board) == pytest.approx(2, abs=0.01)
    large = torch.nn.functional.interpolate(noise[None], size=(224, 224))[0]
    torch.testing.assert_close(patchiness(large), patchiness(noise))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e8])
def test_a_constant_map_has_no_patchiness(value):
    assert math.isnan(patchiness(torch.full((1, 40, 37), value)))


def test_islands_and_grey_levels():
    one = torch.tensor([[1, 0, 1.0], [0, 1, 1], [0.6, 0, 0]])
    assert islands(one) == 3
    assert islands(one, 0.7) == 2
    assert islands(torch.zeros(3, 3)) == 0
    snake = torch.tensor([[1, 1, 1, 1.0], [0, 0, 0, 1], [1, 1, 1, 1], [1, 0, 0, 0]])
    assert islands(snake) == 1
    assert grey_levels(one[None]) == [3]


# ---- numerics -----------------------------------------------------------------------------------


def test_the_exact_variant_is_the_explanation(net):
    x = torch.randn(2, 3, 12, 12)
    for method in (FAST, ICAM(n_perturb=1, alpha_form="none")):
        explanation = explain(net, x, method=method)
        (found,) = numerics(net, x, explanation)
        name = "exact" if method is FAST else "no alpha"
        torch.testing.assert_close(found.maps[name].float(), explanation.maps, rtol=1e-4, atol=1e-4)
        assert list(found.maps) == list(found.levels) == list(VARIANTS)


def test_confidence_changes_alpha_only(net):
    x = torch.randn(1, 3, 12, 12)
    low, high = numerics(net, x, explain(net, x, method=FAST), (0.6, 0.999))
    torch.testing.assert_close(low.maps["no alpha"], high.maps["no alpha"])
    # Near 1 the weights are tiny beside the bias, which swallows the map in single precision.
    assert high.levels["float32 bias"] < low.levels["float32 bias"]
    assert high.levels["exact"] == pytest.approx(low.levels["exact"], abs=0.1)
    assert low.pole_share == 0


def test_just_below_one_half_the_poles_turn_the_map_over(net):
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    net = net.double()
    with torch.no_grad():
        net[-1].weight.mul_(50)  # g times the sum of A beyond the pole
    explanation = explain(net, x, method=FAST)
    below, above = numerics(net, x, explanation, (0.499, 0.501))
    assert below.pole_share > 0.5
    assert above.pole_share == 0
    for found, sign in ((below, -1), (above, 1)):
        a, b = (found.maps[v].flatten() for v in ("exact", "no alpha"))
        assert sign * torch.corrcoef(torch.stack([a, b]))[0, 1] > 0


def test_dialling_to_the_model_s_own_confidence_changes_nothing(net):
    x = torch.randn(1, 3, 12, 12, dtype=torch.float64)
    net = net.double()
    explanation = explain(net, x, method=FAST)
    own = float(explanation.details["probability"][0])
    a, b = numerics(net, x, explanation, (None, own))
    torch.testing.assert_close(a.maps["exact"], b.maps["exact"])


def test_numerics_need_an_icam_explanation(net):
    x = torch.randn(1, 3, 12, 12)
    with pytest.raises(MethodError, match="by I-CAM"):
        numerics(net, x, explain(net, x, method="gradcam"))
    with pytest.raises(MethodError, match="in \\(0, 1\\)"):
        numerics(net, x, explain(net, x, method=FAST), (1.0,))


# ---- boxes --------------------------------------------------------------------------------------


def test_boxes_map_through_the_crop():
    # A photo of 200 x 100, of which the model sees the middle 100 x 100 as 10 x 10.
    mask = box_mask([(60, 0, 80, 50), (0, 0, 40, 100)], (50, 0, 150, 100), (10, 10))
    assert mask.sum() == 2 * 5
    assert mask[:5, 1:3].all()
    assert not box_mask([(0, 0, 40, 100)], (50, 0, 150, 100), (10, 10)).any()


def test_saliency_score():
    mask = torch.tensor([[True, False]])
    assert saliency_score(torch.tensor([[0.2, 0.6]]), mask) == pytest.approx(0.25)
    assert saliency_score(torch.zeros(1, 2), mask) == 0


# ---- the study ----------------------------------------------------------------------------------


def test_every_photo_is_in_the_right_case(model, folder, tmp_path):
    (folder / "0" / "broken.png").write_bytes(b"no")
    (tmp_path / "boxes.csv").write_text(
        "file,xmin,ymin,xmax,ymax\n00.png,0,0,16,12\n11.png,0,0,1,1\n12.png,2,0,8,12\n"
    )
    study = four_cases(
        model, folder, boxes=tmp_path / "boxes.csv", method=FAST, dial=2, batch_size=4
    )
    assert len(study.photos) == 9
    explanation = explain(model, [p.file for p in study.photos], method=FAST)
    for photo, predictions in zip(study.photos, explanation.predictions, strict=True):
        best = predictions[0]
        right = best.name == photo.true_class
        assert photo.case == (
            f"{'confident' if best.probability >= 0.5 else 'unsure'}-{'right' if right else 'wrong'}"
        )
        assert photo.confidence == pytest.approx(best.probability, rel=1e-5)
    by_name = {p.file[-6:]: p for p in study.photos}
    assert by_name["00.png"].saliency == pytest.approx(1)
    assert by_name["11.png"].saliency is None  # the crop leaves the box out
    assert 0 < by_name["12.png"].saliency < 1
    assert by_name["10.png"].saliency is None
    assert sum(row["photos"] for row in study.table()) == 9
    assert [p.name for p, _ in study.skipped] == ["broken.png"]
    assert study.dial.images == 2
    assert len(study.dial.patchiness["exact"]) == len(DIALLED)
    assert [row["variant"] for row in study.patchy()] == list(VARIANTS)
    assert json.loads(json.dumps(study.to_dict()))["photos"]


def test_the_page_is_self_contained_and_escaped(model, folder):
    page = four_cases(model, folder, method=FAST, dial=0).html(most=1)
    assert page.count("<section") == 5
    assert "&lt;blue&gt;" in page
    assert "<blue>" not in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "<script" not in page
    assert all("alt=" in tag for tag in re.findall(r"<img[^>]*>", page))


def test_a_seed_gives_the_same_study(model, folder):
    one, two = (four_cases(model, folder, method=FAST, dial=1).to_dict() for _ in range(2))
    assert one == two


def test_errors(model, folder):
    with pytest.raises(MethodError, match="threshold"):
        four_cases(model, folder, threshold=1.5)
    regression = nn.Sequential(*list(model.module)[:-1], nn.Linear(5, 1)).eval()
    with pytest.raises(CamlucidaError):
        four_cases(LoadedModel(regression, "r", model.preprocess, None), folder, method=FAST)
    for file in folder.glob("*/*.png"):
        file.write_bytes(b"no")
    with pytest.raises(ImageError, match="can be read"):
        four_cases(model, folder, method=FAST)


def test_statistics():
    x = np.arange(6.0)
    assert _spearman(x, x**3) == pytest.approx(1)
    assert _spearman(x, -x) == pytest.approx(-1)
    assert _spearman(x[:2], x[:2]) is None
    assert _ranks(np.array([3.0, 1, 3, 2])).tolist() == [3.5, 1, 3.5, 2]
    assert _permutation_p(np.array([]), x, 0) is None
    assert _permutation_p(x + 100, x, 0) == pytest.approx(2 / 924, abs=0.002)
    assert _permutation_p(x, x, 0) == 1
