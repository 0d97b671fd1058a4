"""Each JSON document that a command prints in any test is held against the command's schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from typer._click.globals import get_current_context
from typer.main import get_command

from camlucida.cli import app
from camlucida.cli.shared import console

SCHEMAS = Path(__file__).parents[2] / "docs/schemas/schemas.json"


@cache
def commands() -> dict[str, Any]:
    """Every command of the program by its words."""
    found = {}

    def walk(command: Any, words: tuple[str, ...]) -> None:
        inside = getattr(command, "commands", None)
        if inside is None or command.invoke_without_command:
            found[" ".join(words)] = command
        for name in inside or ():
            walk(inside[name], (*words, name))

    walk(get_command(app), ())
    return found


def words_of(command: Any) -> str:
    """The words of a command, also of one that a test runs alone; registered audits are one kind."""
    own = getattr(command.callback, "__wrapped__", command.callback)
    for words, one in commands().items():
        if getattr(one.callback, "__wrapped__", one.callback) is own:
            return words
    return "audit"


@cache
def validator(words: str) -> Draft202012Validator:
    """What documents of a command are held against."""
    schemas = json.loads(SCHEMAS.read_text("utf-8"))
    if words not in schemas["commands"]:
        pytest.fail(f"camlucida {words} --json has no schema in {SCHEMAS.name}")
    return Draft202012Validator({"$defs": schemas["$defs"], **schemas["commands"][words]})


def hold(words: str, text: str) -> None:
    """Fail where a document is not as its schema says."""
    error = next(validator(words).iter_errors(json.loads(text)), None)
    if error is not None:
        pytest.fail(f"camlucida {words} --json: {error.json_path}: {error.message[:300]}")


@contextmanager
def held() -> Iterator[None]:
    """Inside the block every printed document is looked at."""
    pieces, whole = console.json_pieces, console.to_json

    def seen(parts: Iterator[str]) -> Iterator[str]:
        context = get_current_context(silent=True)
        text = ""
        for part in parts:
            text += part
            yield part
        if context is not None:
            hold(words_of(context.command), text)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "json_pieces", lambda document: seen(pieces(document)))
        patch.setattr(console, "to_json", lambda document: "".join(seen(iter([whole(document)]))))
        yield
