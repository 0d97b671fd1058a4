"""I-CAM: perturb, score the layers, keep the best, draw each, fuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import resolve_all
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.maps import normalise
from camlucida.methods.base import RawMap, calm
from camlucida.methods.icam.layer_map import LayerMap, fuse
from camlucida.methods.icam.notes import remarks
from camlucida.methods.icam.options import ICAMOptions
from camlucida.methods.icam.passes import Copies, Seen, look, score_copies
from camlucida.methods.icam.scores import (
    layer_scores,
    layer_weights,
    perturbation_weights,
    select_layers,
    svim,
)
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Task
from camlucida.targets import Target
from camlucida.targets.base import join_targets


@register(
    "icam",
    use="All layers of the model together, and how much each of them matters.",
    paper="Singh et al. 2024",
    year=2024,
    equation="3-31",
    remark="random; runs=10 averages ten maps, while the authors evaluated ten runs, each by its own map",
    cost=Cost(forward=1, backward=1, times=("runs", "n_perturb"), first=1),
    weights="cell",
    quick={"n_perturb": 4},
    quick_audits=False,
    one_layer=True,
    without_offset={"bias": "none"},
    scale="own",
)
@dataclass(frozen=True)
class ICAM(ICAMOptions):
    r"""Integrative CAM: the maps of all layers, each weighted by how much the layer matters.

    Noisy, masked copies of the image give every layer a score (eq. 3-10); the best layers that together
    hold 95 % of the score are kept, weighted by their share (eq. 11-14), and their maps
    $L_l = \sum_k (w^k \odot A^k + b_k)$ with $w = \tanh(\alpha) \mathrm{ReLU}(f' g)$ (eq. 20-31) are resized
    and summed. Without ``layers=`` all blocks of the model take part
    (:func:`camlucida.engine.layers.blocks.candidate_layers`). The formula is made for activations behind a
    ReLU: where A has negative values, strong features count against the class, and maps may come out
    inverted; so for MobileNet and EfficientNet the last activation inside each block stands for it.

    S is the target's value and g its gradient. Y = f(S) is the softmax probability of the explained class;
    $\sigma(S)$ for targets without classes. As I-CAM applies f itself, a ``Probability``, ``LogProbability``
    or ``ExpLogit`` target stands for its class's logit here. The score is a *distance* that the paper
    takes for importance; layers behind which the target is blind score 0 instead of the
    whole distance.

    ``Explanation.details`` holds, image by image: ``layer_score``, ``layer_weight``, ``layer_kept`` (share of
    the runs) per layer; ``run_score``, ``run_weight`` per run and layer; ``ssim``, ``mds``,
    ``perturbation_weight`` per run and copy; ``bias_constant`` (left out of the map, as minmax removes
    it), ``pole_share`` (of the entries with a positive gradient, those beyond a pole of alpha) per layer;
    ``probability`` Y; and with several runs ``layer_score_std``, ``layer_weight_std`` and
    ``map_std``, the spread of the map in [0, 1].

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.ICAM(n_perturb=2))
        >>> found.details["layer_weight"].sum(1).round()
        tensor([1., 1.], dtype=torch.float64)
    """

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """All blocks of the model, rectified: see :func:`camlucida.engine.layers.blocks.candidate_layers`."""
        return candidate_layers(model, inputs, rectified=True)

    def run(self, task: Task) -> RawMap:
        """Steps (a) to (e), with one pass per image and per copy for all layers together."""
        task.pixels(self.perturb_space, "perturb_space")
        done, total = 0, len(task.inputs) * (1 + self.n_perturb * self.runs)

        def report(images: int) -> None:
            nonlocal done
            done += images
            task.report(done, total)

        with borrowed(task.model, task.inputs) as module:
            names = tuple(resolve_all(module, task.layers))
            whole = replace(
                task, model=module, target=task.target.for_images(len(task.inputs)), layers=names
            )
            parts = []
            every = torch.arange(len(task.inputs), device=task.inputs.device)
            for index in torch.split(every, self.chunk):
                part = whole
                if len(index) < len(every):
                    target = whole.target.take(index)
                    part = replace(whole, inputs=task.inputs[index], target=target)
                parts.append(look(self, part, names))
                report(len(index))
            seen = parts[0] if len(parts) == 1 else _join(parts)
            copies = score_copies(self, whole, names, seen, report)
        with calm(task.inputs):
            return self._assemble(task.size, seen, copies)

    def _assemble(self, size: tuple[int, int], seen: Seen, copies: Copies) -> RawMap:
        counted = perturbation_weights(copies["svim"], copies["mds"])
        scores = layer_scores(counted, copies["distance"])
        if self.include_original:
            # The image itself: SSIM = 1 and MDS = 1.
            own = svim(torch.ones_like(seen.score), self.svim_sigma).sqrt()
            scores = scores + (own[:, None] * seen.at_layers)[:, None]
        scores = torch.where(seen.blind[:, None], 0, scores)
        kept = select_layers(scores, self.coverage)
        weights = layer_weights(
            kept.to(scores) if self.layer_weighting == "uniform" else scores, kept
        )
        runs = fuse(seen.maps, weights, size, relu=self.relu, layer_normalise=self.layer_normalise)
        kind = seen.at_input.dtype
        details = {
            "layer_score": scores.mean(1),
            "layer_weight": weights.mean(1),
            "layer_kept": kept.to(scores).mean(1),
            "run_score": scores,
            "run_weight": weights,
            "ssim": copies["ssim"],
            "mds": copies["mds"],
            "perturbation_weight": counted,
            "bias_constant": torch.stack([m.constant for m in seen.maps.values()], 1),
            "pole_share": seen.pole_share,
            "probability": seen.margin.sigmoid(),
        }
        if self.runs > 1:
            details |= {
                "layer_score_std": scores.std(1),
                "layer_weight_std": weights.std(1),
                "map_std": _scaled(runs).std(1),
            }
        return RawMap(
            layers={name: m.values.to(kind) for name, m in seen.maps.items()},
            fused=runs.mean(1).to(kind),
            outputs=seen.outputs,
            target=seen.target,
            values=seen.values,
            dead_channels=seen.dead,
            channels=seen.channels,
            connected=seen.connected,
            notes=remarks(self, seen, copies, scores, weights, kind),
            details=details,
        )


def _scaled(maps: Tensor) -> Tensor:
    """Each of the maps ``(N, R, H, W)`` in [0, 1]."""
    return normalise(maps.flatten(0, 1), "minmax").view_as(maps)


def _join(parts: list[Seen]) -> Seen:
    """What was seen of consecutive images, as one."""
    first = parts[0]
    joined: dict[str, Any] = {}
    for name, value in vars(first).items():
        values = [getattr(part, name) for part in parts]
        if isinstance(value, Tensor):
            joined[name] = torch.cat(values)
        elif isinstance(value, Target):
            joined[name] = join_targets(values)
    joined["dead"] = {name: torch.cat([p.dead[name] for p in parts]) for name in first.dead}
    joined["maps"] = {
        name: LayerMap(
            torch.cat([p.maps[name].values for p in parts]),
            torch.cat([p.maps[name].constant for p in parts]),
        )
        for name in first.maps
    }
    joined["connected"] = {name: any(p.connected[name] for p in parts) for name in first.connected}
    return replace(first, **joined)
