"""Checkpoint files as training scripts write them, odd and hostile ones, and architectures of the user's own."""

from __future__ import annotations

import argparse
import collections
import contextlib
import datetime as dt
import enum
import os
import pathlib
import pickle
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.models import load_model
from camlucida.models.checkpoint import fits_of, read_state_dict
from camlucida.models.weights import read_weights

NETS = """
from torch import nn
import helpers
from camlucida.models import LoadedModel


class Net(nn.Module):
    def __init__(self, num_classes=5, width=8):
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu().mean((2, 3)))


class Zoo:
    small = Net


def narrow():
    return Net(width=4)


def whole():
    return LoadedModel(Net(2), "mine", None, ("cat", "dog"), notes=("trained on cats and dogs",))


def needs(width):
    return Net(width=width)


def fails():
    raise ZeroDivisionError("nothing to divide")


def leaves():
    raise SystemExit(3)


def nothing():
    return 3


instance = narrow()
"""


@pytest.fixture
def nets(tmp_path, monkeypatch):
    """A file of the user's own with a neighbour that it imports; the current folder is its folder."""
    (tmp_path / "nets_of_mine.py").write_text(NETS)
    (tmp_path / "helpers.py").write_text("")
    monkeypatch.chdir(tmp_path)
    return "nets_of_mine.py"


def net(width=8, classes=5):
    names = {"conv": nn.Conv2d(3, width, 3), "norm": nn.BatchNorm2d(width)}
    return nn.ModuleDict({**names, "fc": nn.Linear(width, classes)})


class Attributes(dict):
    """A dictionary that is its own attributes, as configuration libraries have them."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.__dict__ = self


class Rows(list):
    """A list of a class of its own."""


class Outer:
    """Holds another class, which pickles find by ``getattr``."""

    class Inner:
        """That class."""


class Colour(enum.Enum):
    """An option as an enumeration."""

    RED = 1


class Runs:
    """Unpickled, it would run its function."""

    def __init__(self, function, *arguments):
        self.how = (function, arguments)

    def __reduce__(self):
        return self.how


def under(prefix, state):
    return {prefix + name: value for name, value in state.items()}


SD = net().state_dict()
ZEROS = {name: torch.zeros_like(value) for name, value in SD.items()}
# What a file holds, and words that must be among the notes.
HELD = {
    "plain": (SD, ()),
    "a prefix": (under("net.", SD), ()),
    "two prefixes": ({"state_dict": under("backbone.model.", SD)}, ()),
    "one of two": (
        {"state_dict": {**under("model.", SD), "criterion.weight": torch.ones(3)}},
        ("criterion.weight", "1 tensor "),
    ),
    "a metric's state": (
        {**under("encoder.", SD), "acc.tp": torch.zeros(3), "acc.fp": torch.zeros(3)},
        ("2 tensors", "acc.tp"),
    ),
    "a moving average": (
        {**under("model.", ZEROS), **under("ema_model.", SD)},
        ("2 times", "'ema_model.', a moving average,", "'model.'"),
    ),
    "an average in a key of its own": (
        {"model": ZEROS, "model_ema": SD},
        ("2 times", "'model_ema.'"),
    ),
    "parts in dictionaries": (
        {k: {n.split(".")[1]: v for n, v in SD.items() if n.startswith(k)} for k in ("conv", "norm", "fc")},
        (),
    ),
    "no counters": ({k: v for k, v in SD.items() if "num_batches" not in k}, ()),
    "an optimiser": ({"model": SD, "optimizer": {"state": {0: {"exp_avg": torch.zeros(9)}}}}, ()),
    "double precision": ({k: v.double() if v.is_floating_point() else v for k, v in SD.items()}, ()),
    "a numpy score": ({"model": SD, "best": np.float64(0.9)}, ("not read", "scalar")),
    "numpy arrays": ({"model": SD, "seen": [np.arange(3)]}, ("not read",)),
    "a path": ({"model": SD, "dir": pathlib.PurePosixPath("runs")}, ("pathlib.PurePosixPath",)),
    "a date": ({"model": SD, "t": dt.datetime(2026, 1, 1)}, ("datetime.datetime",)),  # noqa: DTZ001
    "options": ({"model": SD, "args": argparse.Namespace(lr=0.1)}, ("argparse.Namespace",)),
    "a default dictionary": ({"model": SD, "log": collections.defaultdict(list, {1: [2]})}, ("defaultdict",)),
    "attributes": ({"config": Attributes(a=1, b=[2]), "model": SD}, ("Attributes",)),
    "a list of its own": ({"rows": Rows([1, 2, 3]), "model": SD}, ("Rows",)),
    "an enumeration": ({"colour": Colour.RED, "model": SD}, ("Colour",)),
    "an inner class": ({"inner": Outer.Inner(), "model": SD}, ("not read",)),
    "all at once": (
        {
            "when": dt.timedelta(1), "who": pathlib.PurePosixPath("a"), "x": np.float32(1),
            "o": Attributes(l=Rows([Colour.RED])), "state_dict": under("module.net.", SD),
        },
        ("timedelta", "PurePosixPath", "Colour"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", HELD)
def test_weights_are_found_and_the_rest_is_said(nets, tmp_path, kind, zipped):
    held, words = HELD[kind]
    torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    loaded = load_model(tmp_path / "w.pth", architecture=f"{nets}:Net")
    own = loaded.module.state_dict()
    assert all(torch.equal(own[k], SD[k]) for k in own if "num_batches" not in k)
    said = "\n".join(loaded.notes)
    assert all(word in said for word in words), said
    assert bool(loaded.notes) == bool(words)


def test_the_prefix_is_that_of_a_slow_search():
    """Every prefix tried by brute force: the network's names under it, counted one by one."""
    held = {
        **under("a.b.", SD),
        **under("a.", {"conv.weight": SD["conv.weight"]}),
        "fc.bias": torch.ones(1),
    }
    starts = {""} | {
        ".".join(k.split(".")[:i]) + "." for k in held for i in range(1, k.count(".") + 1)
    }
    best = max(sorted(starts), key=lambda p: sum(p + k in held for k in SD))
    assert fits_of(held, net())[0].prefix == best == "a.b."


