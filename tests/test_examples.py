"""Every public name of a room has a docstring whose example runs."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
from importlib import import_module

import pytest
import torch
from PIL import Image
from torch import nn

import camlucida

# A room is added here when every public name of it has its example.
ROOMS = (
    "common",
    "targets",
    "data",
    "models",
    "methods",
    "explanation",
    "metrics",
    "benchmark",
    "training",
    "report",
    "faces",
    "audits",
    "engine",
    "studies.fame",
    "studies.icam",
    "studies.published",
    "studies.survey",
)


def public(room):
    """Classes and functions that the room's face names."""
    module = import_module(f"camlucida.{room}")
    found = {name: getattr(module, name) for name in getattr(module, "__all__", ())}
    return {
        name: value
        for name, value in found.items()
        if inspect.isclass(value) or inspect.isroutine(value)
    }


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    """What examples may use without an import."""
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    Image.effect_noise((64, 48), 60).convert("RGB").save("photo.jpg")
    return {
        "camlucida": camlucida,
        "dataclasses": dataclasses,
        "torch": torch,
        "model": model,
        "images": torch.rand(2, 3, 32, 32),
        "photo": "photo.jpg",
    }


@pytest.mark.parametrize("room", ROOMS)
def test_examples(room, prepared):
    wrong = []
    for name, value in public(room).items():
        text = inspect.getdoc(value) or ""
        test = doctest.DocTestParser().get_doctest(text, dict(prepared), name, None, None)
        if not test.examples:
            wrong.append(f"{name}: its docstring has no example")
            continue
        said = []
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        if doctest.DocTestRunner(optionflags=flags).run(test, out=said.append).failed:
            wrong.append("".join(said))
    assert not wrong, "\n".join(wrong)
