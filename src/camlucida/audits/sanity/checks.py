"""The sanity checks, with a bound for each and its reason."""

from __future__ import annotations

from dataclasses import dataclass

ALIKE = 0.5
"""Largest mean rank correlation with the map of a network that knows nothing: a quarter of the ranks' variance."""

SAME_CLASS = 0.9
"""Largest mean rank correlation of the maps of two classes."""

SHIFTED = 1e-3
"""Largest mean change of a map, as a share of its largest value, when nothing that matters has changed."""

COMMON = 1e-6
"""Largest mean squared difference of maps in [0, 1] when no probability has changed: a thousandth of the range."""

REPRODUCED = 0.95
"""Least mean correlation with the map of an image that nobody tells apart: below, a tenth of its variance is noise."""

USABLE = 0.1
"""Largest share of the maps that may hold nothing."""

ROUNDING = 1e-3
"""Largest difference of a map in [0, 1] between an image alone and in its batch."""


@dataclass(frozen=True)
class Check:
    """A sanity check.

    Attributes:
        name: short, for records.
        title: for tables.
        asks: the question, in words.
        bound: what the number is held against, and why, in words.
        measure: what the number is.
        serious: whether failing it says that the map cannot be trusted; else that it is to be read with caution.
        part: of the measurements that it is judged by; its own name where this is empty.
        numbers: of the measurements, those without which nothing can be said.
        learned: what the map is to depend on.
        other: what the map is compared with, or what is said where it is another.
        on_this_model: whether it is measured on the audited model.
        brief: whether a quick audit of all makes it: not what takes double precision or another network.
    """

    name: str
    title: str
    asks: str
    bound: str
    measure: str
    serious: bool = True
    part: str = ""
    numbers: str = ""
    learned: str = ""
    other: str = ""
    on_this_model: bool = True
    brief: bool = True


CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(
            "parameters", "weights redrawn",
            "Does the map depend on what the model has learned?",
            f"At most {ALIKE:g} in size: with more, over a quarter of the map's order would come from architecture and "
            "image alone. Unrelated maps of a few images scatter around 0 by 0.1 to 0.2.",
            "rank correlation with the map of the model with all weights redrawn",
            learned="the weights", other="a model with random weights",
        ),
        Check(
            "data", "labels shuffled",
            "Does the map depend on what the labels mean?",
            f"At most {ALIKE:g} in size, as for the weights. Measured on two small networks, not on the audited model.",
            "rank correlation between two small networks that learned true and shuffled labels",
            brief=False, serious=False, learned="the labels", other="a network that learned shuffled labels",
            on_this_model=False,
        ),
        Check(
            "class", "other class",
            "Does the map of another class look different?",
            f"At most {SAME_CLASS:g}: with more, the two maps order the places almost alike.",
            "rank correlation of the maps of the most and the least probable class",
        ),
        Check(
            "usable", "usable maps",
            "Do the maps hold anything?",
            f"At most {100 * USABLE:g} % of the maps may be constant, blank after rectifying, not finite, or of a "
            "layer that the score does not depend on.",
            "share of maps that hold nothing",
            part="behaviour",
        ),
        Check(
            "repeat", "same again",
            "Does the same seed give the same map?",
            "No difference at all.",
            "largest difference of a map in [0, 1] between two runs",
            part="behaviour", other="The same seed gives another map",
        ),
        Check(
            "single", "alone as in a batch",
            "Does an image alone get the map that it gets in a batch?",
            f"At most {ROUNDING:g}, which leaves room for rounding. Needs two images and a batch size of 2.",
            "largest difference of a map in [0, 1]",
            part="behaviour", other="An image alone gets another map than in its batch",
        ),
        Check(
            "reproducible", "comes out again",
            "Does the map stay when each pixel is changed by at most one grey level, which nobody sees?",
            f"At least {REPRODUCED:g}: with less, over a tenth of the map's variance would be noise. Needs "
            "the model's preprocessing.",
            "correlation of the finished map with that of the jittered image",
            serious=False, numbers="again",
        ),
        Check(
            "state", "model untouched",
            "Is the model afterwards what it was?",
            "Weights, buffers, training flags, gradients, hooks and random state are all unchanged.",
            "number of kinds of things that were changed",
            part="behaviour",
        ),
        Check(
            "input shift", "input shifted",
            "Does the map stay when all pixels are shifted by a constant and the first layer makes up for it?",
            f"At most {SHIFTED:g} of the map's largest value; in double precision rounding is far below.",
            "largest change over largest value of the map",
            brief=False, serious=False, numbers="change",
        ),
        Check(
            "logit shift", "logits shifted",
            "Does the map stay when all logits are raised equally, so that no probability changes?",
            f"At most {COMMON:g}, a thousandth of the map's range; in double precision rounding is far below.",
            "mean squared difference of the maps in [0, 1]",
            brief=False, serious=False, numbers="own",
        ),
        Check(
            "completeness", "sum kept",
            "Does the map sum to what the method promises?",
            "At most 0.1 % of the explained score may be missing, for integrated gradients 5 % (its authors' "
            "rule). Judged only where the method's formula promises the sum for this model.",
            "share of the explained score that is missing",
            brief=False, serious=False, numbers="missing",
        ),
    )
}  # fmt: skip
"""In the order in which they are shown."""
