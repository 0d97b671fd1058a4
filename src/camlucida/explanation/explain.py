"""``explain``: from a model and photos to explanations."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, overload

import torch

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.common.grammar import refuse_arguments
from camlucida.common.seeds import Seed
from camlucida.engine.layers import GridRule, Layers
from camlucida.engine.maps import Steps
from camlucida.engine.reading import OutputsLike
from camlucida.explanation.photos import Images
from camlucida.explanation.question import MethodLike, Question, listed, settable, settle
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.stream import Explanations, Failed
from camlucida.explanation.subject import ModelLike, PreprocessGiven, Subject
from camlucida.methods import Method, Progress
from camlucida.models import LoadedModel
from camlucida.models.factory import ArchitectureLike
from camlucida.targets import TargetLike

__all__ = ["MethodLike", "explain", "explain_each", "listed", "settle"]


@overload
def explain(
    model: ModelLike,
    images: Images,
    *,
    method: MethodLike = ...,
    **options: Any,
) -> Explanation: ...


@overload
def explain(
    model: ModelLike,
    images: Images,
    *,
    method: Sequence[MethodLike],
    **options: Any,
) -> Comparison: ...


def explain(
    model: ModelLike,
    images: Images,
    *,
    method: MethodLike | Sequence[MethodLike] = "gradcam",
    target: TargetLike = None,
    layers: Layers | None = None,
    steps: Steps | str | None = None,
    preprocess: PreprocessGiven | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    outputs: OutputsLike = None,
    head: str | int | None = None,
    architecture: ArchitectureLike | None = None,
    device: str | torch.device | None = None,
    seed: Seed = 0,
    batch_size: int = 32,
    top: int = 5,
    grid: GridRule | Mapping[str, GridRule] | None = None,
    progress: Progress | None = None,
    strict: bool = False,
    **options: Any,
) -> Explanation | Comparison:
    """Explain what a model saw in images.

    Any number of threads may explain one model, in evaluation or in training mode: each waits for its turn.

    Args:
        model: any torch vision model, what :func:`camlucida.load_model` returned, or a name or file that it takes.
            It is given back exactly as it was.
        images: a tensor ``(N, C, H, W)`` or ``(C, H, W)`` as the model expects it, which is used as it is; or a
            photo (path, PIL image, array), a folder of photos, a data set, or a list of these. Photos need the
            model's preprocessing. Also a mapping with one such tensor, ``{"pixel_values": x}``.
        method: a registered name (see ``camlucida methods``), also with options as in ``"fame:iterations=20"``;
            a method object; a function ``(model, inputs, target) -> maps`` of your own, or where it stands,
            ``"package.module:function"``; a pair of any of these and its options; or a list. Methods of a list
            share their forward passes where they look at the same layers.
        target: what is explained: a class index or name, one per image; a target such as ``LogitMargin()``, also
            as the command line takes it, ``"margin:aggregator=max"``; or a function from the model's output, of
            whatever type, to ``(N,)``. ``None`` is the predicted class's logit, or the value of a regression.
        layers: names or modules; by default the last feature map of the model. Beside methods of a list that
            explain layers, those that explain the input go without.
        steps: how raw maps become attribution maps: a :class:`camlucida.Steps`, or a preset,
            ``"pytorch-grad-cam"``, ``"unscaled"`` or ``"signed"``. By default the method's own.
        preprocess: how photos become inputs: a :class:`camlucida.Preprocess`, or any function of a PIL image, such
            as a transform of torchvision; or some of a ``Preprocess``'s values by name, ``{"size": 96}``. By default
            the model's own, where it says.
        class_names: one per class, or a text file with one per line; by default the model's own.
        outputs: what the model's outputs are: ``"classes"`` that exclude each other, ``"labels"`` of which several
            may be present, ``"binary"`` (one logit), ``"regression"``, ``"dense"`` or ``"embedding"``, or the
            activation that it ends in, ``"logits"``, ``"softmax"``, ``"log-softmax"`` or ``"sigmoid"``; with options
            as in ``"labels:threshold=0.3"``. By default it is found, and what is assumed is among the messages.
        head: which of several outputs is explained, by name or position.
        architecture: of a model that is a checkpoint file, as for :func:`camlucida.load_model`.
        device: where the model is put, such as ``"cuda"``; by default it stays where it is.
        seed: an integer, or a generator that one is drawn from. Each image has its own random stream, so that a
            batch equals its images one by one.
        batch_size: images that are explained at a time.
        top: number of predictions kept per image, at least 1.
        grid: how layer outputs are read as feature maps; found automatically for convolutions and tokens.
        progress: called with the number of maps done and their total, in fractions for methods that take
            many passes.
        strict: raise where one of several methods cannot run on this model; otherwise it is left out, and named in
            ``Comparison.skipped`` with the reason.
        **options: fields of the method, such as ``form="true"`` for ``gradcam++``; with several methods pairs
            instead, ``("gradcam++", {"form": "true"})``.

    Returns:
        An :class:`Explanation` of all images; for a list of methods a :class:`Comparison`, which is a mapping
        from labels to explanations.

    Raises:
        CamlucidaError: one of its kinds (``ImageError``, ``LayerError``, ``TargetError``, ``MethodError``,
            ``ModelError``); its text says what was given, what was expected and what to do.

    Example:
        >>> explanation = camlucida.explain(model, images, method="gradcam++", target=3)
        >>> explanation.maps.shape
        torch.Size([2, 32, 32])
        >>> both = camlucida.explain(model, images, method=["gradcam", "fame:iterations=2"])
        >>> list(both)
        ['gradcam', 'fame (iterations=2)']
    """
    stream = _asked(
        model, images, method, target, layers, steps, preprocess, class_names, outputs, head, architecture, device,
        seed, batch_size, top, grid, strict, options,
    )  # fmt: skip
    return replace(stream, progress=progress).all()


def explain_each(
    model: ModelLike,
    images: Images,
    *,
    batch_size: int = 8,
    failed: Failed | None = None,
    **asked: Any,
) -> Explanations:
    """Explain any number of photos in the memory that one batch takes.

    Photos are opened as they are needed, while those before them are explained, and nothing is computed before it is
    asked for.

    Args:
        model: as for :func:`explain`.
        images: as for :func:`explain`.
        batch_size: images that are explained at a time.
        failed: gets the position of each photo that cannot be explained and the reason, and the others are explained;
            by default the first such photo raises.
        **asked: all else that :func:`explain` takes.

    Returns:
        A sequence with an :class:`Explanation` (of several methods a :class:`Comparison`) for each image, made when it
        is read; ``batches()`` goes through them in batches, ``save(folder)`` writes a shard for each.

    Raises:
        CamlucidaError: as :func:`explain`, partly when the explanations are read.

    Example:
        >>> [one.explained[0] for one in camlucida.explain_each(model, images, target=3)] == [
        ...     one.explained[0] for one in camlucida.explain(model, images, target=3)
        ... ]
        True
    """
    if failed is not None and not callable(failed):
        raise CamlucidaError(
            f"failed= is a function (position, reason), such as print, not {type(failed).__name__}"
        )
    bound = inspect.signature(explain).bind(model, images, **asked)
    bound.apply_defaults()
    wanted = bound.arguments
    progress = wanted.pop("progress")
    stream = _asked(**{**wanted, "batch_size": batch_size})
    return replace(stream, failed=failed, progress=progress)


def _asked(
    model: ModelLike,
    images: Images,
    method: Any,
    target: TargetLike,
    layers: Layers | None,
    steps: Steps | str | None,
    preprocess: PreprocessGiven | None,
    class_names: Sequence[str] | str | os.PathLike[str] | None,
    outputs: OutputsLike,
    head: str | int | None,
    architecture: ArchitectureLike | None,
    device: str | torch.device | None,
    seed: Seed,
    batch_size: int,
    top: int,
    grid: GridRule | Mapping[str, GridRule] | None,
    strict: bool,
    options: Mapping[str, Any],
) -> Explanations:
    """What is asked, its words checked."""
    chosen = listed(method)
    if not any(isinstance(one, Method) for one in chosen):  # an object has its options
        refuse_arguments(
            explain, options, [o for one in chosen for o in settable(one)], MethodError
        )
    subject = Subject.of(
        model, preprocess, class_names, outputs, head, architecture=architecture, device=device
    )
    loaded = model if isinstance(model, LoadedModel) else None
    question = Question(
        subject, method, {"": target}, options, layers, steps, grid, seed, top, strict, loaded
    )
    return Explanations(question, subject.photos(images), batch_size)
