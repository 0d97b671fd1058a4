"""Verdicts on made-up trainings, the report, and the command as users run it."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from camlucida.cli.train.salience import salience
from camlucida.common.errors import CamlucidaError
from camlucida.training.salience.experiment import Experiment, TrainedArm
from camlucida.training.salience.models import load_trained
from camlucida.training.salience.recipe import IRIS_PAD, STAND_IN
from camlucida.training.salience.report import salience_report, summary
from camlucida.training.salience.verdict import compare, verdicts

pytest.importorskip("lightning_fabric")
pytest.importorskip("scipy")

app = typer.Typer()
app.command()(salience)


def made(arm, seed, correct, *, sham=0.5, entropy=3.3, on=0.2, before=3.8):
    maps = {"entropy": entropy, "border": 0.4, "sham": sham, "object": on, "object_area": 0.05}
    curve = [{"epoch": e, "loss": 1.0, "ce": 1.0, "score": 0.5 + 0.1 * e} for e in range(3)]
    record = {
        "arm": arm,
        "seed": seed,
        "accuracy": sum(correct) / len(correct),
        "correct": "".join(str(int(c)) for c in correct),
        "maps": maps,
        "maps_before": {**maps, "entropy": before, "sham": 0.55},
        "validation_accuracy": 0.7,
        "best_epoch": 2,
        "curves": curve,
        "layer": "features",
        "grid": [7, 7],
        "sham_entropy": math.log(28),
        "parameters": 10,
        "device": "cpu",
        "seconds": 2.0,
        "cpu_seconds": 1.0,
    }
    return TrainedArm(arm, seed, Path("nowhere"), record)


def experiment(trained, *, stand_in=True, complete=True, recipe=STAND_IN):
    arms = tuple(dict.fromkeys(t.arm for t in trained))
    seeds = tuple(sorted({t.seed for t in trained}))
    data = {n: {"name": "eyes", "samples": 100} for n in ("train", "validation", "test")}
    return Experiment(recipe, arms, seeds, tuple(trained), data, stand_in, True, complete)


def hits(count, of=1000):
    return [i < count for i in range(of)]


def test_a_difference_is_that_of_student():
    found = compare(
        experiment(
            [made("sham", s, hits(c)) for s, c in enumerate((900, 910, 905))]
            + [made("human", s, hits(c)) for s, c in enumerate((890, 905, 903))]
        ),
        "sham",
        "human",
    )
    assert found.per_seed == pytest.approx((0.010, 0.005, 0.002))
    values = np.array(found.per_seed)
    # 2.919986: the 95 % quantile of Student's t with two degrees of freedom.
    half = 2.919986 * values.std(ddof=1) / math.sqrt(3)
    assert found.mean == pytest.approx(values.mean())
    assert (found.low_seeds, found.high_seeds) == pytest.approx(
        (values.mean() - half, values.mean() + half), abs=1e-7
    )
    assert found.low_images < found.mean < found.high_images


def test_paired_images_count_not_the_accuracies_alone():
    """Equal accuracy on other images is less certain than on the same ones."""
    one = experiment([made("sham", 0, hits(500)), made("human", 0, hits(500))])
    other = experiment([made("sham", 0, hits(500)), made("human", 0, hits(500)[::-1])])
    assert compare(one, "sham", "human").low_images == 0
    assert compare(other, "sham", "human").low_images < -0.04


@pytest.mark.parametrize(
    ("sham", "outcome"),
    [
        ((905, 907, 906), "holds"),
        ((899, 898, 900), "holds"),  # worse, but by less than the margin
        ((820, 822, 821), "does not hold"),
        ((930, 860, 900), "not decided"),
    ],
)
def test_no_worse_is_told_from_worse_and_from_unknown(sham, outcome):
    trained = [made("sham", s, hits(c)) for s, c in enumerate(sham)]
    trained += [made("human", s, hits(c)) for s, c in enumerate((902, 901, 900))]
    verdict = verdicts(experiment(trained))[0]
    assert verdict.outcome == outcome
    assert "human salience" in verdict.claim
    assert f"{100 * (sham[0] - 902) / 1000:+.2f}".replace("-", "−") in verdict.text


@pytest.mark.parametrize(("guess", "outcome"), [(0.48, "not decided"), (0.3, "holds")])
def test_nothing_is_lost_where_nothing_was_learned(guess, outcome):
    trained = [made(arm, s, hits(500)) for arm in ("sham", "human") for s in range(3)]
    for one in trained:
        one.record["guess"] = guess
    verdict = verdicts(experiment(trained))[0]
    assert verdict.outcome == outcome
    assert ("beyond guessing" in verdict.text) == (outcome == "not decided")


def test_one_seed_decides_nothing():
    found = verdicts(experiment([made("sham", 0, hits(950)), made("mask", 0, hits(900))]))[0]
    assert found.outcome == "not decided"
    assert "a second seed is needed" in found.text


def test_maps_at_the_border_are_told_with_numbers():
    plain = [made("plain", s, hits(900), sham=0.4) for s in range(2)]
    moved = [made("sham", s, hits(900), sham=0.8, entropy=3.34) for s in range(2)]
    claims = {v.claim: v for v in verdicts(experiment(plain + moved))}
    border = claims["With SHAM the maps lie at the border"]
    assert border.outcome == "holds"
    assert "80 %" in border.text
    assert "40 % for cross-entropy alone" in border.text
    assert "has gone 67 % of the way" in border.text
    assert claims["The maps' entropy is that of the mask"].outcome == "holds"
    still = [made("sham", s, hits(900), sham=s and 0.8) for s in range(2)]
    found = {v.claim: v.outcome for v in verdicts(experiment(plain + still))}
    assert found["With SHAM the maps lie at the border"] == "does not hold"
    alone = {v.claim: v for v in verdicts(experiment(moved))}
    assert "55 % before" in alone["With SHAM the maps lie at the border"].text
    assert verdicts(experiment(plain)) == []


def test_maps_that_are_all_constant_lie_nowhere():
    """Numbers that are not finite come back from the records as None."""
    trained = [
        made("plain", 0, hits(900), sham=None),
        made("sham", 0, hits(900), sham=None, on=None),
    ]
    found = {v.claim: v for v in verdicts(experiment(trained))}
    border = found["With SHAM the maps lie at the border"]
    assert border.outcome == "does not hold"
    assert "constant" in border.text
    trained = [
        made("plain", 0, hits(900), sham=None),
        made("sham", 0, hits(900), sham=0.8, on=None),
    ]
    border = {v.claim: v for v in verdicts(experiment(trained))}[
        "With SHAM the maps lie at the border"
    ]
    assert "an unknown share" in border.text


def test_published_numbers_stand_beside_real_data_only():
    trained = [made(arm, s, hits(900 + s)) for arm in ("human", "sham", "plain") for s in (0, 1)]
    table = salience_report(experiment(trained, stand_in=False, recipe=IRIS_PAD)).tables[0]
    rows = dict(table.rows)
    titles = [c.title for c in table.columns]
    at = titles.index("published")
    assert [c.value for c in rows["human salience"][at : at + 2]] == [0.9723, 0.0021]
    assert [c.value for c in rows["SHAM"][at : at + 2]] == [0.9766, 0.0018]
    assert [c.value for c in rows["cross-entropy alone"][at : at + 2]] == [None, None]
    assert rows["SHAM"][0].value == pytest.approx(0.9005)
    assert rows["SHAM"][1].value == pytest.approx(0.001 / math.sqrt(2))
    assert "published" not in [
        c.title for c in salience_report(experiment(trained)).tables[0].columns
    ]


def test_a_report_is_written_whole(tmp_path):
    trained = [made(arm, s, hits(900)) for arm in ("mask", "sham") for s in (0, 1)]
    report = salience_report(experiment(trained, complete=False))
    assert any(said.startswith("Stopped after 4 of 4 trainings") for said in report.lead)
    files = report.save(tmp_path)
    assert files[0].name == "salience.html"
    page = files[0].read_text()
    assert "Learning curves" in page
    assert "<svg" in page
    document = json.loads((tmp_path / "salience.json").read_text())
    assert document["summary"]["sham"]["accuracy"] == pytest.approx([0.9, 0.0])
    assert "correct" not in document["trained"][0]
    assert (tmp_path / "salience-accuracy.csv").is_file()
    even = dict(report.tables[1].rows)["energy spread evenly"]
    assert [c.value for c in even[1:4]] == pytest.approx(
        [math.log(49), 100 * 24 / 49, 100 * 28 / 49]
    )
    assert math.isnan(summary([])["accuracy"][0])


# ---- the command --------------------------------------------------------------------------------


def run(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def eyes(tmp_path):
    """Bright discs, or squares, on noise; the maps say where."""
    random = np.random.default_rng(0)
    for part, count in (("train", 12), ("val", 4), ("test", 4)):
        for label in ("disc", "square"):
            for i in range(count):
                y, x = random.integers(8, 24, 2)
                rows, columns = np.mgrid[:32, :32]
                inside = np.maximum(abs(rows - y), abs(columns - x)) < 7
                if label == "disc":
                    inside = (rows - y) ** 2 + (columns - x) ** 2 < 50
                picture = random.integers(0, 90, (32, 32, 3), dtype=np.uint8)
                picture[inside] += 120
                for root, image in (("data", picture), ("maps", (inside * 255).astype(np.uint8))):
                    folder = tmp_path / root / part / label
                    folder.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(image).save(folder / f"{label}{i}.png")
    return tmp_path


TINY = (
    "--model",
    "small",
    "--size",
    "32",
    "--epochs",
    "1",
    "--batch-size",
    "8",
    "--accelerator",
    "cpu",
)


def test_photos_and_maps_from_folders(eyes):
    out = eyes / "run"
    result = run(
        eyes / "data", "--maps", eyes / "maps", "--sham", "--plain", "--entropy", "droid", "--seeds", "1", *TINY,
        "--out", out, "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    document = json.loads(result.stdout)
    assert document["arms"] == ["human", "sham", "plain", "droid"]
    assert document["data"]["train"]["samples"] == 24
    assert document["data"]["test"]["samples"] == 8
    assert document["complete"]
    loaded = load_trained(out / "human" / "seed-0")
    assert loaded.module(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert {"salience.html", "salience.json", "salience.png"} <= {p.name for p in out.iterdir()}
    again = run(
        eyes / "data", "--maps", eyes / "maps", "--seeds", "1", *TINY, "--lr", "0.5", "--out", out
    )
    assert isinstance(again.exception, CamlucidaError)
    assert "learning_rate" in str(again.exception)


def test_a_network_of_timm_is_kept_with_names_and_preprocessing(eyes):
    pytest.importorskip("timm")
    pytest.importorskip("safetensors")
    out = eyes / "run"
    result = run(
        eyes / "data" / "train", "--sham", "--model", "timm:resnet10t", "--random", "--seeds", "1", "--size", "64",
        "--epochs", "1", "--batch-size", "8", "--accelerator", "cpu", "--out", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.exception
    loaded = load_trained(out / "sham" / "seed-0")
    assert loaded.class_names == ("disc", "square")
    assert loaded.preprocess.size == (64, 64)
    assert not loaded.preprocess.crop
    assert (out / "sham" / "seed-0" / "weights.safetensors").is_file()
    from camlucida.models import load_model

    plain = load_model(
        str(out / "sham" / "seed-0" / "weights.safetensors"), architecture="timm:resnet10t"
    )
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(plain.module(x), loaded.module(x))
    page = (out / "salience.html").read_text()
    assert "also chose the epoch" in page


def test_reading_ahead_gives_the_same_batches(eyes):
    from camlucida.data.preprocess import Preprocess
    from camlucida.data.salience import salient_folder
    from camlucida.training.salience.data import PhotoSet

    folder = salient_folder(eyes / "data" / "train", eyes / "maps" / "train")
    how = Preprocess(size=(16, 16), resize=(16, 16), crop=False)
    kept, read = PhotoSet(folder, how, threads=3), PhotoSet(folder, how, cached=0)
    chunks = list(torch.split(torch.randperm(24, generator=torch.Generator().manual_seed(0)), 7))
    for _ in range(2):
        for places, one, other in zip(
            chunks, kept.batches(chunks, (4, 4)), read.batches(chunks, (4, 4)), strict=True
        ):
            for a, b, c in zip(
                one, other, (read.inputs(places), read.labels[places], read.salience(places, (4, 4))), strict=True
            ):  # fmt: skip
                assert torch.equal(a, b)
                assert torch.equal(a, c)
    photo = Image.open(folder.photos[3].path)
    assert torch.allclose(kept.inputs(torch.tensor([3]))[0], how(photo), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("DATA",), "say what guides the training"),
        (("DATA", "--masks"), "--masks goes with digits"),
        (("digits", "--maps", "MAPS"), "exact masks of their own"),
        (("DATA", "--standin"), "leave DATA out"),
        (("--sham",), "say what to train on"),
        (("DATA", "--entropy", "other"), "droid, fmmce, hb-cam"),
        (("DATA", "--sham", "--layout", "circle"), "rounded"),
        (("DATA", "--sham", "--precision", "8"), "precision must be"),
        (("DATA", "--sham", "--cam", "scorecam"), "cannot take part"),
        (("NOTHING", "--sham"), "no such file or folder"),
        (("DATA", "--maps", "NOTHING"), "no such folder of annotation maps"),
        (("ONE", "--sham", "--model", "small"), "one class only"),
        (("DATA", "--sham", "--model", "resnet"), "cannot be trained here"),
    ],
)
def test_bad_input_is_told_in_words(eyes, arguments, says):
    names = {
        "DATA": eyes / "data", "MAPS": eyes / "maps", "NOTHING": eyes / "nothing", "ONE": eyes / "one",
    }  # fmt: skip
    (eyes / "one").mkdir()
    (eyes / "data" / "train" / "disc").rename(eyes / "one" / "disc") if "ONE" in arguments else None
    result = run(*(names.get(a, a) for a in arguments), "--out", eyes / "out")
    assert isinstance(result.exception, CamlucidaError), result.output
    assert says in str(result.exception)
    assert not (eyes / "out").exists()


def test_help_names_the_published_setting():
    shown = run("--help").output
    assert "Iris PAD" in shown
    assert "--sham" in shown
