"""What I-CAM asks of the model: one pass for the images, one for each perturbed copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TypedDict

import torch
from torch import Tensor

from camlucida.common.errors import MethodError
from camlucida.common.seeds import ImageGenerators
from camlucida.common.statistics import ssim
from camlucida.engine.layers import INPUT
from camlucida.engine.layouts import in_fast_layout
from camlucida.engine.tap import Tap
from camlucida.methods.icam.alpha import Derivatives, SoftmaxMoments, alpha, derivatives
from camlucida.methods.icam.layer_map import LayerMap, entry_weights, layer_map
from camlucida.methods.icam.options import ICAMOptions
from camlucida.methods.icam.scores import (
    distance,
    dynamic_range,
    input_term,
    layer_term,
    mds,
    perturb,
    svim,
)
from camlucida.methods.task import Task
from camlucida.targets import ExpLogit, Logit, LogProbability, Probability, Target, target_values

Report = Callable[[int], None]


@dataclass(frozen=True)
class Seen:
    """What the model tells about unperturbed images.

    Attributes:
        outputs: the model's output.
        target: the target that was given, fixed to the images.
        values: its value per image, ``(N,)``.
        scored: the target S whose gradient is taken, likewise fixed.
        score: its value, ``(N,)``, double precision.
        margin: its lead over the log-sum-exp of the other logits, ``(N,)``: Y is its sigmoid.
        first: f' at the score, ``(N,)``.
        second: f'' up to a factor, ``(N,)``.
        logits: what the copies' outputs are compared with, ``(N, M)``.
        at_input: input term of eq. 3, ``(N, H, W)``.
        at_layers: distance of each image's own layer terms from it, ``(N, L)``.
        blind: layers through which the target does not see, bool ``(N, L)``.
        pole_share: per layer, the share of entries of positive slope with a negative alpha, ``(N, L)``.
        maps: the map of each layer.
        dead: channels that are zero everywhere, per layer.
        channels: number of channels, per layer.
        connected: whether the target depends on the layer, per layer.
    """

    outputs: Tensor
    target: Target
    values: Tensor
    scored: Target
    score: Tensor
    margin: Tensor
    first: Tensor
    second: Tensor
    logits: Tensor
    at_input: Tensor
    at_layers: Tensor
    blind: Tensor
    pole_share: Tensor
    maps: dict[str, LayerMap]
    dead: dict[str, Tensor]
    channels: dict[str, int]
    connected: dict[str, bool]


class Copies(TypedDict):
    """What the perturbed copies tell: ``(N, R, n)`` each, ``distance`` ``(N, R, n, L)``."""

    ssim: Tensor
    svim: Tensor
    mds: Tensor
    distance: Tensor


def wide(tensor: Tensor) -> Tensor:
    """In double precision, where the device has it."""
    return tensor.float() if tensor.device.type == "mps" else tensor.double()


# --------------------------------------------------------------------------------------------- targets


@dataclass(frozen=True, eq=False)
class _Sigmoid(Target):
    """The sigmoid of a target without classes."""

    inner: Target

    def __call__(self, outputs: Tensor) -> Tensor:
        return self.inner(outputs).sigmoid()

    def take(self, index: Tensor) -> _Sigmoid:
        return replace(self, inner=self.inner.take(index))


def score_target(target: Target) -> Target:
    """The score S behind a target: I-CAM applies f itself, so a function of a logit stands for its logit."""
    if isinstance(target, Probability | LogProbability | ExpLogit):
        return Logit(target.classes)
    return target


def _probability(scored: Target, outputs: Tensor) -> Target:
    """Y itself as a target, for ``score="prob"``."""
    if _class_logits(scored, outputs) is None:
        sigmoid = _Sigmoid(scored)
        object.__setattr__(sigmoid, "layer", scored.layer)
        return sigmoid
    return Probability(scored.classes)  # type: ignore[attr-defined]


def _class_logits(scored: Target, outputs: Tensor) -> Tensor | None:
    logits = scored.logits(outputs)
    has_class = isinstance(getattr(scored, "classes", None), Tensor)
    return logits if logits is not None and logits.shape[1] > 1 and has_class else None


def _comparable(scored: Target, outputs: Tensor, values: Tensor) -> Tensor:
    """Logits ``(N, M)``; ``(S, 0)``, whose softmax holds Y = sigmoid(S), without classes."""
    logits = _class_logits(scored, outputs)
    return wide(torch.stack([values, torch.zeros_like(values)], 1) if logits is None else logits)


def _margin(scored: Target, outputs: Tensor, values: Tensor) -> Tensor:
    logits = _class_logits(scored, outputs)
    if logits is None:
        return wide(values)
    classes: Tensor = scored.classes[:, None]  # type: ignore[attr-defined]
    logits = wide(logits)
    others = logits.scatter(1, classes, -torch.inf).logsumexp(1)
    return logits.gather(1, classes)[:, 0] - others


# -------------------------------------------------------------------------------------------- images


def look(options: ICAMOptions, task: Task, names: tuple[str, ...]) -> Seen:
    """One pass of some unperturbed images: their layer maps, and the input term of eq. 3."""
    inputs = task.inputs
    watched = names if INPUT in names else (*names, INPUT)
    watching = replace(task, layers=watched, target=score_target(task.target))
    tapped = watching.tap()
    scored, outputs = tapped.target, tapped.outputs
    felt = tapped
    if options.score == "prob":
        felt = replace(watching, target=_probability(scored, outputs)).tap()
    with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
        fixed = task.target.pin(outputs)
        score, margin = wide(tapped.values), _margin(scored, outputs, tapped.values)
        f = derivatives(options.function, score, margin)
        first = torch.ones_like(f.first) if options.drop_common_factor else f.first
        at_input = input_term(felt.activations[INPUT], felt.gradients[INPUT])
        at_layers = _distances(options, at_input, felt, names)
        blind = torch.stack([~tapped.gradients[n].flatten(1).any(1) for n in names], 1)
        logits = _comparable(scored, outputs, tapped.values)
    moments = {}
    if options.alpha_form == "softmax_full":
        moments = _moments(options, task, tapped, names)
        first = torch.ones_like(margin) if options.drop_common_factor else margin.sigmoid()
    maps, shares = {}, []
    with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
        for name in names:
            activation, gradient = tapped.activations[name], tapped.gradients[name]
            slope, weight = _alpha(options, activation, gradient, f, first, moments.get(name))
            shares.append(_beyond_pole(slope, weight))
            maps[name] = layer_map(
                activation,
                entry_weights(weight, slope),
                score,
                first.abs(),
                bias=options.bias,
                bias_form=options.bias_form,
            )
        return Seen(
            outputs=outputs,
            target=fixed,
            values=target_values(fixed, outputs, inputs.shape[0]),
            scored=scored,
            score=score,
            margin=margin,
            first=first,
            second=f.second,
            logits=logits,
            at_input=at_input,
            at_layers=at_layers,
            blind=blind,
            pole_share=torch.stack(shares, 1),
            maps=maps,
            dead={n: (tapped.activations[n] == 0).flatten(2).all(-1).sum(-1) for n in names},
            channels={n: tapped.activations[n].shape[1] for n in names},
            connected={n: tapped.connected[n] for n in names},
        )


def _alpha(
    options: ICAMOptions,
    activation: Tensor,
    gradient: Tensor,
    f: Derivatives,
    first: Tensor,
    moments: SoftmaxMoments | None,
) -> tuple[Tensor, Tensor | None]:
    """The slope of Y up to a positive factor per image, and alpha."""
    if moments is not None:
        return moments.derivatives()[0].to(activation), moments.alpha(wide(activation)).to(
            activation
        )
    slope = first.sign().to(gradient)[:, None, None, None] * gradient
    if options.alpha_form == "none":
        return slope, None
    return slope, alpha(activation, gradient, f)


def _beyond_pole(slope: Tensor, weight: Tensor | None) -> Tensor:
    rising = slope > 0
    if weight is None:
        return torch.zeros(len(slope), device=slope.device)
    beyond = (rising & (weight < 0)).flatten(1).sum(1)
    return beyond / rising.flatten(1).sum(1).clamp_min(1)


def _moments(
    options: ICAMOptions, task: Task, tapped: Tap, names: tuple[str, ...]
) -> dict[str, SoftmaxMoments]:
    """One pass per image and class, over the classes that hold nearly all of the probability."""
    scored = tapped.target
    logits = _class_logits(scored, tapped.outputs)
    if type(scored) is not Logit or logits is None:
        raise MethodError(
            "alpha_form='softmax_full' differentiates the softmax of a class and needs a class as target, "
            f"not {type(scored).__name__}"
        )
    probabilities = wide(logits).softmax(1)
    own = scored.classes
    assert isinstance(own, Tensor)  # noqa: S101
    rows = rivals(probabilities, own, options.softmax_mass)
    moments = {name: SoftmaxMoments.like(wide(tapped.gradients[name])) for name in names}
    for part in torch.split(rows, options.chunk):
        images, classes = part.unbind(1)
        felt = replace(task, inputs=task.inputs[images], target=Logit(classes)).tap()
        for name in names:
            delta = wide(felt.gradients[name]) - wide(tapped.gradients[name])[images]
            moments[name].add(images, probabilities[images, classes], delta)
    return moments


def rivals(probabilities: Tensor, own: Tensor, mass: float) -> Tensor:
    """The other classes that count: the most probable ones that hold ``mass`` with the explained class.

    Pairs of image and class.
    """
    of_others = probabilities.scatter(1, own[:, None], -1)
    ordered, order = of_others.sort(dim=1, descending=True, stable=True)
    ordered = ordered.clamp_min(0)
    held = ordered.cumsum(1) - ordered + probabilities.gather(1, own[:, None])
    wanted = held < mass
    wanted[:, 0] = True
    wanted[:, -1] = False  # the explained class itself
    images, positions = wanted.nonzero(as_tuple=True)
    return torch.stack([images, order[images, positions]], 1)


def _distances(options: ICAMOptions, at_input: Tensor, felt: Tap, names: tuple[str, ...]) -> Tensor:
    return wide(
        torch.stack(
            [
                distance(
                    at_input,
                    layer_term(felt.activations[name], felt.gradients[name]),
                    compare_at=options.compare_at,
                    normalise_terms=options.normalise_terms,
                )
                for name in names
            ],
            dim=1,
        )
    )


# -------------------------------------------------------------------------------------------- copies


def score_copies(
    options: ICAMOptions, task: Task, names: tuple[str, ...], seen: Seen, report: Report
) -> Copies:
    """One pass of all perturbed copies of all images, for all layers, ``chunk`` copies at a time."""
    target = _probability(seen.scored, seen.outputs) if options.score == "prob" else seen.scored
    inputs, pixels = task.inputs, task.pixels(options.perturb_space, "perturb_space")
    images, extent = inputs, dynamic_range(wide(inputs))
    if pixels is not None:
        images, extent = pixels.denormalise(inputs), torch.ones_like(extent)
    shape = (len(inputs), options.runs, options.n_perturb)
    similarity, agreement = extent.new_zeros(shape), extent.new_zeros(shape)
    distances = extent.new_zeros(*shape, len(names))
    for run, number, index, copies in _draw(options, images, task.generator):
        received = copies if pixels is None else pixels.normalise(copies)
        asked = replace(task, target=target.take(index))
        felt = in_fast_layout(
            task.model,
            received,
            lambda images, asked=asked: replace(asked, inputs=images).tap(),  # type: ignore[misc]
            lambda tapped: tapped.outputs,
        )
        with torch.no_grad(), torch.autocast(inputs.device.type, enabled=False):
            where = (index, run, number)
            x, y = wide(images[index]), wide(copies)
            similarity[where] = ssim(x, y, extent[index], how=options.ssim)
            values = felt.values
            if options.score == "prob":
                values = target_values(seen.scored.take(index), felt.outputs, len(index))
            logits = _comparable(seen.scored.take(index), felt.outputs, values)
            agreement[where] = mds(seen.logits[index], logits, clamp=options.mds_clamp)
            distances[where] = _distances(options, seen.at_input[index], felt, names)
        report(len(index))
    return Copies(
        ssim=similarity,
        svim=svim(similarity, options.svim_sigma),
        mds=agreement,
        distance=distances,
    )


def _draw(
    options: ICAMOptions, images: Tensor, generator: ImageGenerators
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Run, number and image of each copy, and the copies, in chunks.

    Copies are drawn in order, run by run, so that the first n of more copies are the same.
    """
    n, device = len(images), images.device
    wanted = [(run, number) for run in range(options.runs) for number in range(options.n_perturb)]
    step = max(1, options.chunk // n)
    for start in range(0, len(wanted), step):
        now = wanted[start : start + step]
        drawn = [
            perturb(images, generator, alpha=options.alpha, mask_convention=options.mask_convention)
            for _ in now
        ]
        run, number = torch.tensor(now, device=device).repeat_interleave(n, dim=0).unbind(1)
        index = torch.arange(n, device=device).repeat(len(now))
        parts = (torch.split(t, options.chunk) for t in (run, number, index, torch.cat(drawn)))
        yield from zip(*parts, strict=True)
