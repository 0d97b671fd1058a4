"""``camlucida audit`` as users run it."""

import json

import pytest
import torch
import typer
from PIL import Image

from camlucida.audits import AuditReport, TrustReport, Verdict
from camlucida.audits.trust.report import Finding, MethodTrust
from camlucida.cli.audit.group import audit, end
from camlucida.common.errors import CamlucidaError
from camlucida.models.masked_vgg import MaskedVGG
from camlucida.studies.published.wall_table1 import ACCURACY, PUBLISHED, parity_methods, wall_table1
from reference.commands import invoke


def test_commands_explain_themselves():
    shown = invoke(audit, "--help").output
    assert "deadzone" in shown
    assert "theory" in shown
    assert "rows:170-223" in invoke(audit, "deadzone", "--help").output


def test_a_wall_needs_a_model(tmp_path):
    result = invoke(audit, "deadzone", "--wall", "rows:1-2", "--out", tmp_path / "out")
    assert isinstance(result.exception, CamlucidaError)
    assert not (tmp_path / "out").exists()


@pytest.fixture
def masked(tmp_path):
    """A thin masked VGG for 112 pixels, whose rows 106 to 111 are dead (spec 9.1), as a file."""
    torch.manual_seed(0)
    module = MaskedVGG(10, width=1 / 32, size=112, seen_rows=1)
    torch.save(module.state_dict(), tmp_path / "best.pt")
    return f"masked-vgg:{tmp_path / 'best.pt'}"


def audited(masked, out, *arguments):
    result = invoke(
        audit, "deadzone", "--model", masked, "--count", 2, "--out", out, "--json", *arguments
    )
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)


def test_a_dead_zone_is_audited_on_any_data_with_options(masked, tmp_path):
    methods = ("--method", "hirescam", "--method", "gradcam", "--method", "fame:iterations=3")
    data = "digits,size=112,count=60"
    found = audited(masked, tmp_path / "out", "--data", data, *methods)
    measured = found["record"]["measured"]
    assert list(measured) == ["hirescam", "gradcam", "fame:iterations=3"]
    assert measured["fame:iterations=3"]["options"]["iterations"] == 3
    assert found["record"]["dead_pixels"]["rows"] == [106, 111]
    assert found["record"]["images"]["name"] == "stack-mix:digits:test"
    assert found["record"]["images"]["options"]["dead"] == "rows 106-111"
    again = audited(masked, tmp_path / "out", "--data", data, "--method", "fame:iterations=4")
    assert again["record"]["measured"]["fame:iterations=4"]["options"]["iterations"] == 4


def test_folders_that_the_model_does_not_know_are_paired_all_the_same(masked, tmp_path):
    for name in ("cats", "dogs"):
        for number in range(2):
            path = tmp_path / "data" / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.effect_noise((120, 130), 40 + 10 * number).convert("RGB").save(path)
    options = ("--data", tmp_path / "data", "--method", "hirescam")
    found = audited(masked, tmp_path / "a", *options)["record"]["images"]
    assert (found["name"], found["samples"]) == ("stack-mix:data", 2)
    found = audited(masked, tmp_path / "b", *options, "--no-stack")["record"]["images"]
    assert (found["name"], found["samples"]) == ("data", 4)
    (tmp_path / "data" / "cats" / "0.png").unlink()
    (tmp_path / "data" / "dogs" / "0.png").unlink()
    found = audited(masked, tmp_path / "c", *options)["record"]["images"]
    assert (found["name"], found["samples"]) == ("data", 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "nowhere"], "neither a path"),
        (["--method", "gradcam:colour=3"], "no option 'colour'"),
        (["--method", "gradcam", "--method", "GradCAM"], "'gradcam' is given twice"),
    ],
)
def test_what_does_not_fit_a_dead_zone_is_said(masked, tmp_path, arguments, said):
    result = invoke(audit, "deadzone", "--model", masked, *arguments, "--out", tmp_path / "out")
    assert isinstance(result.exception, CamlucidaError)
    assert said in str(result.exception)


def test_a_named_method_that_cannot_be_tested_ends_with_code_2(capsys):
    verdicts = (
        Verdict("gradcam", "pass", "Well."),
        Verdict("legrad", "not tested", "No attention."),
    )
    report = AuditReport("a", "A", "All.", "Said.", verdicts)
    assert report.to_dict()["skipped"] == [{"method": "legrad", "reason": "No attention."}]
    trust = TrustReport(
        "m", "d", 1,
        (MethodTrust("gradcam", {}, (Finding("a", "a", "pass", "Well."),)),
         MethodTrust("legrad", {}, (Finding("a", "a", "not tested", "No attention."),))),
        (), {},
    )  # fmt: skip
    assert trust.untested == report.untested == {"legrad": "No attention."}
    end(report.untested, None)  # the usual methods of an audit fit where they can
    with pytest.raises(typer.Exit) as ended:
        end(report.untested, ["gradcam", "legrad"])
    assert ended.value.exit_code == 2
    assert "left out: legrad: No attention." in capsys.readouterr().err


@pytest.mark.slow
def test_theory_writes_its_report(tmp_path):
    result = invoke(audit, "theory", "--out", tmp_path, "--json")
    document = json.loads(result.stdout)
    outcomes = {v["subject"]: v["outcome"] for v in document["verdicts"]}
    assert outcomes["Proposition 1"] == outcomes["Theorem 1, 32 filters"] == "pass"
    assert outcomes["digits: gradcam"] == "fail"
    assert outcomes["digits: hirescam"] == "pass"
    assert (tmp_path / "theory.html").is_file()
    assert document["record"]["mnist"]["pixels"]["rows"] == [15, 28]


@pytest.mark.slow
def test_stand_ins_show_the_papers_finding(tmp_path):
    from camlucida.audits import audit_dead_zone
    from camlucida.audits.deadzone.nets import WallPlan

    plan = WallPlan(train=320, validation=40, test=40, epochs=1)
    options = {"plan": plan, "count": 6, "methods": ["gradcam", "hirescam"], "out": tmp_path}
    report = audit_dead_zone(**options)
    assert report["hirescam"].value == 0
    assert report["gradcam"].outcome == "fail"
    again = audit_dead_zone(**options)
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
    from camlucida.data.preprocess import Preprocess
    from camlucida.data.regions import Region
    from camlucida.data.stack_mix import StackMix
    from camlucida.models import LoadedModel
    from camlucida.models.masked_vgg import TARGET_LAYER

    torch.manual_seed(0)
    module = MaskedVGG(10, width=1 / 16, size=128, seen_rows=1).eval()
    # Rows 0 to 105 are what row 0 of the map sees (spec 9.1).
    model = LoadedModel(module, "thin", Preprocess(size=(128, 128), resize=128), None)
    data = StackMix(Digits("test", count=40, size=128), dead=Region.rows(106), size=128)
    found = wall_table1(model, {"STACK-MIX": data}, layer=TARGET_LAYER, count=3, out=tmp_path)
    assert found.record["dead_pixels"]["rows"] == [106, 127]
    assert max(found.record["mu"]["STACK-MIX"]["hirescam"]) == 0
    assert max(found.record["mu"]["STACK-MIX"]["eigencam"]) > 0
    (table,) = found.tables
    assert [cell.value for cell in dict(table.rows)["hirescam"][:2]] == [0, 0]
    assert [cell.value for cell in dict(table.rows)["gradcam"][2:]] == [22.7, 13.4, 21.6, 11.6]
    assert "wall-table1.html" in [file.name for file in found.save(tmp_path)]
