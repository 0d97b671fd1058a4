"""What metrics need, and what the data and the run have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from camlucida.common.errors import CamlucidaError
from camlucida.metrics.registry import METRICS

if TYPE_CHECKING:
    from camlucida.benchmark.plan import Bench

_MASKS = 32  # photos whose masks are looked for
_LOOK = 10_000  # photos that are looked at to learn what a data set knows about them


def lacking(bench: Bench) -> dict[str, tuple[str, ...]]:
    """What metrics need and the data and the run do not have, by metric.

    Boxes and labels are looked for in up to 10,000 photos, masks in 32, spread evenly.

    Returns:
        Words of :data:`camlucida.metrics.Need`; a metric that lacks nothing is not in it.
    """
    rows = {name: METRICS.row_of(metric) for name, metric in bench.metrics}
    needs = {name: () if row is None else row.needs for name, row in rows.items()}
    there = _known(bench, {word for several in needs.values() for word in several})
    missing: dict[str, tuple[str, ...]] = {}
    for name, metric in bench.metrics:
        own = set(there)
        if getattr(metric, "reference", None) in bench.references:
            own.add("reference")
        if lack := tuple(need for need in needs[name] if need not in own):
            missing[name] = lack
    return missing


def in_words(bench: Bench, missing: Mapping[str, Sequence[str]]) -> str:
    """What :func:`lacking` has found, for people: ``"data has no boxes"``, or which method to add."""
    words = sorted({word for several in missing.values() for word in several} - {"reference"})
    said = [f"{bench.data.name} has no {' and no '.join(words)}"] if words else []
    compared = dict.fromkeys(
        str(getattr(metric, "reference", "another method"))
        for name, metric in bench.metrics
        if "reference" in missing.get(name, ())
    )
    if compared:
        said.append(
            f"{' and '.join(compared)}, to compare with, is not among the methods of the run "
            f"({', '.join(bench.labels)})"
        )
    return "; ".join(said)


def _known(bench: Bench, asked: set[str]) -> set[str]:
    """What the data know, as far as it is asked for, and what every run has."""
    wanted = asked & {"boxes", "masks", "labels"}
    there = {"logits", "preprocess", "model"}
    count = min(bench.images, _LOOK)
    for position in range(count if wanted else 0):
        sample = bench.data.sample(bench.index(position * bench.images // count))
        if sample.boxes:
            there |= {"boxes", "masks"}
        elif "masks" not in there and position < _MASKS:
            try:
                there |= {"masks"} if sample.mask() is not None else set()
            except (CamlucidaError, OSError):
                there |= {"masks"}  # there is one, though it is broken
        if sample.label is not None:
            there.add("labels")
        if wanted <= there:
            break
    return there


def check_needs(bench: Bench) -> None:
    """Refuse a bench whose metrics or settings need what it does not have.

    Raises:
        CamlucidaError: naming the first metric, and what it lacks.
    """
    for name, lack in lacking(bench).items():
        if "reference" in lack:
            raise CamlucidaError(
                f"{name} compares with another method: {in_words(bench, {name: lack})}; add it, or name "
                "another with reference="
            )
        raise CamlucidaError(
            f"{name} needs {' and '.join(lack)}, and {bench.data.name} has none; leave {name} out, or give "
            "data with them"
        )
    if bench.settings.explain == "label" and "labels" not in _known(bench, {"labels"}):
        raise CamlucidaError(
            f"{bench.data.name} knows no photo's class; explain the predicted one instead"
        )
