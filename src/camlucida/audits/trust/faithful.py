"""Does the model need what a map puts first? Insertion and deletion, held against random maps on the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from camlucida.audits.candidates import Candidate
from camlucida.audits.report import AuditReport
from camlucida.audits.request import AuditData, Request
from camlucida.audits.trial import Trial, grouped
from camlucida.audits.verdicts import UNEXPLAINED, Verdict, by_outcome, decided, sentences
from camlucida.common.statistics import mean_std
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import resize
from camlucida.explanation.subject import ModelLike
from camlucida.metrics.curves import area, blank, path
from camlucida.report import Column, Table

_CELLS = 7  # side of a random map before it is enlarged: as coarse as a CAM's
_DRAWS = 2
_LEAST = 1e-6  # what random maps differ by from themselves is rounding

ABOUT = (
    "Pixels are taken away in the order of the map (deletion), and put back into a blurred image in that order "
    "(insertion), while the probability of the predicted class is watched. A map that names what the model needs makes "
    "it fall early and rise early. The number is the area under insertion less that under deletion, and it is held "
    "against that of random maps as coarse as a CAM on the same images."
)


_SAY = sentences("""
numbers: insertion less deletion is {mean:+.3f} against random maps (better on {wins} of {count}; above 0 passes)
pass: The model needs the pixels that it puts first: {numbers}.
fail: On these images the pixels that it puts first did not matter more to the model than random ones: {numbers}.
nan: The model returned NaN, so that nothing can be compared.
""")


def random_maps(inputs: Tensor, seed: int, cells: int = _CELLS) -> Tensor:
    """Maps ``(N, H, W)`` that know nothing: uniform noise on a coarse grid, enlarged."""
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(inputs), cells, cells, generator=generator)
    return resize(drawn.to(inputs.device), size)


def faithfulness(trial: Trial, maps: Tensor, steps: int = 10) -> list[float]:
    """Area under insertion less that under deletion, per image; -1 to 1, higher is better.

    The maps are ``(N, H, W)``; all pixels change in so many steps.
    """
    inputs, classes = trial.inputs, trial.classes
    assert classes is not None  # noqa: S101
    clean = trial.logits().double().softmax(1).gather(1, classes[:, None])[:, 0]
    options: dict[str, Any] = {
        "step": -(-maps[0].numel() // steps),
        "batch_size": trial.batch_size,
    }
    soft, dark = blank(inputs, "blur"), blank(inputs, "zero")
    with borrowed(trial.model, inputs) as module, torch.no_grad():
        inserted = path(module, soft, inputs, maps, classes, last=clean, **options)
        deleted = path(module, inputs, dark, maps, classes, first=clean, **options)
    found: list[float] = (area(inserted) - area(deleted)).double().tolist()
    return found


def audit_faithfulness(
    model: ModelLike = "embedded", data: AuditData | None = None, **options: Any
) -> AuditReport:
    """Does the model need the pixels that a map puts first?

    Args:
        model: any classifier; given back as it was.
        data: see :class:`camlucida.audits.Request`.
        **options: the other fields of :class:`camlucida.audits.Request`.

    Raises:
        CamlucidaError: the model is no classifier, a method or layer is unknown, or no image can be read.

    Example:
        >>> report = camlucida.audits.audit_faithfulness(model, images, methods=["saliency"])
        >>> report["saliency"].measure
        'insertion less deletion, more than random maps'
    """
    return faithfulness_audit(Request.of(audit_faithfulness, model, data, options))


def faithfulness_audit(request: Request) -> AuditReport:
    """The audit as it is asked; see :func:`audit_faithfulness`."""
    tested = request.tested()
    trial = request.open(6, 100).ranked()
    steps = 8 if request.quick else 25
    store = request.store(trial, "faithfulness", steps=steps)
    total = len(tested) + _DRAWS
    noise = []
    for draw in range(_DRAWS):
        request.say("random maps", draw, total)
        maps = random_maps(trial.inputs, request.seed + draw)
        noise.append(store.value(f"random-{draw}", partial(faithfulness, trial, maps, steps)))
    base = [
        None if None in values else sum(values) / len(values) for values in zip(*noise, strict=True)
    ]
    found: dict[str, Any] = {}
    for group in grouped(tested):
        kept: dict[str, Any] = {}

        def compute(one: Candidate, group: Any = group, kept: Any = kept) -> Any:
            if not kept:
                kept.update(trial.maps(group))
            e = kept[one.label]
            return (
                {"error": e}
                if isinstance(e, str)
                else {"score": faithfulness(trial, e.maps, steps)}
            )

        for one in group:
            request.say(f"insertion and deletion, {one.label}", len(found) + _DRAWS, total)
            found[one.label] = store.value(one.key, partial(compute, one))
    request.say("insertion and deletion", total, total)
    verdicts = tuple(judge(label, values, base) for label, values in found.items())
    count = len(trial.inputs)
    by = by_outcome(verdicts)
    better, unclear = by["pass"], by["unclear"]
    rows: list[tuple[Any, ...]] = [("random maps", mean_std(base)[0], None, count)]
    rows += [(v.subject, v.details.get("mean"), v.value, count) for v in verdicts if v.details]
    numbers = (Column(k, "higher", places=3) for k in ("mean", "more than random maps"))
    columns: tuple[str | Column, ...] = ("method", *numbers, "images")
    return AuditReport(
        "faithfulness",
        f"Faithfulness on {trial.name}",
        ABOUT,
        f"{len(better)} of {len(verdicts)} methods name what the model needs clearly better than random maps do on "
        f"{count} images{f'; for {len(unclear)} this is not enough to tell' if unclear else ''}.",
        verdicts,
        (Table.of_rows("faithfulness", "Insertion less deletion", columns, rows),),
        record={
            "steps": steps,
            "images": count,
            "random": noise,
            "measured": found,
            "seed": request.seed,
            "resumed_parts": store.found,
        },
    )


def judge(label: str, found: Mapping[str, Any], base: Sequence[float | None]) -> Verdict:
    """Whether a method does better than random maps, image by image.

    It passes where the difference is above 0. ``found`` holds a ``score`` per image, ``None`` where the model returned
    NaN, or an ``error``; ``base`` is the score of random maps on the same images.
    """
    measure = "insertion less deletion, more than random maps"
    if "error" in found:
        return Verdict(label, "not tested", UNEXPLAINED(error=found["error"]))
    pairs = zip(found["score"], base, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences:
        return Verdict(label, "not tested", _SAY["nan"])
    count, wins = len(differences), sum(d > 0 for d in differences)
    evidence = decided(differences, least=_LEAST)
    numbers = _SAY["numbers"](mean=evidence.value, wins=wins, count=count)
    said = _SAY["pass" if evidence.within else "fail"](numbers=numbers)
    details = {"mean": round(mean_std(found["score"])[0], 4), "wins": wins}
    return Verdict(
        label,
        evidence.outcome,
        said,
        round(evidence.value, 4),
        0.0,
        measure,
        details,
        evidence=evidence,
    )
