"""I-CAM: perturb, score the layers, keep the best, draw each, fuse."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.common.statistics import SSIM
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import Layers, resolve_all
from camlucida.engine.layers.blocks import candidate_layers
from camlucida.engine.maps import Normalise, Steps, normalise
from camlucida.methods.base import Context, Method, RawMap
from camlucida.methods.icam.alpha import Smooth
from camlucida.methods.icam.layer_map import Bias, BiasForm, LayerMap, fuse
from camlucida.methods.icam.notes import remarks
from camlucida.methods.icam.passes import Copies, Seen, look, score_copies, sliceable
from camlucida.methods.icam.perturb import MaskConvention, perturbation_weights, svim
from camlucida.methods.icam.scores import CompareAt, layer_scores, layer_weights, select_layers
from camlucida.methods.registry import Cost, register
from camlucida.targets import Target

AlphaForm = Literal["literal", "softmax_full", "none"]
PerturbSpace = Literal["input", "pixel"]
Score = Literal["logit", "prob"]
LayerWeighting = Literal["score", "uniform"]

_SMOOTH = ("softmax", "sigmoid", "exp", "identity")


@register(
    "icam",
    paper="Singh et al. 2024",
    year=2024,
    equation="3-31",
    remark="random; runs=10 averages ten draws, as the authors did",
    cost=Cost(forward=1, backward=1, times=("runs", "n_perturb"), first=1),
    weights="cell",
    quick={"n_perturb": 4},
    quick_audits=False,
    one_layer=True,
    without_offset={"bias": "none"},
)
@dataclass(frozen=True)
class ICAM(Method):
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

    Attributes:
        n_perturb: number n of perturbed copies.
        alpha: their noise level, and the share of masked pixels.
        mask_convention: ``"keep"``, a pixel stays with probability ``1 - alpha``; ``"remove"``, with ``alpha``.
        perturb_space: perturb the model's ``"input"`` or its ``"pixel"`` values in [0, 1].
        ssim: ``"global"`` statistics, or the usual ``"windowed"`` ones.
        svim_sigma: width of the bell over SSIM.
        mds_clamp: count copies whose output differs too much as 0 (else their weight is NaN).
        include_original: count the image itself among its copies.
        score: what eq. 3 differentiates, the explained class's ``"logit"`` or ``"prob"``.
        compare_at: resolution at which eq. 3 compares, the ``"input"``'s or the ``"layer"``'s.
        normalise_terms: scale both terms of eq. 3 to a maximum of 1.
        coverage: the share T of the score that the kept layers hold.
        layer_weighting: ``"score"``, or ``"uniform"`` for a plain average of the kept layers.
        function: f, one of ``"softmax"``, ``"sigmoid"``, ``"exp"``, ``"identity"``, or any smooth function of
            a tensor.
        alpha_form: ``"literal"``, f depends on S alone; ``"softmax_full"``, all logits move (one
            more pass per class); ``"none"``, no alpha at all, the weights of LayerCAM.
        softmax_mass: with ``"softmax_full"``, the probability that the counted classes hold.
        bias: ``"channel"``, ``"spatial"`` or ``"none"``.
        bias_form: ``"product_of_sums"`` or ``"sum_of_products"``, for the channel bias.
        drop_common_factor: leave out f', which is common to all layers and underflows in a saturated softmax.
        relu: rectify each layer's map.
        layer_normalise: scaling of each layer's map before the fusion; without it layers with
            many channels or large activations dominate whatever their weight.
        runs: independent draws of the copies whose maps are averaged; the authors took 10.
        chunk: most images and copies that pass the model at a time.
    """

    explains = "layers"

    n_perturb: int = 8
    alpha: float = 0.4
    mask_convention: MaskConvention = "keep"
    perturb_space: PerturbSpace = "input"
    ssim: SSIM = "global"
    svim_sigma: float = 1 / 6
    mds_clamp: bool = True
    include_original: bool = False
    score: Score = "logit"
    compare_at: CompareAt = "input"
    normalise_terms: bool = False
    coverage: float = 0.95
    layer_weighting: LayerWeighting = "score"
    function: Smooth = "softmax"
    alpha_form: AlphaForm = "literal"
    softmax_mass: float = 1 - 1e-6
    bias: Bias = "channel"
    bias_form: BiasForm = "product_of_sums"
    drop_common_factor: bool = False
    relu: bool = False
    layer_normalise: Normalise = "none"
    runs: int = 1
    chunk: int = 16

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not callable(self.function) and self.function not in _SMOOTH:
            raise MethodError(
                f"function must be one of {', '.join(_SMOOTH)} or a function of a tensor, got "
                f"{self.function!r}"
            )
        for name in ("n_perturb", "runs", "chunk"):
            if (value := getattr(self, name)) < 1 or value != int(value):
                raise MethodError(f"{name} must be a whole number >= 1, got {value}")
        if not 0 <= self.alpha <= 1:
            raise MethodError(f"alpha must lie in [0, 1], got {self.alpha}")
        for name in ("coverage", "softmax_mass"):
            if not 0 < (value := getattr(self, name)) <= 1:
                raise MethodError(f"{name} must lie in (0, 1], got {value}")
        if not self.svim_sigma > 0:
            raise MethodError(f"svim_sigma must be > 0, got {self.svim_sigma}")

    @property
    def steps(self) -> Steps:
        """Neither rectified nor smoothed: the fused map is scaled by its extremes (eq. 21)."""
        return Steps(rectify=False, layer_normalise=self.layer_normalise)

    @property
    def passes(self) -> int:
        """Forward and full backward passes per image, where the literal alpha is used."""
        return 1 + (self.score == "prob") + self.n_perturb * self.runs

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """All blocks of the model, rectified: see :func:`camlucida.engine.layers.blocks.candidate_layers`."""
        return candidate_layers(model, inputs, rectified=True)

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        described = super().describe()
        if callable(self.function):
            described["options"]["function"] = getattr(
                self.function, "__qualname__", repr(self.function)
            )
        return described

    def run(
        self,
        model: nn.Module,
        inputs: Tensor,
        target: Target,
        layers: Layers,
        **context: Unpack[Context],
    ) -> RawMap:
        """Steps (a) to (e), with one pass per image and per copy for all layers together."""
        progress, grid = context.get("progress"), context.get("grid")
        preprocess = context.get("preprocess")
        if self.perturb_space == "pixel" and preprocess is None:
            raise MethodError(
                "perturb_space='pixel' needs the model's preprocessing to get at the pixels; pass "
                "preprocess=, or use perturb_space='input'"
            )
        done, total = 0, len(inputs) * (1 + self.n_perturb * self.runs)

        def report(images: int) -> None:
            nonlocal done
            done += images
            if progress is not None:
                progress(done, total)

        with borrowed(model, inputs) as module:
            names = tuple(resolve_all(module, layers))
            target = sliceable(target)
            parts = []
            for index in torch.split(torch.arange(len(inputs), device=inputs.device), self.chunk):
                one = target if len(index) == len(inputs) else target.take(index)
                parts.append(look(self, module, inputs[index], names, one, grid))
                report(len(index))
            seen = parts[0] if len(parts) == 1 else _join(parts)
            copies = score_copies(
                self,
                module,
                inputs,
                names,
                seen,
                context["generator"],
                preprocess,
                grid,
                report,
            )
        with (
            torch.inference_mode(mode=False),
            torch.no_grad(),
            torch.autocast(inputs.device.type, enabled=False),
        ):
            return self._assemble(inputs, seen, copies)

    def _assemble(self, inputs: Tensor, seen: Seen, copies: Copies) -> RawMap:
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
        size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
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
            joined[name] = _join_targets(values)
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


def _join_targets(parts: list[Target]) -> Target:
    fixed = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in parts[0].per_image
        if isinstance(getattr(parts[0], name), Tensor)
    }
    return replace(parts[0], **fixed) if fixed else parts[0]  # type: ignore[type-var]
