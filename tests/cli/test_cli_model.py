"""Models of one's own on the command line: architecture, outputs and preprocessing."""

from __future__ import annotations

import inspect
import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from camlucida.cli import app
from camlucida.cli.shared.model import DETAILS, how_of
from camlucida.cli.shared.words import option_words
from camlucida.common.arguments import Code
from camlucida.common.errors import CamlucidaError
from camlucida.models import load_model
from reference.commands import run

NETS = """
import torch
from torch import nn

torch.manual_seed(0)

def build(num_classes=4):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, num_classes)
    )

def soft():
    return nn.Sequential(build(), nn.Softmax(1))

def labels():
    return nn.Sequential(build(6), nn.Sigmoid())

def value():
    return nn.Sequential(build(1), nn.Flatten(0))

def maps():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 1))

def rows():
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 24 * 24, 8), nn.ReLU(), nn.Linear(8, 3))

class Embeds(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = build(32)

    def forward(self, x):
        return nn.functional.normalize(self.body(x))
"""
SMALL = ("--size", "24", "--mean", "0.5", "--std", "0.5", "--resize", "24")


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_nets.py").write_text(NETS)
    for name in ("a", "b"):
        Image.effect_noise((40, 30), 60).convert("RGB").save(f"{name}.png")
    (tmp_path / "names.txt").write_text("cat\ndog\nfox\n")
    space = {}
    exec(NETS, space)  # noqa: S102
    torch.save({"state_dict": {f"net.{k}": v for k, v in space["build"](3).state_dict().items()},
                "crit.w": torch.ones(2)}, "w.pth")  # fmt: skip


def explained(capsys, *arguments):
    code, out, err = run(capsys, "explain", "a.png", "b.png", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["photos"]


def test_a_checkpoint_in_an_architecture_of_ones_own(capsys):
    photos = explained(
        capsys,
        "-m",
        "w.pth",
        "--architecture",
        "own_nets.py:build",
        "--class-names",
        "names.txt",
        *SMALL,
    )
    assert {p["name"] for p in photos[0]["predictions"]} == {"cat", "dog", "fox"}
    said = photos[0]["methods"][0]["messages"]
    assert any("crit.w" in text for text in said)
    assert photos[0]["methods"][0]["provenance"]["preprocess"]["mean"] == [0.5, 0.5, 0.5]
    code, out, err = run(
        capsys,
        "explain",
        "a.png",
        "b.png",
        "-m",
        "w.pth",
        "--architecture",
        "own_nets.py:build",
        "--size",
        "24",
    )
    assert (code, err) == (0, [])
    assert out.count("crit.w") == 1  # for all photos once
    assert "Assumed" in out
    lines = out.partition("Assumed\n")[2].partition("\n\n")[0].splitlines()
    assert len(lines) > 1
    assert all(line.startswith("  ") and line == line.rstrip() for line in lines)
    said = " ".join(out.split())
    assert (
        "side resized to 27 pixels, the centre cut out, bilinear interpolation, mean 0.485" in said
    )
    assert "24 x 24" not in said


@pytest.mark.parametrize(
    ("name", "options", "kind", "words"),
    [
        ("soft", (), "classes", "logarithms"),
        ("labels", (), "labels", "sigmoid"),
        ("value", (), "regression", "taken for a value"),
        ("build", ("--outputs", "labels:threshold=0.01"), "labels", ""),
        ("soft", ("--outputs", "classes:activation=softmax"), "classes", ""),
    ],
)
def test_outputs(capsys, name, options, kind, words):
    photos = explained(capsys, "-m", f"own_nets.py:{name}", *SMALL, *options)
    method = photos[0]["methods"][0]
    assert method["provenance"]["outputs"]["kind"] == kind
    assert words in " ".join(method["messages"])
    p = [one["probability"] for one in photos[0]["predictions"]]
    if name == "soft":
        assert sum(p) == pytest.approx(1, abs=1e-5)
    if name == "value":
        assert not p
        assert method["explained"].startswith("Value")


def test_preprocessing_changes_that_of_the_model(capsys):
    pytest.importorskip("timm")
    import timm

    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), "r.pth")
    photos = explained(
        capsys, "-m", "r.pth", "--architecture", "timm:resnet10t", "--size", "64", "--no-crop"
    )
    made = photos[0]["methods"][0]["provenance"]["preprocess"]
    assert (made["size"], made["resize"], made["crop"]) == ([64, 64], [64, 64], False)
    assert "resized to 64 x 64" in " ".join(photos[0]["methods"][0]["messages"])


def test_a_benchmark_of_a_model_that_ends_in_a_softmax(capsys):
    Image.fromarray(np.zeros((30, 40, 3), np.uint8)).save("c.png")
    common = (
        ".",
        "-m",
        "own_nets.py:soft",
        *SMALL,
        "--metric",
        "average_drop",
        "--no-report",
        "--json",
    )
    code, _, err = run(capsys, "evaluate", *common, "--out", "one")
    assert code == 0, err
    assert any("logarithms" in text for text in err)
    code, _, err = run(capsys, "report", "one")  # the plan's own word starts no code
    assert code == 0
    assert any("code of one's own" in text for text in err)


