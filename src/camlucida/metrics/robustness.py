"""Does an explanation stand still where the image hardly moves, and does it foretell what removing parts does?

Sensitivity and infidelity (Yeh, Hsieh, Suggala, Inouye and Ravikumar 2019, On the (In)fidelity and Sensitivity
of Explanations). Random numbers come from a stream of each image, so that a batch equals its images one by one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Count, NotNegative
from camlucida.common.seeds import ImageGenerators
from camlucida.engine.borrow import borrowed
from camlucida.engine.faster_forward import fast_forward
from camlucida.engine.maps import Steps
from camlucida.engine.tap import run
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.metrics.base import Measured, Metric, OneNumber, Scene, Space
from camlucida.metrics.registry import Facts, MetricCost, register
from camlucida.targets import target_values

Perturbation = Literal["square", "noisy_baseline"]
Map = Literal["maps", "raw", "signed"]

_NOISE = 0.2
_OWN = 1_000_003
_CPU_BATCH = 8  # larger passes leave the caches and take twice as long per image


def sensitivity_max(
    explained: Callable[[Tensor], Tensor],
    inputs: Tensor,
    maps: Tensor,
    generators: ImageGenerators,
    *,
    radius: float | Tensor = 0.02,
    samples: int = 10,
) -> Tensor:
    r"""How far an explanation moves, at most, within a small neighbourhood of the image.

    $\max_{\|y - x\| \le r} \|\Phi(f, y) - \Phi(f, x)\|$ (Yeh et al. 2019, definition 3.1), by the largest of
    some random $y$ and divided by $\|\Phi(f, x)\|$, as their code does, so that the map's scale does not
    matter. The neighbourhood is a cube: every value of the image moves evenly within plus and minus r. Lower
    is better; at least 0. More samples find larger values: compare equal numbers of samples only.

    Args:
        explained: images ``(N, C, H, W)`` to maps ``(N, h, w)``, by the method and target that ``maps`` are of.
        inputs: ``(N, C, H, W)``.
        maps: the maps of ``inputs``.
        generators: one random stream per image.
        radius: r in the units of ``inputs``, or a tensor that broadcasts to them.
        samples: random neighbours per image.

    Returns:
        ``(N,)`` double; NaN (not counted) for a zero map, which has no scale, and where a map holds NaN.

    Raises:
        CamlucidaError: the radius is negative, or there are no samples.

    Example:
        >>> streams = camlucida.common.seeds.ImageGenerators(0, images)
        >>> camlucida.metrics.sensitivity_max(lambda x: x.mean(1), images, images.mean(1), streams).shape
        torch.Size([2])
    """
    if samples < 1 or bool((torch.as_tensor(radius) < 0).any()):
        raise CamlucidaError(
            f"sensitivity needs at least 1 sample and a radius >= 0, got {samples} and {radius}"
        )
    values = maps.double().flatten(1)
    most = values.new_zeros(len(values))
    for _ in range(samples):
        noise = generators.rand(inputs.shape[1:], inputs) * 2 - 1
        near = explained(inputs + radius * noise).double().flatten(1)
        most = torch.maximum(most, (near - values).norm(dim=1))
    norm = values.norm(dim=1)
    return torch.where(norm > 0, most / torch.where(norm > 0, norm, 1), math.nan)


@dataclass(frozen=True)
class Infidelities:
    r"""Sums over perturbations, from which infidelity follows with and without scaling; ``(N,)`` each.

    Attributes:
        predicted: mean of $(I^T \Phi)^2$.
        joint: mean of $(I^T \Phi)(f(x) - f(x - I))$.
        actual: mean of $(f(x) - f(x - I))^2$.

    Example:
        >>> found = camlucida.metrics.Infidelities(torch.ones(1), torch.ones(1), 2 * torch.ones(1))
        >>> found.plain.item(), found.unexplained.item()
        (1.0, 0.5)
    """

    predicted: Tensor
    joint: Tensor
    actual: Tensor

    @property
    def plain(self) -> Tensor:
        """Infidelity of the map as it is."""
        return (self.predicted - 2 * self.joint + self.actual).clamp_min(0)

    @property
    def beta(self) -> Tensor:
        """The scale at which the map's infidelity is least; 0 where the map predicts no change at all.

        Negative for a map that foretells the opposite, which the authors' code lets pass too.
        """
        some = self.predicted > 0
        return torch.where(some, self.joint / torch.where(some, self.predicted, 1), 0)

    @property
    def scaled(self) -> Tensor:
        """Infidelity of the map times ``beta``."""
        return (self.actual - self.beta * self.joint).clamp_min(0)

    @property
    def unexplained(self) -> Tensor:
        """Infidelity at the best scale over that of an empty map, 0 to 1; NaN where nothing ever changed."""
        return self.scaled / torch.where(self.actual > 0, self.actual, math.nan)


def infidelity(
    score: Callable[[Tensor, Tensor], Tensor],
    images: Tensor,
    maps: Tensor,
    generators: ImageGenerators,
    *,
    perturbation: Perturbation = "square",
    samples: int = 64,
    batch_size: int = 32,
) -> Infidelities:
    r"""How well a map foretells the change of the score when the image is perturbed.

    $E_I\,[(I^T \Phi(f, x) - (f(x) - f(x - I)))^2]$ (Yeh et al. 2019, definition 2.1). Lower is better; at
    least 0, in squared units of the score.

    ``"square"`` (square removal): a square of random side, up to 10/28 of the shorter side of the image, at a
    random place becomes 0 (their code goes through all squares of each side); the map's sum over it is the
    predicted drop. ``"noisy_baseline"``: the image becomes the baseline 0 plus Gaussian noise of standard
    deviation 0.2; $I^T \Phi$ sums over all pixels and channels, and a map without channels serves each. That
    is meant for gradients; maps that say how much a place contributed are judged by squares.

    Args:
        score: images ``(n, C, H, W)`` and which of the N each is of, ``(n,)``, to their scores ``(n,)``.
        images: ``(N, C, H, W)`` in the space in which 0 is the baseline: pixels in [0, 1], where the
            preprocessing is known.
        maps: ``(N, H, W)``, or ``(N, C, H, W)`` (summed over channels for squares).
        generators: one random stream per image.
        perturbation: which kind.
        samples: perturbations per image.
        batch_size: perturbed images per call of ``score``.

    Returns:
        The three means from which infidelity follows, plain or at the best scale.

    Raises:
        CamlucidaError: the maps do not fit the images, there are no samples, or the kind is unknown.

    Example:
        >>> streams = camlucida.common.seeds.ImageGenerators(0, images)
        >>> score = lambda some, which: some.sum((1, 2, 3))
        >>> camlucida.metrics.infidelity(score, images, images, streams, samples=4).plain < 1e-3
        tensor([True, True])
    """
    if maps.shape not in {images.shape, torch.Size((len(images), *images.shape[2:]))}:
        raise CamlucidaError(
            f"infidelity needs maps (N, H, W) or (N, C, H, W) of the images {tuple(images.shape)}, got "
            f"{tuple(maps.shape)}"
        )
    if samples < 1 or perturbation not in {"square", "noisy_baseline"}:
        raise CamlucidaError(
            "infidelity needs at least 1 sample and 'square' or 'noisy_baseline', got "
            f"{samples} and {perturbation!r}"
        )
    count = len(images)
    everyone = torch.arange(count, device=images.device)

    def scores(changed: Tensor, which: Tensor) -> Tensor:
        parts = zip(*(torch.split(t, batch_size) for t in (changed, which)), strict=True)
        return torch.cat([score(*part).double() for part in parts])

    before = scores(images, everyone)
    weights = maps.double()
    make = _squares if perturbation == "square" else _noisy_baselines
    sums = before.new_zeros(3, count)
    rounds = max(1, batch_size // count)  # so many perturbations of all images fill a pass
    for start in range(0, samples, rounds):
        made = [make(images, weights, generators) for _ in range(min(rounds, samples - start))]
        changed, guesses = (torch.cat(each) for each in zip(*made, strict=True))
        which = everyone.repeat(len(made))
        drops = before[which] - scores(changed, which)
        terms = torch.stack([guesses.square(), guesses * drops, drops.square()])
        sums.index_add_(1, which, terms)
    return Infidelities(*(sums / samples).unbind(0))


def _squares(images: Tensor, weights: Tensor, generators: ImageGenerators) -> tuple[Tensor, Tensor]:
    """Images with one square at 0, and the map's sum over it."""
    height, width = int(images.shape[2]), int(images.shape[3])
    largest = max(1, round(min(height, width) * 10 / 28))
    # In single precision, so that every type of input sees the same squares.
    drawn = generators.rand((3,), torch.empty(0, device=images.device)).double()
    side = (drawn[:, 0] * largest).long() + 1
    top = (drawn[:, 1] * (height - side + 1)).long()
    left = (drawn[:, 2] * (width - side + 1)).long()
    y = torch.arange(height, device=images.device)
    x = torch.arange(width, device=images.device)
    rows = (y >= top[:, None]) & (y < (top + side)[:, None])
    columns = (x >= left[:, None]) & (x < (left + side)[:, None])
    gone = rows[:, :, None] & columns[:, None, :]
    places = weights.sum(1) if weights.ndim == 4 else weights
    return torch.where(gone[:, None], 0, images), (places * gone).sum((1, 2))


