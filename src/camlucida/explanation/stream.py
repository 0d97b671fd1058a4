"""Explanations of any number of photos, made batch by batch as they are asked for."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from operator import index
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, overload

import torch

from camlucida.common.ahead import THREADS, ahead
from camlucida.common.errors import CamlucidaError, ImageError, MethodError, TargetError
from camlucida.common.files import locked
from camlucida.common.jsonable import digest
from camlucida.explanation.overlays import LazyViews
from camlucida.explanation.photos import Photos, several_sizes
from camlucida.explanation.question import Question
from camlucida.explanation.result import Comparison, Explanation
from camlucida.explanation.stored import Stored
from camlucida.methods import Progress
from camlucida.targets.base import join_targets

if TYPE_CHECKING:
    from PIL import Image

Result: TypeAlias = "Explanation | Comparison"
Failed: TypeAlias = "Callable[[int, Exception], object]"
"""Called with the position of an image that cannot be explained, and what is wrong with it."""

_OF_ONE = (ImageError, TargetError, MemoryError)
"""What may be the fault of a single image."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanations(Sequence[Result]):
    """Explanations of many images, each made when it is read: none is kept.

    Attributes:
        question: what is asked.
        photos: about which images.
        batch_size: how many are explained at a time.
        failed: gets the images that cannot be explained; ``None`` raises at the first.
        progress: called with the number of maps done and their total.

    Example:
        >>> many = camlucida.explain_each(model, images, method="layercam")
        >>> len(many), many[1].maps.shape
        (2, torch.Size([1, 32, 32]))
    """

    question: Question
    photos: Photos
    batch_size: int
    failed: Failed | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Check the size of a batch."""
        try:
            whole = index(self.batch_size)
        except TypeError:
            whole = 0
        if whole < 1:
            raise CamlucidaError(
                f"batch_size must be a whole number and at least 1 image, got {self.batch_size!r}"
            )

    def __repr__(self) -> str:
        return f"Explanations of {len(self)} images, each made when it is read"

    def __len__(self) -> int:
        return len(self.photos)

    def all(self) -> Result:
        """The explanation of all images in memory.

        Of more than one batch the pictures are not held: they are opened again where they are drawn.
        """
        with closing(self.batches()) as batches:
            if len(self) <= self.batch_size:
                return joined([found for _, found in batches])
            return joined([_light(found) for _, found in batches])

    def __iter__(self) -> Iterator[Result]:
        with closing(self.batches()) as batches:
            for places, found in batches:
                yield from (one_of(found, i) for i in range(len(places)))

    @overload
    def __getitem__(self, index: int) -> Result: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Result]: ...

    def __getitem__(self, index: int | slice) -> Result | Sequence[Result]:
        """The explanation of one image; of a slice a list."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._answer([(place, self.photos.read(place))], lambda *_: None)

    def batches(
        self, progress: Progress | None = None, places: Sequence[int] | None = None
    ) -> Generator[tuple[list[int], Result], None, None]:
        """The explanations batch by batch, the next photos read meanwhile.

        Args:
            progress: in place of the stream's own.
            places: the positions of the images that are explained; all by default.

        Yields:
            The positions of a batch's images, and their explanation. Images that cannot be explained are missing.
        """
        with closing(self._whole(progress or self.progress, places, self._fail)) as whole:
            for parts in whole:
                yield from parts

    def save(self, folder: str | os.PathLike[str], progress: Progress | None = None) -> Stored:
        """Write a shard for each batch, whole or not at all; a folder that holds some of them already gets the others.

        Args:
            folder: made if need be; it keeps the explanations of one question about the same images in batches of one
                size.
            progress: in place of the stream's own.

        Returns:
            What the folder holds, read as it is asked for.

        Raises:
            CamlucidaError: it holds other results, or cannot be written to; an image cannot be explained, and none
                may fail.
        """
        size, count = self.batch_size, len(self)
        sources = digest(self.photos.source(place) for place in range(count))
        plan = {
            **self.question.record(),
            "images": count,
            "batch_size": size,
            "sources_sha256": sources,
        }
        missing: list[tuple[int, str]] = []

        def fail(place: int, error: Exception) -> None:
            self._fail(place, error)
            missing.append((place, reason_of(error)))

        with locked(Path(folder)):
            stored = Stored.start(Path(folder), plan)
            todo = []
            for number, first in enumerate(range(0, count, size)):
                places = range(first, min(first + size, count))
                marks = [self.photos.marks(place) for place in places]
                if not stored.holds(number, marks):
                    todo.append((number, places, marks))
            flat = [place for _, places, _ in todo for place in places]
            with closing(self._whole(progress or self.progress, flat, fail)) as whole:
                for (number, _, marks), parts in zip(todo, whole, strict=True):
                    done = [place for places, _ in parts for place in places]
                    found = joined([one for _, one in parts]) if parts else None
                    stored.write(number, done, found, missing, marks)
                    missing.clear()
        return stored

    def _whole(
        self, progress: Progress | None, places: Sequence[int] | None, fail: Failed
    ) -> Generator[list[tuple[list[int], Result]], None, None]:
        """Of each batch its one explanation, or those of single images where the batch fails."""
        places = range(len(self)) if places is None else places
        total = len(places) * self.question.answers
        stream: Generator[tuple[int, Image.Image | Exception | None], None, None]
        stream = ((place, None) for place in places)
        if self.photos.are_read:
            stream = ahead(places, self._read, THREADS, self.batch_size)
        with closing(stream):
            for done in range(0, len(places), self.batch_size):
                before = done * self.question.answers

                def advance(now: float, _: float, before: int = before) -> None:
                    if progress is not None:
                        progress(before + now, total)

                part = list(islice(stream, self.batch_size))
                good = []
                for place, read in part:
                    if isinstance(read, Exception):
                        fail(place, read)
                    else:
                        good.append((place, read))
                parts = [*self._tried(good, fail, advance)]
                told = len(parts) == 1 and len(parts[0][0]) == len(part)
                if not told:  # single photos and those that failed say nothing of themselves
                    advance(len(part) * self.question.answers, 0)
                yield parts

    def _read(self, place: int) -> Image.Image | Exception | None:
        try:
            return self.photos.read(place)
        except (ImageError, MemoryError) as error:
            return error

    def _fail(self, place: int, error: Exception) -> None:
        if self.failed is None:
            raise error
        self.failed(place, error)

    def _tried(
        self, part: Sequence[tuple[int, Image.Image | None]], fail: Failed, progress: Progress
    ) -> Iterator[tuple[list[int], Result]]:
        """A batch; its images one by one where it fails and failures are collected: one must not take others along."""
        try:
            found = self._answer(part, progress) if part else None
        except _OF_ONE as error:
            if len(part) == 1 or self.failed is None:
                fail(part[0][0], error)
                return
            for one in part:
                yield from self._tried([one], fail, lambda *_: None)
        else:
            if found is not None:
                yield [place for place, _ in part], found

    def _answer(self, part: Sequence[tuple[int, Image.Image | None]], progress: Progress) -> Result:
        places, pictures = zip(*part, strict=True)
        batch = self.photos.batch(places, pictures)
        return self.question.answer(batch, places, len(self), progress)


