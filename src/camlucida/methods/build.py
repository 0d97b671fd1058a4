"""Methods from names and options."""

from __future__ import annotations

import difflib
from typing import Any

from camlucida.common.errors import CamlucidaError, MethodError
from camlucida.methods.base import Method
from camlucida.methods.registry import Entry, entry
from camlucida.targets import Target, TargetLike, as_target


def build(name: str, target: TargetLike = None, **options: Any) -> tuple[Method, Target]:
    """A method and its target from a registered name and options.

    A name that stands for a kind of target (``diffgradcam``) sends its target's options there and turns
    classes into such a target.

    Args:
        name: registered name.
        target: what is explained.
        **options: the method's fields, and those of its target where the name implies one; ``aug_smooth=True``
            and ``eigen_smooth=True`` with every method.

    Raises:
        MethodError: for an unknown name or option, an invalid value, or a target of another kind.
    """
    from camlucida.methods.smoothing import SMOOTHING, smoothed

    row = entry(name)
    smoothing = {option: options.pop(option) for option in SMOOTHING if option in options}
    known, for_target = row.options, row.target_options
    for option in options:
        if option not in known and option not in for_target:
            near = difflib.get_close_matches(option, [*known, *for_target, *SMOOTHING], n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            listed = ", ".join([*for_target, *known, *SMOOTHING])
            raise MethodError(f"{row.name} has no option {option!r}{hint} (options: {listed})")
    if row.target is not None:
        target = _as_kind(row, target, {k: v for k, v in options.items() if k in for_target})
    try:
        method = row.method(**{k: v for k, v in options.items() if k in known})
    except CamlucidaError as error:
        raise MethodError(f"{row.name}: {error}") from error
    return smoothed(method, **smoothing), as_target(target)


def _as_kind(row: Entry, target: TargetLike, options: dict[str, Any]) -> Target:
    assert row.target is not None  # noqa: S101
    if isinstance(target, row.target):
        if options:
            raise MethodError(
                f"{row.name}: set {', '.join(options)} on the {row.target.__name__} target itself"
            )
        return target
    wanted = as_target(target)
    if type(wanted).__name__ != "Logit":
        raise MethodError(
            f"{row.name} explains a {row.target.__name__}, but the target is a {type(wanted).__name__}; "
            f"use {row.method.__name__} for other targets"
        )
    return row.target(classes=wanted.classes, **options)  # type: ignore[attr-defined, call-arg]
