"""What a trained network's maps look like: how accurate it is, and where its maps lie."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from camlucida.engine.maps import resize
from camlucida.engine.outputs import first_tensor
from camlucida.metrics.concentration import cam_entropy
from camlucida.metrics.localisation import energy_pointing
from camlucida.training.cam_loss import TrainableCAM
from camlucida.training.salience.data import ImageSet, Size
from camlucida.training.sham import border_mask

BATCH = 100


@dataclass(frozen=True)
class Measurement:
    """Of some images, means where nothing else is said.

    Attributes:
        correct: of each image.
        entropy: of the map in nats, at the model's own resolution.
        border: share of a map's energy in the outermost cells.
        sham: share in the ones of the SHAM mask.
        object: share on the object; NaN where it is not known where that is.
        object_area: of the image; what a map that is the same everywhere has on the object.
        images: how many.
    """

    correct: tuple[bool, ...]
    entropy: float
    border: float
    sham: float
    object: float
    object_area: float
    images: int

    @property
    def accuracy(self) -> float:
        """Share of the images that are told right."""
        return sum(self.correct) / max(1, len(self.correct))


def measure(
    model: nn.Module,
    cam: TrainableCAM,
    data: ImageSet,
    sham: Tensor,
    *,
    limit: int | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Measurement:
    """Measure a network in eval mode.

    The maps are those of the loss: of the label, scaled to [0, 1]; a map that is constant has no energy and counts
    for the entropy (0) only. With a ``limit`` only so many images are measured, evenly spread.
    """
    model.eval()
    device = next(model.parameters()).device
    places = torch.arange(len(data))
    if limit is not None and limit < len(places):
        places = torch.linspace(0, len(data) - 1, limit).round().long()
    regions = {"border": outer_ring(cam.size).bool().to(device), "sham": sham.bool().to(device)}
    sums: dict[str, list[Tensor]] = defaultdict(list)
    correct: list[bool] = []
    done = 0
    chunks = list(torch.split(places, BATCH))
    for chunk, (images, labels) in zip(chunks, data.batches(chunks), strict=True):
        logits, maps = cam.observe(model, images.to(device), labels.to(device), BATCH)
        correct += (logits.argmax(1).cpu() == labels).tolist()
        maps = maps.double()
        sums["entropy"].append(cam_entropy(maps).cpu())
        lit = maps.flatten(1).any(1)
        on = {
            name: energy_pointing(maps, mask.expand(maps.shape)) for name, mask in regions.items()
        }
        if data.has_masks:
            masks = data.masks(chunk).to(device)
            size = (int(masks.shape[-2]), int(masks.shape[-1]))
            on["object"] = energy_pointing(resize(maps, size), masks)
            sums["object_area"].append(masks.flatten(1).double().mean(1).cpu())
        for name, share in on.items():
            sums[name].append(torch.where(lit, share, math.nan).cpu())
        done += len(chunk)
        if progress is not None:
            progress(done, len(places))
    names = ("entropy", "border", "sham", "object", "object_area")
    means = {
        n: float(torch.cat(sums[n]).double().nanmean()) if n in sums else math.nan for n in names
    }
    return Measurement(tuple(correct), images=len(places), **means)


def outer_ring(size: Size) -> Tensor:
    """The cells at the border; of fewer than 3 x 3 cells all are."""
    return border_mask(size) if min(size) > 2 else torch.ones(size)


def example_maps(model: nn.Module, cam: TrainableCAM, data: ImageSet, places: Tensor) -> Tensor:
    """The maps of some images at their own size, ``(n, H, W)`` in [0, 1], on the CPU."""
    model.eval()
    device = next(model.parameters()).device
    images = data.inputs(places)
    _, maps = cam.observe(model, images.to(device), data.labels[places].to(device))
    return resize(maps.float().cpu(), (int(images.shape[-2]), int(images.shape[-1])))


def accuracy(model: nn.Module, data: ImageSet) -> float:
    """Share of the images that a network in eval mode tells right."""
    device = next(model.parameters()).device
    right = 0
    with torch.no_grad():
        for images, labels in data.batches(torch.split(torch.arange(len(data)), BATCH)):
            logits = first_tensor(model(images.to(device)))
            right += int((logits.argmax(1).cpu() == labels).sum())
    return right / len(data)
