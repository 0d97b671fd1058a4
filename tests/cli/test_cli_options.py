"""The options that commands share, and options that would have no effect."""

from __future__ import annotations

import pytest
from typer.core import TyperCommand
from typer.main import get_command

from camlucida.cli import app
from camlucida.cli.shared.options import Command
from reference.commands import run


def _commands():
    """Every command of the program by its words."""
    found = {}

    def walk(command, words):
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*words, name))
        if isinstance(command, TyperCommand):
            found[words] = command

    walk(get_command(app), ())
    return found


COMMANDS = _commands()
EVERY = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def _options(command):
    return {p.name: p for p in command.params if p.param_type_name == "option"}


# ---- one word for one thing ---------------------------------------------------------------------


def test_all_commands_are_found():
    assert {
        ("explain",),
        ("audit", "all"),
        ("reproduce", "fame-table1"),
        ("survey", "tally"),
    } <= set(COMMANDS)
    assert len(COMMANDS) > 30


@EVERY
@pytest.mark.parametrize("width", ["40", "200"])
def test_help_names_every_option(capsys, monkeypatch, words, width):
    monkeypatch.setenv("COLUMNS", width)
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, err = run(capsys, *words, "--help")
    assert (code, err) == (0, [])
    assert "\x1b" not in out
    assert max(map(len, out.splitlines())) <= int(width)
    if width == "200":
        for option in _options(COMMANDS[words]).values():
            assert option.opts[0] in out


@EVERY
def test_every_option_says_what_it_is(words):
    for name, option in _options(COMMANDS[words]).items():
        assert option.help, name


@pytest.mark.parametrize(
    "name",
    ["architecture", "class_names", "device", "as_json", "target", "steps", "preset", "aligned"],
)
def test_what_means_the_same_is_said_the_same(name):
    texts = {o[name].help for o in map(_options, COMMANDS.values()) if name in o}
    assert len(texts) == 1


@EVERY
def test_a_model_is_always_m(words):
    options = _options(COMMANDS[words])
    if "model" in options:
        assert options["model"].opts[-2:] == ["--model", "-m"]


@EVERY
def test_every_command_minds_what_is_given_twice(words):
    assert isinstance(COMMANDS[words], Command)


# ---- nothing is dropped in silence --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["explain", "a.png", "--seed", 1, "--seed", 2], "--seed is given 2 times"),
        (["layers-report", "a.png", "--class", "a", "--class", "b", "--class", "c"], "--class is given 3 times"),
        (["cases", "folder", "--method", "icam", "--method", "gradcam"], "--method is given 2 times"),
        (["audit", "all", "-m", "embedded", "--model", "digits"], "--model is given 2 times"),
    ],
)  # fmt: skip
def test_a_value_given_twice_is_refused(capsys, arguments, word):
    code, out, err = run(capsys, *arguments)
    assert (code, out, len(err)) == (2, "", 1)
    assert word in err[0]


@pytest.mark.parametrize("seed", ["-1", "9223372036854775808", "99999999999999999999"])
def test_a_seed_that_no_generator_takes_is_refused(capsys, seed):
    code, out, err = run(capsys, "audit", "theory", "--seed", seed)
    assert (code, out, len(err)) == (2, "", 1)
    assert f"--seed takes 0 to 4294967295, got {seed}" in err[0]


UNUSED = [
    ("evaluate photos --workers 2", "--workers goes with --engine ray"),
    ("evaluate photos --ray-address a:1 --workers 2", "--workers and --ray-address go with --engine ray"),
    ("evaluate photos --price 2", "--price goes with --estimate"),
    ("evaluate photos --estimate 4 --engine ray", "--engine goes without --estimate"),
    ("cells a.png --most 3", "--most goes with --depth"),
    ("cells a.png --depth --batch-size 3", "--batch-size goes without --depth"),
    ("cells a.png --depth --beside b", "--beside goes without --depth"),
    ("cases . --nearest 2", "--nearest goes with --train"),
    ("report run --no-gallery --data x", "--data goes with the gallery"),
    ("verify a b --draw 3", "--draw goes with --pairs"),
    ("verify a b --layout csv --split 1 --both", "--layout, --split and --both go with --pairs"),
    ("verify --pairs a.csv --layer x", "--layer goes with two photos"),
    ("verify a b --aligned --face largest", "--face goes without --aligned"),
    ("audit deadzone --no-stack", "--no-stack goes with --model"),
    ("audit deadzone --device cuda --batch-size 2", "--batch-size and --device go with --model"),
    ("audit sham --device cuda", "--device goes with --model"),
    ("audit sham -m embedded --data x --classes 45", "--classes goes with the small network"),
    ("reproduce fame-table2 --standin --model timm:resnet18", "--model goes with --data"),
    ("reproduce icam-table1 --standin --device cuda", "--device goes with --data"),
    ("reproduce wall-table1 --device cuda", "--device goes with --model"),
    ("reproduce wall-table1 --count 5", "--count goes with --model or --full"),
    ("reproduce fame-table1 --standin --split 1 --aligned", "--split and --aligned go with --data"),
    ("reproduce fame-table1 --data x --people 3", "--people goes with --standin"),
    ("reproduce diff-table2 --count 9", "--count goes with --model"),
    ("reproduce diff-table3 --data x --device cuda", "--data and --device go with --model"),
    ("train masked-vgg x --unmasked --seen-rows 3", "--seen-rows goes without --unmasked"),
    ("train salience --threads 2", "--threads goes with photos"),
    ("train salience --random", "--random goes with --model"),
    ("train salience x --plain --images 200", "--images goes with digits"),
    ("train salience x --sham --skip-missing", "--skip-missing goes with --maps"),
    ("train salience x --plain --layout rows", "--layout goes with --sham"),
    ("train salience x --plain --weight 0.1", "--weight goes with --maps, --masks or --sham"),
    ("train salience --entropy-weight 2", "--entropy-weight goes with --entropy"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words"), UNUSED, ids=[line for line, _ in UNUSED])
def test_what_would_have_no_effect_is_refused_at_once(capsys, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    for name in ("a.png", "a", "b", "run", "x"):
        (tmp_path / name).touch()
    code, out, err = run(capsys, *line.split())
    assert (code, out, len(err)) == (2, "", 1)
    assert words in err[0]
    assert {path.name for path in tmp_path.iterdir()} == {"a.png", "a", "b", "run", "x"}
