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
from camlucida.studies.published.diff_tables import diff_table1, diff_table2, diff_table3
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
    return model.eval(), images, labels


@pytest.fixture(scope="module")
def fooled(case):
    from camlucida.audits.fooling.tune import Attack, fool

    return fool(*case, Attack(epochs=3, learning_rate=0.1, batch=16), layer="features").model


def test_published_numbers():
    assert DIFF_TABLE3["GradCAM"] == (0.2420, 0.0723)
    assert DIFF_TABLE3["MeanDiffGradCAM"] == (0.0460, 0.0398)
    assert DIFF_TABLE2["MaxDiffGradCAM"] == (0.101, 0.0801)
    assert DIFF_TABLE1["SHAM"] == (0.9766, 0.0018)


def test_table_2(case):
    model, images, labels = case
    found = diff_table2(model, (images, labels), layers="features")
    (table,) = found.tables
    rows = dict(table.rows)
    assert list(rows) == [*DIFF_TABLE2, "DiffGradCAM by the guideline"]
    for name, numbers in DIFF_TABLE2.items():
        assert [c.value for c in rows[name][2:4]] == list(numbers)
        assert 0 <= rows[name][0].value <= 1
    assert len(found.record["similarity"]["MeanDiffGradCAM"]) == 48  # every image
    assert rows["MeanDiffGradCAM"][0].value == pytest.approx(
        sum(found.record["similarity"]["MeanDiffGradCAM"]) / 48
    )


def test_a_centred_head_makes_mean_and_gradcam_the_same(case):
    import copy

    model, images, labels = case
    centred = copy.deepcopy(model)
    with torch.no_grad():
        centred.classifier.weight.sub_(centred.classifier.weight.mean(0))
    found = diff_table2(centred, (images, labels), layers="features")
    assert dict(found.tables[0].rows)["MeanDiffGradCAM"][0].value < 1e-10


def test_table_3(case, fooled, tmp_path):
    model, images, labels = case
    data, options = (images, labels), {"layers": "features", "batch_size": 20}
    found = diff_table3(model, fooled, data, control=model, out=tmp_path, **options)
    rows = dict(found.tables[0].rows)
    assert [c.value for c in rows["GradCAM"][3:5]] == [0.2420, 0.0723]
    assert rows["GradCAM"][2].value == 0  # the control is the clean model
    assert rows["GradCAM without ReLU (CAM)"][3].value is None
    assert "without an attack: 0.000 against 0.000. Published: 5.3 times" in found.lead[1]
    assert {f.name for f in found.save(tmp_path)} >= {
        "diff-table3.html",
        "diff-table3.csv",
        "diff-table3.tex",
    }
    json.dumps(found.to_dict())
    # What was kept is of these very models and of this layer.
    for one, options["layers"] in (
        (model, "features"),
        (fooled, "features"),
        (fooled, "features.2"),
    ):
        kept = diff_table3(model, one, data, out=tmp_path, **options)
        assert kept.record["moves"] == diff_table3(model, one, data, **options).record["moves"]
    with pytest.raises(CamlucidaError, match="train sham makes one"):
        diff_table3(model, None, data)


def test_table_3_of_a_model_without_a_class_weight_map(case):
    from torch import nn

    _, images, labels = case
    torch.manual_seed(1)
    for classes in (4, 1):
        flat = nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(294, classes)
        ).eval()
        if classes == 4:
            found = diff_table3(flat, flat, (images, labels), layers="1", outputs="classes")
            assert found.record["images"] == 48
    for table, models in ((diff_table2, (flat,)), (diff_table3, (flat, flat))):
        with pytest.raises(CamlucidaError, match="two"):
            table(*models, (images, 0 * labels), layers="1")


@pytest.mark.slow
def test_table_1(tmp_path):
    found = diff_table1(seeds=1, out=tmp_path, images=128, epochs=1)
    rows = dict(found.tables[0].rows)
    assert list(rows) == ["human salience", "SHAM", "cross-entropy alone"]
    assert rows["SHAM"][1].value is None
    assert [c.value for c in rows["SHAM"][2:4]] == list(DIFF_TABLE1["SHAM"])
    assert 0 <= rows["SHAM"][0].value <= 1


@pytest.mark.slow
def test_table_1_of_the_iris_setting(tmp_path):
    """Unequal classes are made equal, and the command trains on people's maps and on SHAM."""
    import numpy as np
    from PIL import Image

    from camlucida.cli import app as whole

    for name, count in (("real", 9), ("printout", 5)):
        for i in range(count):
            photo, drawn = (tmp_path / part / name / f"{i}.png" for part in ("all", "marks"))
            for file in (photo, drawn):
                file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (56, 56), (20 * i, 200 * (name == "real"), 90)).save(photo)
            Image.fromarray(np.eye(56, dtype=np.uint8) * 255).save(drawn)

    def command(*arguments):
        return CliRunner().invoke(whole, [str(a) for a in arguments])

    made = command(
        "train", "balance", tmp_path / "all", "--maps", tmp_path / "marks", "--out", tmp_path / "iris", "--train", 4,
        "--val", 2, "--test", 3, "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    photos = json.loads(made.stdout)["photos"]
    assert photos["train"] == {"real": [4, 4], "printout": [4, 2]}
    result = command(
        "reproduce", "diff-table1", "--data", tmp_path / "iris", "--maps", tmp_path / "iris" / "maps", "--model",
        "small", "--epochs", 1, "--seeds", 2, "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)["record"]
    assert record["arms"] == ["human", "sham"]
    assert record["seeds"] == [0, 1]
    lone = command("reproduce", "diff-table1", "--data", tmp_path / "iris", "--out", tmp_path / "o")
    assert "--maps" in str(lone.exception)
