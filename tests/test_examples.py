"""Every public name of a room has a docstring whose example runs."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import shutil
from importlib import import_module
from pathlib import Path

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
    "app",
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
def prepared(tmp_path, monkeypatch, request):
    """What examples may use without an import."""
    monkeypatch.chdir(tmp_path)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip
    Image.effect_noise((64, 48), 60).convert("RGB").save("photo.jpg")
    room = request.node.callspec.params["room"]
    if room == "studies.icam":
        Path("photos/3").mkdir(parents=True)
        shutil.copy("photo.jpg", "photos/3")
    portrait, same, *_, other = camlucida.faces.demo_photos()
    lines = [
        "probe,gallery,same",
        f"{portrait.path},{same.path},1",
        f"{portrait.path},{other.path},0",
    ]
    Path("two.csv").write_text("\n".join(lines))
    small = camlucida.Preprocess(size=(16, 16), resize=(16, 16), crop=False)
    embedder = camlucida.faces.Embedder(nn.Flatten(), "pixels", small, threshold=0.9)
    names = {
        "camlucida": camlucida,
        "dataclasses": dataclasses,
        "torch": torch,
        "model": model,
        "loaded": camlucida.LoadedModel(
            model, "tiny", camlucida.Preprocess(size=(32, 32), resize=32), None
        ),
        "images": torch.rand(2, 3, 32, 32),
        "photo": "photo.jpg",
        "portrait": portrait,
        "embedder": embedder,
    }
    if room == "faces":
        names["pairs"] = camlucida.faces.varied_pairs(embedder, people=2, per_person=1).pairs
    if room == "studies.survey":
        methods = ["gradcam", "layercam"]
        names["compared"] = camlucida.explain(model, names["images"], method=methods)
    return names


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
