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

    from camlucida.explanation import Comparison, Explanation, Style
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
        style: How maps are drawn; ``None`` for the usual way.
        one_scale: Whether all photos are drawn on the scale of the largest value among them.
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


@dataclass
class Outcome:
    """What became of the photos.

    Attributes:
        done: One record per photo, ready for JSON.
        failed: Each photo that could not be explained, with the reason.
        skipped: Each method that could not explain the model, with the reason.
        interrupted: Whether Ctrl-C ended it.
    """

    done: list[dict[str, Any]] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    interrupted: bool = False

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
    from camlucida.explanation import Comparison

    largest: dict[str, float] = {}

    def measure(comparison: Comparison, _: Sequence[Path]) -> None:
        for label, one in comparison.items():
            largest[label] = max(largest.get(label, 0.0), float(one.maps.abs().max()))

    def keep(comparison: Comparison, paths: Sequence[Path]) -> None:
        styled = [_styled(e, job.style, largest.get(n)) for n, e in comparison.items()]
        drawn = Comparison(styled, [*comparison.skipped.items()])
        outcome.skip(drawn.skipped)
        for index, photo in enumerate(paths):
            outcome.done.append(save(drawn, index, photo, job.out, names.take(photo)))

    with out_folder(job.out), progress("explaining") as bar:
        names = Names(job.out, job.model.name)
        try:
            if job.one_scale:
                _all(job, photos, measure, lambda *_: None, lambda share: bar(share, 2))
            half = int(job.one_scale)
            _all(job, photos, keep, outcome.fail, lambda share: bar(half + share, half + 1))
        except KeyboardInterrupt:
            outcome.interrupted = True


def _styled(explanation: Explanation, style: Style | None, largest: float | None) -> Explanation:
    """The same, drawn in a style and on a scale."""
    style = style or explanation.style
    return replace(explanation, style=replace(style, largest=largest))


def _all(
    job: Job,
    photos: Sequence[Path],
    use: Callable[[Comparison, Sequence[Path]], None],
    fail: Callable[[Path, str], object],
    progress: Callable[[float], object],
) -> None:
    """Explain the photos batch by batch, reading the next ones meanwhile.

    Args:
        job: What to do.
        photos: Picture files.
        use: Gets each batch's explanations, and its files.
        fail: Gets each photo that cannot be explained, and why.
        progress: Called with the share that is done.
    """
    from camlucida.benchmark.work import THREADS, ahead

    with closing(ahead(photos, _read, THREADS, 2 * job.batch_size)) as stream:  # type: ignore[type-var]
        for start in range(0, len(photos), job.batch_size):
            batch = list(islice(stream, job.batch_size))

            def advance(share: float, start: int = start, count: int = len(batch)) -> None:
                progress((start + share * count) / len(photos))

            pictures = []
            for photo, read in batch:
                if isinstance(read, str):
                    fail(photo, read)
                else:
                    pictures.append((photo, read))
            _explain(job, pictures, use, fail, advance)
            advance(1)


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
    use: Callable[[Comparison, Sequence[Path]], None],
    fail: Callable[[Path, str], object],
    progress: Callable[[float], object],
) -> None:
    if not pictures:
        return
    try:
        comparison = _compared(job, pictures, progress)
    except (ImageError, TargetError, MemoryError) as error:
        if len(pictures) == 1:
            fail(pictures[0][0], str(error) or "out of memory")
        else:  # one picture must not take the others along
            for picture in pictures:
                _explain(job, [picture], use, fail, lambda _: None)
        return
    use(comparison, [photo for photo, _ in pictures])


def _compared(
    job: Job, pictures: Sequence[tuple[Path, Image.Image]], progress: Callable[[float], object]
) -> Comparison:
    """Every method on a batch, for every class; of several classes each label names its own."""
    from camlucida.explanation import Comparison, explain

    names = tuple(shown(photo) for photo, _ in pictures)
    several: list[Explanation] = []
    skipped: dict[str, str] = {}
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
        skipped |= {label + of: reason for label, reason in found.skipped.items()}
    return Comparison(several, [*skipped.items()])
