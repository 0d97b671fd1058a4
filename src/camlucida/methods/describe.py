"""A method's page: what it is for, and its options with what they may be."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, get_type_hints

from camlucida.common.limits import allowed
from camlucida.methods.registry import WRAPPING, MethodRow, method_row

_WIDTH = 96
_WRAPPING = {
    "aug_smooth": "the mean over flipped and dimmed copies of the photo",
    "eigen_smooth": "the map's first principal direction, where the method weighs channels",
    "both_sides": "what speaks for the target, and what against it, where the method asks for one",
}


@dataclass(frozen=True)
class OptionPage:
    """An option of a method.

    Attributes:
        name: what users write.
        default: what it is without.
        allowed: what it may be, in words; empty where that is not known.
        text: what it does, with its unit; empty where nobody wrote it.
    """

    name: str
    default: Any
    allowed: str
    text: str


@dataclass(frozen=True, repr=False)
class MethodPage:
    """What there is to know of a method.

    Attributes:
        row: the registry's row, with paper, needs and cost.
        options: its options, those of the target that its name stands for first.

    Example:
        >>> page = camlucida.describe_method("fame")
        >>> page.options[0].name, page.options[0].allowed
        ('iterations', 'a whole number in [1, 1000000] or auto')
    """

    row: MethodRow
    options: tuple[OptionPage, ...]

    def to_dict(self) -> dict[str, Any]:
        """Name, facts and options, ready for JSON."""
        return {**self.facts, "options": [asdict(option) for option in self.options]}

    @property
    def facts(self) -> dict[str, str]:
        """What it is, in words."""
        row = self.row
        return {
            "name": row.name,
            "use": row.use,
            "what": words_of(row.summary),
            "paper": row.source_in_words,
            "needs": row.needs_in_words,
            "class": "decides the map" if row.discriminative else "makes no difference",
            "cost": row.cost_in_words,
            "remark": row.remark,
        }

    def __repr__(self) -> str:
        """The page as text."""
        name, *facts = self.facts.items()
        lines = [name[1], *(f"  {key:8}{_folded(text, 10)}" for key, text in facts if text)]
        lines += ["", "Options" if self.options else "No options of its own."]
        for one in self.options:
            lines.append(f"  {one.name}={_written(one.default)}")
            lines += [f"      {_folded(text, 6)}" for text in (one.allowed, one.text) if text]
        lines += ["", "Options of every method"]
        lines += [f"  {option}=true  {_WRAPPING[option]}" for option in WRAPPING]
        return "\n".join(lines)


def describe_method(name: str) -> MethodPage:
    """A method's page: what it is for, what it needs and costs, and its options.

    Raises:
        MethodError: for an unknown name, with the nearest ones.

    Example:
        >>> camlucida.describe_method("gradcam").options
        ()
    """
    row = method_row(name)
    found: dict[str, OptionPage] = {}
    for owner in (row.target, row.make):
        if owner is not None:
            found |= {one.name: one for one in _options(owner, row)}
    return MethodPage(row, tuple(found.values()))


def _options(owner: Callable[..., Any], row: MethodRow) -> Iterator[OptionPage]:
    try:
        hints = get_type_hints(owner, include_extras=True)
    except Exception:  # a type of the user's own that only a type checker can see
        hints = {}
    texts = _texts(owner)
    for name, option in row.settable.items():
        if name in WRAPPING or (name not in hints and name not in texts):
            continue
        may_be = allowed(hints[name]) if name in hints else ""
        yield OptionPage(name, option.default, may_be, texts.get(name, ""))


def _texts(owner: Callable[..., Any]) -> dict[str, str]:
    """What the documentation of a class says of each of its fields."""
    said: dict[str, str] = {}
    for base in reversed(inspect.getmro(owner) if isinstance(owner, type) else (owner,)):
        doc = inspect.cleandoc(base.__doc__ or "")
        part = re.search(r"^(?:Attributes|Args):\n((?:[ ]+.*\n?|\n)+)", doc, re.MULTILINE)
        for name, text in re.findall(
            r"^    (\w+): ((?:.|\n(?!    \w+: |\S))*)", part[1] if part else "", re.MULTILINE
        ):
            said[name] = words_of(" ".join(text.split()))
    return said


def words_of(text: str) -> str:
    """A sentence of the documentation without its marks."""
    text = re.sub(r",? \$[^$]*\\[a-zA-Z]+[^$]*\$", "", text)  # a formula
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"\1", text)
    return re.sub(r"[`$\\]", "", text)


def _folded(text: str, indent: int) -> str:
    return textwrap.fill(text, _WIDTH - indent).replace("\n", "\n" + " " * indent)


def _written(value: Any) -> str:
    """A default as it is written on the command line."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return "/".join(map(_written, value)) or "()"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
