"""Which class of the model a label of a data set means."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from camlucida.common.errors import TargetError
from camlucida.data.class_names import resolve_class

_SYNSET = re.compile(r"n\d{8}")


def class_of(label: str, class_names: Sequence[str] | None) -> int:
    """The model's class that a label of a data set means.

    Args:
        label: an index, a class name or one of its synonyms; a part of a name is too little to trust a label
            with. For ImageNet's 1000 classes also a synset such as ``n02123045``.
        class_names: the model's; without names only indices are understood.

    Raises:
        TargetError: it means none of them.
    """
    if _SYNSET.fullmatch(label) and class_names and len(class_names) == 1000:
        return synset_class(label)
    index = resolve_class(label, class_names)
    if index < 0 or (class_names and index >= len(class_names)):
        raise TargetError(
            f"the label {label!r} names class {index}, but the model has "
            f"{len(class_names) if class_names else 'no negative'} classes"
        )
    if class_names and not re.fullmatch(r"\s*\+?\d+\s*", label):
        whole, plain = _plain(label), _plain(class_names[index])
        if whole != plain and whole not in [part.strip() for part in plain.split(",")]:
            raise TargetError(
                f"the label {label!r} is only a part of {class_names[index]!r}; rename it to the index "
                f"{index}, the name or one of its synonyms"
            )
    return index


def is_synset(label: str) -> bool:
    """Whether a label looks like a WordNet synset."""
    return _SYNSET.fullmatch(label) is not None


def synset_class(label: str) -> int:
    """The ImageNet class, 0 to 999, of a WordNet synset.

    Raises:
        TargetError: it is none of the 1000, or timm, which lists them, is not installed.
    """
    known = imagenet_synsets()
    if known is None:
        raise TargetError(f"the label {label!r} is a synset, which needs timm; pip install timm")
    if label not in known:
        raise TargetError(f"the label {label!r} names none of ImageNet's 1000 synsets")
    return known[label]


@cache
def imagenet_synsets() -> dict[str, int] | None:
    """The class of each of ImageNet's 1000 synsets as timm lists them; ``None`` without timm."""
    try:
        from timm.data import ImageNetInfo
    except ImportError:
        return None
    return {str(name): index for index, name in enumerate(ImageNetInfo().label_names())}


class Classes:
    """Looks labels up once each, and counts those that the model does not know.

    Args:
        class_names: the model's.
    """

    def __init__(self, class_names: Sequence[str] | None) -> None:
        self.class_names = class_names
        self._known: dict[str, int | None] = {}
        self._reasons: dict[str, str] = {}
        self._unknown: Counter[str] = Counter()

    def find(self, label: str) -> int | None:
        """The model's class, or ``None``, which is counted."""
        if label not in self._known:
            try:
                self._known[label] = class_of(label, self.class_names)
            except TargetError as error:
                self._known[label] = None
                self._reasons[label] = str(error)
        if self._known[label] is None:
            self._unknown[label] += 1
        return self._known[label]

    def skipped(self, where: Path, what: str = "photo") -> list[tuple[Path, str]]:
        """One line for each unknown label: how many photos it cost, and why."""
        return [
            (where, f"{count} {what}{'s' if count > 1 else ''} left out: {self._reasons[label]}")
            for label, count in self._unknown.items()
        ]

    def reason(self) -> str:
        """Why the first unknown label is unknown; empty where all are known."""
        return next((self._reasons[label] for label in self._unknown), "")


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
