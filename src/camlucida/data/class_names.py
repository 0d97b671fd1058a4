"""Class names: read them, and find the class that a user or a label of a data set means."""

from __future__ import annotations

import difflib
import json
import operator
import os
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from camlucida.common.arguments import argument
from camlucida.common.errors import ModelError, TargetError
from camlucida.common.files import check_regular

if TYPE_CHECKING:
    from collections.abc import Sequence

_SYNSET = re.compile(r"n\d{8}")
_LARGEST = 2**26  # bytes; a million classes of 64 letters each

_FEW = 12  # classes, all of which an error names
_DIGITS = 12  # of the index of a class, with its sign; more is refused unread


def read_class_names(source: Sequence[str] | str | os.PathLike[str]) -> tuple[str, ...]:
    """Class names from a list or a file.

    Args:
        source: The names in order; or the path of a text file with one name per line, or of a JSON
            file with a list of names.

    Returns:
        The names, stripped of white space around them.

    Raises:
        ModelError: The file cannot be read, holds something else, or a name is empty.

    Example:
        >>> camlucida.data.read_class_names(["tabby, tabby cat", " lemon "])
        ('tabby, tabby cat', 'lemon')
    """
    if isinstance(source, str | os.PathLike):
        where = f"the class names in {os.fspath(source)!r}"
        names = _read(Path(source), where)
    else:
        where, names = "class_names", list(source)
    if not names or not all(isinstance(name, str) for name in names):
        raise ModelError(f"{where} must be a list of one or more strings")
    stripped = tuple(name.strip() for name in names)
    if "" in stripped:
        raise ModelError(f"{where}: number {stripped.index('')} (counted from 0) is empty")
    return stripped


def _read(path: Path, where: str) -> list[str]:
    check_regular(path, "file of class names", ModelError, most=_LARGEST)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(f"{where} are not UTF-8 text; save the file as UTF-8") from error
    except OSError as error:
        raise ModelError(f"{where} cannot be read: {error.strerror or error}") from error
    if not text.lstrip().startswith(("[", "{")):
        return text.strip().splitlines()
    try:
        names = json.loads(text)
    except json.JSONDecodeError as error:
        raise ModelError(f"{where} are not valid JSON: {error}") from error
    except RecursionError as error:
        raise ModelError(f"{where} are nested far too deep for a list of names") from error
    if not isinstance(names, list):
        raise ModelError(f"{where} must be a JSON list of strings, not a dictionary")
    return names


def resolve_class(name_or_index: str | int, class_names: Sequence[str] | None) -> int:
    """The index of the class that a user means.

    Case, underscores and runs of white space make no difference. In this order: an integer, or a
    string that looks like one, is the index itself; the whole name; one of its synonyms, which
    commas separate ("tabby" for "tabby, tabby cat"); a part of exactly one name.

    Args:
        name_or_index: Index, name, synonym or part of a name.
        class_names: One name per class; None if the model has none.

    Returns:
        The index. Of an integer the range is not checked: only the model's output knows it.

    Raises:
        TargetError: No class or more than one fits, or there are no names to look in.

    Example:
        >>> camlucida.data.resolve_class("tabby", ["lemon", "tabby, tabby cat"])
        1
    """
    if not isinstance(name_or_index, str):
        try:
            return _index(operator.index(name_or_index))
        except TypeError:
            raise TargetError(
                f"a class is a name or an integer, not {type(name_or_index).__name__}"
            ) from None
    wanted = _plain(name_or_index)
    if re.fullmatch(r"[+-]?\d+", wanted):
        return _index(int(wanted[:_DIGITS]))
    if not class_names:
        raise TargetError(
            f"the class {name_or_index!r} is a name, but this model has no class names; "
            f"give its index, or the names with {argument('class_names')}"
        )
    if not wanted:
        raise TargetError("the class name is empty; give a name or an index")
    plain = [_plain(name) for name in class_names]
    synonyms = [[part.strip() for part in name.split(",")] for name in plain]
    for fitting in (
        [i for i, name in enumerate(plain) if name == wanted],
        [i for i, parts in enumerate(synonyms) if wanted in parts],
        [i for i, name in enumerate(plain) if wanted in name],
    ):
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            shown = ", ".join(f"{i} ({class_names[i]})" for i in fitting[:6])
            more = f" and {len(fitting) - 6} more" if len(fitting) > 6 else ""
            raise TargetError(
                f"the class {name_or_index!r} could be {shown}{more}; give the index or a full name"
            )
    every = {part: i for i, parts in reversed(list(enumerate(synonyms))) for part in parts}
    near = difflib.get_close_matches(wanted, every, n=3, cutoff=0.6)
    shown = ", ".join(f"{every[part]} ({class_names[every[part]]})" for part in near)
    few = ", ".join(map(repr, class_names[:_FEW]))
    all_ = f"there are {few}" if len(class_names) <= _FEW else f"the first are {few}"
    hint = f"; the nearest are {shown}" if near else f"; {all_}"
    raise TargetError(f"no class is called {name_or_index!r}{hint}")


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


def _index(number: int) -> int:
    if abs(number) >= 10 ** (_DIGITS - 2):
        raise TargetError(f"no model has a class with the index {str(number)[:_DIGITS]}")
    return number


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())
