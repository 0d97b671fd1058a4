"""The ImageNet recipe, on a data set of a few tiny photos."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from PIL import Image

from camlucida import CamlucidaError
from camlucida.models.masked_vgg import RECORD, load_masked_vgg
from camlucida.training.masked import CHECKPOINT, WEIGHTS, MaskedRecipe, Order, train_masked_vgg

TINY = MaskedRecipe(epochs=2, batch_size=2, size=32, workers=0, steps=1, learning_rate=0.01)


@pytest.fixture
def data(tmp_path):
    for part in ("train", "val"):
        for label, colour in enumerate(((200, 30, 30), (20, 60, 200))):
            for number in range(3):
                path = tmp_path / "data" / part / f"n{label}" / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (40 + number, 36), colour).save(path)
    return tmp_path / "data"


def train(data, out, recipe=TINY, **options):
    return train_masked_vgg(
        data, out, recipe=recipe, width=1 / 32, seen_rows=1, accelerator="cpu", devices=1, **options
    )


def test_two_steps_and_what_they_leave(data, tmp_path):
    seen = []
    record = train(data, tmp_path / "out", say=lambda *what: seen.append(what))
    assert record["steps"] == 2
    assert [row["epoch"] for row in record["curve"]] == [0, 1]
    assert all(0 <= row["top1"] <= row["top5"] <= 1 for row in record["curve"])
    assert seen[-1] == ("epoch 2 of 2", 1, 1)
    assert json.loads((tmp_path / "out" / RECORD).read_text()) == json.loads(json.dumps(record))
    loaded = load_masked_vgg(tmp_path / "out" / WEIGHTS["best"], seen_rows=1)
    dense = loaded.module.classifier[0]
    assert (dense.weight.view(dense.out_features, -1, 2, 2)[:, :, 1] == 0).all()
    assert dense.weight.abs().max() > 0
    assert loaded.module(torch.zeros(1, 3, 32, 32)).shape == (1, 2)
    assert loaded.class_names == ("n0", "n1")


def test_a_resumed_training_is_an_uninterrupted_one(data, tmp_path):
    whole = train(data, tmp_path / "whole")
    train(data, tmp_path / "parts", replace(TINY, epochs=1))
    parts = train(data, tmp_path / "parts")
    assert parts["resumed_from"] == 1
    assert [r["loss"] for r in parts["curve"]] == [r["loss"] for r in whole["curve"]]
    states = [
        torch.load(tmp_path / name / CHECKPOINT, weights_only=True)["model"]
        for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_another_recipe_does_not_go_on(data, tmp_path):
    train(data, tmp_path / "out")
    with pytest.raises(CamlucidaError, match=r"another plan.*learning_rate"):
        train(data, tmp_path / "out", replace(TINY, learning_rate=0.02))
    (data / "train" / "n0" / "0.png").rename(data / "train" / "n0" / "9.png")
    with pytest.raises(CamlucidaError, match=r"another plan.*photo_list"):
        train(data, tmp_path / "out")
    (tmp_path / "out" / CHECKPOINT).write_bytes(b"x")
    with pytest.raises(CamlucidaError, match="damaged"):
        train(data, tmp_path / "out")


def test_the_authors_keep_the_last_epoch(data, tmp_path, monkeypatch):
    """Theirs is the last, ours the best, which is the first here."""
    scores = iter([{"top1": 0.9, "top5": 1.0}, {"top1": 0.2, "top5": 1.0}] * 2)
    monkeypatch.setattr("camlucida.training.masked._Loaders.accuracies", lambda *_: next(scores))
    kept = {}
    for keep in ("best", "last"):
        record = train(data, tmp_path / keep, replace(TINY, keep=keep))
        assert record["kept"]["epoch"] == {"best": 0, "last": 1}[keep]
        (kept[keep],) = (tmp_path / keep).glob("*.pt")
    last = torch.load(tmp_path / "last" / CHECKPOINT, weights_only=True)["model"]
    best, written = (torch.load(kept[k], weights_only=True) for k in ("best", "last"))
    assert all(torch.equal(written[k], last[k]) for k in last)
    assert any(not torch.equal(best[k], last[k]) for k in last)


def test_the_authors_first_weights_are_an_option(data, tmp_path):
    record = train(data, tmp_path / "out", replace(TINY, epochs=1, initialisation="authors"))
    assert record["plan"]["initialisation"] == "authors"
    with pytest.raises(CamlucidaError, match=r"another plan.*initialisation"):
        train(data, tmp_path / "out", replace(TINY, epochs=1))
    with pytest.raises(CamlucidaError, match="initialisation"):
        MaskedRecipe(initialisation="kaiming")


def test_the_twin_sees_everything(data, tmp_path):
    train(data, tmp_path / "out", replace(TINY, epochs=1), masked=False)
    state = torch.load(tmp_path / "out" / WEIGHTS["best"], weights_only=True)
    assert (state["classifier.0.weight"] != 0).all()


def test_batches_larger_than_the_data_are_refused(data, tmp_path):
    with pytest.raises(CamlucidaError, match="less than one batch"):
        train(data, tmp_path / "out", MaskedRecipe(batch_size=99, size=32, workers=0))


def test_processes_share_the_images_without_overlap():
    shares = [list(Order(10, rank, 3, seed=5, count=3)) for rank in range(3)]
    assert all(len(share) == 3 for share in shares)
    assert len({i for share in shares for i in share}) == 9
    assert list(Order(5, 1, 2, seed=None, count=None)) == [1, 3]
    assert list(Order(10, 0, 1, seed=5, count=None)) != list(Order(10, 0, 1, seed=6, count=None))


def test_the_recipe_is_the_papers():
    recipe = MaskedRecipe()
    assert (recipe.learning_rate, recipe.momentum, recipe.weight_decay) == (0.03, 0.9, 1e-4)
    assert (recipe.epochs, recipe.step_size, recipe.gamma, recipe.batch_size) == (90, 30, 0.1, 256)
    with pytest.raises(CamlucidaError, match="epochs"):
        MaskedRecipe(epochs=0)


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 0}, {"workers": -1}, {"precision": "16"}, {"area": (0.5, 2.0)}, {"aspect": (2.0, 1.0)},
        {"learning_rate": float("nan")}, {"momentum": -0.1},
    ],
)  # fmt: skip
def test_wrong_recipes_are_refused(options):
    with pytest.raises(CamlucidaError, match=next(iter(options))):
        MaskedRecipe(**options)


def test_a_device_that_is_not_there_is_named(data, tmp_path):
    with pytest.raises(CamlucidaError, match="cannot train on accelerator='nonsense'"):
        train_masked_vgg(data, tmp_path / "out", recipe=TINY, accelerator="nonsense")


def test_weights_in_pieces_are_refused(data, tmp_path):
    with pytest.raises(CamlucidaError, match="'ddp'"):
        train(data, tmp_path / "out", strategy="fsdp")


def test_the_global_random_state_stays(data, tmp_path):
    before = torch.random.get_rng_state()
    train(data, tmp_path / "out", replace(TINY, epochs=1))
    assert torch.equal(torch.random.get_rng_state(), before)


PARALLEL = """
import sys
from pathlib import Path

