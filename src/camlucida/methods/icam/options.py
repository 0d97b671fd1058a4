"""The options of I-CAM."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from camlucida.common.errors import MethodError
from camlucida.common.limits import Count, Limits, Positive, Share
from camlucida.common.statistics import SSIM
from camlucida.engine.maps import Normalise, Steps
from camlucida.methods.base import Method
from camlucida.methods.icam.alpha import Smooth
from camlucida.methods.icam.layer_map import Bias, BiasForm
from camlucida.methods.icam.scores import CompareAt, MaskConvention

AlphaForm = Literal["literal", "softmax_full", "none"]
PerturbSpace = Literal["input", "pixel"]
Score = Literal["logit", "prob"]
LayerWeighting = Literal["score", "uniform"]

_SMOOTH = ("softmax", "sigmoid", "exp", "identity")


@dataclass(frozen=True)
class ICAMOptions(Method):
    """What can be set on :class:`~camlucida.methods.icam.method.ICAM`, which has the formulas.

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
        runs: independent draws of the copies whose maps are averaged. The authors evaluated 10 runs and averaged the
            numbers, not the maps.
        chunk: most images and copies that pass the model at a time.
    """

    explains = "layers"

    n_perturb: Count = 8
    alpha: Share = 0.4
    mask_convention: MaskConvention = "keep"
    perturb_space: PerturbSpace = "input"
    ssim: SSIM = "global"
    svim_sigma: Positive = 1 / 6
    mds_clamp: bool = True
    include_original: bool = False
    score: Score = "logit"
    compare_at: CompareAt = "input"
    normalise_terms: bool = False
    coverage: Annotated[float, Limits(0, 1, open_low=True)] = 0.95
    layer_weighting: LayerWeighting = "score"
    function: Smooth = "softmax"
    alpha_form: AlphaForm = "literal"
    softmax_mass: Annotated[float, Limits(0, 1, open_low=True)] = 1 - 1e-6
    bias: Bias = "channel"
    bias_form: BiasForm = "product_of_sums"
    drop_common_factor: bool = False
    relu: bool = False
    layer_normalise: Normalise = "none"
    runs: Count = 1
    chunk: Count = 16

    def __post_init__(self) -> None:
        """Check the options."""
        super().__post_init__()
        if not callable(self.function) and self.function not in _SMOOTH:
            raise MethodError(
                f"function must be one of {', '.join(_SMOOTH)} or a function of a tensor, got "
                f"{self.function!r}"
            )

    @property
    def steps(self) -> Steps:
        """Neither rectified nor smoothed: the fused map is scaled by its extremes (eq. 21)."""
        return Steps(rectify=False, layer_normalise=self.layer_normalise)

    @property
    def passes(self) -> int:
        """Forward and full backward passes per image, where the literal alpha is used."""
        return 1 + (self.score == "prob") + self.n_perturb * self.runs

    def describe(self) -> dict[str, Any]:
        """Name and options, ready for JSON."""
        described = super().describe()
        if callable(self.function):
            described["options"]["function"] = getattr(
                self.function, "__qualname__", repr(self.function)
            )
        return described
