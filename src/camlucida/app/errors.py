"""Why the page refuses something, with the status that the browser gets."""

from __future__ import annotations

from typing import ClassVar

from camlucida.common.errors import CamlucidaError


class PageError(CamlucidaError):
    """What was asked makes no sense."""

    status: ClassVar[int] = 422


class GoneError(PageError):
    """What was asked for is not kept any more, or never was."""

    status = 404


class TooLargeError(PageError):
    """More was sent than is taken."""

    status = 413


class BusyError(PageError):
    """The queue is full."""

    status = 429


class ClosedError(PageError):
    """The page is being closed."""

    status = 503


class TimeOverError(PageError):
    """A job ran longer than it may."""
