"""``camlucida audit sham | logit-shift | residual-logits`` as users run them, and the paper's tables."""

from __future__ import annotations

import json

import pytest
import torch
import typer
from test_fooling import Gap
from torch.nn import functional as F
from typer.testing import CliRunner

from camlucida.cli.audit.sham import logit_shift, residual_logits, sham
from camlucida.cli.reproduce import diff_tables as cli_tables
from camlucida.cli.shared.model import EMBEDDED
from camlucida.cli.shared.opening import labelled_case
from camlucida.common.errors import CamlucidaError
from camlucida.studies.published.diff_tables import case_of, diff_table1, diff_table2, diff_table3
from camlucida.studies.published.numbers import DIFF_TABLE1, DIFF_TABLE2, DIFF_TABLE3

app = typer.Typer()
app.command()(sham)
app.command("logit-shift")(logit_shift)
app.command("residual-logits")(residual_logits)
for command in (cli_tables.diff_table1, cli_tables.diff_table2, cli_tables.diff_table3):
    app.command(command.__name__.replace("_", "-"))(command)


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("photos")
    for i in range(9):
        picture = Image.new("RGB", (40, 40), (25 * i, 90, 200 - 20 * i))
        picture.paste((255, 255, 255), (i, i, i + 12, i + 12))
        picture.save(root / f"{i}.png")
    return root


def test_commands_explain_themselves():
    text = run("sham", "--help").output
    for word in ("--trainable", "--attack", "--epochs", "--lr", "--long-tail", "--quick"):
        assert word in text
    assert "--strength" in run("logit-shift", "--help").output


def test_what_goes_together(tmp_path):
    assert isinstance(
        run("sham", "--layer", "x", "--out", tmp_path / "o").exception, CamlucidaError
    )
    assert isinstance(run("sham", "--trainable", "some").exception, CamlucidaError)
    assert isinstance(run("sham", "--attack", "scorecam").exception, CamlucidaError)
    assert isinstance(
        run("sham", "-m", "embedded", "--out", tmp_path / "o").exception, CamlucidaError
    )
    assert not (tmp_path / "o").exists()


def test_images_are_taken_from_every_class(tmp_path):
    from PIL import Image

    for name in ("lion", "cheetah", "espresso"):
        (tmp_path / name).mkdir()
        for i in range(8):
            Image.new("RGB", (8, 8), (9 * i, 0, 0)).save(tmp_path / name / f"{i}.png")
    _, inputs, labels, _ = labelled_case(EMBEDDED, str(tmp_path), 9, None, quick=True)
    assert len(inputs) == len(labels) == 9
    assert len(labels.unique()) == 3


@pytest.mark.parametrize(
    ("given", "rate"),
    [([], 0.02), (["--trainable", "head"], 0.3), (["--trainable", "head", "--lr", 0.01], 0.01)],
)
def test_a_head_learns_at_its_own_rate(tmp_path, monkeypatch, given, rate):
    seen = []

    def audit(**options):
        seen.append(options["attack"].learning_rate)
        raise CamlucidaError("enough")

    monkeypatch.setattr("camlucida.audits.audit_sham", audit)
    run("sham", *given, "--out", tmp_path)
    assert seen == [pytest.approx(rate)]


def test_residual_logits_writes_its_report(tmp_path):
    result = run("residual-logits", "--draws", 2000, "--out", tmp_path, "--json")
    document = json.loads(result.stdout)
    assert document["audit"] == "residual-logits"
    assert (tmp_path / "residual-logits-variance.png").is_file()


