"""FAME: pixel attribution by gradient descent on the image."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, TypeAlias

import torch
from torch import Tensor

from camlucida.common.arguments import argument
from camlucida.common.errors import MethodError
from camlucida.common.limits import Count, Kernel, Limits, NotNegative, Positive
from camlucida.common.statistics import correlation
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import borrowed
from camlucida.engine.compiled_step import compiled_steps, step
from camlucida.engine.faster_forward import Forward, fast_forward
from camlucida.engine.maps import Normalise, Steps, normalise, smooth
from camlucida.engine.tap import run
from camlucida.methods.base import Method, RawMap
from camlucida.methods.registry import Cost, register
from camlucida.methods.task import Progress, Task
from camlucida.targets import Target, target_values
from camlucida.targets.base import checked

Loss = Literal["target", "raise", "absolute"]
ChannelReduction = Literal["gray_then_abs", "abs_then_gray", "abs_mean", "abs_max", "l2"]
InputSpace = Literal["input", "pixel"]
EarlyStop = Literal["sample", "batch_mean"]
Precision = Literal["full", "bf16"]
Preset = Literal["paper", "reproducible", "reference_code", "reference_code_faces"]

KERNEL, SIGMA = 49, 7.7
"""The paper's Gaussian, for inputs of 224 pixels."""

_CODE: dict[str, Any] = {"normalise": "minmax", "eps": 1e-8}
_PRESETS: dict[str, dict[str, Any]] = {
    "reproducible": {"starts": 8, "iterations": 62},
    "reference_code": _CODE,
    "reference_code_faces": {
        **_CODE, "input_space": "pixel", "epsilon": 0.01, "early_stop": "batch_mean",
    },
}  # fmt: skip

_GRAY = (0.2989, 0.587, 0.114)
_NO_GRADIENT = 1e-12
_AUTO_LIMIT = 500
_MANY = 20  # steps from which finding the model's fastest form, some ten passes once, pays
_AUTO_EVERY = 15


Step: TypeAlias = "Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]"

# -------------------------------------------------------------------------------------- the update (eq 3)


@dataclass(frozen=True)
class Descent:
    """Where :func:`descend` ended.

    Attributes:
        images: the moved images, in the space that was descended in, ``(N, C, H, W)``.
        start: the same images before the first step.
        passes: forward-backward passes that each image took, ``(N,)``.
        losses: the loss of each image before the first and after the last step, ``(N, 2)``.
        kept: the images after the iteration counts asked for, in their order.
    """

    images: Tensor
    start: Tensor
    passes: Tensor
    losses: Tensor
    kept: tuple[Tensor, ...] = ()


