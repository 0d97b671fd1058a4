"""What salience-guided training reads: images, classes, and the salience of each image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from camlucida.data.digits import CLASS_NAMES, Digits
from camlucida.data.images import read_image
from camlucida.data.preprocess import Preprocess
from camlucida.data.salience import SalientFolder, grid_map, read_map
from camlucida.models.small import as_input
from camlucida.training.cam_loss import fit_salience

Batch = tuple[Tensor, ...]
Size = tuple[int, int]

CACHED = 1 << 30
"""Bytes up to which the pixels of a set are kept in memory."""


class ImageSet(ABC):
    """Images with a class each, and with a salience where there is one.

    Attributes:
        labels: ``(N,)``.
        class_names: what the classes are called.
        has_salience: whether each image has a salience of its own.
        has_masks: whether it is known to the pixel where the object is.
    """

    labels: Tensor
    class_names: tuple[str, ...]
    has_salience: bool = False
    has_masks: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @abstractmethod
    def inputs(self, places: Tensor) -> Tensor:
        """Images as the model receives them, ``(n, C, H, W)``."""

    @abstractmethod
    def salience(self, places: Tensor, size: Size) -> Tensor:
        """Their salience on the model's grid, ``(n, *size)`` in [0, 1]."""

    @abstractmethod
    def pixels(self, place: int) -> Tensor:
        """One image as it looks, ``(3, H, W)`` uint8."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the set, ready for JSON."""

    def masks(self, places: Tensor) -> Tensor:
        """Where the objects are, ``(n, H, W)`` boolean."""
        raise NotImplementedError

    def batches(self, chunks: Iterable[Tensor], size: Size | None = None) -> Iterator[Batch]:
        """``(images, labels)`` of each chunk of places, and the salience on a grid of that size if one is given."""
        for places in chunks:
            batch = (self.inputs(places), self.labels[places])
            yield batch if size is None else (*batch, self.salience(places, size))


class DigitSet(ImageSet):
    """Digits on photos, which are drawn now; the salience of an image is the digit itself."""

    has_salience = True
    has_masks = True

    def __init__(self, data: Digits) -> None:
        self.data = data
        drawn = data.tensors()
        self.images, self.labels, self._masks = drawn.images, drawn.labels, drawn.masks
        self.class_names = CLASS_NAMES

    def inputs(self, places: Tensor) -> Tensor:
        """Pixels in [-2, 2]."""
        return as_input(self.images[places])

    def salience(self, places: Tensor, size: Size) -> Tensor:
        """The digits' pixels, on the grid."""
        return fit_salience(self._masks[places], size)

    def masks(self, places: Tensor) -> Tensor:
        """The digits' pixels."""
        return self._masks[places]

    def pixels(self, place: int) -> Tensor:
        """One image."""
        return self.images[place]

    def describe(self) -> dict[str, Any]:
        """The options of the data set, and its fingerprint."""
        return self.data.describe()


class PhotoSet(ImageSet):
    """Photos from files, and their annotation maps.

    Photos are read by threads, ahead of the batch in use; the pixels of a set that fits into memory are kept.

    Args:
        folder: the photos.
        preprocess: how they become the model's input; without a crop, so that the maps fit.
        threads: how many photos are read at a time.
        cached: bytes up to which pixels are kept.
    """

    def __init__(
        self,
        folder: SalientFolder,
        preprocess: Preprocess,
        *,
        threads: int = 8,
        cached: int = CACHED,
    ) -> None:
        self.folder, self.preprocess, self.threads = folder, preprocess, threads
        self.labels = torch.tensor([p.label for p in folder.photos])
        self.class_names = folder.class_names
        self.has_salience = all(p.map_path is not None for p in folder.photos)
        height, width = preprocess.size
        fits = len(folder) * 3 * height * width <= cached
        self._kept: dict[int, Tensor] | None = {} if fits else None
        self._maps: dict[tuple[int, Size], Tensor] = {}

    def pixels(self, place: int) -> Tensor:
        """One photo, resized to the model's input.

        Raises:
            ImageError: it cannot be read.
        """
        if self._kept is not None and place in self._kept:
            return self._kept[place]
        found = self.preprocess.pixels(read_image(self.folder.photos[place].path))
        found = found.mul(255).round().to(torch.uint8)
        if self._kept is not None:
            self._kept[place] = found
        return found

    def inputs(self, places: Tensor) -> Tensor:
        """Normalised photos."""
        return self._normalised([self.pixels(i) for i in places.tolist()])

    def salience(self, places: Tensor, size: Size) -> Tensor:
        """The annotation maps, on the grid.

        Raises:
            ImageError: one cannot be read.
        """
        return torch.stack([self._map(i, size) for i in places.tolist()])

    def describe(self) -> dict[str, Any]:
        """The folder's name, size, classes and fingerprint."""
        return self.folder.describe()

    def batches(self, chunks: Iterable[Tensor], size: Size | None = None) -> Iterator[Batch]:
        """As :meth:`ImageSet.batches`, two chunks ahead."""
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            waiting: list[tuple[Tensor, list[Any], list[Any]]] = []
            try:
                for places in chunks:
                    waiting.append(self._ask(pool, places, size))
                    if len(waiting) > 2:
                        yield self._given(*waiting.pop(0))
                while waiting:
                    yield self._given(*waiting.pop(0))
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _ask(
        self, pool: ThreadPoolExecutor, places: Tensor, size: Size | None
    ) -> tuple[Tensor, list[Any], list[Any]]:
        wanted = places.tolist()
        maps = [] if size is None else [pool.submit(self._map, i, size) for i in wanted]
        return places, [pool.submit(self.pixels, i) for i in wanted], maps

    def _given(self, places: Tensor, pixels: list[Any], maps: list[Any]) -> Batch:
        batch = (self._normalised([f.result() for f in pixels]), self.labels[places])
        return (*batch, torch.stack([f.result() for f in maps])) if maps else batch

    def _normalised(self, pixels: list[Tensor]) -> Tensor:
        return self.preprocess.normalise(torch.stack(pixels).float().div(255))

    def _map(self, place: int, size: Size) -> Tensor:
        if (place, size) not in self._maps:
            path = self.folder.photos[place].map_path
            assert path is not None  # noqa: S101 - has_salience is asked before
            self._maps[place, size] = grid_map(read_map(path), size)
        return self._maps[place, size]
