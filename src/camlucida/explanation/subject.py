"""What is explained: a model with all that is known about it, and images made ready for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from camlucida.common.errors import ImageError, MethodError, ModelError
from camlucida.data import read_class_names, resolve_class
from camlucida.data.images import read_image
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import check_inputs, unwrap
from camlucida.explanation.overlays import View
from camlucida.explanation.result import LazyViews
from camlucida.models import LoadedModel, class_names_of, preprocess_of

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray[Any, Any]"
Images: TypeAlias = "Tensor | Photo | Sequence[Tensor] | Sequence[Photo]"


@dataclass(frozen=True)
class Batch:
    """Inputs for the model, and what they look like."""

    inputs: Tensor
    views: LazyViews
    sources: tuple[str | None, ...]

    def part(self, start: int, stop: int) -> Batch:
        """The images ``start`` to ``stop``, the end exclusive."""
        return Batch(self.inputs[start:stop], self.views[start:stop], self.sources[start:stop])


@dataclass(frozen=True)
class Subject:
    """The model that is explained, and what is known about it."""

    module: nn.Module
    name: str
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None

    @classmethod
    def of(
        cls,
        model: nn.Module | LoadedModel,
        preprocess: Preprocess | None,
        class_names: Sequence[str] | str | os.PathLike[str] | None,
    ) -> Subject:
        """Gather what is known; what is given goes before what the model itself says."""
        named = None if class_names is None else read_class_names(class_names)
        if isinstance(model, LoadedModel):
            return cls(
                unwrap(model.module),
                model.name,
                preprocess or model.preprocess,
                named or model.class_names,
            )
        if not isinstance(model, nn.Module):
            raise MethodError(
                f"the model must be a torch.nn.Module or come from camlucida.load_model, got "
                f"{type(model).__name__}"
            )
        module = unwrap(model)
        return cls(
            module,
            type(module).__name__,
            preprocess or preprocess_of(module),
            named or class_names_of(module),
        )

    def class_index(self, name: str) -> int:
        """Index of a class by its name; raises ``TargetError`` for an unknown one."""
        return resolve_class(name, self.class_names)

    @contextmanager
    def taking(self, inputs: Tensor) -> Iterator[None]:
        """Say it in words when the model fails because the images have another number of channels.

        Raises:
            ImageError: in place of what the model raised.
        """
        try:
            yield
        except (RuntimeError, ModelError) as error:
            first = next((m for m in self.module.modules() if isinstance(m, nn.Conv2d)), None)
            if first is None or first.in_channels == inputs.shape[1]:
                raise
            last = inputs.shape[-1] == first.in_channels
            advice = (
                "channels come second: inputs.permute(0, 3, 1, 2)"
                if last
                else "see its first layer"
            )
            raise ImageError(
                f"{self.name} takes images with {first.in_channels} channels, got shape "
                f"{tuple(inputs.shape)}; {advice}"
            ) from error

    def prepare(self, images: Images) -> Batch:
        """Inputs on the model's device and in its precision."""
        if isinstance(images, Tensor):
            return self._from_tensor(images[None] if images.ndim == 3 else images)
        photos: Sequence[Any] = (
            list(images)
            if isinstance(images, Sequence) and not isinstance(images, str)
            else [images]
        )
        if not photos:
            raise ImageError("no image was given")
        if all(isinstance(p, Tensor) for p in photos):
            if len({p.shape for p in photos}) > 1:
                raise ImageError("the tensors of a list must all have one shape (C, H, W)")
            return self._from_tensor(torch.stack(list(photos)))
        return self._from_photos(photos)

    def _from_tensor(self, inputs: Tensor) -> Batch:
        if inputs.ndim != 4 or inputs.shape[0] == 0:
            raise ImageError(
                f"a tensor of images must be (N, C, H, W) or (C, H, W), got {tuple(inputs.shape)}"
            )
        check_inputs(self.module, inputs)
        makers = [partial(_view_of_tensor, image, self.preprocess) for image in inputs]
        return Batch(inputs, LazyViews(makers, self.class_names), (None,) * len(inputs))

    def _from_photos(self, photos: Sequence[Photo]) -> Batch:
        if self.preprocess is None:
            raise ImageError(
                f"it is not known how {self.name} wants its images prepared; pass "
                "preprocess=camlucida.Preprocess.imagenet() if it was trained that way, or a tensor "
                "(N, C, H, W) that is ready"
            )
        pictures = [read_image(photo) for photo in photos]
        inputs = torch.stack([self.preprocess(picture) for picture in pictures])
        parameter = next((p for p in self.module.parameters() if p.is_floating_point()), None)
        if parameter is not None:
            inputs = inputs.to(parameter.device, parameter.dtype)
        makers = [partial(_view_of_photo, p, self.preprocess) for p in pictures]
        sources = tuple(str(p) if isinstance(p, str | Path) else None for p in photos)
        return Batch(inputs, LazyViews(makers, self.class_names), sources)


def prepare(
    model: nn.Module | LoadedModel, images: Images, preprocess: Preprocess | None = None
) -> tuple[nn.Module, Tensor, View, Preprocess | None]:
    """What :func:`explain` makes of a model and images: for other analyses of single images.

    Returns:
        The unwrapped module, the inputs ``(N, C, H, W)``, the view of the first image and the preprocessing.
    """
    subject = Subject.of(model, preprocess, None)
    batch = subject.prepare(images)
    return subject.module, batch.inputs, batch.views[0], subject.preprocess


def _view_of_photo(picture: Image.Image, preprocess: Preprocess) -> View:
    return View(picture, preprocess.crop_box(*picture.size))


def _view_of_tensor(image: Tensor, preprocess: Preprocess | None) -> View:
    """A ready input as a picture: normalisation undone where it is known, else stretched to [0, 1]."""
    pixels = image.detach().to("cpu", torch.float32)
    channels = pixels.shape[0]
    if preprocess is not None and channels == len(preprocess.mean):
        pixels = preprocess.denormalise(pixels)
        if preprocess.channels == "bgr":
            pixels = pixels.flip(0)
    elif pixels.amin() < 0 or pixels.amax() > 1:
        pixels = (pixels - pixels.amin()) / (pixels.amax() - pixels.amin())
    if channels not in (1, 3):
        pixels = pixels.mean(0, keepdim=True)
    array = (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(array.squeeze(-1) if array.shape[-1] == 1 else array).convert("RGB")
    return View.whole(picture)
