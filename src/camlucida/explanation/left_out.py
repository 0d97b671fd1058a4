"""Methods of a comparison that cannot run: each costs only itself, and is named with the reason."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from camlucida.common.errors import CamlucidaError, ImageError
from camlucida.common.optional import first_line
from camlucida.engine.chunks import out_of_memory


class LeftOut:
    """Which of several methods failed, and why.

    Args:
        labels: the methods.
        strict: raise what goes wrong with any of them. One method alone always raises.
    """

    def __init__(self, labels: Sequence[str], *, strict: bool) -> None:
        self._labels = labels
        self._strict = strict or len(labels) == 1
        self._errors: dict[int, Exception] = {}

    def again(self) -> LeftOut:
        """The same for other images: what has failed so far stays left out."""
        other = LeftOut(self._labels, strict=self._strict)
        other._errors |= self._errors
        return other

    def __contains__(self, position: int) -> bool:
        """Whether the method at a position has failed."""
        return position in self._errors

    @property
    def reasons(self) -> tuple[tuple[str, str], ...]:
        """The methods that failed, each with the reason."""
        return tuple((self._labels[i], reason(error)) for i, error in self._errors.items())

    @contextmanager
    def trying(self, position: int) -> Iterator[None]:
        """Remember what goes wrong with a method.

        Raises:
            Exception: what concerns the images or the memory, and not one method; or no method is left.
        """
        try:
            yield
        except Exception as error:
            if self._strict or isinstance(error, ImageError) or out_of_memory(error):
                raise
            self._errors[position] = error
            if len(self._errors) < len(self._labels):
                return
            first = next(iter(self._errors.values()))
            if len({reason(one) for one in self._errors.values()}) == 1:
                raise first from None
            told = "; ".join(f"{label}: {why}" for label, why in self.reasons)
            kind = type(first) if isinstance(first, CamlucidaError) else CamlucidaError
            raise kind(f"none of the methods can run: {told}") from error


def reason(error: BaseException) -> str:
    """Why something does not fit a model, in a line."""
    if isinstance(error, CamlucidaError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"
