"""CorrRISE: how the score correlates with hiding each pixel."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import torch
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.common.limits import Count, Limits
from camlucida.common.statistics import Ties, ranks
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import Steps
from camlucida.methods.base import Method, RawMap
from camlucida.methods.masking import Masked, MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task

PATCH, SIZE = 30, 112
"""Side of a hidden patch in pixels, for faces of 112 pixels."""

_BLOCK = 64  # masks in double precision at a time


def patch_masks(
    count: int, size: tuple[int, int], *, patches: int = 3, patch: int = PATCH, seed: int = 0
) -> Tensor:
    """Masks that keep everything but a few square patches, which lie wholly inside and may overlap.

    Args:
        count: number of masks.
        size: (H, W).
        patches: hidden patches of a mask, 3 by default.
        patch: their side in pixels, 30 by default.
        seed: the first masks do not depend on how many are drawn.

    Returns:
        ``(count, H, W)`` boolean on the CPU, ``True`` where a pixel is kept. Top left corners are uniform in
        ``[0, H - patch] x [0, W - patch]``.

    Raises:
        MethodError: when a patch does not fit into the image.
    """
    height, width = size
    if patch > min(size):
        raise MethodError(
            f"a patch of {patch} pixels does not fit into an image of {height}x{width}"
        )
    drawn = torch.rand(
        count,
        patches,
        2,
        generator=torch.Generator().manual_seed(seed),
        dtype=torch.float32,
        device="cpu",
    )
    room = torch.tensor([height - patch + 1, width - patch + 1], device="cpu")
    corner = (drawn * room).long()
    rows = torch.arange(height, device="cpu") - corner[..., :1]
    columns = torch.arange(width, device="cpu") - corner[..., 1:]
    in_rows = (rows >= 0) & (rows < patch)
    in_columns = (columns >= 0) & (columns < patch)
    hidden = in_rows[..., :, None] & in_columns[..., None, :]
    return ~hidden.any(dim=1)


def mask_correlation(masks: Tensor, scores: Tensor) -> Tensor:
    """Pearson correlation, over masks, of keeping a pixel and the score.

    Args:
        masks: ``(M, H, W)`` boolean.
        scores: ``(N, M)``; ranks of scores make it Spearman's, since ranking two values changes nothing.

    Returns:
        ``(N, H, W)`` in [-1, 1] and double precision; 0 at pixels that are kept by all masks or by none, and
        everywhere for an image whose scores are all equal.
    """
    count = len(masks)
    scores = scores.double()
    centred = scores - scores.mean(dim=1, keepdim=True)
    products = torch.zeros(len(scores), *masks.shape[1:], dtype=torch.float64, device=masks.device)
    for start in range(0, count, _BLOCK):
        part = masks[start : start + _BLOCK].double()
        products += torch.einsum("nm,mhw->nhw", centred[:, start : start + _BLOCK], part)
    kept = masks.double().mean(dim=0) if count <= _BLOCK else masks.sum(dim=0).double() / count
    spread = (kept * (1 - kept)).sqrt() * centred.square().mean(dim=1).sqrt()[:, None, None]
    varies = (scores != scores[:, :1]).any(dim=1)[:, None, None] & (spread > 0)
    found = products / count / torch.where(varies, spread, 1)
    return torch.where(varies, found, 0).clamp(-1, 1)


@register(
    "corrrise",
    use="As RISE, with small patches hidden; made for pairs of faces.",
    paper="Lu, Xu & Ebrahimi 2024",
    year=2024,
    equation="section 3 (as ported by the FAME authors)",
    remark="one set of masks for all images",
    needs=(),
    cost=Cost(forward=1, times=("masks",), first=1),
    quick_audits=False,
    on_pairs={"mask_seed": "seed"},
    both_signs=True,
)
@dataclass(frozen=True)
class CorrRISE(Method):
    r"""Correlation of the score with keeping a pixel, over random masks with a few hidden patches.

    $\rho_p = \mathrm{corr}_i(M_i(p), s_i)$ with $s_i = Y(x \odot M_i)$. $e_+ = \max(\rho, 0)$ is what
    raises the score, $e_- = \max(-\rho, 0)$ what lowers it; they are disjoint. Made for face verification,
    where $Y$ is a cosine similarity, but any target will do. ``signed`` holds $\rho$ itself, not blurred.

    The original's numbers of masks and patches were not to be had; these are those of the FAME authors' port.

    Attributes:
        masks: number of masks, 500 by default.
        patches: hidden patches of a mask, 3 by default.
        patch: side of a patch in pixels, 30 for faces of 112 pixels; ``"scaled"`` (default) is 30 * H / 112.
        rank_based: correlate the scores' ranks (Spearman; default) instead of the scores (Pearson).
        ties: equal scores share the mean of their ranks (``"average"``, default), or are ranked in their
            ``"order"``, as the port does.
        mask_space: what is multiplied: pixels in [0, 1] where the preprocessing is known (``"auto"``,
            default), or always the ``"pixel"``, or the ``"input"`` as the model receives it.
        mask_seed: seed of the one mask set that all images share; the seed of ``explain`` draws nothing.
        chunk: images in one forward pass; ``None`` (default) is 16 on a CPU and 64 on other devices.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.CorrRISE(masks=10))
    """

    explains = "input"
    steps = Steps(normalise="max")  # no correlation stays 0

    masks: Annotated[int, Limits(2, 100_000)] = 500
    patches: Annotated[int, Limits(1, 1000)] = 3
    patch: Count | Literal["scaled"] = "scaled"
    rank_based: bool = True
    ties: Ties = "average"
    mask_space: MaskSpace = "auto"
    mask_seed: int = 0
    chunk: Count | None = None

    def draw(self, size: tuple[int, int]) -> Tensor:
        """The mask set ``(masks, H, W)`` for images of this size."""
        patch = max(1, round(PATCH * size[0] / SIZE)) if self.patch == "scaled" else self.patch
        return patch_masks(self.masks, size, patches=self.patches, patch=patch, seed=self.mask_seed)

    def run(self, task: Task) -> RawMap:
        """Forward passes only."""
        with borrowed(task.model, task.inputs) as module, torch.no_grad():
            task = replace(task, model=module)
            outputs, target, values = task.ask()
            masked = Masked(task, target, self.mask_space, outputs)
            device, images = task.inputs.device, len(task.inputs)
            masks = self.draw(task.size).to(device)
            scores = torch.empty(images, len(masks), dtype=torch.float64, device=device)
            chunk = self.chunk or (16 if device.type == "cpu" else 64)
            for i in range(images):
                for start in range(0, len(masks), chunk):
                    part = masks[start : start + chunk].to(masked.images.dtype)
                    index = torch.full((len(part),), i, device="cpu")
                    scores[i, start : start + chunk] = masked.values(part, index).double()
                    task.report(i * len(masks) + start + len(part), images * len(masks))
            compared = ranks(scores, self.ties) if self.rank_based else scores
            maps = mask_correlation(masks, compared).to(masked.images.dtype)
            constant = (scores == scores[:, :1]).all(dim=1)
            maps[constant] = 0  # ranked in their order, equal scores would differ
        notes: dict[int, list[str]] = {}
        for i in constant.nonzero()[:, 0].tolist():
            notes[i] = ["every mask scored the same, so nothing correlates and the map is empty"]
        if masked.note:
            for i in range(images):
                notes.setdefault(i, []).append(masked.note)
        details = {"scores": scores}
        return RawMap.of_input(maps, outputs, target, values, notes=notes, details=details)
