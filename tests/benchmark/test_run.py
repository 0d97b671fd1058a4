"""The run folder, the local engine, and that nothing but the plan decides the numbers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from camlucida import explain
from camlucida.benchmark import Bench, RunFolder, Settings, local, work
from camlucida.common.ahead import ahead
from camlucida.common.errors import CamlucidaError, MethodError, ModelError, TargetError
from camlucida.common.store import differences
from camlucida.data.images import read_image
from camlucida.metrics.base import Measured, Metric, Scene
from camlucida.metrics.curves import Deletion
from camlucida.targets import Cell, LogitMargin
from reference.bench import (
    Drop,
    Fragile,
    Mass,
    Pictures,
    bench,
    images_of,
    rows_of,
    tiny,
)


def same(a, b, tolerance=1e-6):
    pd.testing.assert_frame_equal(rows_of(a), rows_of(b), rtol=0, atol=tolerance)
    pd.testing.assert_frame_equal(images_of(a), images_of(b), rtol=0, atol=tolerance)


# ---- the rows ---------------------------------------------------------------------------------------


def test_rows_are_what_explain_and_the_metrics_say_of_each_image_alone(tmp_path):
    job = bench(tmp_path)
    ended = local.run(job, tmp_path / "run", batch_size=3)
    assert (ended.images, ended.total, ended.before, ended.interrupted) == (10, 10, 0, False)
    rows = rows_of(tmp_path / "run")
    assert len(rows) == 9 * 2 * 3
    assert list(rows.columns) == ["index", "key", "method", "metric", "value", "curve"]
    model = job.model
    for index in (0, 3, 9):
        sample = job.data[index]
        picture = read_image(sample.path)
        x = model.preprocess(picture).double()[None]
        left, top, _, _ = model.preprocess.crop_box(*picture.size)
        mask = torch.zeros(1, 24, 24, dtype=torch.bool)
        box = sample.boxes[0]
        mask[0, int(box[1] - top) : int(box[3] - top), int(box[0] - left) : int(box[2] - left)] = 1
        for method in job.methods:
            made = explain(model, x, method=method)
            logits = model.module(x).detach()
            scene = Scene(model.module, x, logits, logits.argmax(1), torch.tensor([index % 3]),
                          (torch.tensor([box]),), mask, torch.tensor([False]))  # fmt: skip
            here = rows[(rows["index"] == index) & (rows.method == method)].set_index("metric")
            mass = Mass().measure(scene, made)
            assert here.value["mass"] == pytest.approx(float(mass.values["mass"]), abs=1e-12)
            drop = Drop().measure(scene, made).values["drop"]
            assert here.value["drop"] == pytest.approx(float(drop), abs=1e-12)
            assert here.curve["peak@0.5"] == pytest.approx(mass.curves["peak@0.5"][0], abs=1e-6)
            assert here.curve["mass"] is None


def test_images_and_broken_ones(tmp_path):
    job = bench(tmp_path)
    local.run(job, tmp_path / "run")
    found = images_of(tmp_path / "run")
    assert found["index"].tolist() == list(range(10))
    assert found.key.tolist() == [f"{i:03d}" for i in range(10)]
    assert [i for i in range(10) if isinstance(found.error[i], str)] == [4]
    assert "004.png" in found.error[4]
    assert "004" not in set(rows_of(tmp_path / "run").key)
    good = found.drop(4)
    x = torch.stack([job.model.preprocess(read_image(job.data[i].path)) for i in good["index"]])
    p = job.model.module(x.double()).softmax(1).detach()
    assert good.predicted.tolist() == p.argmax(1).tolist()
    assert np.allclose(good.probability, p.amax(1), atol=1e-12)
    assert np.allclose(good.explained_probability, p.amax(1), atol=1e-12)
    assert good.correct.tolist() == [
        a == b for a, b in zip(good.predicted, good.label, strict=True)
    ]


def test_the_files_have_the_columns_that_others_read(tmp_path):
    import pyarrow.parquet as pq

    local.run(bench(tmp_path), tmp_path / "run")
    rows = pq.read_schema(tmp_path / "run/rows/shard-000000.parquet")
    assert [str(t) for t in rows.types] == [
        "int64",
        *["dictionary<values=string, indices=int32, ordered=0>"] * 3,
        "double",
        "list<element: float>",
    ]
    images = pq.read_schema(tmp_path / "run/images/shard-000002.parquet")
    assert dict(zip(images.names, map(str, images.types), strict=True)) == {
        "index": "int64", "key": "string", "source": "string", "label": "int32", "label_name": "string",
        "explained": "int32", "predicted": "int32", "probability": "double",
        "explained_probability": "double", "correct": "bool", "error": "string", "notes": "string",
    }  # fmt: skip
    assert sorted(p.name for p in (tmp_path / "run/rows").iterdir()) == [
        f"shard-00000{i}.parquet" for i in range(3)
    ]
    written = json.loads((tmp_path / "run/plan.json").read_text())
    assert written["about"]["curves"] == {"peak@0.5": [0.0, 1.0]}
    assert written["about"]["layers"] == {"gradcam": ["3"], "hirescam": ["3"]}
    assert list(written["about"]["numbers"]) == ["mass", "peak@0.5", "drop", "seconds"]
    assert written["how"]["batch_size"] == 8
    facts = list(RunFolder(tmp_path / "run").facts())
    assert [f["images"] for f in facts] == [4, 4, 2]
    assert [f["broken"] for f in facts] == [0, 1, 0]
    assert all(f["seconds"] > 0 for f in facts)


def test_what_explaining_costs_is_among_the_rows(tmp_path):
    import pyarrow.dataset as ds

    local.run(bench(tmp_path), tmp_path / "run", batch_size=4)
    table = ds.dataset(tmp_path / "run/rows").to_table().to_pandas()
    cost = table[table.metric == "seconds"]
    assert set(cost.method) == {"gradcam", "hirescam"}
    assert (cost.value > 0).all()
    assert cost["index"].unique().tolist() == [
        0,
        1,
        2,
        3,
    ]  # the first batch, explained method by method


def test_a_number_that_does_not_count_is_null(tmp_path):
    job = bench(tmp_path, data=Pictures(tmp_path / "pictures", 3, boxes=False))
    local.run(job, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    assert rows[rows.metric == "mass"].value.isna().all()
    assert rows[rows.metric == "drop"].value.notna().all()


def test_a_photo_for_which_the_model_returns_nan_has_no_numbers(tmp_path):
    job = bench(tmp_path)
    bright = torch.stack([job.model.preprocess(read_image(job.data[i].path)) for i in range(3)])
    limit = float(bright.mean((1, 2, 3)).max())
    job.model.module.register_forward_hook(
        lambda _, inputs, made: torch.where(
            inputs[0].mean((1, 2, 3))[:, None] >= limit - 1e-6, torch.nan, made
        )
    )
    local.run(job, tmp_path / "run")
    rows = rows_of(tmp_path / "run")
    notes = images_of(tmp_path / "run").set_index("index").notes.dropna()
    assert 0 < len(notes) < 9
    assert all("gradcam: the model's output holds NaN" in note for note in notes)
    assert set(rows[rows["index"].isin(notes.index)].value.isna()) == {True}
    assert rows[~rows["index"].isin(notes.index) & (rows.metric == "drop")].value.notna().all()


# ---- what decides the numbers, and what does not ----------------------------------------------------


@pytest.mark.parametrize(("batch_size", "threads"), [(1, 1), (2, 4), (64, 3)])
def test_batch_size_and_threads_do_not_decide_the_numbers(tmp_path, batch_size, threads):
    methods = ("gradcam", ("rise", {"masks": 8}))
    job = bench(tmp_path, methods=methods)
    local.run(job, tmp_path / "a", batch_size=3)
    local.run(
        bench(tmp_path, methods=methods), tmp_path / "b", batch_size=batch_size, threads=threads
    )
    same(tmp_path / "a", tmp_path / "b", 1e-9)


def test_the_seed_decides_them(tmp_path):
    for seed in (0, 1):
        local.run(bench(tmp_path, seed=seed), tmp_path / str(seed))
    a, b = rows_of(tmp_path / "0"), rows_of(tmp_path / "1")
    assert not np.allclose(a[a.metric == "drop"].value, b[b.metric == "drop"].value)
    assert np.allclose(a[a.metric == "mass"].value, b[b.metric == "mass"].value)


def test_explaining_the_label(tmp_path):
    job = bench(tmp_path, explain="label")
    local.run(job, tmp_path / "run", batch_size=3)
    found = images_of(tmp_path / "run").drop(4)
    assert found.explained.tolist() == found.label.tolist()
    assert (found.explained_probability <= found.probability).all()
    sample = job.data[5]
    x = job.model.preprocess(read_image(sample.path)).double()[None]
    made = explain(job.model, x, method="gradcam", target=sample.label)
    inside = (made.maps * _mask(job, sample)).sum() / made.maps.sum()
    rows = rows_of(tmp_path / "run").set_index(["index", "method", "metric"])
    assert rows.value[5, "gradcam", "mass"] == pytest.approx(float(inside), abs=1e-12)


def _mask(job, sample):
    return work.read(job, int(sample.key)).mask


def test_explaining_one_class(tmp_path):
    for name, wanted in (("a", "green tea"), ("b", "1")):
        local.run(bench(tmp_path, explain=wanted), tmp_path / name)
        assert images_of(tmp_path / name).drop(4).explained.tolist() == [1] * 9
    same(tmp_path / "a", tmp_path / "b")


def test_photos_without_a_label_are_left_out_when_labels_are_explained(tmp_path):
    class Some(Pictures):
        def sample(self, index):
            found = super().sample(index)
            return found if index else type(found)(found.key, None, "", found.path, found.boxes)

    job = bench(tmp_path, data=Some(tmp_path / "pictures", 4), explain="label")
    local.run(job, tmp_path / "run")
    found = images_of(tmp_path / "run")
    assert [isinstance(e, str) for e in found.error] == [True, False, False, False]
    nobody = Pictures(tmp_path / "pictures", 4, labels=False)
    with pytest.raises(CamlucidaError, match="knows no photo's class"):
        local.run(bench(tmp_path, data=nobody, explain="label"), tmp_path / "none")


def test_a_limit_is_spread_evenly(tmp_path):
    job = bench(tmp_path, data=Pictures(tmp_path / "pictures", 10), limit=3, shard_size=2)
    assert [job.members(s) for s in range(job.shards)] == [[1, 5], [8]]
    local.run(job, tmp_path / "run")
    assert images_of(tmp_path / "run")["index"].tolist() == [1, 5, 8]
    whole = bench(tmp_path, limit=99)
    assert [i for s in range(whole.shards) for i in whole.members(s)] == list(range(10))


def test_layers_go_to_the_methods_that_take_them(tmp_path):
    methods = ("gradcam", "saliency")
    job = bench(tmp_path, methods=methods, layers=("1",))
    local.run(job, tmp_path / "run")
    assert RunFolder(tmp_path / "run").plan()["about"]["layers"] == {
        "gradcam": ["1"],
        "saliency": ["input"],
    }


def test_metrics_with_the_same_numbers_are_told_apart(tmp_path):
    job = bench(tmp_path, metrics=[Mass(), Mass(scale=2.0), Drop()])
    assert job.columns == (
        ("mass", "peak@0.5"),
        ("mass (scale=2.0)", "peak@0.5 (scale=2.0)"),
        ("drop",),
    )
    local.run(job, tmp_path / "run")
    rows = rows_of(tmp_path / "run").set_index(["index", "method", "metric"]).value
    assert rows[0, "gradcam", "mass (scale=2.0)"] == pytest.approx(2 * rows[0, "gradcam", "mass"])
    with pytest.raises(CamlucidaError, match="two metrics with the same options"):
        _ = bench(tmp_path, metrics=[Mass(), Mass()]).columns


# ---- going on where it stopped ----------------------------------------------------------------------


def test_a_finished_run_is_not_done_again(tmp_path):
    local.run(bench(tmp_path), tmp_path / "run")
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}
    ended = local.run(bench(tmp_path), tmp_path / "run", batch_size=1)
    assert (ended.before, ended.images) == (10, 10)
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").rglob("*.parquet")}


def test_only_missing_shards_are_done(tmp_path):
    local.run(bench(tmp_path), tmp_path / "whole")
    local.run(bench(tmp_path), tmp_path / "run")
    (tmp_path / "run/rows/shard-000001.parquet").unlink()  # as if killed between images and rows
    (tmp_path / "run/rows/.writing-1-x-shard-000001.parquet").write_bytes(b"half")
    kept = (tmp_path / "run/rows/shard-000000.parquet").stat().st_mtime_ns
    seen = []
    ended = local.run(bench(tmp_path), tmp_path / "run", progress=lambda *done: seen.append(done))
    assert ended.before == 6
    assert (seen[0], seen[-1]) == ((6, 10), (10, 10))
    assert (tmp_path / "run/rows/shard-000000.parquet").stat().st_mtime_ns == kept
    assert not list((tmp_path / "run").glob("*/.writing*"))
    same(tmp_path / "whole", tmp_path / "run", 0)


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_killed_at_any_moment_it_goes_on_to_the_same_rows(tmp_path, how):
    process = _start(tmp_path)
    for _ in range(9):
        process.stdout.readline()
    process.send_signal(how)
    process.wait()
    run = RunFolder(tmp_path / "run")
    done = run.done()
    assert 0 < len(done) < 10
    for number in done:  # what is there is whole
        assert len(pd.read_parquet(run.file("rows", number))) >= 4 * 2 * 3
    job = _same_as_started(tmp_path)
    ended = local.run(job, tmp_path / "run", batch_size=7)
    assert (ended.before, ended.images) == (4 * len(done), 40)
    local.run(job, tmp_path / "whole", batch_size=7)
    same(tmp_path / "run", tmp_path / "whole", 1e-9)


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_done(tmp_path):
    process = _start(tmp_path)
    for _ in range(9):
        process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    done = RunFolder(tmp_path / "run").done()
    assert 0 < len(done) < 10
    assert not list((tmp_path / "run").glob("*/.writing*"))
    assert local.run(_same_as_started(tmp_path), tmp_path / "run").images == 40


def _start(folder):
    root = Path(__file__).parents[1]
    return subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", "reference.bench", str(folder)],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _same_as_started(folder):
    judged = [("Mass", Mass()), ("Drop", Drop())]
    return bench(folder, metrics=judged, data=Pictures(folder / "pictures", 40))


def test_two_processes_do_not_write_at_once(tmp_path):
    run = RunFolder(tmp_path / "run")
    with run.locked(), pytest.raises(CamlucidaError, match="another process is writing"):
        local.run(bench(tmp_path), tmp_path / "run")
    local.run(bench(tmp_path), tmp_path / "run")


# ---- plans ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 1}, "seed: 0 before, 1 now"),
        ({"shard_size": 5}, "shard_size: 4 before, 5 now"),
        ({"methods": ("gradcam",)}, r"methods\[hirescam\]: only before"),
        (
            {"metrics": [Mass(scale=3.0), Drop()]},
            r"metrics\[Mass\].options.scale: 1.0 before, 3.0 now",
        ),
        ({"target": LogitMargin()}, "target.target: Logit before, LogitMargin now"),
        ({"limit": 3}, "data.limit: None before, 3 now"),
    ],
)
def test_another_plan_is_not_mixed_with_old_rows(tmp_path, changed, named):
    local.run(bench(tmp_path), tmp_path / "run")
    before = (tmp_path / "run/plan.json").read_bytes()
    with pytest.raises(CamlucidaError, match=named):
        local.run(bench(tmp_path, **changed), tmp_path / "run")
    assert (tmp_path / "run/plan.json").read_bytes() == before


def test_other_data_or_weights_are_another_plan(tmp_path):
    first = bench(tmp_path)
    digest = first.record["digest"]
    assert bench(tmp_path).record["digest"] == digest
    assert bench(tmp_path, data=Pictures(tmp_path / "p", 9)).record["digest"] != digest
    renamed = bench(tmp_path)
    renamed.data.name = "elsewhere"
    assert renamed.record["digest"] == digest
    other = bench(tmp_path)
    with torch.no_grad():
        other.model.module[0].bias += 1e-3
    found = differences(first.record, other.record)
    assert len(found) == 1
    assert found[0] == "model.weights differ"


def test_a_plan_without_results_gives_way(tmp_path):
    local.run(bench(tmp_path), tmp_path / "run")
    for kind in ("images", "rows"):
        shutil.rmtree(tmp_path / "run" / kind)
    other = bench(tmp_path, seed=1)
    found = local.run(other, tmp_path / "run")
    assert found.images == found.total
    assert found.run.plan()["digest"] == other.record["digest"]


def test_results_without_a_plan_are_not_touched(tmp_path):
    local.run(bench(tmp_path), tmp_path / "run")
    (tmp_path / "run/plan.json").unlink()
    with pytest.raises(CamlucidaError, match=r"results without a plan.json"):
        local.run(bench(tmp_path), tmp_path / "run")


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(CamlucidaError, match="is not a run"):
        RunFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(CamlucidaError, match="cannot be read"):
        RunFolder(tmp_path).plan()
    (tmp_path / "plan.json").write_text('{"format": 99}')
    with pytest.raises(CamlucidaError, match="format 1"):
        RunFolder(tmp_path).plan()


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CamlucidaError, match="cannot write to"):
        local.run(bench(tmp_path), tmp_path / "file/run")


# ---- what goes wrong --------------------------------------------------------------------------------


def test_refused_before_the_work_begins(tmp_path):
    with pytest.raises(MethodError, match="unknown method"):
        bench(tmp_path, methods=("nothing",))
    with pytest.raises(CamlucidaError, match="at least 1 photo"):
        local.run(bench(tmp_path), tmp_path / "run", batch_size=0)
    with pytest.raises(TargetError, match="belongs to no class"):
        bench(tmp_path, target=Cell("3", 0, 0), explain="label")
    with pytest.raises(CamlucidaError, match="shard_size"):
        Settings(shard_size=0)
    with pytest.raises(CamlucidaError, match="limit"):
        Settings(limit=0)
    data = Pictures(tmp_path / "pictures", 2)
    with pytest.raises(MethodError, match="no method"):
        Bench(tiny(), data, [], [Mass()])
    with pytest.raises(CamlucidaError, match="no metric"):
        Bench(tiny(), data, ["gradcam"], [])
    with pytest.raises(CamlucidaError, match="holds no photo"):
        Bench(tiny(), Pictures(tmp_path / "pictures", 0), ["gradcam"], [Mass()])
    bare = type(tiny())(tiny().module, "tiny", None, None)
    with pytest.raises(ModelError, match="how tiny wants its images"):
        Bench(bare, data, ["gradcam"], [Mass()])
    assert not (tmp_path / "run").exists()


def test_no_photo_can_be_read(tmp_path):
    data = Pictures(tmp_path / "pictures", 3, broken=(0, 1, 2))
    with pytest.raises(CamlucidaError, match="none of the first 3 photos"):
        local.run(bench(tmp_path, data=data), tmp_path / "run")


def test_a_metric_that_needs_boxes_says_so_early(tmp_path):
    from camlucida.metrics import build_metric, list_metrics

    row = next(row for row in list_metrics() if row.needs in {("boxes",), ("masks",)})
    data = Pictures(tmp_path / "pictures", 3, boxes=False)
    job = bench(tmp_path, data=data, metrics=[build_metric(row.name)])
    with pytest.raises(CamlucidaError, match=f"{row.name} needs .*pictures has none"):
        local.run(job, tmp_path / "run")
    assert not (tmp_path / "run/plan.json").exists()


def test_a_metric_that_fails_on_one_photo_costs_that_number_only(tmp_path):
    # The boxes of photos 3, 4, 8 and 9 are wider than 12; photo 4 is broken anyway.
    job = bench(tmp_path, metrics=[Fragile(), Drop()])
    local.run(job, tmp_path / "run", batch_size=4)
    rows = rows_of(tmp_path / "run")
    fragile = rows[(rows.metric == "fragile") & (rows.method == "gradcam")].set_index("index").value
    assert fragile[fragile.isna()].index.tolist() == [3, 8, 9]
    assert rows[rows.metric == "drop"].value.notna().all()
    notes = images_of(tmp_path / "run").set_index("index").notes
    assert notes[3] == "Fragile of gradcam: too wide; Fragile of hirescam: too wide"
    assert [i for i, note in notes.items() if isinstance(note, str)] == [3, 8, 9]


def test_a_metric_that_fails_on_the_first_photo_stops_the_run(tmp_path):
    with pytest.raises(
        CamlucidaError, match=r"Fragile of gradcam fails.*ZeroDivisionError: too wide"
    ):
        local.run(bench(tmp_path, metrics=[Fragile(limit=1)]), tmp_path / "run")


@dataclass(frozen=True)
class Hungry(Metric):
    limit: int = 2

    @property
    def names(self):
        return ("hungry",)

    def measure(self, scene, explanation):  # noqa: ARG002
        if len(scene) > self.limit:
            raise torch.OutOfMemoryError("out of memory")
        return Measured.of(hungry=scene.logits[:, 0].double())


def test_too_little_memory_halves_the_batch_and_goes_on(tmp_path):
    local.run(bench(tmp_path, metrics=[Hungry(1)]), tmp_path / "one", batch_size=1)
    seen = []
    job = bench(tmp_path, metrics=[Hungry(1)])
    local.run(job, tmp_path / "run", batch_size=4, progress=lambda *done: seen.append(done))
    same(tmp_path / "one", tmp_path / "run", 1e-9)
    assert [f["batch_size"] for f in RunFolder(tmp_path / "run").facts()] == [1, 1, 1]
    assert seen[-1] == (10, 10)
    with pytest.raises(Exception, match="memory"):
        local.run(bench(tmp_path, metrics=[Hungry(0)]), tmp_path / "none")


# ---- reading ahead ----------------------------------------------------------------------------------


def test_reading_ahead_keeps_the_order_and_its_bounds():
    running, most, lock = 0, 0, threading.Lock()

    def slow(i):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002 * (i % 3))
        with lock:
            running -= 1
        return i * i

    asked = []

    def items():
        for i in range(30):
            asked.append(i)
            yield i

    stream = ahead(items(), slow, 3, 5)
    assert next(stream) == (0, 0)
    assert len(asked) == 6
    assert list(stream) == [(i, i * i) for i in range(1, 30)]
    assert 1 < most <= 3


def test_photos_are_read_while_others_are_explained(tmp_path):
    read, enough = [], threading.Event()

    class Watched(Pictures):
        def sample(self, index):
            read.append(index)
            return super().sample(index)

    class Patient(Drop):
        done = 0

        def measure(self, scene, explanation):
            Patient.done += len(scene)
            while len(read) <= Patient.done < 12 and not enough.wait(0.01):
                pass  # waits for ever where nothing is read meanwhile
            enough.set()
            return super().measure(scene, explanation)

    job = bench(tmp_path, data=Watched(tmp_path / "pictures", 16), metrics=[("Drop", Patient())],
                methods=("gradcam",))  # fmt: skip
    worker = work.Worker(job, batch_size=2, threads=2)
    stop = threading.Timer(60, enough.set)
    stop.start()
    shards = list(worker.shards([1, 2, 3]))
    assert stop.is_alive()
    stop.cancel()
    assert sum(len(s.images) for s in shards) == 12


def test_identical_maps_are_measured_once(tmp_path, monkeypatch):
    """Grad-CAM's and HiResCAM's are, behind a pooling and a linear layer; but not where the method is asked again."""
    asked = []
    whole = Deletion.measure

    def measure(self, scene, explanation):
        asked.append(explanation.method)
        return whole(self, scene, explanation)

    monkeypatch.setattr(Deletion, "measure", measure)
    methods = ["gradcam", "gradcam++", "hirescam"]
    job = bench(tmp_path, methods=methods, metrics=["deletion", ("adcc", {"space": "input"})])
    local.run(job, tmp_path / "run", batch_size=10)
    rows = rows_of(tmp_path / "run")
    assert [type(m).__name__ for m in asked[-2:]] == ["GradCAM", "GradCAMpp"]
    values = rows[rows.metric == "deletion"].pivot(index="index", columns="method", values="value")
    assert (values["gradcam"] == values["hirescam"]).all()
    assert not (values["gradcam"] == values["gradcam++"]).all()
