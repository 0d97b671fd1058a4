"""Images in whatever form they are given, opened as they are needed and made ready for a model."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.arguments import Code
from camlucida.common.arguments import argument as as_argument
from camlucida.common.errors import ImageError, ModelError
from camlucida.common.files import is_there, mark
from camlucida.common.provenance import fingerprint
from camlucida.data.images import find_images, picture_notes, read_image
from camlucida.data.place import Place
from camlucida.data.preprocess import Preprocess
from camlucida.data.samples import DataSet, Sample
from camlucida.engine.borrow import check_inputs
from camlucida.engine.finding import argument_for
from camlucida.explanation.overlays import LazyViews, Opened, View

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]"
Images: TypeAlias = (
    "Tensor | Photo | Sequence[Tensor] | Sequence[Photo] | Sequence[Sample] | Mapping[str, Any]"
)


@dataclass(frozen=True)
class Batch:
    """Inputs for the model, and what they look like."""

    inputs: Tensor
    views: LazyViews
    sources: tuple[str | None, ...]
    notes: tuple[tuple[str, ...], ...]
    """Of each image: what has to be known of it."""
    argument: str | None = None
    """The name of the model's argument that takes the images; ``None`` for the first."""

    def part(self, start: int, stop: int) -> Batch:
        """The images ``start`` to ``stop``, the end exclusive."""
        some = slice(start, stop)
        return replace(
            self,
            inputs=self.inputs[some],
            views=self.views[some],
            sources=self.sources[some],
            notes=self.notes[some],
        )


