"""Does the model need what a map puts first? Insertion and deletion, held against random maps on the same images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from camlucida.audits.deadzone.images import described
from camlucida.audits.report import AuditReport
from camlucida.audits.sanity.audit import network
from camlucida.audits.sanity.measures import Bench, grouped, maps_of
from camlucida.audits.verdicts import UNEXPLAINED, Outcome, Sentence, Verdict
from camlucida.common.provenance import fingerprint
from camlucida.common.statistics import mean_std
from camlucida.common.store import Store
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import resize
from camlucida.engine.outputs import first_tensor
from camlucida.metrics.curves import area, blank, path
from camlucida.report import Table

if TYPE_CHECKING:
    from camlucida.audits.request import Request

_CELLS = 7  # side of a random map before it is enlarged: as coarse as a CAM's
_DRAWS = 2
_ENOUGH = 3  # images, below which the spread of their differences says nothing

ABOUT = (
    "Pixels are taken away in the order of the map (deletion), and put back into a blurred image in that order "
    "(insertion), while the probability of the predicted class is watched. A map that names what the model needs makes "
    "it fall early and rise early. The number is the area under insertion less that under deletion, and it is held "
    "against that of random maps as coarse as a CAM on the same images."
)


def random_maps(inputs: Tensor, seed: int, cells: int = _CELLS) -> Tensor:
    """Maps ``(N, H, W)`` that know nothing: uniform noise on a coarse grid, enlarged."""
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(inputs), cells, cells, generator=generator)
    return resize(drawn.to(inputs.device), size)


def faithfulness(bench: Bench, maps: Tensor, steps: int = 10) -> list[float]:
    """Area under insertion less that under deletion, per image; -1 to 1, higher is better.

    Args:
        bench: the model and the images.
        maps: ``(N, H, W)``.
        steps: in how many steps all pixels change.
    """
    step = -(-maps[0].numel() // steps)
    with borrowed(bench.model, bench.inputs) as module, torch.no_grad():
        whole = first_tensor(module(bench.inputs.clone())).double().softmax(1)
        clean = whole.gather(1, bench.classes[:, None])[:, 0]
        options: dict[str, Any] = {"step": step, "batch_size": bench.batch_size}
        inserted = path(
            module,
            blank(bench.inputs, "blur"),
            bench.inputs,
            maps,
            bench.classes,
            last=clean,
            **options,
        )
        deleted = path(
            module,
            bench.inputs,
            blank(bench.inputs, "zero"),
            maps,
            bench.classes,
            first=clean,
            **options,
        )
    found: list[float] = (area(inserted) - area(deleted)).double().tolist()
    return found


def audit_faithfulness(request: Request) -> AuditReport:
    """Which methods name what the model needs, on the user's own images.

    Args:
        request: model, images and methods.
    """
    few = request.inputs[: 6 if request.quick else 100]
    bench = Bench.of(
        request.module, few, preprocess=request.preprocess, layer=request.layer,
        seed=request.seed, batch_size=request.batch_size,
    )  # fmt: skip
    steps = 8 if request.quick else 25
    store = Store(
        request.folder,
        {
            "audit": "faithfulness", "model": request.name, "weights": fingerprint(request.module),
            "network": network(request.module), "images": described(few), "steps": steps, "seed": request.seed,
            "layer": request.layer, "preprocess": str(request.preprocess), "batch_size": request.batch_size,
        },
    )  # fmt: skip
    total = len(request.methods) + _DRAWS
    noise = []
    for draw in range(_DRAWS):
        request.say("random maps", draw, total)
        maps = random_maps(few, request.seed + draw)
        noise.append(store.value(f"random-{draw}", partial(faithfulness, bench, maps, steps)))
    base = [
        None if None in values else sum(values) / len(values) for values in zip(*noise, strict=True)
    ]
    found: dict[str, Any] = {}
    done = _DRAWS
    for group in grouped(request.methods):
        kept: dict[str, Any] = {}
        for one in group:
            request.say(f"insertion and deletion, {one.label}", done, total)

            def compute(label: str = one.label, group: Any = group, kept: Any = kept) -> Any:
                if not kept:
                    kept.update(maps_of(bench, group))
                e = kept[label]
                if isinstance(e, str):
                    return {"error": e}
                return {"score": faithfulness(bench, e.maps, steps)}

            found[one.label] = store.value(f"{one.label}-{sorted(one.options.items())}", compute)
            done += 1
    request.say("insertion and deletion", total, total)
    verdicts = tuple(judge(label, values, base) for label, values in found.items())
    better = [v.subject for v in verdicts if v.outcome == "pass"]
    rows: list[tuple[Any, ...]] = [("random maps", round(mean_std(base)[0], 3), None, len(base))]
    rows += [(v.subject, v.details.get("mean"), v.value, len(base)) for v in verdicts if v.details]
    return AuditReport(
        "faithfulness",
        f"Faithfulness on {request.name}",
        ABOUT,
        f"{len(better)} of {len(verdicts)} methods name what the model needs clearly better than random maps do on "
        f"{len(few)} images.",
        verdicts,
        (
            Table.of_rows(
                "faithfulness",
                "Insertion less deletion",
                ("method", "mean", "more than random maps", "images"),
                rows,
            ),
        ),
        (),
        {
            "steps": steps,
            "images": len(few),
            "random": noise,
            "measured": found,
            "seed": request.seed,
            "resumed_parts": store.found,
        },
    )


def judge(label: str, found: Mapping[str, Any], base: Sequence[float | None]) -> Verdict:
    """Whether a method does better than random maps, image by image.

    It passes where the mean difference is more than twice its standard error on three images or more, and fails
    where it is not above 0.

    Args:
        label: of the method.
        found: ``score`` per image, ``None`` where the model returned NaN; or ``error``.
        base: the score of random maps on the same images.
    """
    measure = "insertion less deletion, more than random maps"
    if "error" in found:
        return Verdict(label, "not tested", UNEXPLAINED(error=found["error"]))
    pairs = zip(found["score"], base, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    if not differences:
        return Verdict(label, "not tested", _NAN)
    count = len(differences)
    mean, std = mean_std(differences)
    error = std / math.sqrt(count)
    wins = sum(d > 0 for d in differences)
    clear = mean > 2 * error and count >= _ENOUGH
    outcome: Outcome = "fail" if mean <= 0 else "pass" if clear else "warn"
    said = _SAID[outcome](
        mean=mean,
        spread=f"standard error {error:.3f}; " if count > 1 else "",
        wins=wins,
        count=count,
        few=", too few to be sure" if count < _ENOUGH else "",
    )
    details = {"mean": round(mean_std(found["score"])[0], 4), "error": error, "wins": wins}
    return Verdict(label, outcome, said, round(mean, 4), 0.0, measure, details)


_NUMBERS = (
    ": insertion less deletion is {mean:+.3f} against random maps ({spread}better on {wins} of {count:n image}"
    "{few})."
)
_SAID = {
    "pass": Sentence("needed", f"The model needs the pixels that it puts first{_NUMBERS}"),
    "warn": Sentence(
        "perhaps needed",
        f"The model may need the pixels that it puts first, but not clearly so{_NUMBERS}",
    ),
    "fail": Sentence(
        "not needed",
        "On these images the pixels that it puts first did not matter more to the model than random ones"
        f"{_NUMBERS}",
    ),
}
_NAN = Sentence("nan", "The model returned NaN, so that nothing can be compared.")
