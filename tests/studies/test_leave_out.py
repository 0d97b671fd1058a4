"""Does a layer's score say what leaving it out costs? Against a residual network written out by hand."""

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

import camlucida
from camlucida.audits.request import Request
from camlucida.studies.icam import audit_layer_scores
from camlucida.studies.icam.leave_out import LeftOut, _verdict, left_out
from reference.state import same


class Block(nn.Module):
    def __init__(self, given, made, stride=1):
        super().__init__()
        self.body = nn.Conv2d(given, made, 3, stride, 1)
        self.short = nn.Identity() if given == made else nn.Conv2d(given, made, 1, stride)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.body(x) + self.short(x))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.blocks = nn.ModuleList(
            [Block(6, 6), Block(6, 6), Block(6, 8, 2), *(Block(8, 8) for _ in range(3))]
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean((2, 3)))


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Residual().double().eval()


@pytest.fixture
def images():
    return torch.randn(
        7, 3, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def by_hand(net, x, without=None, keep=None):
    """The logits with one block skipped, or some of its channels at zero."""
    x = net.stem(x)
    for number, block in enumerate(net.blocks):
        if number == without and keep is None:
            continue
        x = block(x)
        if number == without:
            for channel in range(x.shape[1]):
                if channel not in keep:
                    x = x * (torch.arange(x.shape[1]) != channel)[None, :, None, None]
    return net.head(x.mean((2, 3)))


@pytest.mark.parametrize("way", ["bypassed", "halved"])
def test_costs_are_those_of_the_network_without_the_layer(net, images, way):
    trial = Request(net, images, count=7).open().ranked()
    names = [f"blocks.{i}" for i in range(6)]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    found = left_out(trial, names, way)
    assert same(before, net.state_dict())
    assert not any(m._forward_hooks for m in net.modules())
    able = [0, 1, 3, 4, 5] if way == "bypassed" else list(range(6))
    assert found.layers == tuple(names[i] for i in able)
    with torch.no_grad():
        whole = net(images).log_softmax(1)
        for column, i in enumerate(able):
            keep = None
            if way == "halved":
                x = net.stem(images)
                for block in net.blocks[: i + 1]:
                    x = block(x)
                sizes = x.abs().mean((0, 2, 3)).tolist()
                keep = sorted(range(len(sizes)), key=sizes.__getitem__)[len(sizes) // 2 :]
            after = by_hand(net, images, i, keep).log_softmax(1)
            for row, c in enumerate(whole.argmax(1).tolist()):
                assert found.cost[row, column] == pytest.approx(
                    float(whole[row, c] - after[row, c]), abs=1e-10
                )
            stay = (whole.argmax(1) == after.argmax(1)).double().mean()
            assert found.kept[column] == pytest.approx(float(stay))


def test_the_verdict_is_the_rank_correlation_of_score_and_cost(net, images):
    report = audit_layer_scores(net, images, count=7, method="icam:n_perturb=2")
    share = np.array(report.record["share"])
    assert share.sum(1) == pytest.approx(1)
    for verdict in report.verdicts:
        kept = report.record["cost"][verdict.subject]
        at = [report.record["layers"].index(name) for name in kept["layers"]]
        rho = [spearmanr(s[at], c).statistic for s, c in zip(share, kept["cost"], strict=True)]
        assert verdict.value == pytest.approx(np.mean(rho))
        assert verdict.details["per_image"] == pytest.approx(rho)
    assert [picture.is_chart for picture in report.pictures] == [True, True]
    assert "log-probability lost" in report.html()


def test_a_score_that_knows_the_cost_passes_and_its_opposite_fails():
    names = tuple("abcde")
    share = torch.rand(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for sign, outcome in ((1, "pass"), (-1, "fail")):
        found = _verdict(LeftOut("bypassed", names, sign * share, (1.0,) * 5), names, share, 0)
        assert (found.outcome, found.value) == (outcome, pytest.approx(sign))
    few = _verdict(LeftOut("bypassed", names[:2], share[:, :2], (1.0,) * 2), names, share, 0)
    assert few.outcome == "not tested"


def test_a_network_without_blocks_has_nothing_to_bypass(images):
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(5, 3),
    ).double()  # fmt: skip
    report = camlucida.studies.icam.audit_layer_scores(chain, images, method="icam:n_perturb=1")
    assert report["bypassed"].outcome == "not tested"