class Photos:
    """Images in their order, each opened when it is asked for.

    Args:
        module: the model, which takes them.
        name: what it is called.
        preprocess: how a picture becomes an input; only tensors go without.
        class_names: the model's.
        images: see :func:`camlucida.explain`.

    Raises:
        ImageError: there is none, a tensor does not fit, or it is not known how pictures become inputs.
        ModelError: there are other inputs beside the images.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        preprocess: Preprocess | None,
        class_names: Sequence[str] | None,
        images: Images,
    ) -> None:
        self._module = module
        self._preprocess = preprocess
        self._class_names = class_names
        self._ready: Batch | None = None
        self._items: Sequence[Any] = ()
        argument, given = _image_of(_one_by_one(images), module)
        if isinstance(given, Tensor):
            self._ready = self._from_tensor(given[None] if given.ndim == 3 else given, argument)
            return
        if isinstance(given, DataSet):
            self._items = given
        else:
            several = isinstance(given, Sequence) and not isinstance(given, str)
            self._items = [*given] if several else [given]
        if not len(self._items):
            raise ImageError("no image was given")
        if isinstance(self._items, list) and all(isinstance(p, Tensor) for p in self._items):
            if len({p.shape for p in self._items}) > 1:
                raise ImageError("the tensors of a list must all have one shape (C, H, W)")
            self._ready = self._from_tensor(torch.stack(self._items))
        elif preprocess is None:
            written = as_argument("preprocess", Code("camlucida.Preprocess.imagenet()"))
            raise ImageError(
                f"it is not known how {name} wants its images prepared; say it with {written}, if it was "
                "trained that way, or in Python give any function of a photo, or a tensor (N, C, H, W) that is ready"
            )

    def __len__(self) -> int:
        return len(self._items) if self._ready is None else len(self._ready.views)

    @property
    def are_read(self) -> bool:
        """Whether there are pictures to read, not tensors that are ready."""
        return self._ready is None

    def read(self, index: int) -> Image.Image | None:
        """The picture at a position; ``None`` of a tensor.

        Raises:
            ImageError: it cannot be read.
        """
        return None if self._ready is not None else _read(self._items[index])

    def source(self, index: int) -> str | None:
        """The file, or the name in a data set, of the image at a position."""
        if self._ready is not None:
            return None
        item = self._items[index]
        if isinstance(item, Sample):
            return item.key if item.path is None else str(item.path)
        return os.fspath(item) if isinstance(item, str | os.PathLike) else None

    def marks(self, index: int) -> list[Any]:
        """What tells later whether the image at a position is still the same."""
        if self._ready is not None:
            return [fingerprint(self._ready.inputs[index])]
        item = self._items[index]
        if isinstance(item, Sample):
            return [mark(path) for path in item.files] or [item.key]
        if isinstance(item, str | os.PathLike):
            return [str(item), mark(Place.of(item).file)]
        try:
            values = np.asarray(item)
        except Exception:  # said when it is read
            return [type(item).__name__]
        content = hashlib.sha256(values.tobytes()).hexdigest()
        return [values.dtype.str, [*values.shape], content]

    def all(self) -> Batch:
        """All of them at once."""
        places = range(len(self))
        return self.batch(places, [self.read(place) for place in places])

    def batch(self, places: Sequence[int], pictures: Sequence[Image.Image | None]) -> Batch:
        """Inputs on the model's device and in its precision.

        Args:
            places: the positions of the images; of tensors consecutive ones.
            pictures: what was read of them.

        Raises:
            ImageError: the preprocessing does not work, or gives inputs of several sizes.
        """
        if self._ready is not None:
            return self._ready.part(places[0], places[-1] + 1)
        assert self._preprocess is not None  # noqa: S101
        opened = [picture for picture in pictures if picture is not None]
        made = [self._preprocess(picture) for picture in opened]
        if len({one.shape for one in made}) > 1:
            raise several_sizes(made[0].shape)
        inputs = torch.stack(made)
        parameter = next((p for p in self._module.parameters() if p.is_floating_point()), None)
        if parameter is not None:
            inputs = inputs.to(parameter.device, parameter.dtype)
        makers: list[Callable[[], View]] = []
        notes = []
        for place, picture, one in zip(places, opened, made, strict=True):
            said = [*picture_notes(picture)]
            try:
                box = self._preprocess.shown(picture, one)
                makers.append(Opened(partial(_read, self._items[place]), box, picture))
            except ImageError as error:
                makers.append(partial(_view_of_tensor, one, self._preprocess))
                said.append(f"{error}, so the map is drawn on the model's own input")
            notes.append(tuple(said))
        views = LazyViews(makers, self._class_names)
        return Batch(inputs, views, tuple(map(self.source, places)), tuple(notes))

    def _from_tensor(self, inputs: Tensor, argument: str | None = None) -> Batch:
        if inputs.ndim != 4 or inputs.shape[0] == 0:
            raise ImageError(
                f"a tensor of images must be (N, C, H, W) or (C, H, W), got {tuple(inputs.shape)}"
            )
        check_inputs(self._module, inputs)
        inputs = inputs.resolve_neg()
        makers = [partial(_view_of_tensor, image, self._preprocess) for image in inputs]
        number = len(inputs)
        views = LazyViews(makers, self._class_names)
        return Batch(inputs, views, (None,) * number, ((),) * number, argument)


def several_sizes(shape: Sequence[int]) -> ImageError:
    """What is wrong where the first input has this shape and others have not."""
    return ImageError(
        f"the preprocessing gives inputs of several sizes ({tuple(shape)} and others), which a model "
        "cannot take together; explain the photos one by one"
    )


def _read(photo: Photo | Sample) -> Image.Image:
    return photo.picture() if isinstance(photo, Sample) else read_image(photo)


def _one_by_one(images: Any) -> Any:
    """Photos one by one, where they lie in a folder, or in a folder or a data set of a list."""
    if isinstance(images, str | os.PathLike):
        path = Path(images)
        return [*find_images(path)] if is_there(path) and path.is_dir() else images
    many = (str, os.PathLike, DataSet)
    if isinstance(images, list | tuple) and any(isinstance(p, many) for p in images):
        found = map(_one_by_one, images)
        parts = (part if isinstance(part, list | DataSet) else [part] for part in found)
        return [photo for part in parts for photo in part]
    return images


def _image_of(images: Any, module: nn.Module) -> tuple[str | None, Any]:
    """The images out of inputs that are a mapping or a tuple, and the name of their argument.

    Raises:
        ModelError: there are further inputs, which camlucida does not vary.
    """
    if isinstance(images, Mapping):
        given = {name: value for name, value in images.items() if value is not None}
        pictures = {n: v for n, v in given.items() if isinstance(v, Tensor) and v.ndim in (3, 4)}
        others = [name for name in given if name not in pictures]
        if len(pictures) == 1 and not others:
            (name, tensor), *_ = pictures.items()
            return argument_for(module, str(name)), tensor
        listed = ", ".join(map(str, others or given)) or "nothing"
    elif (
        isinstance(images, tuple)
        and images
        and isinstance(images[0], Tensor)
        and images[0].ndim == 4
    ):
        others = [f"number {i + 1}" for i, v in enumerate(images) if i and v is not None]
        if not others:
            return None, images[0]
        listed = ", ".join(others)
    else:
        return None, images
    raise ModelError(
        f"{type(module).__name__} was given other inputs than one tensor of images ({listed}); camlucida varies the "
        "image alone, so wrap the model in a module whose forward takes the image and fills in the rest"
    )


def _view_of_tensor(image: Tensor, preprocess: Preprocess | None) -> View:
    """A ready input as a picture: normalisation undone where it is known, else stretched to [0, 1]."""
    pixels = image.detach().to("cpu", torch.float32)
    channels = pixels.shape[0]
    if preprocess is not None and channels == len(preprocess.mean):
        pixels = preprocess.denormalise(pixels)
        if preprocess.channels == "bgr":
            pixels = pixels.flip(0)
    elif pixels.amin() < 0 or pixels.amax() > 1:
        pixels = (pixels - pixels.amin()) / (pixels.amax() - pixels.amin()).clamp_min(1e-12)
    if channels not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).convert("RGB")
    return View.whole(picture)