def _noisy_baselines(
    images: Tensor, weights: Tensor, generators: ImageGenerators
) -> tuple[Tensor, Tensor]:
    """Noisy baselines, and the map's product with the way from them to the images."""
    noise = generators.randn(images.shape[1:], images)
    baseline = _NOISE * noise
    way = (images - baseline).double()
    return baseline, ((way.sum(1) if weights.ndim == 3 else way) * weights).flatten(1).sum(1)


# ------------------------------------------------------------------------------------------- metrics


@register(
    "sensitivity_max",
    title="Max sensitivity",
    direction="lower",
    range=(0.0, math.inf),
    question="stability",
    source="Yeh et al. 2019, definition 3.1",
    needs=("model",),
    cost=MetricCost(explanations=10),
    remark="a blank map does not count; methods that draw random numbers draw others for the noisy images",
)
@dataclass(frozen=True)
class SensitivityMax(OneNumber):
    """How far the map moves, at most, when the image gets a little noise; relative to the map.

    The noisy images are explained again by the same method, target, layers and steps. Lower is better; at
    least 0; NaN (not counted) for a blank map.

    Attributes:
        radius: each value of the image moves evenly within plus and minus this much; 0.02 by default.
        samples: noisy images, 10 by default; more find larger values.
        space: the radius is in units of the model's ``"input"`` (default) or of ``"pixel"`` values in [0, 1].
        of: which map: the attribution ``"maps"`` (default), the ``"raw"`` or the ``"signed"`` ones.

    Example:
        >>> camlucida.metrics.SensitivityMax(samples=2).names
        ('sensitivity_max',)
    """

    radius: NotNegative = 0.02
    samples: Count = 10
    space: Literal["input", "pixel"] = "input"
    of: Map = "maps"

    def value(self, scene: Scene, explanation: Explanation) -> Tensor:
        """One explanation per sample."""

        def explained(images: Tensor) -> Tensor:
            found: Tensor = getattr(explain_again(scene, explanation, images), self.of)
            return found

        radius: float | Tensor = self.radius
        if self.space == "pixel":
            std = scene.inputs.new_tensor(scene.normalised().std)
            radius = self.radius / std[:, None, None]
        return sensitivity_max(
            explained,
            scene.inputs,
            getattr(explanation, self.of),
            streams(scene),
            radius=radius,
            samples=self.samples,
        )


