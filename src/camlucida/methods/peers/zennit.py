"""zennit's composites of rules."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.optional import has
from camlucida.methods.input_gradient import REDUCTIONS, Reduction
from camlucida.methods.own import Explainer, Wanted
from camlucida.methods.peers.score import NO_RELU, Score, hookable
from camlucida.methods.registry import Cost, register

_CLOSE = 1e-4  # how far the value may move, relative to its size, when batch norms are merged


def _composite(name: str, canonizers: list[Any], inputs: Tensor, how: dict[str, Any]) -> Any:
    from zennit.composites import COMPOSITES

    limits = {k: torch.full_like(inputs, v) for k, v in how.items() if k in ("low", "high")}
    return COMPOSITES[name](**{**how, **limits}, canonizers=canonizers)


def _canonizers(score: Score, inputs: Tensor) -> list[Any]:
    """What merges batch norms into the layer before; nothing where that would change what the model says."""
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.core import Composite

    found: list[Any] = [SequentialMergeBatchNorm()]
    if has("torchvision"):
        from zennit.torchvision import ResNetCanonizer

        found = [ResNetCanonizer()]
    with torch.no_grad():
        before = score(inputs)
        with Composite(canonizers=found).context(score) as merged:
            after = merged(inputs)
    return found if torch.allclose(before, after, rtol=_CLOSE, atol=_CLOSE) else []


def _relevance(
    name: str,
    model: nn.Module,
    inputs: Tensor,
    target: Wanted,
    reduction: Reduction,
    start: str,
    **how: Any,
) -> Tensor:
    """The maps of a composite; relevance starts as the value itself, or as one."""
    from zennit.attribution import Gradient

    score = Score(model, target)
    with hookable(model):
        composite = _composite(name, _canonizers(score, inputs), inputs, how)
        first = None if start == "value" else torch.ones_like
        with Gradient(score, composite, attr_output=first) as attributor:
            if not composite.hook_refs:
                target.say(NO_RELU.format(method=f"zennit:{name}"))
            _, found = attributor(inputs)
    return REDUCTIONS[reduction](found.detach())


def _rules(name: str) -> Explainer:
    def rules(
        model: nn.Module,
        inputs: Tensor,
        target: Wanted,
        *,
        epsilon: float = 1e-6,
        reduction: Reduction = "sum",
    ) -> Tensor:
        return _relevance(name, model, inputs, target, reduction, "value", epsilon=epsilon)

    return rules


def _box(name: str) -> Explainer:
    def box(
        model: nn.Module,
        inputs: Tensor,
        target: Wanted,
        *,
        low: float = -3.0,
        high: float = 3.0,
        epsilon: float = 1e-6,
        gamma: float = 0.25,
        reduction: Reduction = "sum",
    ) -> Tensor:
        how = {"low": low, "high": high, "epsilon": epsilon, "gamma": gamma}
        return _relevance(name, model, inputs, target, reduction, "value", **how)

    return box


def _gradient(name: str) -> Explainer:
    def gradient(
        model: nn.Module, inputs: Tensor, target: Wanted, *, reduction: Reduction = "abs_max"
    ) -> Tensor:
        return _relevance(name, model, inputs, target, reduction, "one")

    return gradient


def _smooth(name: str) -> Explainer:
    def smooth(
        model: nn.Module,
        inputs: Tensor,
        target: Wanted,
        *,
        beta: float = 10.0,
        reduction: Reduction = "abs_max",
    ) -> Tensor:
        return _relevance(name, model, inputs, target, reduction, "one", beta_smooth=beta)

    return smooth


_MONTAVON = ("Montavon et al. 2019", 2019, "section 10.3")
for _name, _make, (_paper, _year, _equation), _summary in (
    ("epsilon_plus_flat", _rules, _MONTAVON,
     "Relevance by the flat rule in the first layer, z-plus in convolutions, epsilon in linear layers."),
    ("epsilon_plus", _rules, _MONTAVON,
     "Relevance by the z-plus rule in convolutions, epsilon in linear layers."),
    ("epsilon_alpha2_beta1", _rules, ("Bach et al. 2015", 2015, "60"),
     "Relevance by the alpha-beta rule (2, 1) in convolutions, epsilon in linear layers."),
    ("epsilon_alpha2_beta1_flat", _rules, ("Bach et al. 2015", 2015, "60"),
     "Relevance by the flat rule in the first layer, alpha-beta in convolutions, epsilon in linear layers."),
    ("epsilon_gamma_box", _box, _MONTAVON,
     "Relevance by the box rule in the first layer, gamma in convolutions, epsilon in linear layers."),
    ("excitation_backprop", _gradient, ("Zhang et al. 2016", 2016, "5"),
     "Winning probabilities of excitatory connections, from the output to the image."),
    ("guided_backprop", _gradient, ("Springenberg et al. 2015", 2015, "section 3.4"),
     "The gradient at the image, with negative gradients dropped at every ReLU."),
    ("deconvnet", _gradient, ("Zeiler & Fergus 2014", 2014, "section 2.1"),
     "Positive gradients handed back through every ReLU, whether it was on or not."),
    ("beta_smooth", _smooth, ("Dombrowski et al. 2019", 2019, "section 4"),
     "The gradient at the image, with every ReLU replaced by a softplus."),
):  # fmt: skip
    _explainer = _make(_name)
    _explainer.__doc__ = _summary
    register(
        f"zennit:{_name}", paper=_paper, year=_year, equation=_equation, library="zennit",
        needs=("pixel gradients",), cost=Cost(forward=1, backward=1), local=_name == "beta_smooth",
    )(_explainer)  # fmt: skip
