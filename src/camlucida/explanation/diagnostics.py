"""What is said about a map beside the map itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """A class that the model considers.

    Attributes:
        index: index of the class.
        name: its name, or ``"class 7"`` where names are not known.
        probability: softmax probability, in [0, 1].
        logit: the class's logit.

    Example:
        >>> best = camlucida.explain(model, images).predictions[0][0]
        >>> best.name == f"class {best.index}"
        True
    """

    index: int
    name: str
    probability: float
    logit: float


@dataclass(frozen=True)
class Diagnostics:
    """What a reader of one image's map has to know.

    Attributes:
        raw_min: smallest value of the signed map, before anything is rectified or scaled.
        raw_max: largest value.
        all_negative: no value is positive although some are negative: rectifying leaves nothing.
        constant: every cell has the same value (a zero map, or a 1x1 map).
        finite: ``False`` when the map holds NaN or infinite values; it is then drawn as zeros.
        dead_channels: per layer, the number of channels that are zero everywhere and their total.
        disconnected: layers that the target does not depend on.
        saturated: the softmax rounds to 0 or 1, so that gradients of probabilities vanish.
        notes: remarks of the method.

    Example:
        >>> camlucida.explain(model, images).diagnostics[0].finite
        True
    """

    raw_min: float
    raw_max: float
    all_negative: bool
    constant: bool
    finite: bool
    dead_channels: dict[str, tuple[int, int]]
    disconnected: tuple[str, ...]
    saturated: bool
    notes: tuple[str, ...] = ()

    @property
    def messages(self) -> tuple[str, ...]:
        """Warnings in words; empty where nothing is wrong."""
        found = [
            f"the target does not depend on layer {name!r}: the map is empty"
            for name in self.disconnected
        ]
        if not self.finite:
            found.append("the map held NaN or infinite values and is drawn as zeros")
        elif self.all_negative:
            found.append(
                f"every value is negative ({self.raw_min:.3g} to {self.raw_max:.3g}): the layer holds only "
                "evidence against the target, and rectifying leaves an empty map"
            )
        elif self.constant and not self.disconnected:
            found.append(f"the map is constant ({self.raw_max:.3g}): it singles out no place")
        for name, (dead, total) in self.dead_channels.items():
            if dead == total:
                found.append(f"all {total} channels of layer {name!r} are zero")
        return (*found, *self.notes)


CASES = {
    "confident-right": "confident and right",
    "confident-wrong": "confident and wrong",
    "unsure-right": "unsure and right",
    "unsure-wrong": "unsure and wrong",
}
