"""``camlucida evaluate``, ``summary`` and ``compare`` on a small model and noise."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from camlucida.benchmark import RunFolder, local
from camlucida.benchmark.plan import chosen_metrics
from camlucida.cli import app, main
from camlucida.cli.compare import compare
from camlucida.cli.evaluate import evaluate
from camlucida.cli.summary import summary
from camlucida.common.errors import CamlucidaError
from camlucida.explanation import subject
from camlucida.metrics import metric_groups
from reference.bench import tiny

_KNOWN = {command.callback.__name__ for command in app.registered_commands}
for _command in (evaluate, summary, compare):
    if _command.__name__ not in _KNOWN:
        app.command()(_command)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder with classes and boxes, and the small model under the name of the default one."""
    random = np.random.default_rng(0)
    lines = ["file,xmin,ymin,xmax,ymax"]
    for i in range(9):
        folder = tmp_path / "pictures" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(
            folder / f"{i}.png"
        )
        lines.append(f"{i % 3}/{i}.png,5,4,{15 + i},20")
    (tmp_path / "boxes.csv").write_text("\n".join(lines))
    (tmp_path / "pictures/1/4.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subject, "load_model", lambda *_args, **_options: tiny())


DATA = "pictures,boxes=boxes.csv"
METRICS = ["--metric", "iou", "--metric", "sparseness"]


def run(capsys, *arguments):
    code = main([str(a) for a in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def evaluated(capsys, *arguments):
    return run(capsys, "evaluate", DATA, "--no-report", "--shard-size", 4, *arguments)


def test_a_folder_is_evaluated_and_summed_up(capsys, tmp_path):
    methods = ["--method", "gradcam", "--method", "diffgradcam:aggregator=max"]
    code, out, err = evaluated(capsys, *methods, *METRICS, "--out", "run")
    assert (code, err) == (0, "")
    words = " ".join(out.split())
    assert "tiny on pictures: 9 photos" in words
    assert "cannot be used: 1/4.png:" in words
    assert "9 photos in" in words
    assert "a second results: run" in words
    for name in ("gradcam", "diffgradcam (max)", "iou@0.5 ↑", "sparseness", "seconds ↓"):
        assert name in out
    _, again, _ = run(capsys, "summary", "run")
    assert again.strip() in out
    code, out, err = evaluated(capsys, *methods, *METRICS, "--out", "run")
    assert code == 0
    assert "photos in" not in out  # there was nothing left to do
    code, _, err = evaluated(capsys, *methods, *METRICS, "--out", "run", "--seed", 1)
    assert code == 2
    assert "seed: 0 before, 1 now" in err
    assert len(list((tmp_path / "run/rows").iterdir())) == 3


def test_json(capsys):
    code, out, err = evaluated(capsys, *METRICS, "--json", "--out", "run", "--limit", 3)
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert (found["images"], found["total"], found["complete"]) == (3, 3, True)
    assert found["evaluated_now"] == 3
    assert {row["metric"] for row in found["table"]} >= {"iou@0.5", "sparseness", "seconds"}
    code, out, _ = run(capsys, "summary", "run", "--json")
    assert json.loads(out)["table"] == found["table"]


def test_the_names_of_all_classes_are_kept_but_not_printed(capsys):
    _, evaluation, _ = evaluated(capsys, *METRICS, "--json", "--out", "run", "--limit", 3)
    _, summed, _ = run(capsys, "summary", "run", "--json")
    _, reported, _ = run(capsys, "report", "run", "--no-gallery", "--json")
    kept = RunFolder(Path("run")).plan()["about"]
    assert kept["class_names"] == list(tiny().class_names)
    plans = [json.loads(evaluation)["plan"], json.loads(summed)["plan"]]
    plans.append(json.loads(reported)["summary"]["plan"])
    for plan_ in plans:
        assert set(plan_["about"]) == set(kept) - {"class_names"}


def test_every_setting_reaches_the_plan(capsys):
    code, _, _ = evaluated(
        capsys, "--method", "gradcam++:form=true", "--metric", "iou",
        "--target", "margin:aggregator=lse", "--explain", "label", "--layer", "1", "--seed", 5,
        "--legacy-boxes", "--batch-size", 2, "--threads", 1, "--steps", "signed", "--out", "run",
    )  # fmt: skip
    assert code == 0
    found = RunFolder(Path("run")).plan()
    assert found["methods"][0]["options"] == {"form": "true"}
    assert found["target"]["aggregator"] == "lse"
    assert (found["explain"], found["layers"], found["seed"]) == ("label", ["1"], 5)
    assert (found["steps"], found["shard_size"]) == ("signed", 4)
    assert found["data"]["legacy"] is True
    assert found["how"]["data"] == DATA
    assert (found["how"]["batch_size"], found["how"]["threads"]) == (2, 1)


def test_groups_of_metrics(capsys):
    assert set(metric_groups()["localisation"]) >= {"iou", "energy_pointing", "pointing_game"}
    assert [n for n, _ in chosen_metrics(["iou", "localisation"])[0]].count("iou") == 1
    code, out, err = run(
        capsys, "evaluate", "pictures", "--no-report", "--metric", "concentration", "--metric",
        "localisation", "--out", "run",
    )  # fmt: skip
    assert code == 0
    assert "note: left out: iou, " in err
    assert "has no boxes" in err
    assert "sparseness" in out
    assert "iou" not in out
    code, _, err = run(capsys, "evaluate", "pictures", "--metric", "localisation", "--out", "b")
    assert code == 2
    assert "none of these metrics can be measured: iou, " in err
    code, _, err = run(capsys, "evaluate", "pictures", "--metric", "iou", "--out", "c")
    assert code == 2
    assert "iou needs boxes" in err


def test_every_metric_is_in_one_group():
    found = metric_groups()
    slow = {
        "infidelity", "faithfulness_correlation", "sensitivity_n", "saco", "monotonicity", "irof", "f_fidelity",
    }  # fmt: skip
    assert set(found["faithfulness"]) == {
        "deletion", "insertion", "road", "road_delete", "average_drop", "adcc",
    } | slow  # fmt: skip
    assert set(found["agreement"]) == {"similarity", "rank_correlation", "ssim"}
    assert set(found["stability"]) == {"sensitivity_max", "relative_stability"}
    assert set(found["randomisation"]) == {"emprt", "smprt"}
    several = [
        name for group, names in found.items() if group not in {"all", "default"} for name in names
    ]
    assert sorted(several) == sorted(found["all"])
    usual = {*found["localisation"], *found["faithfulness"]} - slow
    assert set(found["default"]) == usual


def test_agreement_is_with_a_method_of_the_run(capsys):
    agreement = ["--metric", "agreement", "--metric", "sparseness"]
    code, out, err = evaluated(capsys, *agreement, "--method", "layercam", "--out", "a")
    assert code == 0
    assert "left out: similarity, rank_correlation, ssim: gradcam, to compare with, is not" in err
    assert "methods of the run (layercam)" in err
    assert "similarity" not in out
    methods = ["--method", "layercam", "--method", "gradcam"]
    code, _, err = evaluated(capsys, *agreement, *methods, "--out", "b", "--json")
    assert code == 0
    assert "similarity" not in err
    code, out, _ = run(capsys, "summary", "b", "--json")
    table = json.loads(out)["table"]
    means = {(row["method"], row["metric"]): row["mean"] for row in table}
    assert means["gradcam", "similarity@gradcam"] == 0
    assert means["layercam", "similarity@gradcam"] > 0
    code, _, err = evaluated(capsys, "--metric", "agreement", "--method", "layercam", "--out", "c")
    assert code == 2
    assert "gradcam, to compare with" in err


def test_short_runs_are_written_often(capsys):
    arguments = ["pictures", "--no-report", "--metric", "sparseness"]
    assert run(capsys, "evaluate", *arguments, "--out", "run")[0] == 0
    assert RunFolder(Path("run")).plan()["shard_size"] == 8
    assert len(list(Path("run/rows").glob("*.parquet"))) == 2
    code, out, _ = run(capsys, "evaluate", *arguments, "--out", "run")
    assert code == 0
    assert "nothing was left to do" in out


def test_a_method_that_does_not_fit_is_left_out_and_named(capsys):
    methods = ["--method", "gradcam", "--method", "legrad"]
    for _ in range(2):  # the second time it goes on from the plan, which names it
        code, out, err = evaluated(capsys, *methods, "--metric", "sparseness", "--json")
        found = json.loads(out)
        assert code == 2
        assert "left out: legrad" in err
        assert [one["method"] for one in found["skipped"]] == ["legrad"]
        assert {row["method"] for row in found["table"]} == {"gradcam"}


def test_one_method_is_not_the_best_and_one_photo_is_no_plural(capsys):
    arguments = ["--no-report", "--metric", "sparseness", "--limit", "1", "--out", "run"]
    code, out, _ = run(capsys, "evaluate", "pictures/0", *arguments)
    assert code == 0
    assert "1 photo\n" in out
    assert "1 photo in" in out
    assert "*" not in out


def test_a_folder_called_photos_is_noted(capsys, tmp_path):
    (tmp_path / "photos").mkdir()
    code, _, err = run(capsys, "evaluate", "photos", "--metric", "iou:colour=red")
    assert (code, "write ./photos" in err) == (2, False)  # a wrong word comes first
    _, _, err = run(capsys, "evaluate", "photos", "--metric", "sparseness", "--no-report")
    assert err.startswith("camlucida: note: 'photos' is camlucida's own data set here")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--metric", "iuo"], "unknown metric 'iuo'"),
        (["--metric", "iou:colour=red"], "iou has no option 'colour'"),
        (["--method", "gradcamm"], "gradcam"),
        (["--metric", "ssim:reference=rise"], "compares with another method"),
        (["--metric", "iou", "--explain", "purple"], "purple"),
        (["--metric", "iou", "--engine", "cloud"], "local"),
    ],
)
def test_refused_in_one_line(capsys, arguments, said):
    code, out, err = evaluated(capsys, *arguments, "--out", "run")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_ctrl_c_says_how_to_go_on(capsys, monkeypatch):
    whole = local.Worker.shards

    def stop(self, numbers, progress=None):
        yield from whole(self, numbers[:1], progress)
        raise KeyboardInterrupt

    monkeypatch.setattr(local.Worker, "shards", stop)
    code, out, err = evaluated(capsys, *METRICS, "--out", "run")
    assert code == 130
    assert "stopped; 4 of 9 photos are done and kept in 'run': the same command goes on" in err
    assert "4 photos of 9, not finished" in out
    monkeypatch.setattr(local.Worker, "shards", whole)
    code, out, _ = evaluated(capsys, *METRICS, "--out", "run")
    assert code == 0
    assert "5 photos in" in out


def test_an_estimate(capsys, tmp_path):
    code, out, _ = evaluated(
        capsys, *METRICS, "--estimate", 4, "--workers", 8, "--price", 2, "--out", "run"
    )
    assert code == 0
    words = " ".join(out.split())
    assert "4 photos took one worker" in words
    assert "ImageNet validation 50,000 8" in words
    assert "100,000,000" in words
    assert not (tmp_path / "run").exists()
    _, out, _ = evaluated(capsys, *METRICS, "--estimate", 4, "--json")
    found = json.loads(out)
    assert [p["images"] for p in found["plans"]] == [9, 50_000, 100_000_000]
    assert found["plans"][0]["cost"] is None


def test_the_report_is_written_where_it_can_be(capsys, monkeypatch):
    import camlucida.benchmark.report.run_report as made

    seen = []
    monkeypatch.setattr(
        made, "write_report", lambda run, **known: seen.append((run, known)) or run / "r.html"
    )
    code, out, _ = run(capsys, "evaluate", DATA, *METRICS, "--out", "run")
    assert code == 0
    assert "report: run/r.html" in out
    assert str(seen[0][0]) == "run"
    assert seen[0][1]["model"].name == "tiny"
    assert len(seen[0][1]["data"]) == 9

    def fail(*_args, **_options):
        raise CamlucidaError("the disk is full")

    monkeypatch.setattr(made, "write_report", fail)
    code, _, err = run(capsys, "evaluate", DATA, *METRICS, "--out", "run")
    assert code == 0
    assert "no report was written: the disk is full" in err


def test_summary_with_tests_and_tables(capsys, tmp_path):
    evaluated(capsys, "--method", "gradcam", "--method", "layercam", *METRICS, "--out", "run")
    code, out, err = run(capsys, "summary", "run", "--tests", "--csv", "tables")
    assert (code, err) == (0, "")
    assert "gradcam - layercam" in out
    assert (
        (tmp_path / "tables/summary.csv")
        .read_text()
        .startswith("method,metric,mean,std,n,low,high")
    )
    assert (
        (tmp_path / "tables/tests.csv").read_text().startswith("metric,a,b,n,difference,rank_sum")
    )
    evaluated(capsys, "--method", "gradcam", *METRICS, "--out", "one")
    code, out, _ = run(capsys, "summary", "one", "--tests")
    assert code == 0
    assert "no tests: they compare methods" in out
    code, _, err = run(capsys, "summary", "pictures")
    assert code == 2
    assert "is not a run" in err


def test_compare(capsys):
    evaluated(capsys, *METRICS, "--out", "a")
    evaluated(capsys, *METRICS, "--out", "b", "--target", "margin")
    code, out, err = run(capsys, "compare", "a", "b")
    assert (code, err) == (0, "")
    assert "8 photos in both runs" in out
    assert "differs: target.target: Logit in the first, LogitMargin in the second" in out
    code, out, _ = run(capsys, "compare", "a", "b", "--json")
    assert json.loads(out)["images"] == 8
    evaluated(capsys, *METRICS, "--out", "c", "--method", "layercam")
    code, _, err = run(capsys, "compare", "a", "c")
    assert code == 2
    assert "no method in common: gradcam against layercam" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "page.pdf", "--no-gallery"], "must be called .html"),
        (["--data", "nowhere"], "'nowhere' is neither a path that exists nor one of the kinds"),
        (["--model", "nothing"], "unknown model 'nothing'"),
        (["--out", "boxes.csv/page.html", "--no-gallery"], "cannot write to"),
    ],
)
def test_a_report_refuses_what_it_cannot_use(capsys, arguments, said):
    evaluated(capsys, *METRICS, "--out", "run")
    code, out, err = run(capsys, "report", "run", *arguments)
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert said in err
    assert not Path("run/report.html").exists()
