"""Every bundled file that is no text of ours has its origin and licence in a table."""

import re
from pathlib import Path

import camlucida

PACKAGE = Path(camlucida.__file__).parent
ROOT = PACKAGE.parents[1]
OURS = {".py", ".typed", ".md", ".html", ".css", ".js", ".svg", ".csv"}


def test_every_bundled_file_is_listed():
    listed = (ROOT / "LICENSES.md").read_text("utf-8")
    foreign = [
        path
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix not in OURS and "__pycache__" not in path.parts
    ]
    assert foreign
    for path in foreign:
        origin = path.with_name("ORIGIN.md")
        place = path.relative_to(ROOT).as_posix()
        if place in listed:
            continue
        assert path.relative_to(ROOT).parent.as_posix() in listed, place
        (row,) = (
            line
            for line in origin.read_text("utf-8").splitlines()
            if line.startswith(f"| `{path.name}`")
        )
        assert re.search(r"CC0|[Pp]ublic domain|Apache-2\.0|MIT|BSD", row), row


def test_no_script_or_style_is_anybody_elses():
    for path in PACKAGE.rglob("*"):
        if path.suffix in {".js", ".css", ".html"}:
            assert not re.search(r"[Cc]opyright|@license|\(c\) ", path.read_text("utf-8")), path
