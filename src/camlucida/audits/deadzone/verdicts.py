"""What the dead-zone audit says: sentences and tables made of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from camlucida.audits.deadzone.activity import LOST, THRESHOLD, Zones, verdict
from camlucida.audits.deadzone.nets import NETS, NetKind, WalledNet
from camlucida.audits.verdicts import Verdict, by_outcome
from camlucida.report import Column, Table

ABOUT = (
    "A wall hides pixels from the model, or cells of a layer from its head, and it is proved that nothing there can "
    "change the output. A map that explains the output and yet is bright there says something that cannot "
    "be true. Cells that the head ignores are no pixels: what lies under them may reach the head through other cells. "
    "Measured is μ, the share of the map's norm on what is dead (0 is right; 100 times that in the "
    "tables). An element-wise method (HiResCAM, LayerCAM, Grad-CAM-EW) is exactly zero on the cells that the "
    "head ignores, at the explained layer; that says nothing about other layers, nor about walls in front of "
    "the input."
)
"""What the audit does, for people."""


def worst(
    label: str, found: Mapping[NetKind, Mapping[str, Any]], zones: Mapping[NetKind, Zones]
) -> Verdict:
    """The verdict over the masked networks: the worse of the two."""
    order = ("not tested", "pass", "warn", "unclear", "fail")
    kinds: tuple[NetKind, ...] = ("masked", "residual")
    said = [verdict(label, found[k][label], zones[k], f"on the {NETS[k]}") for k in kinds]
    return max(said, key=lambda v: order.index(v.outcome))


def summary(verdicts: Sequence[Verdict], unseen: str) -> str:
    """One or two sentences over all methods; ``unseen`` is what is dead, in words."""
    by = by_outcome(verdicts)
    parts = []
    if lit := by["fail"]:
        lights = "method lights" if len(lit) == 1 else "methods light"
        parts.append(f"{len(lit)} {lights} up {unseen}: {', '.join(lit)}.")
    cautious, quiet = by["warn"], by["pass"]
    for names, caution in ((cautious, ", but with a caution that is told below"), (quiet, "")):
        if names:
            does = "does" if len(names) == 1 else "do"
            up = "" if lit else f" light up {unseen}"
            parts.append(f"{len(names)} {does} not{up}{caution}: {', '.join(names)}.")
    if by["unclear"]:
        parts.append(f"Not enough to tell of {len(by['unclear'])}: {', '.join(by['unclear'])}.")
    if by["not tested"]:
        parts.append(f"{len(by['not tested'])} could not be tested here.")
    return " ".join(parts)


def proved(zones: Zones) -> str:
    """What is dead, and why that is certain."""
    parts = []
    for zone in (zones.pixels, zones.cells):
        if zone is None:
            continue
        proof = zone.proof
        text = f"{str(zone)[0].upper()}{str(zone)[1:]}"
        if not zone.empty and "changes" in proof:
            edge = {
                True: "does change them",
                False: "does not change them either",
                None: "has no edge",
            }
            text += (
                f": their gradient is exactly zero in {proof['gradients']} random mixtures of the outputs, and "
                f"{proof['changes']} changes of all of them at once left all {proof['outputs']} outputs of "
                f"{proof['images']} images and as much noise bit for bit the same, while changing just what "
                f"borders on them {edge[proof['border']]}"
            )
        parts.append(text + ".")
    if zones.judged == "cells":
        why = (
            "no pixel is dead"
            if zones.pixels.empty
            else "these pixels are dead without the wall too"
        )
        parts.append(f"Since {why}, methods are judged on the dead cells.")
    return " ".join(parts)


def note(zones: Zones) -> str:
    """What a reader of a table must know."""
    pixels = (
        f"{100 * zones.pixels.uniform:.1f} on the dead pixels" if zones.judged == "pixels" else ""
    )
    cells = (
        ""
        if zones.cells is None or zones.cells.empty
        else f"{100 * zones.cells.uniform:.1f} on the dead cells"
    )
    uniform = " and ".join(part for part in (pixels, cells) if part)
    return (
        "Mean ± standard deviation over the images. μ is of the rectified map before any offset, scaling and blur; of "
        f"the finished map beside it. A constant map scores {uniform}. At most {100 * THRESHOLD:g} passes. Blank is "
        "exactly zero; a quiet dead zone that costs much of what is seen is no virtue (caution above "
        f"{100 * LOST:.0f} %). A dash: not tested, or the method's map has no cells of this layer."
    )


def tuning_table(tuning: Mapping[str, Any], net: NetKind | None = None) -> Table:
    """What Opti-CAM was tried with."""
    return Table.of_rows(
        "-".join(filter(None, ("tuning", net))),
        "Tuning of Opti-CAM" + (f", {NETS[net]}" if net else ""),
        ("learning rate", "steps", Column("average drop", "lower", "%", places=1)),
        [(t["learning_rate"], t["iterations"], t["average_drop"]) for t in tuning["tried"]],
        f"As the paper's authors did, to a low average drop, on {tuning['images']} images; used: "
        f"{tuning['options']}.",
    )


def accuracy_table(nets: Sequence[WalledNet], dead_from: int) -> Table:
    """Accuracies of the stand-ins."""
    kinds = list(nets[0].record.get("accuracy", {}))
    percents = (Column(kind, "higher", places=1) for kind in kinds)
    return Table.of_rows(
        "accuracy",
        "Accuracy, %",
        ("network", "parameters", *percents, Column("training", unit="s", places=0)),
        [
            (
                NETS[net.kind],
                net.record.get("parameters"),
                *(100 * net.record["accuracy"][kind] for kind in kinds),
                net.record.get("seconds"),
            )
            for net in nets
        ],
        f"Digits and photos of the test images were never trained on. The seen part is rows 0 to {dead_from - 1}.",
    )
