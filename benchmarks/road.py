"""Noisy linear imputation: ours, pytorch-grad-cam's, and how far both are from the sparse solve.

``python -m benchmarks.road`` from the root; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from benchmarks.command import Others, random_images
from benchmarks.timing import Contender, Row, Task, measure, peers
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from camlucida.metrics.imputation import impute
from camlucida.metrics.ranking import removal_masks

PERCENTAGES = (5, 10, 30, 50, 70, 90, 95)
OURS, TOGETHER, THEIRS = "impute", "impute, all P at once", "NoisyLinearImputer"


class Blur(nn.Module):
    """What the harness runs around each contender, in place of a model."""

    def forward(self, x: Tensor) -> Tensor:
        """Blur ``(N, C, H, W)``."""
        return F.avg_pool2d(x, 9, 1, 4)


def maps(size: int, seed: int) -> dict[str, Tensor]:
    """One map of each kind, ``(size, size)``."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 7)] * 2, indexing="ij")
    bump = torch.exp(-((y - 0.2) ** 2 + (x + 0.25) ** 2) / 0.3)
    peak = bump + 0.15 * torch.rand(7, 7, generator=generator)
    spots = torch.rand(7, 7, generator=generator)
    larger = partial(F.interpolate, size=(size, size), mode="bilinear", align_corners=False)
    return {
        "one peak": larger(peak[None, None])[0, 0],
        "many peaks": larger(spots[None, None])[0, 0],
        "scattered": torch.rand(size, size, generator=generator),
    }


def contenders(task: Task, masks: dict[str, Tensor]) -> Iterator[Contender]:
    """One row per kind, percentage and library; one per kind for all percentages together."""
    for kind, removed in masks.items():
        for k, p in enumerate(PERCENTAGES):
            name = f"{kind} {p} %"
            yield Contender(name, OURS, partial(impute, task.inputs, removed[:, k]))
            yield from peers(
                task,
                (THEIRS, "pytorch_grad_cam.metrics.road", partial(_theirs, name, removed[:, k])),
            )
        yield Contender(kind, TOGETHER, partial(impute, task.inputs, removed))


def _theirs(
    name: str, removed: Tensor, package: Any, library: str, task: Task
) -> Iterator[Contender]:
    imputer = package.NoisyLinearImputer()
    kept = (~removed[0]).float()
    yield Contender(name, library, lambda: imputer(task.inputs[0], kept))


def error(image: Tensor, removed: Tensor) -> float:
    """Largest difference between ours without noise and the sparse solve, double precision."""
    from pytorch_grad_cam.metrics.road import NoisyLinearImputer
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import spsolve

    setup = NoisyLinearImputer.setup_sparse_system
    weights = NoisyLinearImputer().weighting
    matrix, right = setup((~removed).float().numpy(), image.double().numpy(), weights)
    wanted = torch.from_numpy(spsolve(csc_matrix(matrix), right).T)
    found = impute(image[None], removed[None], noise=0.0)[0][:, removed]
    return float((found - wanted).abs().max())


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = random_images(1, options.size, "cpu", options.seed)
    image = (image - image.amin()) / (image.amax() - image.amin())
    masks = {
        kind: removal_masks(values[None], PERCENTAGES, "rank")
        for kind, values in maps(options.size, options.seed).items()
    }
    others = Others()
    task = Task(Blur().eval(), "", image, (0,))
    rows = measure(task, contenders(task, masks), rounds=options.rounds, seed=options.seed)
    load = others.load()
    by_name = {(row.contender.library, row.contender.name): row for row in rows}
    table = Table("mask", "removed", "ours, ms", "peer, ms", "peer / ours", "largest error")
    for kind, removed in masks.items():
        for k, p in enumerate(PERCENTAGES):
            ours, theirs = (by_name.get((lib, f"{kind} {p} %")) for lib in (OURS, THEIRS))
            cells = [
                _ms(ours),
                _ms(theirs),
                _ratio(theirs, ours),
                f"{error(image[0], removed[0, k]):.0e}",
            ]
            table.add_row(kind, f"{p} %", *cells)
        together = by_name[TOGETHER, kind]
        table.add_row(kind, "all at once", f"{_median(together) / len(PERCENTAGES):.1f} a mask")
        table.add_section()
    console = Console(width=110)
    console.print(table)
    console.print(
        f"{options.size} px, {options.threads} thread(s), medians of {options.rounds} rounds (2 where slow); "
        + ("" if load is None else f"other programs kept {load:.2f} cores busy")
    )


def _median(row: Row) -> float:
    """Milliseconds."""
    return 1000 * statistics.median(row.seconds)


def _ms(row: Row | None) -> str:
    return "-" if row is None or row.error else f"{_median(row):.1f}"


def _ratio(theirs: Row | None, ours: Row | None) -> str:
    if theirs is None or ours is None or theirs.error or ours.error:
        return "-"
    return f"{_median(theirs) / _median(ours):.1f}"


if __name__ == "__main__":
    main()
