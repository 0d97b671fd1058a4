"""Opti-CAM: the mixture of channels under which the masked image keeps the most of the target."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from camlucida.common.limits import Count, Positive
from camlucida.engine.borrow import borrowed
from camlucida.engine.maps import Steps, normalise, rectify, resize
from camlucida.methods.base import Method, RawMap, assemble, keyed
from camlucida.methods.masking import Masked, MaskSpace
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import Target

Loss = Literal["plain", "norm"]
MaskNormalise = Literal["minmax", "max", "sigmoid"]
Keep = Literal["last", "best"]

_BETAS = 0.9, 0.999
_EPS = 1e-8


@register(
    "opticam",
    use="The mask that keeps the score highest, searched for photo by photo.",
    paper="Zhang et al. 2023",
    year=2023,
    equation="the masked image's objective",
    needs=("pixel gradients",),
    cost=Cost(forward=1, backward=1, times=("iterations",), first=1),
    weights="channel",
    quick_audits=False,
    scale="own",
)
@dataclass(frozen=True)
class OptiCAM(Method):
    r"""Channel weights optimised, image by image, so that the masked image scores high.

    $m(u) = \mathrm{norm}(\mathrm{Up}(\sum_k \mathrm{softmax}(u)_k \mathrm{ReLU}(A^k)))$, and $u$ maximises
    $Y(x \odot m(u))$ by Adam from equal weights. The map is $m$ itself, at the input's resolution.

    The loss, ``details["loss"]`` ``(N, iterations)`` with NaN after an image has stopped, is that of the mask
    before each step; ``details["objective"]`` ``(N, 2)`` is $Y(x \odot m)$ of the first and of the returned
    mask; ``details["average_drop"]`` is $100 \max(0, p - o) / p$ with the class's probabilities of the
    whole and of the masked image; ``details["weights"]`` is the softmax. With several layers each is
    optimised on its own, the keys carry its name in brackets, and the maps are averaged.

    Attributes:
        iterations: Adam steps, 50 by default.
        learning_rate: 0.1 by default, the authors' script (their class defaults are 0.01 and 100 steps).
        loss: ``"plain"`` (default) is $Y(x) - Y(x \odot m)$, ``"norm"`` its absolute value.
        normalise: how the mask is brought to [0, 1]: ``"minmax"`` (default), ``"max"`` or ``"sigmoid"``.
        mask_space: what is multiplied with the mask: ``"pixel"`` values in [0, 1] before mean and std, as
            the authors do, or the ``"input"`` as the model receives it; ``"auto"`` (default) is pixels
            where the preprocessing is known.
        early_stop: every ``iterations // 10`` steps an image stops if its loss is higher than at the check
            before (default; the authors judge the sum over the batch).
        keep: return the ``"last"`` mask (default) or the ``"best"`` one seen.

    Source: Zhang, Torres, Sicre, Avrithis and Ayache, "Opti-CAM: Optimizing saliency maps for
    interpretability", CVIU 2024 (arXiv 2301.07002); settings from the authors' code (hanwei0912/OptiCAM).

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.OptiCAM(iterations=2))
    """

    steps = Steps(rectify=False, layer_normalise="none", normalise="none")  # the mask is the map

    iterations: Count = 50
    learning_rate: Positive = 0.1
    loss: Loss = "plain"
    normalise: MaskNormalise = "minmax"
    mask_space: MaskSpace = "auto"
    early_stop: bool = True
    keep: Keep = "last"

    def run(self, task: Task) -> RawMap:
        """One tap, then ``iterations`` forward and backward passes for each layer."""
        with borrowed(task.model, task.inputs) as module:
            task = replace(task, model=module)
            tapped = task.tap(gradients=False)
            masked = Masked(task, tapped.target, self.mask_space)
            maps: dict[str, Tensor] = {}
            details: dict[str, dict[str, Tensor]] = {}
            notes: dict[int, list[str]] = defaultdict(list)
            several = len(tapped.activations) > 1
            every = torch.arange(len(task.inputs), device="cpu")
            for done, (name, activation) in enumerate(tapped.activations.items()):
                features = rectify(activation.detach())
                found = self.optimise(
                    masked.values,
                    features,
                    tapped.values.detach(),
                    task.part(done, len(tapped.activations)),
                )
                with torch.no_grad():
                    maps[name] = found.mask
                    outputs = masked.outputs(found.mask, every)
                    reached = masked.read(outputs, every)
                    details[name] = {
                        "loss": found.losses,
                        "objective": torch.stack([found.first, reached], dim=1),
                        "steps": found.steps,
                        "weights": found.weights,
                    }
                    drop = _average_drop(tapped.target, tapped.outputs, outputs)
                    if drop is not None:
                        details[name]["average_drop"] = drop[0]
                    _note(notes, name if several else "", found, drop)
        if masked.note:
            for i in every.tolist():
                notes[i].append(masked.note)
        return assemble(
            self, task, tapped, lambda name, *_: maps[name], notes=notes, details=keyed(details)
        )

    def mask(self, u: Tensor, features: Tensor, size: tuple[int, int]) -> Tensor:
        """The mask ``(N, *size)`` of the variables ``u`` ``(N, K)`` and the features ``(N, K, h, w)``."""
        # Autocast is for the model: the mask is the map.
        with torch.autocast(features.device.type, enabled=False):
            mixed = resize(torch.einsum("nk,nkhw->nhw", u.softmax(1), features), size)
            if self.normalise == "sigmoid":
                return mixed.sigmoid()
            return normalise(mixed, self.normalise)

    def optimise(
        self,
        score: Callable[[Tensor, Tensor], Tensor],
        features: Tensor,
        whole: Tensor,
        task: Task,
    ) -> Optimum:
        """Adam on the weights of each image by itself.

        Args:
            score: from masks ``(n, H, W)`` and positions ``(n,)`` in the batch to ``Y(x * m)``, ``(n,)``.
            features: rectified activations ``(N, K, h, w)``.
            whole: ``Y(x)``, ``(N,)``.
            task: told after each step; the mask has the size of its inputs.
        """
        size = task.size
        n, k = features.shape[:2]
        u = features.new_full((n, k), 0.5)
        mean, square, best_u = torch.zeros_like(u), torch.zeros_like(u), u.clone()
        losses = features.new_full((n, self.iterations), torch.nan)
        best = features.new_full((n,), torch.inf)
        before, first = best.clone(), torch.zeros_like(best)
        steps = torch.zeros(n, dtype=torch.long, device=u.device)
        moved = torch.zeros(n, dtype=torch.bool, device=u.device)
        active = torch.arange(n, device=u.device)
        check = max(1, self.iterations // 10)
        for step in range(self.iterations):
            leaf = u[active].requires_grad_()
            with torch.enable_grad():
                reached = score(self.mask(leaf, features[active], size), active).to(u.dtype)
                gap = whole[active].to(u.dtype) - reached
                loss = gap.abs() if self.loss == "norm" else gap
                gradient = (
                    torch.autograd.grad(loss.sum(), leaf)[0]
                    if loss.requires_grad
                    else torch.zeros_like(leaf)
                )
            loss = loss.detach()
            losses[active, step] = loss
            if step == 0:
                first = reached.detach()
            better = loss < best[active]
            best[active] = torch.where(better, loss, best[active])
            best_u[active] = torch.where(better[:, None], u[active], best_u[active])
            go = torch.ones_like(better)
            if self.early_stop and step % check == 0:
                go = ~(loss > before[active])
                before[active] = loss
            # What has stopped keeps the mask whose loss was judged.
            active, gradient = active[go], gradient[go]
            moved[active] |= gradient.flatten(1).any(1)
            mean[active] = _BETAS[0] * mean[active] + (1 - _BETAS[0]) * gradient
            square[active] = _BETAS[1] * square[active] + (1 - _BETAS[1]) * gradient**2
            root = (square[active] / (1 - _BETAS[1] ** (step + 1))).sqrt() + _EPS
            u[active] -= self.learning_rate * mean[active] / (1 - _BETAS[0] ** (step + 1)) / root
            steps[active] += 1
            task.report(step + 1, self.iterations)
            if len(active) == 0:
                break
        with torch.no_grad():
            final = self.mask(u, features, size)
            if self.keep == "best":
                index = torch.arange(n, device=u.device)
                gap = whole.to(u.dtype) - score(final, index).to(u.dtype)
                worse = (gap.abs() if self.loss == "norm" else gap) > best
                u = torch.where(worse[:, None], best_u, u)
                final = self.mask(u, features, size)
            # Scaling hides a NaN, which is to be told of.
            sound = features.isfinite().flatten(1).all(1) & whole.isfinite()
            final = torch.where(sound[:, None, None], final, torch.nan)
        return Optimum(final, u.softmax(1), losses, first, steps, moved)


@dataclass(frozen=True)
class Optimum:
    """Where :meth:`OptiCAM.optimise` ended.

    Attributes:
        mask: ``(N, H, W)``.
        weights: of the channels, ``(N, K)``, each image's sum to 1.
        losses: before each step, ``(N, iterations)``, NaN after an image has stopped.
        first: the target of the first mask, ``(N,)``.
        steps: Adam steps that each image took, ``(N,)``.
        moved: whether an image ever had a gradient, ``(N,)``.
    """

    mask: Tensor
    weights: Tensor
    losses: Tensor
    first: Tensor
    steps: Tensor
    moved: Tensor


_Drop = tuple[Tensor, Tensor, Tensor]


def _average_drop(target: Target, whole: Tensor, masked: Tensor) -> _Drop | None:
    """Average Drop in percent, and the probabilities it compares; ``None`` for targets without classes."""
    classes = getattr(target, "classes", None)
    logits, after = target.logits(whole), target.logits(masked)
    if logits is None or after is None or logits.shape[1] < 2 or not isinstance(classes, Tensor):
        return None
    dtype = torch.promote_types(logits.dtype, torch.float32)
    index = classes.to(logits.device)[:, None]
    p = logits.to(dtype).softmax(1).gather(1, index)[:, 0]
    o = after.to(dtype).softmax(1).gather(1, index)[:, 0]
    drop = torch.where(p > 0, (p - o).clamp_min(0) / torch.where(p > 0, p, 1), 0)
    return 100 * drop, p, o


def _note(notes: dict[int, list[str]], layer: str, found: Optimum, drop: _Drop | None) -> None:
    of = f" of layer {layer!r}" if layer else ""
    for i in range(len(found.mask)):
        own = notes[i]
        if drop is not None:
            percent, p, o = (float(t[i]) for t in drop)
            own.append(
                f"Average Drop{of} {percent:.1f} %: p = {p:.3f} for the image, {o:.3f} for what the mask leaves"
            )
        if not found.moved[i]:
            own.append(
                f"the target has no gradient with respect to the channel weights{of}, so the map is their "
                "plain mean (a dead head, a zero activation or a constant mask)"
            )
