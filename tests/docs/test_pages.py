"""What the pages say of the package: quoted messages are its own words, commands and methods exist."""

import ast
import re
from pathlib import Path

import pytest
from typer.main import get_command

import camlucida
from camlucida.cli import app

PACKAGE = Path(camlucida.__file__).parent
ROOT = PACKAGE.parents[1]
PAGES = [ROOT / "README.md", ROOT / "llms.txt", *sorted((ROOT / "docs").rglob("*.md"))]
PAGES = [page for page in PAGES if not {"built", "_build"} & set(page.parts)]


def _said():
    """All texts in the package's source, with … for what is filled in."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
            elif isinstance(node, ast.JoinedStr):
                yield "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values)


def test_troubleshooting_quotes_our_own_words():
    text = (ROOT / "docs/howto/troubleshooting.md").read_text("utf-8")
    quotes = [
        " ".join(q.replace("\n> ", " ").split())
        for q in re.findall(r"^> ((?:.+\n?(?:> )?)+)", text, re.MULTILINE)
    ]
    assert len(quotes) > 15
    every = [re.sub(r"%d|\{[^}]*\}", "…", said) for said in _said()]
    for quote in quotes:
        parts = [part.strip(" ();:,.") for part in quote.split("…")]
        missing = [part for part in parts if part and not any(part in said for said in every)]
        assert not missing, f"{quote!r}: nobody says {missing}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_on_a_page_exist(page):
    known = get_command(app).commands
    for word in re.findall(r"(?m)(?:^|`)camlucida ([a-z][a-z-]+)", page.read_text("utf-8")):
        assert word in known, f"{page.name}: camlucida {word}"
