"""The photos that the authors of I-CAM look at: five classes of highest F1, the ten most confident photos of each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from camlucida.data.folders import read_photos
from camlucida.data.samples import Sample, Skipped
from camlucida.engine.borrow import borrowed
from camlucida.engine.outputs import first_tensor
from camlucida.engine.reading import probabilities
from camlucida.explanation.subject import prepare
from camlucida.models import LoadedModel

CLASSES, PHOTOS = 5, 10
"""As the paper has them."""


def f1_scores(labels: Sequence[int], predicted: Sequence[int]) -> dict[int, float]:
    """F1 of every class that a label names: 2 TP / (2 TP + FP + FN)."""
    pairs = list(zip(labels, predicted, strict=True))
    found = {}
    for one in sorted(set(labels)):
        hits = sum(label == one == said for label, said in pairs)
        missed = sum((label == one) != (said == one) for label, said in pairs)
        found[one] = 2 * hits / (2 * hits + missed)
    return found


def as_published(
    model: nn.Module | LoadedModel,
    photos: Sequence[Sample],
    skipped: list[Skipped],
    *,
    classes: int = CLASSES,
    most: int = PHOTOS,
    batch_size: int = 8,
) -> tuple[list[Sample], dict[int, float]]:
    """The photos whose label is one of the classes of highest F1, of each the most confident ones.

    Args:
        model: as for :func:`camlucida.explain`.
        photos: all of them, labelled.
        skipped: gets those that cannot be read, with the reason.
        classes: how many classes; of equal F1 the first.
        most: photos of each, by the probability of what the model says, right or wrong.
        batch_size: photos at a time.

    Returns:
        The photos in their order, and the F1 of the chosen classes, the highest first.
    """
    seen: list[tuple[Sample, int, float]] = []
    for part in read_photos(photos, batch_size, skipped):
        if not part:
            continue
        module, inputs, _, _ = prepare(model, [picture for _, picture in part])
        with borrowed(module, inputs) as net, torch.no_grad():
            best = probabilities(module, first_tensor(net(inputs))).max(1)
        said = zip(part, best.indices.tolist(), best.values.tolist(), strict=True)
        seen += [(photo, index, confidence) for (photo, _), index, confidence in said]
    scores = f1_scores([photo.label or 0 for photo, _, _ in seen], [index for _, index, _ in seen])
    chosen = sorted(scores, key=lambda one: -scores[one])[:classes]
    kept = set()
    for one in chosen:
        own = sorted((c, p.key) for p, _, c in seen if p.label == one)[-most:]
        kept |= {key for _, key in own}
    return [p for p in photos if p.key in kept], {one: scores[one] for one in chosen}