@pytest.mark.slow
def test_logit_shift_on_ones_own_photos(tmp_path, photos):
    result = run(
        "logit-shift", "-m", "embedded", "--data", photos, "--count", 4, "--method", "gradcam", "--out", tmp_path,
        "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    outcomes = {v["subject"]: v["outcome"] for v in json.loads(result.stdout)["verdicts"]}
    assert outcomes["gradcam"] == "fail"
    assert outcomes["MeanDiffGradCAM"] == "pass"


@pytest.mark.slow
def test_sham_on_ones_own_photos(tmp_path, photos):
    result = run(
        "sham", "-m", "embedded", "--data", photos, "--count", 9, "--method", "gradcam", "--epochs", 1, "--attack",
        "gradcam:mean", "--trainable", "head", "--lr", 0.01, "--out", tmp_path, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert "predicted classes" in document["record"]["name"]
    assert document["record"]["main"]["cam"]["aggregator"] == "mean"
    assert document["record"]["main"]["trainable"] == "head"
    assert (tmp_path / "sham.html").is_file()


# --------------------------------------------------------------------------------------- tables


@pytest.fixture(scope="module")
def case():
    torch.manual_seed(0)
    images = 0.2 * torch.randn(48, 3, 14, 14)
    labels = torch.arange(48) % 4
    for i, c in enumerate(labels):
        images[i, c % 3, 3:8, 3 + c : 8 + c] += 2
    model = Gap()
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(40):
        optimiser.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimiser.step()
    half = (images[:32], labels[:32]), (images[32:], labels[32:])
    return case_of(model.eval(), *half, "features", name="four squares")


def test_published_numbers():
    assert DIFF_TABLE3["GradCAM"] == (0.2420, 0.0723)
    assert DIFF_TABLE3["MeanDiffGradCAM"] == (0.0460, 0.0398)
    assert DIFF_TABLE2["MaxDiffGradCAM"] == (0.101, 0.0801)
    assert DIFF_TABLE1["SHAM"] == (0.9766, 0.0018)


def test_table_2(case):
    found = diff_table2(case)
    (table,) = found.tables
    rows = dict(table.rows)
    assert list(rows) == list(DIFF_TABLE2)
    for name, cells in rows.items():
        assert [c.value for c in cells[2:4]] == list(DIFF_TABLE2[name])
        assert 0 <= cells[0].value <= 1
    assert rows["MeanDiffGradCAM"][0].value == pytest.approx(
        sum(found.record["similarity"]["MeanDiffGradCAM"]) / 16
    )


def test_a_centred_head_makes_mean_and_gradcam_the_same(case):
    import copy
    from dataclasses import replace

    model = copy.deepcopy(case.trial.model)
    with torch.no_grad():
        model.classifier.weight.sub_(model.classifier.weight.mean(0))
    found = diff_table2(replace(case, trial=replace(case.trial, model=model)))
    assert dict(found.tables[0].rows)["MeanDiffGradCAM"][0].value < 1e-10


def test_table_3(case, tmp_path):
    from camlucida.audits.fooling.tune import Attack

    attack = Attack(epochs=3, learning_rate=0.1, batch=16)
    found = diff_table3(case, attack=attack, out=tmp_path)
    rows = dict(found.tables[0].rows)
    assert [c.value for c in rows["GradCAM"][3:5]] == [0.2420, 0.0723]
    assert rows["GradCAM without ReLU (CAM)"][3].value is None
    assert "Published: 5.3 times" in found.lead[1]
    assert {f.name for f in found.save(tmp_path)} >= {
        "diff-table3.html",
        "diff-table3.csv",
        "diff-table3.tex",
    }
    json.dumps(found.to_dict())


def test_table_3_of_another_model_or_layer_is_made_anew(case, tmp_path):
    from dataclasses import replace

    from camlucida.audits.fooling.tune import Attack

    torch.manual_seed(5)
    attack = Attack(batch=16, learning_rate=0.05)
    other = replace(case, trial=replace(case.trial, model=Gap().eval()))
    deeper = replace(case, trial=replace(case.trial, layer="features.2"))
    seen = []
    for one, how in ((case, attack), (other, attack), (deeper, attack.against("gradcam"))):
        kept = diff_table3(one, attack=how, out=tmp_path)
        assert kept.record["measured"] == diff_table3(one, attack=how).record["measured"]
        seen.append(json.dumps(kept.record["measured"]))
    assert len(set(seen)) == 3


def test_table_3_of_a_model_without_a_class_weight_map(case):
    from torch import nn

    torch.manual_seed(1)
    flat = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(294, 4)
    ).eval()
    found = diff_table3(
        case_of(flat, (case.images, case.labels), (case.test, case.test_labels), "1")
    )
    assert found.record["attack"]["cam"]["cam"] == "gradcam"
    assert "gradcam, all, 1 epoch" in found.lead[0]
    one = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(294, 1)).eval()
    zeros = torch.zeros_like(case.labels), torch.zeros_like(case.test_labels)
    single = case_of(one, (case.images, zeros[0]), (case.test, zeros[1]), "1")
    for table in (diff_table2, diff_table3):
        with pytest.raises(CamlucidaError, match="two classes or more"):
            table(single)
    with pytest.raises(CamlucidaError, match="classes 0 to 3, but a label is 7"):
        diff_table3(
            case_of(flat, (case.images, case.labels + 4), (case.test, case.test_labels), "1")
        )


@pytest.mark.slow
def test_tables_from_the_command_line(tmp_path, photos):
    arguments = ("-m", "embedded", "--data", photos, "--count", 8, "--out", tmp_path, "--json")
    for name in ("diff-table2", "diff-table3"):
        result = run(name, *arguments)
        assert result.exit_code == 0, result.exception
        assert json.loads(result.stdout)["name"] == name
        assert (tmp_path / f"{name}.html").is_file()
    assert isinstance(run("diff-table2", "--layer", "x").exception, CamlucidaError)


@pytest.mark.slow
def test_table_1(tmp_path, monkeypatch):
    from camlucida.studies.published import diff_tables

    once = diff_tables._train_once
    monkeypatch.setattr(
        diff_tables, "_train_once", lambda kind, seed, *_: once(kind, seed, images=128, epochs=1)
    )
    found = diff_table1(seeds=(0,), out=tmp_path)
    rows = dict(found.tables[0].rows)
    assert list(rows) == ["human salience", "SHAM", "none"]
    assert rows["none"][2].value is None
    assert 0 <= rows["SHAM"][0].value <= 1


def test_refusals(case):
    images, two = torch.zeros(3, 3, 14, 14), torch.zeros(2, dtype=torch.long)
    with pytest.raises(CamlucidaError, match="3 images and 2 labels"):
        case_of(case.trial.model, (images, two), (images, two), "features")
