"""Patchiness, and I-CAM's numerics varied."""

import math

import pytest
import torch

from camlucida import explain
from camlucida.common.errors import MethodError
from camlucida.methods.icam import ICAM
from camlucida.studies.icam.four_cases.patchiness import (
    VARIANTS,
    grey_levels,
    islands,
    numerics,
    patchiness,
)
from reference import networks

FAST = ICAM(n_perturb=1)


@pytest.fixture
def net():
    return networks.small()


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