def descend(
    step: Step,
    images: Tensor,
    *,
    iterations: int = 500,
    step_size: float = 1 / 255,
    epsilon: float | None = None,
    early_stop: EarlyStop = "sample",
    clamp: tuple[float, float] | None = None,
    keep: Sequence[int] = (),
    settled: Callable[[int, Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
) -> Descent:
    r"""The LOTS update: $\bar x \leftarrow \bar x - \eta \nabla / \max|\nabla|$, the maximum per image.

    Args:
        step: from images ``(n, C, H, W)`` and their positions ``(n,)`` in the batch to losses ``(n,)`` and their
            gradients at the images; images that have stopped are left out.
        images: where to start, ``(N, C, H, W)``; kept in single precision at least.
        iterations: steps, 500 by default.
        step_size: the largest move of a pixel in one step, 1/255 by default.
        epsilon: an image stops before a step when its loss is below this; ``None`` (default) never stops.
        early_stop: judge each image by its own loss, or all by the batch's mean (the authors' code).
        clamp: bounds of the pixels after each step; ``None`` (default) for no bounds.
        keep: iteration counts after which to keep a copy.
        settled: from the number of steps done, the images and their positions to a mask ``(n,)`` of those
            that may stop.
        progress: called after each step.

    Returns:
        The moved images. One whose gradient is below 1e-12 everywhere takes no further step, since
        nothing changes any more.

    Source: FAME (Zhang and Günther, arXiv 2605.12017), equation 3; LOTS (Rozsa et al., IJCB 2017).
    """
    dtype = torch.float64 if images.dtype == torch.float64 else torch.float32
    start = images.detach().to(dtype)
    moved = start.clone()
    count = len(images)
    passes = torch.zeros(count, dtype=torch.long, device=images.device)
    losses = torch.zeros(count, 2, dtype=dtype, device=images.device)
    active = torch.arange(count, device=images.device)
    kept = {0: start} if 0 in keep else {}
    for number in range(iterations):
        whole = len(active) == count
        old = moved if whole else moved[active]
        values, gradient = step(old, active)
        values = values.to(dtype)
        if number == 0:
            losses[:, 0] = values
        losses[active, 1] = values
        passes[active] += 1
        largest = gradient.abs().amax(dim=(1, 2, 3), keepdim=True)
        go = largest.flatten() >= _NO_GRADIENT
        if epsilon is not None:
            below = values < epsilon if early_stop == "sample" else (values.mean() < epsilon)
            go = go & ~below
        move = step_size * gradient / torch.where(largest > 0, largest, 1)
        new = old - torch.where(go[:, None, None, None], move, 0)
        if clamp is not None:
            new = new.clamp(*clamp)
        if whole:
            moved = new
        else:
            moved[active] = new
        if settled is not None:
            go = go & ~settled(number + 1, new, active)
        if number + 1 in keep:
            kept[number + 1] = moved.clone()
        active = active[go]
        if progress is not None:
            progress(number + 1, iterations)
        if len(active) == 0:
            break
    if progress is not None:
        progress(iterations, iterations)
    return Descent(moved, start, passes, losses, tuple(kept.get(k, moved) for k in keep))


# --------------------------------------------------------------------------------- the attribution (eq 4)


def gray(images: Tensor) -> Tensor:
    """``(N, C, H, W)`` to ``(N, H, W)``: 0.2989, 0.587, 0.114 in the tensor's own channel order.

    One channel stays as it is; other counts than three are averaged.
    """
    if images.shape[1] != 3:
        return images.mean(dim=1)
    weights = images.new_tensor(_GRAY)
    return torch.einsum("nchw,c->nhw", images, weights)


_REDUCE: dict[ChannelReduction, Callable[[Tensor, Tensor], Tensor]] = {
    "gray_then_abs": lambda moved, start: (gray(moved) - gray(start)).abs(),
    "abs_then_gray": lambda moved, start: gray((moved - start).abs()),
    "abs_mean": lambda moved, start: (moved - start).abs().mean(dim=1),
    "abs_max": lambda moved, start: (moved - start).abs().amax(dim=1),
    "l2": lambda moved, start: torch.linalg.vector_norm(moved - start, dim=1),
}


def movement(
    moved: Tensor, start: Tensor, channel_reduction: ChannelReduction = "gray_then_abs"
) -> Tensor:
    r"""How far each pixel moved, ``(N, H, W)``: by default $|G(\bar x) - G(x)|$ with $G$ gray, then the difference."""
    return _REDUCE[channel_reduction](moved, start)


# ------------------------------------------------------------------------------------------- the method


@register(
    "fame",
    use="Single pixels: which ones move when the photo is changed, step by step, to lower "
    "the score; also for faces.",
    paper="Zhang & Günther 2026",
    year=2026,
    equation="3, 4",
    needs=("pixel gradients",),
    cost=Cost(forward=1, backward=1, times=("starts", "iterations"), first=1),
    quick={"iterations": 40},
    quick_audits=False,
    before_blur="movement",
    on_pairs={"input_space": "pixel"},
    opposite={"loss": "raise"},
)
@dataclass(frozen=True)
class FAME(Method):
    r"""Which pixels move when the image is changed, step by step, to lower the target.

    $\bar x^0 = x$, $\bar x \leftarrow \bar x - \eta \nabla\mathcal{L} / \max|\nabla\mathcal{L}|$, and the
    map is the blurred $|G(\bar x) - G(x)|$. The target decides the paper's loss: a logit
    ($\mathcal{L}_{cls}$), a cosine similarity ($\mathcal{L}_+$, and $\mathcal{L}_-$ with
    ``loss="raise"``), a :class:`~camlucida.targets.Cell` ($\mathcal{L}_a$), or
    :class:`~camlucida.targets.HalfSquaredDistance` (general LOTS).

    Attributes:
        iterations: steps, 500 by default (75 to 200 are already stable); ``"auto"`` stops each image when its
            map has settled, at the latest after 500.
        starts: paths, 1 by default: the paper's, from the image itself. With more, each starts from the image with
            every value changed at random within one grey level, all are descended together, and the map is that of
            their mean movement: one long path is chaotic, the mean of short ones comes out again. It needs the
            model's preprocessing, which says what a grey level is.
        step_size: largest move of a pixel in a step, 1/255 by default, in units of the space moved in.
        loss: what is descended: the ``"target"`` itself (default), 1 minus it (``"raise"``), or its absolute
            value (``"absolute"``, an older script of the authors; it turns around for negative logits).
        channel_reduction: how channels become one, see :func:`movement`.
        sigma: standard deviation of the blur in pixels, 7.7 by default; ``"scaled"`` is 7.7 * H / 224; 0 for
            none.
        kernel: odd width of the blur, 49 by default; with ``"scaled"`` it scales too. Cut where reflecting
            needs a larger image.
        normalise: ``"max"`` (default, the paper) or ``"minmax"`` (the authors' code).
        epsilon: stop an image before a step when its loss is below this; ``None`` (default) never stops.
        early_stop: judge by each image's own loss (default), or by the ``"batch_mean"`` (the authors' code).
        input_space: move the tensor that the model receives (``"input"``, default; classification in the paper)
            or its pixels in [0, 1] (``"pixel"``; faces in the paper), which needs the model's preprocessing.
        clamp: keep pixels in [0, 1]; only with ``input_space="pixel"``; ``False`` by default.
        tolerance: with ``"auto"``, the change of the map (1 - correlation over 15 steps) that counts as
            settled.
        precision: ``"full"`` (default), or ``"bf16"`` to run the model under bfloat16 autocast while the image
            stays in single precision.
        plain: run the model as it is in every step; by default its fastest form, which gives the same outputs and
            gradients but for rounding. In nets with ReLUs rounding grows from step to step: after 20 steps of the
            embedded model either form has moved pixels 9 % otherwise (by norm) than double precision, and their maps,
            blurred, differ from it by 1.6 %.
        compiled: compile a step forward and backward at the first one, which takes 10 to 50 seconds and pays from
            thousands of passes on; without a compiler all steps run as by default. ``False`` by default.
        snapshots: iteration counts after which to keep the map as well; they arrive in ``details`` as
            ``"map@75"`` and, before the blur, ``"movement@75"``.
        preset: sets what is not given otherwise. ``"reproducible"``: ``starts=8`` and ``iterations=62``, a map
            that comes out again at the cost of the paper's. ``"reference_code"``: the authors' code,
            ``normalise="minmax"`` and ``eps=1e-8``; ``"reference_code_faces"`` what it does for verification
            besides: ``input_space="pixel"``, ``epsilon=0.01`` and ``early_stop="batch_mean"``, which leaves many
            impostors' maps empty.
        eps: added to the denominators of the scaling before and after the blur; 0 by default.

    Example:
        >>> found = camlucida.explain(model, images, method=camlucida.methods.FAME(iterations=3))
    """

    explains = "input"

    iterations: Count | Literal["auto"] = 500
    starts: Count = 1
    step_size: Positive = 1 / 255
    loss: Loss = "target"
    channel_reduction: ChannelReduction = "gray_then_abs"
    sigma: NotNegative | Literal["scaled"] = SIGMA
    kernel: Kernel = KERNEL
    normalise: Normalise = "max"
    epsilon: float | None = None
    early_stop: EarlyStop = "sample"
    input_space: InputSpace = "input"
    clamp: bool = False
    tolerance: NotNegative = 1e-3
    precision: Precision = "full"
    plain: bool = False
    compiled: bool = False
    snapshots: tuple[Annotated[int, Limits(0)], ...] = ()
    preset: Preset = "paper"
    eps: NotNegative = 0.0

    def __post_init__(self) -> None:
        """Check the options; apply the preset."""
        for name, value in _PRESETS.get(self.preset, {}).items():
            if getattr(self, name) == getattr(type(self), name):  # as by default
                object.__setattr__(self, name, value)
        super().__post_init__()
        if self.clamp and self.input_space != "pixel":
            raise MethodError("clamp bounds pixels in [0, 1]; it needs input_space='pixel'")

    @property
    def limit(self) -> int:
        """The largest number of steps."""
        return _AUTO_LIMIT if self.iterations == "auto" else self.iterations

    @property
    def steps(self) -> Steps:
        """Blurred and scaled; the blur is applied by ``run``, which knows the image size."""
        return Steps(rectify=False, normalise=self.normalise, eps=self.eps)

    def blur(self, size: tuple[int, int]) -> tuple[float, int]:
        """Sigma and kernel used for images of this size."""
        sigma, kernel = self.sigma, self.kernel
        if sigma == "scaled":
            sigma = SIGMA * size[0] / 224
            kernel = max(1, round((self.kernel - 1) * size[0] / 224 / 2) * 2 + 1)
        return float(sigma), min(kernel, 2 * min(size) - 1)

    def run(self, task: Task) -> RawMap:
        """Descend, then blur how far the pixels moved."""
        pixels = task.pixels(self.input_space, "input_space")
        count, paths = len(task.inputs), self.starts
        inputs = task.inputs
        if paths > 1:
            if task.preprocess is None:
                raise MethodError(
                    "several starts lie within a grey level of the image, and it is not known what that is; say it "
                    f"with {argument('preprocess')}, or use starts=1"
                )
            near = partial(task.preprocess.jittered, inputs, task.generator)
            inputs = torch.stack([near() for _ in range(paths)], 1).flatten(0, 1)
        images = inputs if pixels is None else pixels.denormalise(inputs)
        with borrowed(task.model, task.inputs) as module, torch.no_grad():
            task = replace(task, model=module)
            outputs, target, values = task.ask()
            descent = descend(
                self._step(replace(task, target=target), pixels),
                images,
                iterations=self.limit,
                step_size=self.step_size,
                epsilon=self.epsilon,
                early_stop=self.early_stop,
                clamp=(0.0, 1.0) if self.clamp else None,
                keep=self.snapshots,
                settled=_Settled(self, images) if self.iterations == "auto" else None,
                progress=task.progress,
            )

            def each(values: Tensor) -> Tensor:
                return values.reshape(count, paths, *values.shape[1:])

            moved = each(movement(descent.images, descent.start, self.channel_reduction))
            details = {
                "passes": each(descent.passes).sum(1),
                "loss": each(descent.losses).mean(1),
                "movement": moved.mean(1),
            }
            for number, image in zip(self.snapshots, descent.kept, strict=True):
                at = each(movement(image, descent.start, self.channel_reduction)).mean(1)
                details[f"movement@{number}"] = at
                details[f"map@{number}"] = self.steps.finish(self.smoothed(at), task.size)
            if paths > 1:
                halves = [self.smoothed(moved[:, i::2].mean(1)).flatten(1) for i in (0, 1)]
                details["halves"] = correlation(*halves)
            blurred = self.smoothed(details["movement"])
        still = each((descent.images == descent.start).flatten(1).all(1)).all(1)
        notes = self._notes(details, still, task.size)
        return RawMap.of_input(blurred, outputs, target, values, notes=notes, details=details)

    def smoothed(self, moved: Tensor) -> Tensor:
        """Movement ``(N, H, W)`` after the blur, not yet scaled."""
        if self.eps:
            moved = moved / (moved.amax(dim=(1, 2), keepdim=True) + self.eps)
        sigma, kernel = self.blur((int(moved.shape[-2]), int(moved.shape[-1])))
        return smooth(moved, sigma, kernel) if sigma else moved

    def _step(self, task: Task, pixels: Preprocess | None) -> Step:
        target, device, half = task.target, task.inputs.device.type, self.precision == "bf16"
        precision = partial(torch.autocast, device, torch.bfloat16 if half else None, enabled=half)
        forward: Forward = partial(run, task.model, target=target)
        many = target.layer is None and self.limit >= _MANY and not self.plain
        if many:
            with precision():
                forward = fast_forward(task.model, task.inputs, gradients=True)
        names = [name for name in target.per_image if isinstance(getattr(target, name), Tensor)]

        def loss(images: Tensor, *own: Tensor) -> Tensor:
            if pixels is not None:
                images = pixels.normalise(images)
            with precision():
                # A copy: some models write to their input.
                outputs = forward(images.to(task.inputs.dtype).clone())
            of_images = replace(target, **dict(zip(names, own, strict=True)))  # type: ignore[type-var]
            with checked():
                values = target_values(of_images, outputs, len(images))
            if self.loss == "raise":
                return 1 - values
            return values.abs() if self.loss == "absolute" else values

        rest = {name: value for name, value in vars(target).items() if name not in names}
        # A function of the user's may read anything, and a tensor that all images share would become a constant.
        known = not any(
            isinstance(value, Tensor | Target) or callable(value) for value in rest.values()
        )
        key = (self.loss, self.precision, type(target), repr(rest), repr(pixels))
        traced = self.compiled and many and known
        steps = compiled_steps(task.model, loss, key) if traced else partial(step, loss)

        most = max(len(task.inputs), self.starts)  # at a time, for the memory's sake

        def taken(images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
            found = []
            for some, at in zip(torch.split(images, most), torch.split(index, most), strict=True):
                own = target.take(at // self.starts)
                found.append(steps(some, *(getattr(own, name) for name in names)))
            values, gradients = zip(*found, strict=True)
            return torch.cat(values), torch.cat(gradients)

        return taken

    def _notes(
        self, details: dict[str, Tensor], still: Tensor, size: tuple[int, int]
    ) -> dict[int, list[str]]:
        notes: dict[int, list[str]] = {}
        for i, r in enumerate(details.get("halves", still.new_zeros(0)).tolist()):
            if math.isfinite(r):
                whole = 2 * r / (1 + r) if r > 0 else 0.0  # Spearman and Brown
                said = (
                    f"the maps of its two halves of {self.starts} starts correlate at {r:.3f}, so that the map would "
                    f"come out again at about {whole:.3f}; smaller differences between such maps mean nothing"
                )
                notes[i] = [said]
        for i in still.nonzero()[:, 0].tolist():
            first = float(details["loss"][i, 0])
            if self.epsilon is not None and first < self.epsilon:
                why = (
                    f"the loss {first:.3g} lay below epsilon={self.epsilon} before the first step (as every "
                    "negative distance and many an impostor's similarity does); epsilon=None never stops"
                )
            else:
                why = (
                    "no small change of the image changes what is explained (a dead cell, a saturated probability, or "
                    "the similarity of the image with itself)"
                )
            notes.setdefault(i, []).append(f"the image was never moved, so the map is empty: {why}")
        sigma, kernel = self.blur(size)
        wanted = self.kernel if self.sigma != "scaled" else kernel
        if sigma and kernel < wanted:
            cut = f"the blur's kernel was cut from {wanted} to {kernel} pixels for a {size[0]}x{size[1]} image"
            for i in range(len(still)):
                notes.setdefault(i, []).append(cut)
        return notes


class _Settled:
    """Tells which images' maps no longer change: correlation with the map 15 steps before."""

    def __init__(self, method: FAME, start: Tensor) -> None:
        self.method = method
        self.start = start.to(torch.promote_types(start.dtype, torch.float32))
        self.before: Tensor | None = None

    def __call__(self, step: int, images: Tensor, index: Tensor) -> Tensor:
        still = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        if step % _AUTO_EVERY:
            return still
        method = self.method
        moved = movement(images, self.start[index], method.channel_reduction)
        maps = normalise(method.smoothed(moved), method.normalise, eps=method.eps).flatten(1)
        if self.before is None:
            self.before = torch.zeros(
                len(self.start), maps.shape[1], dtype=maps.dtype, device=maps.device
            )
        else:
            still = correlation(maps, self.before[index]) > 1 - method.tolerance
        self.before[index] = maps
        return still
