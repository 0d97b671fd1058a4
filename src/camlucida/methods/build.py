"""Methods from names and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from camlucida.common.errors import MethodError
from camlucida.common.grammar import refuse_unknown
from camlucida.methods.base import Method
from camlucida.methods.registry import METHODS, WRAPPING, MethodRow
from camlucida.targets import Target, TargetLike, as_target

F = TypeVar("F", bound=Method)


def build(name: str, target: TargetLike = None, **options: Any) -> tuple[Method, Target]:
    """A method and its target from a registered name and options.

    A name that stands for a kind of target (``diffgradcam``) sends its target's options there and turns
    classes into such a target.

    Args:
        name: registered name, also with options as the command line writes them: ``fame:iterations=5``.
        target: what is explained.
        **options: the method's fields, and those of its target where the name implies one; ``aug_smooth=True``,
            ``eigen_smooth=True`` and ``both_sides=True`` with every method.

    Raises:
        MethodError: for an unknown name or option, an invalid value, or a target of another kind.

    Example:
        >>> method, target = camlucida.methods.build("fame:iterations=5")
        >>> method.iterations
        5
    """
    from camlucida.methods.smoothing import wrapped

    row, written = METHODS.read(name)
    refuse_unknown(row.name, options, row.settable, MethodError)
    options = written | options
    known, for_target = row.options, row.target_options
    if row.target is not None:
        target = _as_kind(row, target, {k: v for k, v in options.items() if k in for_target})
    method = row.build(**{k: v for k, v in options.items() if k in known})
    wrapping = {k: v for k, v in options.items() if k in WRAPPING}
    return wrapped(method, **wrapping), as_target(target)


def build_as(family: type[F], method: F | str) -> F:
    """A method of one family, from the text that the command line takes where it is no object.

    Raises:
        MethodError: it is another method, or an option is wrong.

    Example:
        >>> camlucida.methods.build_as(camlucida.methods.FAME, "fame:iterations=5").iterations
        5
    """
    made = build(method)[0] if isinstance(method, str) else method
    if not isinstance(made, family):
        names = [row.name for row in METHODS if row.make is family]
        raise MethodError(
            f"this works with {family.__name__} only, as in {names[0]}:key=value, got {method!r}"
        )
    return made


def read_method(
    method: str | tuple[str, Mapping[str, Any]], target: TargetLike = None
) -> tuple[str, dict[str, Any]]:
    """A method's registered name and the options that are written.

    Args:
        method: a name, ``gradcam``; a name with options, ``gradcam++:form=true``; or a pair of both.
        target: what is to be explained.

    Raises:
        MethodError: as :func:`build`, which is tried.

    Example:
        >>> camlucida.methods.read_method("FAME:iterations=5")
        ('fame', {'iterations': 5})
    """
    text, more = (method, {}) if isinstance(method, str) else method
    build(text, target, **more)
    row, options = METHODS.read(text)
    return row.name, options | dict(more)


def _as_kind(row: MethodRow, target: TargetLike, options: dict[str, Any]) -> Target:
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
            f"{row.name} explains {row.target.__name__}, but the target is {type(wanted).__name__}; "
            f"use {row.make.__name__} for other targets"
        )
    return row.target(classes=wanted.classes, **options)  # type: ignore[attr-defined, call-arg]
