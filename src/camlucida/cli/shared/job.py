"""What ``explain`` and ``demo`` share: explain photos in batches and keep what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from camlucida.cli.shared.console import complain, progress, shown
from camlucida.cli.shared.photos import Names
from camlucida.cli.shared.results import save
from camlucida.cli.shared.writing import out_folder
from camlucida.common.errors import ImageError, ModelError, TargetError

if TYPE_CHECKING:
    from PIL import Image

    from camlucida.explanation import Comparison, Explanation
    from camlucida.explanation.explain import MethodLike
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
    """

    model: LoadedModel
    methods: Sequence[MethodLike]
    targets: Mapping[str, Target]
    layers: Sequence[str]
    steps: str | None
    seed: int
    batch_size: int
    out: Path


@dataclass
class Outcome:
    """What became of the photos.

    Attributes:
        done: One record per photo, ready for JSON.
        failed: Each photo that could not be explained, with the reason.
        interrupted: Whether Ctrl-C ended it.
    """

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def exit_code(self) -> int:
        """130 after Ctrl-C, 2 when a photo failed, else 0."""
        if self.interrupted:
            return 130
        return 2 if self.failed else 0

    def fail(self, photo: Path, reason: str) -> None:
        """Remember a photo that failed, and say so in one line."""
        name = shown(photo)
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

    Args:
        job: What to do.
        photos: Picture files.
        outcome: Grows with every photo.

    Raises:
        CamlucidaError: Something concerns all photos: the model, the method, the disk.
    """
    from camlucida.benchmark.work import THREADS, ahead

    with out_folder(job.out), progress("explaining") as bar:
        names = Names(job.out)
        with closing(ahead(photos, _read, THREADS, 2 * job.batch_size)) as stream:  # type: ignore[type-var]
            try:
                for start in range(0, len(photos), job.batch_size):
                    batch = list(islice(stream, job.batch_size))

                    def advance(share: float, start: int = start, count: int = len(batch)) -> None:
                        bar(start + share * count, len(photos))

                    pictures = []
                    for photo, read in batch:
                        if isinstance(read, str):
                            outcome.fail(photo, read)
                        else:
                            pictures.append((photo, read))
                    _explain(job, pictures, names, outcome, advance)
                    advance(1)
            except KeyboardInterrupt:
                outcome.interrupted = True


def _read(photo: Path) -> Image.Image | str:
    """The photo, or why it cannot be read."""
    from camlucida.data import read_image

    try:
        return read_image(photo)
    except (ImageError, MemoryError) as error:
        return str(error) or "out of memory"


def _explain(
    job: Job,
    pictures: Sequence[tuple[Path, Image.Image]],
    names: Names,
    outcome: Outcome,
    progress: Callable[[float], object],
) -> None:
    if not pictures:
        return
    try:
        comparison = _compared(job, pictures, progress)
    except (ImageError, TargetError, MemoryError) as error:
        if len(pictures) == 1:
            outcome.fail(pictures[0][0], str(error) or "out of memory")
        else:  # one picture must not take the others along
            for picture in pictures:
                _explain(job, [picture], names, outcome, lambda _: None)
        return
    for index, (photo, _) in enumerate(pictures):
        name = names.take(photo)
        outcome.done.append(save(comparison, index, photo, job.out, name))


def _compared(
    job: Job, pictures: Sequence[tuple[Path, Image.Image]], progress: Callable[[float], object]
) -> Comparison:
    """Every method on a batch, for every class; of several classes each label names its own."""
    from camlucida.explanation import Comparison, explain

    names = tuple(shown(photo) for photo, _ in pictures)
    several: list[Explanation] = []
    for number, (name, target) in enumerate(job.targets.items()):

        def advance(done: float, total: float, before: int = number) -> None:
            progress((before + done / total) / len(job.targets))

        found = explain(
            job.model,
            [picture for _, picture in pictures],
            method=list(job.methods),
            target=target,
            layers=list(job.layers) or None,
            steps=job.steps,
            seed=job.seed,
            batch_size=len(pictures),
            progress=advance,
        )
        of = f": {name}" if len(job.targets) > 1 else ""
        several += [replace(e, sources=names, label=e.label + of) for e in found.values()]
    return Comparison(several)
