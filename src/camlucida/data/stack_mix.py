"""STACK-MIX and STACK-GEN: images with one object in what a walled model sees and another behind the wall."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.data.folders import open_folder
from camlucida.data.preprocess import Preprocess
from camlucida.data.regions import Region
from camlucida.data.samples import DataSet, Sample, SampleList

DEAD_ROWS = Region.rows(170, 223)
"""What the paper's masked VGG does not see: 54 of 224 rows (B5: counted from 0, both ends included)."""

ANIMALS = range(398)
"""ImageNet's animals, labels 0 to 397, from which the paper draws its 100 classes."""

Picture = TypeVar("Picture", Tensor, Image.Image)
Label = TypeVar("Label", bound=int | str)


def stack_mix(first: Picture, second: Picture, dead: Region = DEAD_ROWS) -> Picture:
    """The first image, with the second in the part that is not seen; each pixel keeps its place.

    Args:
        first: tensor ``(..., H, W)`` or PIL image.
        second: the same, of the same size.
        dead: what the second fills; rows 170 to 223 by default.

    Source: Taimeskhanov, Sicre and Garreau (ECML 2024), equation 6.

    Raises:
        ImageError: the sizes differ.
    """
    if isinstance(first, Image.Image) and isinstance(second, Image.Image):
        if first.size != second.size:
            raise ImageError(f"both images must be of one size, got {first.size} and {second.size}")
        mask = dead.mask((first.height, first.width)).numpy()
        arrays = [np.asarray(i.convert("RGB")) for i in (first, second)]
        return Image.fromarray(np.where(mask[..., None], arrays[1], arrays[0]))
    if not isinstance(first, Tensor) or not isinstance(second, Tensor):
        raise ImageError(
            f"two tensors or two PIL images, got {type(first).__name__} and {type(second).__name__}"
        )
    if first.shape != second.shape:
        raise ImageError(
            f"both images must be of one size, got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    size = (int(first.shape[-2]), int(first.shape[-1]))
    return second.where(dead.mask(size, first.device), first)


@dataclass(frozen=True)
class StackSample(Sample):
    """Two photos of one class, one above the other.

    Attributes:
        first: the photo in the seen part.
        second: the photo in the dead part.
        make: cuts a photo to the data set's size.
        dead: the dead part, in pixels.
    """

    first: Sample | None = None
    second: Sample | None = None
    make: Callable[[Image.Image], Image.Image] = field(
        default=lambda i: i, repr=False, compare=False
    )
    dead: Region = DEAD_ROWS

    @property
    def files(self) -> tuple[Path, ...]:
        """Both photos."""
        return tuple(f for s in (self.first, self.second) if s is not None for f in s.files)

    def picture(self) -> Image.Image:
        """The RGB image."""
        assert self.first is not None  # noqa: S101
        assert self.second is not None  # noqa: S101
        return stack_mix(
            self.make(self.first.picture()), self.make(self.second.picture()), self.dead
        )


class StackMix(SampleList):
    """One image per class, in their order: two random photos of that class, the second behind the wall.

    The paper draws 100 of ImageNet's animal classes (``classes=ANIMALS``) and looks the images over by hand;
    name what is to be left out in ``leave_out``.

    Args:
        source: a data set, or a folder with one subfolder per class.
        class_names: the model's, to understand the folder's names; see
            :func:`camlucida.data.folders.open_folder`. Where it knows none of them the photos are paired by
            subfolder all the same and have no label; the predicted class is explained.
        dead: what the model does not see.
        size: height and width of the images; photos are resized to ``resize`` on the shorter side and cut
            about the centre.
        resize: length of the shorter side before the cut; by default the size, as in the paper.
        count: number of images; fewer where there are fewer classes with two photos.
        classes: the labels to draw from; all by default, also those that have only a name.
        leave_out: keys of images that a look has ruled out; another pair of the class takes their place.
        seed: chooses classes and photos.

    Attributes:
        left_out: those keys in ``leave_out`` that would have been among the images.

    Raises:
        CamlucidaError: no class has two photos.
    """

    def __init__(
        self,
        source: DataSet | str | os.PathLike[str],
        class_names: Sequence[str] | None = None,
        *,
        dead: Region = DEAD_ROWS,
        size: int = 224,
        resize: int | None = None,
        count: int = 100,
        classes: Collection[int] | None = None,
        leave_out: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        if not isinstance(source, DataSet):
            source = open_folder(source, class_names, labels=True, unlabelled=True)
        self.dead, self.size, self.seed = dead, size, seed
        self.resize = size if resize is None else resize
        dead.mask((size, size))
        self._cut = Preprocess(size=(size, size), resize=self.resize)
        by_class: dict[int | str, list[Sample]] = {}
        for sample in source:
            label = sample.label_name if sample.label is None else sample.label
            if label in classes if classes is not None else label != "":
                by_class.setdefault(label, []).append(sample)
        pairs = {label: photos for label, photos in by_class.items() if len(photos) > 1}
        if not pairs or count < 1:
            raise CamlucidaError(
                f"STACK-MIX needs at least one class with two photos and count >= 1; {source.name} has "
                f"{len(by_class)} fitting classes with at most "
                f"{max(map(len, by_class.values()), default=0)} photos each, count is {count}"
            )
        self.left_out: set[str] = set()
        chosen = _chosen(pairs, count, seed)
        found = [self._pair(label, pairs[label], set(leave_out)) for label in chosen]
        samples = [sample for sample in found if sample is not None]
        super().__init__(f"stack-mix:{source.name}", samples, source.skipped)

    def _pair(
        self, label: int | str, photos: list[Sample], leave_out: set[str]
    ) -> StackSample | None:
        order = sorted(photos, key=lambda s: _draw(self.seed, "photo", label, s.key))
        for first in order:
            for second in order:
                key = f"{first.key}+{second.key}"
                if key in leave_out:
                    self.left_out.add(key)
                elif first is not second:
                    return StackSample(
                        key=key,
                        label=first.label,
                        label_name=first.label_name,
                        first=first,
                        second=second,
                        make=partial(_cut, preprocess=self._cut),
                        dead=self.dead,
                    )
        return None

    def describe(self) -> dict[str, Any]:
        """Name, size, fingerprint and options, ready for JSON."""
        options = {
            "dead": str(self.dead),
            "size": self.size,
            "resize": self.resize,
            "seed": self.seed,
            "left_out": sorted(self.left_out),
        }
        return {**super().describe(), "options": options}


@dataclass(frozen=True)
class CutSample(Sample):
    """A photo that is cut to a size when it is read."""

    make: Callable[[Image.Image], Image.Image] = field(
        default=lambda i: i, repr=False, compare=False
    )

    def picture(self) -> Image.Image:
        """The RGB image."""
        return self.make(super().picture())


class StackFolder(SampleList):
    """Pictures that were stacked elsewhere, such as the authors' STACK-MIX and STACK-GEN, which are flat folders.

    Where all of them have the wanted size they are finished and taken as they are: resized, the seam of a STACK-MIX
    would move away from the wall. Others are resized to 256 and cut to 224 about the centre, as the authors do with
    STACK-GEN.

    Args:
        source: a data set, or a folder; with one subfolder per class where labels are known.
        class_names: the model's, to understand the subfolders' names; without them, or without subfolders,
            the photos have no label; the predicted class is explained.
        what: which of the two it is.
        size: height and width of the images.
        resize: length of the shorter side before the cut; ``None`` refuses what is not finished.
        leave_out: keys of images that a look has ruled out.

    Attributes:
        resize: ``None`` where the pictures are taken as they are.
        left_out: those keys in ``leave_out`` that are there.

    Raises:
        ImageError: there are no photos; or not all of them are finished, but some, or all have to be.
    """

    def __init__(
        self,
        source: DataSet | str | os.PathLike[str],
        class_names: Sequence[str] | None = None,
        *,
        what: Literal["stack-mix", "stack-gen"] = "stack-gen",
        size: int = 224,
        resize: int | None = 256,
        leave_out: Collection[str] = (),
    ) -> None:
        if isinstance(source, str | os.PathLike):
            source = open_folder(source, class_names, labels=None if class_names else False)
        found = [s for s in source if s.key not in leave_out]
        self.left_out = {s.key for s in source} & set(leave_out)
        sizes = {s.key: s.picture().size for s in found}
        other = [f"{key} has {w} x {h}" for key, (w, h) in sizes.items() if (w, h) != (size, size)]
        if other and (resize is None or len(other) < len(found)):
            raise ImageError(
                f"{len(other)} of the {len(found)} pictures of {source.name} are not finished pictures of {size} x "
                f"{size} pixels ({other[0]}); give finished ones only"
                + (
                    ", or photos in a folder per class, which are stacked"
                    if resize is None
                    else ", or none"
                )
            )
        self.what, self.size, self.resize = what, size, resize if other else None
        if other:
            cut = partial(_cut, preprocess=Preprocess(size=(size, size), resize=resize))
            found = [CutSample(s.key, s.label, s.label_name, s.path, make=cut) for s in found]
        super().__init__(f"{what}:{source.name}", found, source.skipped)


def refuse_unknown(leave_out: Collection[str], *sets: StackMix | StackFolder) -> None:
    """Refuse keys that were to be left out and are in none of the sets.

    Raises:
        CamlucidaError: naming them.
    """
    if unknown := set(leave_out).difference(*(one.left_out for one in sets)):
        raise CamlucidaError(
            f"to be left out, but not among the images: {', '.join(sorted(unknown))}"
        )


def stack_gen_prompts(
    class_names: Sequence[str],
    classes: Collection[int] = ANIMALS,
    *,
    count: int = 100,
    seed: int = 0,
) -> list[tuple[int, str, str]]:
    """What STACK-GEN's pictures are asked of an image generator with: label, name and prompt of each class.

    Args:
        class_names: ImageNet's.
        classes: the labels to draw from; all animals by default.
        count: how many.
        seed: that of :class:`StackMix`, whose classes these are then.

    Source: Taimeskhanov, Sicre and Garreau (ECML 2024), section 3.2; theirs went to ChatGPT with DALL-E 3.
    """
    named = ((label, class_names[label]) for label in _chosen(classes, count, seed))
    return [(label, name, f"photo of {name} stacked on top of {name}") for label, name in named]


def _cut(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    pixels = preprocess.pixels(image)
    return Image.fromarray((pixels * 255).round().byte().permute(1, 2, 0).numpy())


def _chosen(labels: Iterable[Label], count: int, seed: int) -> list[Label]:
    """As many of the labels as wanted, in their order; which ones, the seed decides."""
    chosen = sorted(labels, key=lambda label: _draw(seed, "class", label))[:count]
    return sorted(chosen, key=lambda label: (isinstance(label, str), label))


def _draw(seed: int, *what: object) -> bytes:
    """A number that depends on its arguments alone, on every machine."""
    return hashlib.blake2b(repr((seed, *what)).encode(), digest_size=8).digest()
