"""Published tables and ours: the protocols run, are kept, and say what can be compared."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from camlucida.cli import main
from camlucida.data.digits import Digits
from camlucida.models.loaded import LoadedModel
from camlucida.models.small import SmallCNN, SmallConfig, small_preprocess
from camlucida.studies.published.fame_table2 import fame_table2
from camlucida.studies.published.icam_table1 import icam_table1
from camlucida.studies.published.numbers import FAME_TABLE2
from camlucida.studies.published.tables import TABLES

SIZE = 32


@pytest.fixture(scope="module")
def sets():
    torch.manual_seed(0)
    net = SmallCNN(SmallConfig(stages=(8, 12), size=SIZE)).eval()
    model = LoadedModel(net, "a small network", small_preprocess(SIZE), tuple("0123456789"))
    return {"digits": (model, Digits("test", count=6, size=SIZE))}


def cells(table, method):
    return next(cells for name, cells in table.rows if name.startswith(method))


def test_fame_table2(sets, tmp_path):
    found = fame_table2(sets, tmp_path, iterations=2, batch_size=3)
    (table,) = found.tables
    assert len(table.rows) == len(FAME_TABLE2)
    assert [c.value for c in cells(table, "gradcam")] == [c.value for c in cells(table, "hirescam")]
    assert any("agree on digits" in sentence for sentence in found.lead)
    assert [c.published for c in cells(table, "fame")[:3]] == [46.1, 29.1, 10.8]
    assert cells(table, "fame")[6].published is None  # nothing was published by rank
    files = found.save(tmp_path)
    assert {f.suffix for f in files} == {".html", ".json", ".csv", ".tex"}
    assert json.loads(files[1].read_text())["complete"] is True
    # The rows are kept: the same call computes nothing, another one is refused.
    seen = []
    again = fame_table2(sets, tmp_path, iterations=2, say=lambda *told: seen.append(told))
    assert again.tables == found.tables
    assert seen[0][1:] == (6, 6)
    with pytest.raises(ValueError, match="iterations"):
        fame_table2(sets, tmp_path, iterations=3)


def test_fame_table2_of_stand_ins_prints_no_published_numbers(sets, tmp_path):
    found = fame_table2(sets, tmp_path, methods=["gradcam"], compare=False)
    assert all(cell.published is None for cell in cells(found.tables[0], "gradcam"))
    assert any("stand-ins" in sentence for sentence in found.lead)


def test_icam_table1_averages_its_runs(tmp_path):
    torch.manual_seed(3)
    net = SmallCNN(SmallConfig(stages=(8, 12), size=SIZE)).eval()
    data = Digits("test", count=6, size=SIZE)
    # A network that is right everywhere, since only such photos count.
    right = torch.nn.Sequential(net, _Says(data, net))
    model = LoadedModel(right, "right", small_preprocess(SIZE), tuple("0123456789"))
    found = icam_table1({"digits": (model, data)}, tmp_path, runs=2, baselines=["gradcam"])
    runs = found.record["sets"]["digits"]["icam_runs"]["box_iou"]
    assert len(runs) == 2
    (table,) = found.tables
    assert cells(table, "icam")[0].value == pytest.approx(100 * np.mean(runs))
    assert cells(table, "icam")[0].low == pytest.approx(100 * min(runs))
    assert "6 correctly predicted" in table.caption


class _Says(torch.nn.Module):
    """Adds 100 to the logit of each known image's own class."""

    def __init__(self, data, net):
        super().__init__()
        drawn = data.tensors()
        from camlucida.models.small import as_input

        with torch.no_grad():
            self.register_buffer("known", net(as_input(drawn.images)))
        self.register_buffer("labels", drawn.labels)

    def forward(self, logits):
        nearest = torch.cdist(logits.detach(), self.known).argmin(1)
        return logits + 100 * torch.nn.functional.one_hot(self.labels[nearest], logits.shape[1])


@pytest.mark.parametrize("table", ["fame-table2", "icam-table1"])
def test_the_command_asks_what_to_run_on(table, capsys):
    assert main(["reproduce", table]) == 2
    assert "--standin" in capsys.readouterr().err
    assert main(["reproduce", table, "--data", "nowhere", "--standin"]) == 2
    assert main(["reproduce", table, "--data", "nowhere", "--model", "embedded"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_documentation_lists_every_table():
    listed = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text()
    assert [name for name in TABLES if f"| `{name}` |" not in listed] == []
