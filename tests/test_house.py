"""The order of the rooms: imports run one way, downwards, and no two files import each other in a circle."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import pytest

import camlucida

ROOT = Path(camlucida.__file__).parent

# From the ground up: a room may import itself and the rooms of lower floors, never its neighbours.
FLOORS = (
    ("common",),
    ("targets", "report", "__init__"),
    ("engine",),
    ("data",),
    ("models", "methods"),
    ("explanation",),
    ("metrics",),
    ("benchmark", "training", "faces"),
    ("audits",),
    ("studies",),
    ("app",),
    ("cli",),
    ("__main__",),
)


def _name(path: Path) -> str:
    parts = [*path.relative_to(ROOT.parent).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def _files() -> dict[str, tuple[Path, ast.Module]]:
    return {_name(p): (p, ast.parse(p.read_text("utf-8"))) for p in ROOT.rglob("*.py")}


def _imports(name: str) -> set[tuple[str, str]]:
    """(module, name taken from it) of a file's imports, those for type checkers alone left out."""
    tree = _files()[name][1]
    hidden = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for statement in node.body
        for inner in ast.walk(statement)
    }
    return {
        (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and id(node) not in hidden
        for alias in node.names
        if (node.module or "").startswith("camlucida")
    }


def _home(module: str, taken: str) -> str:
    """The file that defines a name, also where a room's face hands it on."""
    files = _files()
    if f"{module}.{taken}" in files:
        return f"{module}.{taken}"
    if module in files and files[module][0].name == "__init__.py":
        for base, name in _imports(module):
            if name == taken and base in files:
                return _home(base, taken)
    return module


def _room(name: str) -> str:
    return name.split(".")[1] if "." in name else "__init__"


def _edges() -> dict[str, set[str]]:
    files = _files()
    return {
        name: {_home(module, taken) for module, taken in _imports(name)} - {name}
        for name, (path, tree) in files.items()
        if path.name != "__init__.py"
        or any(isinstance(n, ast.FunctionDef | ast.ClassDef) for n in tree.body)
    }


@pytest.mark.parametrize("floor", range(len(FLOORS)))
def test_a_room_imports_only_what_lies_below(floor):
    below = {room for rooms in FLOORS[:floor] for room in rooms}
    wrong = {
        f"{name} imports {target}"
        for name, targets in _edges().items()
        if _room(name) in FLOORS[floor]
        for target in targets
        if _room(target) not in {*below, _room(name)}
    }
    assert not wrong


def test_every_room_has_its_floor():
    assert {_room(name) for name in _files()} == {room for rooms in FLOORS for room in rooms}


def test_no_files_import_each_other_in_a_circle():
    left = _edges()
    while done := {name for name, targets in left.items() if not targets & left.keys()}:
        left = {name: targets for name, targets in left.items() if name not in done}
    assert not left, f"files in a circle, or over one: {sorted(left)}"