def one_of(found: Result, index: int) -> Result:
    """The result of one image of a batch."""
    if isinstance(found, Explanation):
        return found[index]
    return Comparison([one[index] for one in found.values()], [*found.skipped.items()])


def reason_of(error: Exception) -> str:
    """Why an image could not be explained."""
    return str(error) or "out of memory"


def joined(parts: Sequence[Result]) -> Result:
    """One result from those of consecutive batches."""
    if not parts:
        raise ImageError("none of the images can be explained")
    if len(parts) == 1:
        return parts[0]
    several = [part for part in parts if isinstance(part, Comparison)]
    if not several:
        return _joined([part for part in parts if isinstance(part, Explanation)])
    skipped = {label: reason for part in several for label, reason in part.skipped.items()}
    labels = [label for label in several[0] if all(label in part for part in several)]
    if not labels:
        told = "; ".join(f"{label}: {reason}" for label, reason in skipped.items())
        raise MethodError(f"none of the methods can run on all images: {told}")
    of_all = [_joined([part[label] for part in several]) for label in labels]
    return Comparison(of_all, [*skipped.items()])


def _light(found: Result) -> Result:
    """The same without pictures that can be opened again."""
    if isinstance(found, Explanation):
        return replace(found, views=found.views.light())
    light = [replace(one, views=one.views.light()) for one in found.values()]
    return Comparison(light, [*found.skipped.items()])


def _joined(parts: Sequence[Explanation]) -> Explanation:
    first = parts[0]
    if any(one.maps.shape[1:] != first.maps.shape[1:] for one in parts):
        raise several_sizes(first.maps.shape[1:])
    target = join_targets([e.target for e in parts])
    facts = {**first.provenance.facts, "target": target.describe()}
    return first.with_images(
        lambda name: torch.cat([getattr(e, name) for e in parts]),
        lambda name, key: torch.cat([getattr(e, name)[key] for e in parts]),
        lambda name: tuple(row for e in parts for row in getattr(e, name)),
        target=target,
        provenance=replace(first.provenance, facts=facts),
        views=LazyViews.joined([e.views for e in parts]),
        sources=tuple(source for e in parts for source in e.sources),
    )