WRONG = {
    "no size": (("--size", "x"), "--size"),
    "too large": (("--size", "200000"), "1 to 99999 pixels"),
    "no numbers": (("--size", "24", "--mean", "a"), "--mean"),
    "two numbers": (("--size", "24", "--mean", "1,2"), "3 values"),
    "no filter": (("--size", "24", "--interpolation", "cubic"), "interpolation"),
    "no word": (("--size", "24", "--outputs", "sigmod"), "did you mean 'sigmoid'"),
    "no fit": (("--size", "24", "--outputs", "binary"), "one number"),
    "too few names": (("--size", "24", "--class-names", "names.txt"), "3 class names"),
    "nothing said": ((), "--size"),
}


@pytest.mark.parametrize("case", WRONG)
def test_mistakes_are_one_line(capsys, case):
    options, words = WRONG[case]
    code, _, err = run(capsys, "explain", "a.png", "-m", "own_nets.py:build", *options)
    assert code == 2
    assert words in err[-1]


@pytest.mark.parametrize(
    ("values", "how"),
    [
        ({}, {}),
        (
            {"architecture": "a:b", "outputs": "labels"},
            {"architecture": "a:b", "outputs": "labels"},
        ),
        ({"size": "24X32", "resize": "none"}, {"preprocess": {"size": (24, 32), "resize": None}}),
        ({"mean": "0.5", "std": "1,2,3"}, {"preprocess": {"mean": 0.5, "std": (1.0, 2.0, 3.0)}}),
        ({"crop": False}, {"preprocess": {"crop": False}}),
    ],
)
def test_texts_become_arguments(values, how):
    assert how_of({**dict.fromkeys(DETAILS), **values}) == how


def commands(group, name=""):
    """Every command of a group and the groups below it, with the click command behind it."""
    for known, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{name} {known}")
        else:
            yield f"{name} {known}".strip(), command


def test_the_group_is_wherever_a_model_is():
    """Commands with a model that is loaded by name have all of its options."""
    seen = 0
    for name, command in commands(typer.main.get_command(app)):
        options = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        if "--architecture" in options and name != "train salience":
            assert {"--class-names", "--outputs", "--size", "--mean", "--std"} <= options, name
            seen += 1
        elif "--model" in options:
            assert name.startswith(
                ("train", "verify", "reproduce fame", "reproduce diff-table1")
            ), name
    assert seen >= 15


def test_values_of_the_wrong_kind():
    with pytest.raises(CamlucidaError, match="--resize"):
        how_of({**dict.fromkeys(DETAILS), "resize": "0"})
    assert inspect.signature(how_of).return_annotation == "dict[str, Any]"


def test_messages_name_the_options_of_the_command(capsys):
    net = ("-m", "own_nets.py:build", *SMALL)
    said = " ".join(explained(capsys, *net)[0]["methods"][0]["messages"])
    assert "--outputs labels" in said
    assert "outputs=" not in said
    several = explained(capsys, *net, "--outputs", "regression")[0]["methods"][0]
    assert any("--class 1 chooses" in text for text in several["messages"])
    loaded = load_model("own_nets.py:build", preprocess={"size": 24})
    assert "say outputs='labels'" in " ".join(loaded.outputs.notes)


def test_maps_and_embeddings_on_the_command_line(capsys):
    maps = ("-m", "own_nets.py:maps", *SMALL)
    plain = explained(capsys, *maps, "--class", "1")[0]["methods"][0]
    said = explained(capsys, *maps, "--class", "1", "--target", "segmentation")[0]["methods"][0]
    assert plain["target_value"] == said["target_value"]
    embeds = ("-m", "own_nets.py:Embeds", *SMALL)
    found = explained(capsys, *embeds, "--method", "eigencam")[0]
    assert (found["predictions"], found["methods"][0]["explained"]) == ([], "no target")
    code, _, err = run(capsys, "explain", "a.png", *embeds)
    assert code == 2
    assert "only in Python" in err[0]
    assert "--outputs classes" in err[0]


def test_a_network_of_rows_has_no_layer_and_the_reason_is_said(capsys):
    code, out, _ = run(capsys, "layers", "own_nets.py:rows", "--size", "24")
    assert code == 0
    assert "flattened into one row of 1728 numbers" in " ".join(out.split())
    assert "stride" not in out
    code, _, err = run(capsys, "explain", "a.png", "-m", "own_nets.py:rows", *SMALL)
    assert code == 2
    assert "flattened" in err[0]
    assert "exported" not in err[0]


def test_what_can_be_done_only_in_python_is_said_to_be(capsys):
    net = ("-m", "own_nets.py:maps", *SMALL)
    _, _, err = run(capsys, "explain", "a.png", "-m", "own_nets.py:build", *SMALL, "--layer", "4")
    assert "in Python" not in err[0]  # (N, 4) is read as no map
    _, _, err = run(capsys, "explain", "a.png", *net, "--target", "probability")
    assert "Segmentation" in err[0]
    said = option_words([])
    assert said("grid", Code("Grid()")) == "grid=Grid() in Python"
