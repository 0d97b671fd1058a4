"""A small network with images, as metrics are given them."""

from dataclasses import replace

import torch
from PIL import Image

import camlucida
from camlucida.metrics.base import Scene
from reference import networks

SIZE = (9, 10)
PER_IMAGE = ("inputs", "logits", "classes", "labels", "boxes", "masks", "exact")


def scene_of(n=3, *, size=SIZE, inputs=None, classes=torch.argmax, **options):
    """A scene without boxes or masks; ``classes`` picks the explained ones from the logits."""
    model = networks.build(head="deep", size=size)
    x = networks.images(n, 3, size) if inputs is None else inputs
    with torch.no_grad():
        logits = model(x)
    options = {
        "labels": torch.full((n,), -1), "boxes": (torch.empty(0, 4),) * n,
        "masks": torch.zeros(n, *size, dtype=torch.bool), "exact": torch.zeros(n, dtype=torch.bool), **options,
    }  # fmt: skip
    return Scene(model=model, inputs=x, logits=logits, classes=classes(logits, 1), **options)


def part(scene, i):
    """The scene of one image."""
    return replace(scene, **{name: getattr(scene, name)[i : i + 1] for name in PER_IMAGE})


def explained(scene, method="hirescam", inputs=None, **options):
    options = {"layers": "features", **options}
    inputs = scene.inputs if inputs is None else inputs
    return camlucida.explain(scene.model, inputs, method=method, **options)


def photo_folder(folder):
    """Three noisy photos in two subfolders of a folder."""
    for name in ("a/1.png", "a/2.png", "b/3.png"):
        (folder / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((40, 36), 60).convert("RGB").save(folder / name)
    return folder