from camlucida.models.masked_vgg import load_masked_vgg
from camlucida.training.masked import MaskedRecipe, train_masked_vgg

data, out = map(Path, sys.argv[1:])
for epochs in (1, 2):
    recipe = MaskedRecipe(epochs=epochs, batch_size=2, size=32, workers=0, learning_rate=0.01)
    train_masked_vgg(
        data, out, recipe=recipe, width=1 / 32, seen_rows=1, accelerator="cpu", devices=2, strategy="ddp"
    )
"""


@pytest.mark.slow
def test_two_processes_train_validate_and_resume(data, tmp_path):
    """Although the second one has nothing to validate: it must not be waited for."""
    for path in (*(data / "val" / "n1").iterdir(), *sorted((data / "val" / "n0").iterdir())[1:]):
        path.unlink()
    script = tmp_path / "script.py"
    script.write_text(PARALLEL)
    done = subprocess.run(  # noqa: S603
        [sys.executable, script, data, tmp_path / "out"],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["devices"] == 2
    assert record["resumed_from"] == 1
    assert record["steps"] == 6
    assert all(row["top1"] in (0, 1) and row["top5"] == 1 for row in record["curve"])
    dense = load_masked_vgg(tmp_path / "out" / WEIGHTS["best"], seen_rows=2).module.classifier[0]
    assert (dense.weight.view(dense.out_features, -1, 2, 2)[:, :, 1] == 0).all()
