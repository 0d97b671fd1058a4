"""Noisy linear imputation: ours, pytorch-grad-cam's, and how far ours is from the sparse solve.

``python -m benchmarks.road`` from the root; see ``benchmarks/README.md``.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from benchmarks.command import Others, random_images
from pytorch_grad_cam.metrics.road import NoisyLinearImputer
from rich.console import Console
from torch import Tensor

from camlucida.metrics.imputation.impute import impute
from camlucida.metrics.ranking import removal_masks

PERCENTAGES = (5, 10, 30, 50, 70, 90, 95)
OURS_PER_ROUND = 3
"""Ours is timed so often for each time of the peer, which takes longer."""


Times = tuple[list[float], list[float]]


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


def interleaved(ours: Callable[[], object], theirs: Callable[[], object], rounds: int) -> Times:
    """Milliseconds of processor time of each, in turns, after one run untimed."""
    ours(), theirs()
    found: Times = ([], [])
    for _ in range(rounds):
        for _ in range(OURS_PER_ROUND):
            found[0].append(_timed(ours))
        found[1].append(_timed(theirs))
    return found


def _timed(run: Callable[[], object]) -> float:
    start = time.process_time()
    run()
    return 1000 * (time.process_time() - start)


def error(image: Tensor, removed: Tensor) -> float:
    """Largest difference between ours without noise and the sparse solve, double precision."""
    from scipy.sparse import csc_matrix
    from scipy.sparse.linalg import spsolve

    setup = NoisyLinearImputer.setup_sparse_system
    weights = NoisyLinearImputer().weighting
    matrix, right = setup((~removed).float().numpy(), image.double().numpy(), weights)
    wanted = torch.from_numpy(spsolve(csc_matrix(matrix), right).T)
    found = impute(image[None], removed[None], noise=0.0)[0][:, removed]
    return float((found - wanted).abs().max())


def main() -> None:
    """Measure, and print each row as soon as it is there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    image = random_images(1, options.size, "cpu", options.seed)
    image = (image - image.amin()) / (image.amax() - image.amin())
    imputer, others, console = NoisyLinearImputer(), Others(), Console(width=110)
    row = "{:<12}{:>10}{:>11}{:>11}{:>13}{:>15}".format
    console.print(row("mask", "removed", "ours, ms", "peer, ms", "peer / ours", "largest error"))
    for kind, values in maps(options.size, options.seed).items():
        removed = removal_masks(values[None], PERCENTAGES, "rank")
        total = 0.0
        for k, p in enumerate(PERCENTAGES):
            kept = (~removed[0, k]).float()
            times = interleaved(
                partial(impute, image, removed[:, k]),
                partial(imputer, image[0], kept),
                options.rounds,
            )
            ours, theirs = map(statistics.median, times)
            total += theirs
            wrong = error(image[0], removed[0, k])
            ratio = f"{theirs / ours:.1f}"
            console.print(
                row(kind, f"{p} %", f"{ours:.1f}", f"{theirs:.1f}", ratio, f"{wrong:.0e}")
            )
        impute(image, removed)
        runs = [_timed(partial(impute, image, removed)) for _ in range(OURS_PER_ROUND)]
        ours, theirs = (x / len(PERCENTAGES) for x in (statistics.median(runs), total))
        console.print(
            row(kind, "all, each", f"{ours:.1f}", f"{theirs:.1f}", f"{theirs / ours:.1f}", "")
        )
    load = others.load()
    console.print(
        f"{options.size} px, {options.threads} thread(s), processor time, medians of {options.rounds} rounds; "
        + ("" if load is None else f"other programs kept {load:.2f} cores busy")
    )


if __name__ == "__main__":
    main()
