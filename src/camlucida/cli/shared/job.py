"""What ``explain`` and ``demo`` share: explain photos in batches and keep what is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from camlucida.cli.shared.console import complain, progress, shown
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.results import Records, save
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import ModelError
from camlucida.common.files import mark
from camlucida.common.jsonable import digest

if TYPE_CHECKING:
    from camlucida.explanation import Comparison, Explanation, Explanations, Style
    from camlucida.explanation.explain import MethodLike
    from camlucida.explanation.stream import Failed
    from camlucida.methods import Progress
    from camlucida.models import LoadedModel
    from camlucida.targets import Target


@dataclass(frozen=True)
class Job:
    """What is to be done with every photo.

    Attributes:
        model: The model, which knows its preprocessing.
        methods: At least one, as on the command line.
        targets: What is explained, classes resolved, by the class's name; one alone has any name.
        layers: Names of the layers; empty for the model's default.
        steps: A preset's name, or ``None`` for each method's own.
        seed: Seed of the methods that draw numbers.
        batch_size: Photos that are read and explained at a time.
        out: The folder of the results.
        style: How maps are drawn; ``None`` for the usual way.
        one_scale: Whether all photos are drawn on the scale of the largest value among them.
        strips: Whether each photo gets the strip of pictures that the report shows.
    """

    model: LoadedModel
    methods: Sequence[MethodLike]
    targets: Mapping[str, Target]
    layers: Sequence[str]
    steps: str | None
    seed: int
    batch_size: int
    out: Path
    style: Style | None = None
    one_scale: bool = False
    strips: bool = False


@dataclass
class Outcome:
    """What became of the photos.

    Attributes:
        done: One record per photo, ready for JSON, in the photos' order; read from its file when it is asked for.
        failed: Each photo that could not be explained, with the reason.
        skipped: Each method that could not explain the model, with the reason.
        interrupted: Whether Ctrl-C ended it.
        stored: How many photos the shards hold.
    """

    done: Records = field(default_factory=Records)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False
    stored: int = 0

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 2 when a photo failed or a method was left out, else 0."""
        if self.interrupted:
            return 130
        return 2 if self.failed or self.skipped else 0

    def skip(self, methods: Mapping[str, str]) -> None:
        """Remember methods that were left out, and say so of each in one line."""
        for method, reason in methods.items():
            if method not in self.skipped:
                self.skipped[method] = reason
                complain(f"left out: {method}: {reason}")

    def fail(self, photo: Path, error: Exception | str) -> None:
        """Remember a photo that failed, and say so in one line."""
        name, reason = shown(photo), str(error) or "out of memory"
        text = reason if name in reason or repr(str(photo)) in reason else f"'{name}': {reason}"
        self.failed.append((photo, text))
        complain(text)


def check(model: LoadedModel, target: Target, layers: Sequence[str], steps: str | None) -> Target:
    """Refuse what cannot work with any photo, before the first one is read.

    Returns:
        The target, class names turned into indices.

    Raises:
        CamlucidaError: A class, layer or preset is unknown, or the model's preprocessing is.
    """
    from camlucida.data import resolve_class
    from camlucida.engine.layers import resolve_all
    from camlucida.engine.maps import Steps, preset

    if model.preprocess is None:
        raise ModelError(
            f"it is not known how {model.name} wants its images prepared; say it with --size, --mean and --std (what "
            "is left out is assumed to be ImageNet's)"
        )
    if layers:
        resolve_all(model.module, list(layers))
    if steps is not None:
        preset(steps, Steps())
    if isinstance(layer := target.layer, str):
        resolve_all(model.module, layer)
    return target.resolve(lambda name: resolve_class(name, model.class_names))


def run(job: Job, photos: Sequence[Path], outcome: Outcome) -> None:
    """Explain the photos, batch by batch, reading the next ones meanwhile; what is done stays, whatever happens later.

    A photo whose results of the same question are there already is not explained again.

    Args:
        job: What to do.
        photos: Picture files.
        outcome: Grows with every photo.

    Raises:
        CamlucidaError: Something concerns all photos: the model, the method, the disk.
    """
    from camlucida.data.place import Place
    from camlucida.explanation import Comparison

    largest: dict[str, float] = {}
    stream = _stream(job, photos, lambda place, error: outcome.fail(photos[place], error))
    half = int(job.one_scale)
    with out_folder(job.out), progress("explaining") as bar:
        try:
            if job.one_scale:
                quiet = replace(stream, failed=lambda *_: None)
                for _, found in _batches(quiet, lambda done, total: bar(done / total, 2)):
                    for label, one in found.items():
                        largest[label] = max(largest.get(label, 0.0), float(one.maps.abs().max()))
            names = Names(job.out, job.model.name)
            asked = digest([stream.question.record(), job.style, largest])
            marks = [mark(Place.of(photo).file) for photo in photos]
            todo = []
            for place, photo in enumerate(photos):
                if held := names.held(photo, {"asked": asked, "mark": marks[place]}):
                    outcome.done.add(place, held)
                    outcome.skip({s["method"]: s["reason"] for s in outcome.done[-1]["skipped"]})
                else:
                    todo.append(place)

            def advance(done: float, total: float) -> None:
                bar(half + done / total, half + 1)

            for places, found in _batches(stream, advance, todo):
                sources = tuple(shown(photos[place]) for place in places)
                styled = [
                    _styled(replace(e, sources=sources), job.style, largest.get(label))
                    for label, e in found.items()
                ]
                drawn = Comparison(styled, [*found.skipped.items()])
                outcome.skip(drawn.skipped)
                for index, place in enumerate(places):
                    name = names.take(photos[place])
                    own = {"asked": asked, "mark": marks[place]}
                    save(drawn, index, photos[place], job.out, name, own, strip=job.strips)
                    outcome.done.add(place, job.out / f"{name}.json")
        except KeyboardInterrupt:
            outcome.interrupted = True


def write_shards(job: Job, photos: Sequence[Path], outcome: Outcome) -> None:
    """The same into one file of maps for each batch, without pictures."""
    from camlucida.explanation import Stored

    stream = _stream(job, photos, lambda place, error: outcome.fail(photos[place], error))
    with out_folder(job.out), progress("explaining") as bar:
        try:
            stream.save(job.out, bar)
        except KeyboardInterrupt:
            outcome.interrupted = True
        stored = Stored(job.out)
        outcome.stored = len(stored.explained)
        said = {photo for photo, _ in outcome.failed}
        for place, why in stored.failed.items():  # also in a run before this one
            if photos[place] not in said:
                outcome.fail(photos[place], why)
        outcome.skip(stored.skipped)


def _stream(job: Job, photos: Sequence[Path], failed: Failed) -> Explanations:
    """The explanations of all photos by every method, for every class."""
    from camlucida.explanation import explain_each

    stream = explain_each(
        job.model,
        photos,
        method=list(job.methods),
        layers=list(job.layers) or None,
        steps=job.steps,
        seed=job.seed,
        batch_size=job.batch_size,
        failed=failed,
    )
    return replace(stream, question=replace(stream.question, targets=job.targets))


def _batches(
    stream: Explanations, progress: Progress, places: Sequence[int] | None = None
) -> Iterator[tuple[list[int], Comparison]]:
    from camlucida.explanation import Comparison

    for of, found in stream.batches(progress, places):
        assert isinstance(found, Comparison)  # noqa: S101 - as of every list of methods
        yield of, found


def _styled(explanation: Explanation, style: Style | None, largest: float | None) -> Explanation:
    """The same, drawn in a style and on a scale."""
    style = style or explanation.style
    return replace(explanation, style=replace(style, largest=largest))