@register(
    "infidelity",
    title="Infidelity",
    direction="lower",
    range=(0.0, math.inf),
    unit="squared target",
    question="faithfulness",
    source="Yeh et al. 2019, definition 2.1",
    needs=("model",),
    cost=MetricCost(forwards=64),
    slow=True,
    remark="depends on the scale of the target, so that models cannot be compared by it; the relative one can",
    numbers={"infidelity_relative": Facts("Relative infidelity", range=(0.0, 1.0), unit="")},
)
@dataclass(frozen=True)
class Infidelity(Metric):
    """How badly the map foretells the change of the target when parts of the image are removed.

    Numbers: ``infidelity``, and ``infidelity_relative``, infidelity at the best scale over that of an empty
    map, which is 1 for a blank map and NaN where no perturbation changes the target. Lower is better.

    Attributes:
        perturbation: ``"square"`` removal (default) or ``"noisy_baseline"``, see :func:`infidelity`.
        samples: perturbations per image, 64 by default.
        scale: multiply the map by the scale that fits best first (default), as the authors' code does: the
            values of most maps have no unit.
        space: the baseline 0 is in ``"pixel"`` values (black), or in the model's ``"input"``; ``"auto"``
            (default) is pixels where the preprocessing is known.
        of: which map: the attribution ``"maps"`` (default), or ``"raw"`` or ``"signed"`` ones of the input's
            size.

    Example:
        >>> camlucida.metrics.Infidelity(samples=8).names
        ('infidelity', 'infidelity_relative')
    """

    perturbation: Perturbation = "square"
    samples: Count = 64
    scale: bool = True
    space: Space = "auto"
    of: Map = "maps"

    def measure(self, scene: Scene, explanation: Explanation) -> Measured:
        """Forward passes of perturbed images, with the explained target."""
        images, as_inputs = scene.images(self.space)
        on_cpu = scene.inputs.device.type == "cpu"
        with borrowed(scene.model, scene.inputs) as module, torch.no_grad():
            inner = explanation.target.layer is not None
            forward = None if inner else fast_forward(module, scene.inputs)

            def score(changed: Tensor, which: Tensor) -> Tensor:
                target = explanation.target.take(which)
                inputs = as_inputs(changed).to(scene.inputs.dtype)
                outputs = forward(inputs) if forward else run(module, inputs, target=target)
                return target_values(target, outputs, len(which))

            found = infidelity(
                score,
                images,
                getattr(explanation, self.of),
                streams(scene),
                perturbation=self.perturbation,
                samples=self.samples,
                batch_size=min(scene.batch_size, _CPU_BATCH) if on_cpu else scene.batch_size,
            )
        value = found.scaled if self.scale else found.plain
        return Measured.of(infidelity=value, infidelity_relative=found.unexplained)


def streams(scene: Scene) -> ImageGenerators:
    """One random stream per image, other than those that methods draw from with the same seed."""
    return ImageGenerators.of(scene.seed + _OWN, scene.inputs)


def explain_again(scene: Scene, explanation: Explanation, images: Tensor) -> Explanation:
    """Other images explained as the given ones were: same method, target, layers, steps and seed."""
    steps = Steps(**explanation.provenance.facts["steps"])
    options: dict[str, Any] = {} if steps == explanation.method.steps else {"steps": steps}
    return explain(
        scene.model,
        images,
        method=explanation.method,
        target=explanation.target,
        layers=explanation.layers if explanation.method.uses_layers else None,
        preprocess=scene.preprocess,
        seed=scene.seed,
        batch_size=scene.batch_size,
        **options,
    )
