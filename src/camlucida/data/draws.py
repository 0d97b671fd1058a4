"""Parts of a data set: as many photos of each class, or so many of all."""

from __future__ import annotations

import hashlib
from pathlib import Path

from camlucida.common.errors import CamlucidaError
from camlucida.data.samples import DataSet, Sample, SampleList, Skipped


def draw(
    data: DataSet, *, per_class: int | None = None, count: int | None = None, seed: int = 0
) -> DataSet:
    """Some photos of a data set, in its order; which of a class depends on their names and the seed alone.

    Args:
        data: all photos.
        per_class: so many of each class; of a class that has fewer all, which is said in ``skipped``.
        count: so many at most, spread evenly over what is left.
        seed: another seed gives other photos.

    Raises:
        CamlucidaError: photos are drawn by class, and some have none.

    Example:
        >>> photos = camlucida.data.open_data("photos")
        >>> len(camlucida.data.draws.draw(photos, per_class=1)) == len({sample.label for sample in photos})
        True
    """
    if per_class is None and count is None:
        return data
    samples = list(data)
    skipped = list(data.skipped)
    if per_class is not None:
        samples, few = _of_each(samples, per_class, seed)
        skipped += few
    if count is not None and count < len(samples):
        samples = [samples[i * len(samples) // count] for i in range(count)]
    name = data.name if per_class is None else f"{data.name}, {per_class} of each class"
    return SampleList(name, samples, skipped)


def _of_each(samples: list[Sample], count: int, seed: int) -> tuple[list[Sample], list[Skipped]]:
    classes: dict[str, list[Sample]] = {}
    for sample in samples:
        if sample.label is None and not sample.label_name:
            raise CamlucidaError(
                f"{sample.key!r} has no class, so that photos cannot be drawn by class; give labelled photos"
            )
        name = sample.label_name or f"class {sample.label}"
        classes.setdefault(name if sample.label is None else str(sample.label), []).append(sample)
    chosen: set[str] = set()
    few: list[Skipped] = []
    for name, own in classes.items():
        if len(own) < count:
            few.append(
                (Path(own[0].label_name or name), f"{len(own)} photos, and {count} were asked for")
            )
        own.sort(key=lambda s: hashlib.sha256(f"{seed} {s.key}".encode()).hexdigest())
        chosen.update(sample.key for sample in own[:count])
    return [sample for sample in samples if sample.key in chosen], few
