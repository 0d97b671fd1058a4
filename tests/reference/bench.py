"""A small data set of written pictures, a small model and plain metrics, for tests of the benchmark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import nn

from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet, Sample
from camlucida.engine.reading import CLASSES
from camlucida.metrics.base import Measured, Metric
from camlucida.models import LoadedModel

SIZE = 24


class Pictures(DataSet):
    """``count`` noisy pictures of three classes in a folder; those in ``broken`` cannot be read."""

    def __init__(self, folder, count=10, broken=(), boxes=True, labels=True, seed=0):
        self.name = "pictures"
        self.folder = folder
        self.boxes = boxes
        self.labels = labels
        self.count = count
        folder.mkdir(exist_ok=True)
        random = np.random.default_rng(seed)
        for i in range(count):
            path = folder / f"{i:03d}.png"
            pixels = random.integers(0, 256, (SIZE, SIZE + i % 3, 3), dtype=np.uint8)
            if not path.exists():
                Image.fromarray(pixels).save(path)
            if i in broken:
                path.write_bytes(b"no picture")

    def __len__(self):
        return self.count

    def sample(self, index):
        boxes = ((2.0, 3.0, 12.0 + index % 5, 20.0),) if self.boxes else ()
        label = index % 3 if self.labels else None
        return Sample(
            f"{index:03d}", label, f"class {index % 3}", self.folder / f"{index:03d}.png", boxes
        )


def tiny(dtype=torch.float64):
    """A CNN with three classes, and its preprocessing."""
    generator = torch.Generator().manual_seed(3)
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    preprocess = Preprocess((SIZE, SIZE), resize=SIZE, crop=True)
    return LoadedModel(
        module.to(dtype).eval(),
        "tiny",
        preprocess,
        ("red deer", "green tea", "blue sky"),
        CLASSES,
    )


@dataclass(frozen=True)
class Mass(Metric):
    """The share of a map's sum inside the mask, and the highest value with a curve beside it."""

    scale: float = 1.0

    @property
    def names(self):
        return ("mass", "peak@0.5")

    def measure(self, scene, explanation):
        maps = explanation.maps.double()
        inside = (maps * scene.masks).sum((1, 2))
        values = self.scale * inside / maps.sum((1, 2))
        values[~scene.masks.flatten(1).any(1)] = torch.nan
        curve = torch.stack([maps.amax((1, 2)), maps.mean((1, 2))], 1)
        return Measured(
            {"mass": values, "peak@0.5": maps.amax((1, 2)) * 0.5},
            {"peak@0.5": curve},
            {"peak@0.5": torch.tensor([0.0, 1.0])},
        )


@dataclass(frozen=True)
class Drop(Metric):
    """The change of the explained logit when the picture is dimmed by the map and by random noise."""

    @property
    def names(self):
        return ("drop",)

    def measure(self, scene, explanation):
        from camlucida.common.seeds import ImageGenerators

        noise = ImageGenerators.of(scene.seed, scene.inputs).rand((1, 1, 1), scene.inputs)
        with torch.no_grad():
            dimmed = scene.model(scene.inputs * explanation.maps[:, None] * noise)
        rows = torch.arange(len(scene))
        return Measured.of(drop=scene.logits[rows, scene.classes] - dimmed[rows, scene.classes])


@dataclass(frozen=True)
class Fragile(Metric):
    """Fails on photos whose first box is wider than ``limit``, and on batches with one of them."""

    limit: int = 12

    @property
    def names(self):
        return ("fragile",)

    def measure(self, scene, explanation):  # noqa: ARG002
        for boxes in scene.boxes:
            if boxes[0, 2] - boxes[0, 0] > self.limit:
                raise ZeroDivisionError("too wide")
        return Measured.of(fragile=torch.ones(len(scene)))


def rows_of(folder):
    """All rows of a run but the times, sorted."""
    import pyarrow.dataset as ds

    table = ds.dataset(folder / "rows", format="parquet").to_table().to_pandas()
    table = table[table.metric != "seconds"].astype({"key": str, "method": str, "metric": str})
    return table.sort_values(["index", "method", "metric"]).reset_index(drop=True)


def images_of(folder):
    """All images of a run, sorted."""
    import pyarrow.dataset as ds

    table = ds.dataset(folder / "images", format="parquet").to_table().to_pandas()
    return table.sort_values("index").reset_index(drop=True)


def bench(folder, *, metrics=None, methods=("gradcam", "hirescam"), data=None, **settings):
    """A bench on :class:`Pictures`."""
    from camlucida.benchmark import Bench, Settings

    data = data or Pictures(folder / "pictures", 10, broken=(4,))
    settings = {"shard_size": 4, **settings}
    return Bench(tiny(), data, methods, metrics or [Mass(), Drop()], Settings(**settings))


if __name__ == "__main__":  # a run that a test kills
    import sys
    import time
    from pathlib import Path

    from camlucida.benchmark import local

    class Slow(Drop):
        def measure(self, scene, explanation):
            time.sleep(0.05)
            return super().measure(scene, explanation)

    root = Path(sys.argv[1])
    job = bench(
        root, metrics=[("Mass", Mass()), ("Drop", Slow())], data=Pictures(root / "pictures", 40)
    )
    ended = local.run(job, root / "run", batch_size=2, progress=lambda *_: print("on", flush=True))
    sys.exit(130 if ended.interrupted else 0)