def test_number_of_outputs_is_read_from_the_file(nets, tmp_path):
    torch.save(under("m.", net(classes=3).state_dict()), tmp_path / "w.pth")
    loaded = load_model(
        str(tmp_path / "w.pth"), architecture=f"{nets}:Net", class_names=list("abc")
    )
    assert loaded.module.fc.out_features == 3
    assert loaded.class_names == ("a", "b", "c")


def refuse(*words, spec, **options):
    with pytest.raises(ModelError) as caught:
        load_model(spec, **options)
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


# A state dict that is wrong, and words of the refusal.
WRONG = {
    "no head": ({k: v for k, v in SD.items() if "fc" not in k}, ("2 missing (fc.weight, fc.bias)",)),
    "a prefix, no head": (
        under("net.", {k: v for k, v in SD.items() if "fc" not in k}), ("under 'net.'", "fc.bias"),
    ),
    "wider": (net(width=16).state_dict(), ("of another shape", "conv.weight (16, 3, 3, 3)")),
    "deeper": ({**SD, "norm.extra": torch.zeros(8)}, ("unexpected (norm.extra)",)),
    "nothing": ({"a": torch.zeros(3)}, ("none of its names (a)",)),
    "sparse": ({**SD, "fc.weight": SD["fc.weight"].to_sparse()}, ("sparse",)),
    "giant": ({**SD, "fc.weight": torch.zeros(1, 1).expand(10**9, 8)}, ("expanded", "1000000000")),
    "giant and sparse": (
        {**SD, "fc.weight": torch.sparse_coo_tensor(size=(10**9, 8))}, ("sparse",),
    ),
    "meta": ({**SD, "fc.weight": torch.zeros(10**9, 8, device="meta")}, ("meta",)),
    "quantized": (
        {**SD, "fc.weight": torch.quantize_per_tensor(SD["fc.weight"], 0.1, 0, torch.qint8)},
        ("quantized",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.filterwarnings("ignore")
def test_weights_that_do_not_fit_are_refused(nets, tmp_path, kind):
    held, words = WRONG[kind]
    torch.save(held, tmp_path / "w.pth")
    refuse(*words, spec=tmp_path / "w.pth", architecture=f"{nets}:Net")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("where", ["beside", "inside"])
def test_no_code_of_a_file_is_run(nets, tmp_path, zipped, where):
    flag = tmp_path / "flag"
    for function, arguments in (
        (pathlib.Path.touch, (flag,)),
        (os.mkdir, (str(flag),)),
        (eval, (f"open({str(flag)!r}, 'w')",)),
        (exec, (f"open({str(flag)!r}, 'w')",)),
    ):
        hostile = Runs(function, *arguments)
        held = {"x": hostile, "model": SD} if where == "beside" else {**SD, "fc.bias": hostile}
        torch.save(held, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
        found = contextlib.nullcontext()
        if (
            where == "inside" or function is os.mkdir
        ):  # the name of that module is never let through
            found = pytest.raises(ModelError, match=r"contains code|fc\.bias")
        with found:
            loaded = load_model(tmp_path / "w.pth", architecture=f"{nets}:Net")
            assert torch.equal(loaded.module.fc.bias, SD["fc.bias"])
        assert not flag.exists()


@pytest.mark.filterwarnings("ignore")
def test_files_of_other_kinds_are_named(nets, tmp_path):
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    path = tmp_path / "w.pt"
    arch = {"architecture": f"{nets}:Net"}
    for options in (arch, {}):  # also where nobody said what it is
        torch.jit.save(torch.jit.script(model), path)
        refuse("TorchScript program", spec=path, **options)
        torch.save(model, path)
        refuse("whole pickled model", "Sequential", "state_dict()", spec=path, **options)
        torch.save({"epoch": 3, "model": model}, path)
        refuse("whole pickled object under 'model'", spec=path, **options)
        path.write_bytes(b"\x08\x09\x12\x07pytorch\x1a\x062.15.0:")
        refuse("ONNX", spec=path, **options)
        path.write_bytes(b"\x89HDF\r\n\x1a\n")
        refuse("HDF5", spec=path, **options)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("w/archive_format", "pt2")
            archive.writestr("w/models/model.json", "{}")
        refuse("torch.export program", spec=path, **options)
        for head, word in {
            b"\x93NUMPY\x01": "NumPy array", b"\x1f\x8b\x08": "gzip", b"<!DOCTYPE html>": "web page",
            b'{"weight_map": {}}': "JSON text",
        }.items():  # fmt: skip
            path.write_bytes(head)
            refuse(word, spec=path, **options)
        with path.open("wb") as file:
            np.savez(file, weight=np.ones(3))
        refuse("NumPy archive", spec=path, **options)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("inner.pth", b"PK")
        refuse("archive of other files", "inner.pth", spec=path, **options)
        (tmp_path / "net.py").write_text("def make(): ...")
        refuse("Python code", "net.py:FUNCTION", spec=tmp_path / "net.py", **options)
    torch.save({name: value.numpy() for name, value in SD.items()}, path)
    refuse("NumPy values", spec=path, **arch)
    part = tmp_path / "model-00001-of-00002.pth"
    torch.save({name: value for name, value in SD.items() if "fc" not in name}, part)
    refuse("missing", "one of several files", spec=part, **arch)
    for kind in (torch.int8, torch.bool, torch.complex64):
        torch.save({name: value.to(kind) for name, value in SD.items()}, path)
        refuse(
            "shape or type",
            f"{kind} instead of torch.float32".replace("torch.", ""),
            spec=path,
            **arch,
        )
    for wrong in (net(), 3):
        refuse("architecture is a name", spec=path, architecture=wrong)
    torch.save({**SD, "a\n\x1b[31m" + "k" * 999: torch.ones(1)}, path)
    (note,) = [n for n in load_model(path, **arch).notes if "does not" in n]
    assert note.isprintable()
    assert len(note) < 300
    torch.save(SD, path, pickle_protocol=4)
    refuse("pickle protocol", spec=path, **arch)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", pickle.dumps({}, protocol=2))
        archive.writestr("w/data/0", bytes(10**7))
    refuse("times its size", spec=path, **arch)
    refuse("not a regular file", spec="/dev/zero", **arch)
    os.mkfifo(tmp_path / "pipe.pth")
    refuse("not a regular file", spec=tmp_path / "pipe.pth", **arch)
    refuse("no such checkpoint file", spec=tmp_path / "nowhere.pth", **arch)
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    refuse("cannot be read", spec=tmp_path / "loop.pth", **arch)


def test_safetensors_by_content(nets, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    safetensors.save_file(under("net.", SD), tmp_path / "w.bin")
    loaded = load_model(tmp_path / "w.bin", architecture=f"{nets}:Net")
    assert torch.equal(loaded.module.fc.weight, SD["fc.weight"])


def test_state_dict_for_networks_told_by_their_names(tmp_path):
    torch.save(
        {"state_dict": under("module.", SD), "head": {"weight": torch.ones(2)}}, tmp_path / "w.pth"
    )
    assert list(read_state_dict(tmp_path / "w.pth")) == list(SD)
    assert "head.weight" in read_weights(tmp_path / "w.pth").tensors


# ---- architectures of one's own -----------------------------------------------------------------


@pytest.mark.parametrize("how", ["{}.py:Net", "{}:Net", "./{}.py:Zoo.small", "{}:narrow"])
def test_factories(nets, tmp_path, how):
    name = how.format(nets.removesuffix(".py"))
    width = 4 if "narrow" in name else 8
    torch.save(net(width=width).state_dict(), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth", architecture=name)
    assert loaded.name == f"{name}@w.pth"
    assert loaded.preprocess is None
    assert not loaded.module.training


def test_factory_that_says_more(nets, tmp_path):
    loaded = load_model(f"{nets}:whole")
    assert loaded.class_names == ("cat", "dog")
    torch.save(net(classes=2).state_dict(), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth", architecture=f"{nets}:whole")
    assert loaded.class_names == ("cat", "dog")
    assert loaded.notes == ("trained on cats and dogs",)


def test_factory_of_timm_tells_its_preprocessing(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_timm.py").write_text(
        "import timm\ndef build(num_classes=9):\n    return timm.create_model('resnet10t', num_classes=num_classes)\n"
    )
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), tmp_path / "w.pth")
    loaded = load_model(tmp_path / "w.pth", architecture="mine_timm.py:build")
    assert loaded.module.num_classes == 3
    assert loaded.preprocess is not None
    assert "preprocessing is assumed" in loaded.notes[0]


def test_an_architecture_may_be_the_class_itself(nets, tmp_path):
    torch.save(SD, tmp_path / "w.pth")
    named = load_model(tmp_path / "w.pth", architecture=f"{nets}:Net")
    own = load_model(tmp_path / "w.pth", architecture=type(named.module))
    assert own.module.state_dict().keys() == named.module.state_dict().keys()
    assert own.name.endswith(":Net@w.pth")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nets_of_mine.py:Nett", ("names no 'Nett'", "did you mean 'Net'?")),
        ("nets_of_mine.py:needs", ("needs arguments (width)",)),
        ("nets_of_mine.py:fails", ("ZeroDivisionError: nothing to divide",)),
        ("nets_of_mine.py:leaves", ("SystemExit",)),
        ("nets_of_mine.py:nothing", ("returned int",)),
        ("empty.py:build", ("meta device",)),
        ("nets_of_mine.py:instance", ("must be a function or class",)),
        ("nowhere.py:Net", ("does not exist",)),
        ("no_such_package.nets:Net", ("no module 'no_such_package'", "timm:NAME")),
        ("helpers:", ("is unknown", "path/to/file.py:factory")),
        ("broken.py:Net", ("SyntaxError",)),
        ("misses.py:Net", ("ModuleNotFoundError", "not_installed_here")),
    ],
)
@pytest.mark.usefixtures("nets")
def test_factories_that_fail(tmp_path, name, words):
    (tmp_path / "broken.py").write_text("def Net(:\n")
    (tmp_path / "misses.py").write_text("import not_installed_here\n")
    (tmp_path / "empty.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Conv2d(3, 3, 1, device='meta')\n"
    )
    torch.save(SD, tmp_path / "w.pth")
    refuse(*words, spec=tmp_path / "w.pth", architecture=name)
