"""``camlucida train masked-vgg``."""

import json
import os
import subprocess
import sys

import pytest
import torch
from PIL import Image

from camlucida import CamlucidaError
from camlucida.cli import main
from camlucida.data.train_val import photos_of
from camlucida.models.masked_vgg import load_masked_vgg

TINY = (
    "--width", "0.03", "--size", "112", "--seen-rows", "1", "--batch-size", "4", "--lr", "0.01", "--workers", "0",
    "--accelerator", "cpu",
)  # fmt: skip


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((40, 36), 50).save(path)


@pytest.fixture
def data(tmp_path):
    for label in ("cat", "dog"):
        for number in range(5):
            write(tmp_path / "data" / label / f"{number}.png")
    return tmp_path / "data"


def run(capsys, *arguments):
    code = main(["train", "masked-vgg", *map(str, arguments)])
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err
    return code, out, err


def test_a_folder_by_class_is_learned_and_audited(data, tmp_path, capsys):
    out = tmp_path / "run"
    code, said, _ = run(capsys, data, *TINY, "--epochs", 2, "--out", out, "--json")
    assert code == 0
    record = json.loads(said)
    assert [row["epoch"] for row in record["curve"]] == [0, 1]
    assert record["class_names"] == ["cat", "dog"]
    assert record["plan"]["photos"] == 8
    assert record["files"] == [str(out / "best.pt"), str(out / "record.json")]
    loaded = load_masked_vgg(out / "best.pt")
    assert (loaded.name, loaded.class_names) == ("masked-vgg", ("cat", "dog"))
    model = f"masked-vgg:{out / 'best.pt'}"
    options = ("--data", data, "--method", "hirescam", "--count", 2, "--out", tmp_path / "dead")
    assert main(["audit", "deadzone", "--model", model, *map(str, options), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["record"]["dead_pixels"]["rows"] == [106, 111]
    # Once more, nothing is left to do.
    code, said, _ = run(capsys, data, *TINY, "--epochs", 2, "--out", out)
    assert code == 0
    assert "trained on 8 photos of 2 classes" in said
    assert "Published" not in said


def test_ctrl_c_and_the_same_command_again(data, tmp_path, capsys, monkeypatch):
    from camlucida.training.masked import _Loaders

    options = (data, *TINY, "--epochs", 3)
    _, whole, _ = run(capsys, *options, "--out", tmp_path / "whole", "--json")
    training = _Loaders.training

    def interrupted(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        return training(self, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(_Loaders, "training", interrupted)
        code, out, err = run(capsys, *options, "--out", tmp_path / "parts", "--json")
    assert (code, out) == (130, "")
    assert err.strip() == "camlucida: stopped"
    code, parts, _ = run(capsys, *options, "--out", tmp_path / "parts", "--json")
    found, expected = json.loads(parts), json.loads(whole)
    assert code == 0
    assert found["resumed_from"] == 1
    assert [r["loss"] for r in found["curve"]] == [r["loss"] for r in expected["curve"]]
    states = [
        torch.load(tmp_path / name / "best.pt", weights_only=True) for name in ("whole", "parts")
    ]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_the_twin(data, tmp_path, capsys):
    small = [o for o in TINY if o not in {"--seen-rows", "1"}]
    small[small.index("112")] = "32"
    code, out, err = run(
        capsys, data, *small, "--unmasked", "--epochs", 1, "--out", tmp_path / "run", "--json"
    )
    assert (code, err) == (0, "")
    assert json.loads(out)["plan"]["masked"] is False
    assert load_masked_vgg(tmp_path / "run" / "best.pt").name == "unmasked-vgg"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "64"], "5 of the 4 rows"),
        (["--size", "56", "--seen-rows", "1"], "a size that 16 divides"),
        (["--precision", "16"], "precision must be one of"),
        (["--lr", "nan"], "learning_rate must be"),
        (["--devices", "x", "--accelerator", "cpu"], "devices='x'"),
        (["--batch-size", "99", "--accelerator", "cpu", "--width", "0.01"], "less than one batch"),
        (["--strategy", "fsdp"], "use 'ddp'"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said(data, tmp_path, capsys, arguments, said):
    code, out, err = run(capsys, data, *arguments, "--out", tmp_path / "run")
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert not (tmp_path / "run").exists()


def test_a_mask_that_leaves_no_pixel_dead_is_told(data, tmp_path, capsys):
    options = ("--steps-per-epoch", 1, "--epochs", 1, "--out", tmp_path / "run")
    small = ("--width", "0.01", "--batch-size", "4", "--workers", "0", "--accelerator", "cpu")
    _, _, err = run(capsys, data, *small, *options, "--size", 48, "--seen-rows", 2)
    assert "the first 2 rows of the map see everything" in err


# ---- where photos lie ---------------------------------------------------------------------------


def test_a_fifth_of_each_class_is_held_out(data):
    found = photos_of(data)
    assert sorted(found["train"].names) == ["cat"] * 4 + ["dog"] * 4
    assert sorted(found["val"].names) == ["cat", "dog"]
    assert not set(found["train"].paths) & set(found["val"].paths)
    for path in sorted((data / "cat").iterdir())[1:]:
        path.unlink()
    with pytest.raises(CamlucidaError, match=r"'cat' .* one photo only"):
        photos_of(data)


def test_imagenet_as_its_archives_unpack(tmp_path):
    base = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    for synset in ("n01440764", "n02123045"):
        write(base / "train" / synset / f"{synset}_1.png")
    for number in (1, 2):
        write(base / "val" / f"ILSVRC2012_val_0000000{number}.png")
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\n"
        "ILSVRC2012_val_00000001,n02123045 1 2 3 4\n"
        "ILSVRC2012_val_00000002,n01440764 1 2 3 4\n"
    )
    found = photos_of(tmp_path)
    assert found["train"].names == ["n01440764", "n02123045"]
    assert found["val"].names == ["n02123045", "n01440764"]
    assert [path.name[-6:] for path in found["val"].paths] == ["01.png", "02.png"]
    # Sorted into folders they are taken from there.
    for number, synset in ((1, "n02123045"), (2, "n01440764")):
        (base / "val" / synset).mkdir()
        flat = base / "val" / f"ILSVRC2012_val_0000000{number}.png"
        flat.rename(base / "val" / synset / flat.name)
    assert photos_of(tmp_path)["val"].names == ["n01440764", "n02123045"]


@pytest.mark.slow
def test_two_processes_say_it_once(data, tmp_path):
    out = tmp_path / "run"
    words = ("train", "masked-vgg", data, *TINY, "--epochs", "1", "--devices", "2", "--out", out)
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "camlucida", *words, "--json"],
        check=False, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["devices"] == 2
