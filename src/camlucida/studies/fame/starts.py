"""Starts by iterations: which FAME maps come out again, and how near they are to the mean of many long paths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import correlation
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.explanation.photos import Images
from camlucida.explanation.subject import prepare
from camlucida.methods import Progress
from camlucida.methods.build import build_as
from camlucida.methods.fame import FAME
from camlucida.models import LoadedModel
from camlucida.report import Column, Table

SETTINGS = ((1, 500), (2, 250), (4, 125), (8, 62), (16, 31))
"""Starts and iterations: the paper's one path, and others that take as many passes."""


def starts(
    model: nn.Module | LoadedModel,
    images: Images,
    *,
    settings: Sequence[tuple[int, int]] = SETTINGS,
    method: FAME | str = "fame",
    paths: int = 4,
    steps: int = 500,
    seed: int = 0,
    progress: Progress | None = None,
) -> Table:
    """How well FAME maps of several settings come out again, and agree with the mean movement of long paths.

    Every setting explains each image twice, every time with each pixel changed by at most one grey level and, with
    several starts, by these besides. The predicted class of the unchanged image is explained.

    Args:
        model: any classifier that knows how pixels become inputs.
        images: photos, or inputs ``(N, C, H, W)``.
        settings: pairs of starts and iterations.
        method: FAME with its other options, also as text.
        paths: long paths that the reference is the mean of, at least 2.
        steps: steps of each.
        seed: of everything that is drawn.
        progress: is called with the runs done and their number.

    Returns:
        A row per setting: the passes, the correlation of the two maps (mean and least of the images), and their
        correlation with the reference (mean of the images); the last row is the reference with itself, by halves.

    Raises:
        MethodError: the preprocessing is not known, or fewer than 2 paths.

    Example:
        >>> found = camlucida.studies.fame.starts(loaded, photo, settings=[(2, 1)], paths=2, steps=2)
        >>> [name for name, _ in found.rows]
        ['2 x 1', 'mean of 2 x 2, by halves']
    """
    if paths < 2:
        raise MethodError(f"the reference is the mean of at least 2 paths, got {paths}")
    fame = build_as(FAME, method)
    module, inputs, _, used = prepare(model, images)
    if used is None:
        raise MethodError("what a grey level is, is not known without the model's preprocessing")
    done, total = 0, 2 * len(settings) + 1
    classes: list[int] | None = None

    def explained(count: int, iterations: int, draw: int) -> Explanation:
        nonlocal done
        near = inputs if draw == seed else used.jittered(inputs, ImageGenerators(draw, inputs))
        one = replace(fame, preset="paper", starts=count, iterations=iterations)
        found = explain(module, near, method=one, target=classes, preprocess=used, seed=draw)
        done += 1
        if progress is not None:
            progress(done, total)
        return found

    whole = explained(paths, steps, seed)
    reference, halves = whole.maps.flatten(1), whole.details["halves"]
    classes = [of_image[0].index for of_image in whole.predictions]
    rows: list[tuple[str, int, float, float, float]] = []
    for count, iterations in settings:
        pair = [explained(count, iterations, seed + i).maps.flatten(1) for i in (1, 2)]
        again = correlation(*pair)
        near = torch.stack([correlation(one, reference) for one in pair]).mean(0)
        passes = count * iterations
        name = f"{count} x {iterations}"
        rows.append((name, passes, float(again.mean()), float(again.min()), float(near.mean())))
    name = f"mean of {paths} x {steps}, by halves"
    rows.append((name, paths * steps, float(halves.mean()), float(halves.min()), float("nan")))
    columns = (
        "starts x iterations",
        Column("passes", places=0),
        Column("comes out again", "higher", places=3, note="correlation of two maps, mean"),
        Column("least", "higher", places=3),
        Column("like long paths", "higher", places=3, note="correlation with the reference, mean"),
    )
    caption = f"FAME by starts and iterations, {len(inputs)} images"
    return Table.of_rows("fame-starts", caption, columns, rows)
