"""``camlucida audit`` as users run it."""

import json

import pytest
import torch
from typer.testing import CliRunner

from camlucida.cli.audit import audit
from camlucida.errors import CamlucidaError
from camlucida.reproduce.wall_table1 import ACCURACY, PUBLISHED, parity_methods, wall_table1


def run(*arguments):
    return CliRunner().invoke(audit, [str(a) for a in arguments])


def test_commands_explain_themselves():
    shown = run("--help").output
    assert "deadzone" in shown
    assert "theory" in shown
    assert "rows:170-223" in run("deadzone", "--help").output


def test_a_wall_needs_a_model(tmp_path):
    result = run("deadzone", "--wall", "rows:1-2", "--out", tmp_path / "out")
    assert isinstance(result.exception, CamlucidaError)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_theory_writes_its_report(tmp_path):
    result = run("theory", "--out", tmp_path, "--json")
    document = json.loads(result.output)
    outcomes = {v["subject"]: v["outcome"] for v in document["verdicts"]}
    assert outcomes["Proposition 1"] == outcomes["Theorem 1, 32 filters"] == "pass"
    assert outcomes["digits: gradcam"] == "fail"
    assert outcomes["digits: hirescam"] == "pass"
    assert (tmp_path / "theory.html").is_file()
    assert document["record"]["mnist"]["pixels"]["rows"] == [15, 28]


@pytest.mark.slow
def test_stand_ins_show_the_papers_finding(tmp_path):
    from camlucida.audits.deadzone.audit import audit_dead_zone_stand_ins
    from camlucida.audits.deadzone.nets import Plan

    plan = Plan(train=320, validation=40, test=40, epochs=1)
    options = {"plan": plan, "count": 4, "methods": ["gradcam", "hirescam"], "folder": tmp_path}
    report = audit_dead_zone_stand_ins(**options)
    assert report["hirescam"].value == 0
    assert report["gradcam"].outcome == "fail"
    again = audit_dead_zone_stand_ins(**options)
    assert again.record["measured"] == report.record["measured"]
    assert again.record["nets"] == report.record["nets"]
    assert again.record["resumed_parts"] >= 9


def test_published_numbers_and_their_methods():
    assert list(PUBLISHED) == list(parity_methods({}))
    assert PUBLISHED["hirescam"]["STACK-GEN"] == (0.0, 0.0)
    assert ACCURACY["masked"] == (66.5, 87.0)
    with pytest.raises(CamlucidaError, match="sets"):
        wall_table1(torch.nn.Identity())


@pytest.mark.slow
def test_the_published_table_is_made_for_a_model_and_sets(tmp_path):
    from camlucida.data.digits import Digits
    from camlucida.data.stack_mix import StackMix
    from camlucida.models import LoadedModel
    from camlucida.models.masked_vgg import TARGET_LAYER, MaskedVGG
    from camlucida.models.walls import Region
    from camlucida.preprocess import Preprocess

    torch.manual_seed(0)
    module = MaskedVGG(10, width=1 / 16, size=128, seen_rows=1).eval()
    # Rows 0 to 105 are what row 0 of the map sees (spec 9.1).
    model = LoadedModel(module, "thin", Preprocess(size=(128, 128), resize=128), None)
    data = StackMix(Digits("test", count=40, size=128), dead=Region.rows(106), size=128)
    found = wall_table1(model, {"STACK-MIX": data}, layer=TARGET_LAYER, count=3, folder=tmp_path)
    assert found.record["dead_pixels"]["rows"] == [106, 127]
    assert max(found.record["mu"]["STACK-MIX"]["hirescam"]) == 0
    assert max(found.record["mu"]["STACK-MIX"]["eigencam"]) > 0
    (table,) = found.tables
    assert [cell.value for cell in dict(table.rows)["hirescam"][:2]] == [0, 0]
    assert [cell.value for cell in dict(table.rows)["gradcam"][2:]] == [22.7, 13.4, 21.6, 11.6]
    assert "wall-table1.html" in [file.name for file in found.save(tmp_path)]
