"""What iterations and blur do to a FAME map: one run, one picture (FAME poster, figure 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.statistics import correlation
from camlucida.explanation.explain import explain
from camlucida.explanation.overlays import View, grid, overlay
from camlucida.explanation.photos import Photo
from camlucida.methods.build import build_as
from camlucida.methods.fame import FAME, SIGMA
from camlucida.models import LoadedModel
from camlucida.report import Column, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


ITERATIONS = (75, 200, 500)
SIGMAS = (0, 2, 4, SIGMA, 15)


@dataclass(frozen=True)
class Smoothing:
    """FAME maps of one image by iteration count and blur.

    Attributes:
        maps: attribution maps ``(H, W)`` in [0, 1] by (iterations, sigma).
        view: the picture.

    Example:
        >>> found = camlucida.studies.fame.iterations(model, images[0], iterations=(2,), sigmas=(0,))
        >>> found.figure().savefig("smoothing.png")
    """

    maps: dict[tuple[int, float], Tensor]
    view: View

    @property
    def table(self) -> Table:
        """How each map correlates with that of the most iterations and the paper's blur, or the widest below it."""
        counts, sigmas = (sorted(set(side)) for side in zip(*self.maps, strict=True))
        paper = max([s for s in sigmas if s <= SIGMA] or sigmas)
        wanted = self.maps[max(counts), paper].flatten()
        rows = [
            (str(n), *(float(correlation(self.maps[n, s].flatten(), wanted)) for s in sigmas))
            for n in counts
        ]
        columns: list[str | Column] = ["iterations", *(Column(_blur(s), places=3) for s in sigmas)]
        caption = f"Correlation with the map of {max(counts)} iterations, {_blur(paper)}"
        return Table.of_rows("smoothing", caption, columns, rows)

    def figure(self) -> Figure:
        """A grid: one row per iteration count, one column per sigma."""
        counts = sorted({count for count, _ in self.maps})
        sigmas = sorted({sigma for _, sigma in self.maps})
        pictures = [[overlay(self.view, self.maps[n, s]) for s in sigmas] for n in counts]
        return grid(
            pictures, columns=[_blur(s) for s in sigmas], rows=[f"{n} iterations" for n in counts]
        )


def _blur(sigma: float) -> str:
    return "no blur" if sigma == 0 else f"sigma {sigma:g} px"


def iterations(
    model: nn.Module | LoadedModel,
    image: Photo | Tensor,
    *,
    iterations: Sequence[int] = ITERATIONS,
    sigmas: Sequence[float] = SIGMAS,
    method: FAME | str = "fame",
    **options: Any,
) -> Smoothing:
    """Maps after several iteration counts and with several blurs, from one run.

    Args:
        model: any torch vision model.
        image: one photo, or a tensor ``(C, H, W)``.
        iterations: iteration counts, each at least 1; the largest is how long the run is.
        sigmas: standard deviations of the blur in pixels, 0 for none. The kernel grows with sigma by the
            rule that ties 49 to 7.7.
        method: FAME with its other options, also as text.
        **options: passed on to :func:`camlucida.explain`, such as ``target``.

    Returns:
        The maps.

    Raises:
        MethodError: for an empty list, or a count below 1.

    Example:
        >>> found = camlucida.studies.fame.iterations(model, images[0], iterations=(1, 2), sigmas=(0, 2))
        >>> sorted(found.maps)
        [(1, 0.0), (1, 2.0), (2, 0.0), (2, 2.0)]
    """
    if not iterations or not sigmas or min(iterations) < 1 or min(sigmas) < 0:
        raise MethodError(
            f"iteration counts must be >= 1 and sigmas >= 0, got {list(iterations)} and {list(sigmas)}"
        )
    fame = replace(
        build_as(FAME, method), preset="paper", iterations=max(iterations),
        snapshots=tuple(sorted(set(iterations))),
    )  # fmt: skip
    explanation = explain(model, image, method=fame, **options)
    size = (int(explanation.maps.shape[1]), int(explanation.maps.shape[2]))
    maps = {}
    for count in fame.snapshots:
        moved = explanation.details[f"movement@{count}"][:1]
        for sigma in sigmas:
            blurred = replace(fame, sigma=sigma, kernel=kernel_of(sigma))
            maps[count, float(sigma)] = blurred.steps.finish(blurred.smoothed(moved), size)[0]
    return Smoothing(maps, explanation.views[0])


def kernel_of(sigma: float) -> int:
    """The odd kernel for which OpenCV and torchvision choose this sigma: 49 for 7.7."""
    return max(1, 2 * round((sigma - 0.8) / 0.3 + 1) + 1)
