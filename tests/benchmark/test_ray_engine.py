"""The Ray engine: the same rows, the same resume, and a worker that is killed costs no row."""

from __future__ import annotations

import os
import signal
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from camlucida.benchmark import RunFolder, local, open_bench, ray_engine
from camlucida.common.errors import CamlucidaError
from reference.bench import bench, images_of, rows_of

pytest.importorskip("ray")
timm = pytest.importorskip("timm")

ARCHITECTURE = "timm:mobilenetv3_small_050"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """Noise in three class folders and a small network with random weights; paths relative to the folder."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for i in range(22):
        folder = tmp_path / "pictures" / str(i % 3)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    (tmp_path / "pictures/1/04.png").write_bytes(b"no picture")
    torch.manual_seed(0)
    model = timm.create_model(ARCHITECTURE.partition(":")[2], num_classes=3)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    return partial(
        open_bench,
        "model.pth",
        "pictures",
        ["gradcam", "diffgradcam:aggregator=max"],
        ["sparseness", "complexity"],
        shard_size=2,
        architecture=ARCHITECTURE,
    )


def same(a, b):
    pd.testing.assert_frame_equal(rows_of(a), rows_of(b), rtol=0, atol=1e-6)
    pd.testing.assert_frame_equal(images_of(a), images_of(b), rtol=0, atol=1e-6)


def actor(recipe, out, todo, record=None):
    job = recipe()
    record = record or job.record
    return ray_engine.Actor(job.source, record, str(out), todo, 3, 1, "cpu", os.fspath(out.parent))


def test_an_actor_writes_the_shards_that_it_is_given(tmp_path, recipe, monkeypatch):
    job = recipe()
    local.run(job, tmp_path / "whole", batch_size=8)
    run = RunFolder(tmp_path / "run")
    local.prepare(job, run, {})
    work = actor(recipe, run.path, [5, 7, 9])
    told = list(work({"id": np.array([0, 2])}))
    assert [(t["shard"], t["images"]) for t in told] == [([5], [2]), ([9], [2])]
    assert run.done() == {5, 9}
    before = run.file("rows", 5).stat().st_mtime_ns
    # A folder of a million shards is not listed for each few of them.
    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "done", lambda _: pytest.fail("the whole folder was listed"))
        told = list(work({"id": np.array([0, 1])}))  # as after a restart
    assert sorted(t["shard"][0] for t in told) == [5, 7]
    assert run.file("rows", 5).stat().st_mtime_ns == before
    ended = local.run(job, run.path)
    assert (ended.before, ended.images) == (6, 22)
    same(tmp_path / "whole", run.path)
    assert [f.get("engine") for f in run.facts()].count("ray") == 3


def test_a_worker_with_other_weights_or_another_folder_refuses(tmp_path, recipe):
    job = recipe()
    run = RunFolder(tmp_path / "run")
    with pytest.raises(CamlucidaError, match="does not see"):
        actor(recipe, run.path, [0])
    local.prepare(job, run, {})
    record = job.record
    model = timm.create_model(ARCHITECTURE.partition(":")[2], num_classes=3)
    torch.save(model.state_dict(), tmp_path / "model.pth")
    with pytest.raises(CamlucidaError, match=r"something else .*model.weights differ"):
        actor(recipe, run.path, [0], record)


def test_a_bench_without_a_recipe_is_refused(tmp_path):
    with pytest.raises(CamlucidaError, match="as text"):
        ray_engine.run(bench(tmp_path), tmp_path / "run")


def test_a_finished_run_starts_no_cluster(tmp_path, recipe):
    import ray

    local.run(recipe(), tmp_path / "run")
    ended = ray_engine.run(recipe(), tmp_path / "run", workers=2)
    assert (ended.before, ended.images) == (22, 22)
    assert not ray.is_initialized()


def test_the_reason_at_the_bottom_is_told():
    outer = RuntimeError("ray_task\n  Traceback\nValueError: x is 3")
    assert "ValueError: x is 3" in str(ray_engine._in_words(outer))
    outer.__cause__ = CamlucidaError("no such layer")
    assert str(ray_engine._in_words(outer)) == "no such layer"


@pytest.mark.slow
def test_a_killed_worker_costs_a_retry_and_no_row(tmp_path, recipe):
    job = recipe()
    out = tmp_path / "run"
    killed = []

    def kill_once(done, total):
        pids = {f["pid"] for f in RunFolder(out).facts()} if not killed and done < total else ()
        for pid in list(pids)[:1]:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    ended = ray_engine.run(
        job, out, workers=2, batch_size=2, threads=1, device="cpu", progress=kill_once
    )
    assert killed
    assert (ended.images, ended.interrupted) == (22, False)
    facts = list(RunFolder(out).facts())
    assert len(facts) == 11
    assert {f["pid"] for f in facts} - set(killed)
    local.run(job, tmp_path / "local", batch_size=2)
    same(out, tmp_path / "local")
    (out / "rows/shard-000003.parquet").unlink()
    ended = ray_engine.run(job, out, workers=1, batch_size=3, threads=1, device="cpu")
    assert (ended.before, ended.images) == (20, 22)
    same(out, tmp_path / "local")
