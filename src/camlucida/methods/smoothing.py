"""What every method can be wrapped in: smoothing over augmented images or by a principal component; both sides."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from camlucida.common.errors import MethodError
from camlucida.engine.maps import Steps, normalise, preset
from camlucida.methods.base import GradientCAM, Method, RawMap, assemble, calm
from camlucida.methods.eigencam import Sign, principal
from camlucida.methods.registry import method_name, row_of
from camlucida.methods.task import Task
from camlucida.targets import Cell, Cells, Segmentation


def wrapped(
    method: Method,
    *,
    aug_smooth: bool = False,
    eigen_smooth: bool = False,
    both_sides: bool = False,
) -> Method:
    """A method with the smoothing and the sides asked for; itself where none are.

    Raises:
        MethodError: for eigen smoothing of a method that adds up no channels, or both sides of one that asks for no
            target.
    """
    if eigen_smooth:
        method = EigenSmooth(method)
    if aug_smooth:
        method = AugSmooth(method)
    return BothSides(method) if both_sides else method


@dataclass(frozen=True)
class Wrapper(Method):
    """Base of the methods made from another one.

    Attributes:
        option: name of the option that stands for the wrapper.
        method: the other one.
    """

    option: ClassVar[str]

    method: Method

    @property
    def steps(self) -> Steps:
        """The other method's."""
        return self.method.steps

    @property
    def unsmoothed(self) -> Method:
        """The other method, without what may be around it."""
        return self.method.unsmoothed

    @property
    def uses_layers(self) -> bool:
        """As the other method."""
        return self.method.uses_layers

    def default_layers(self, model: nn.Module, inputs: Tensor) -> tuple[str, ...]:
        """As the other method."""
        return self.method.default_layers(model, inputs)

    def describe(self) -> dict[str, Any]:
        """The other method's name and options, and the wrapper's own."""
        inner = self.method.describe()
        own = {
            k: v for k, v in vars(self).items() if k != "method" and v != getattr(type(self), k, v)
        }
        return {
            "method": inner["method"],
            "options": {**inner["options"], self.option: True, **own},
        }


@dataclass(frozen=True)
class AugSmooth(Wrapper):
    r"""The mean of a method's attribution maps over flipped and scaled copies of the image.

    $\frac{1}{|T|}\sum_{t \in T} t^{-1}(M(t(x)))$, with $T$ the products of mirroring left-right and multiplying
    the model's input with a factor. The class is that of the image as it is.

    Attributes:
        method: any method.
        flip: take mirrored copies too (default).
        factors: 1, 0.9 and 1.1 by default, as pytorch-grad-cam's ``aug_smooth``.

    Source: pytorch-grad-cam, ``forward_augmentation_smoothing``.

    Example:
        >>> method = camlucida.methods.AugSmooth(camlucida.methods.GradCAM(), factors=(1, 0.8))
        >>> found = camlucida.explain(model, images, method=method)
    """

    option = "aug_smooth"

    flip: bool = True
    factors: Sequence[float] = (1.0, 0.9, 1.1)

    def __post_init__(self) -> None:
        """Check the factors."""
        super().__post_init__()
        object.__setattr__(self, "factors", tuple(float(f) for f in self.factors))
        if not self.factors or 0 in self.factors:
            raise MethodError(f"factors must be numbers other than 0, got {list(self.factors)}")

    @property
    def steps(self) -> Steps:
        """The maps are finished before they are averaged; only their scaling is repeated."""
        inner = self.method.steps
        return replace(inner, rectify=False, sigma=0.0, early_normalise=False)

    def run(self, task: Task) -> RawMap:
        """One run of the method for each copy; the first is the image as it is."""
        if self.flip and isinstance(task.target, Cell | Cells | Segmentation):
            raise MethodError(
                f"the target {type(task.target).__name__} names a place, which a mirrored image has elsewhere; use "
                "AugSmooth(method, flip=False)"
            )
        copies = [
            (flip, factor) for flip in (False, True)[: 1 + self.flip] for factor in self.factors
        ]
        # The class, the values and the diagnostics are those of the image as it is.
        original = None if copies[0] == (False, 1.0) else self.method.run(task)
        fused: list[Tensor] = []
        signed: dict[str, list[Tensor]] = {}
        for done, (flip, factor) in enumerate(copies):
            images = task.inputs.detach() * factor if factor != 1 else task.inputs
            target = task.target if original is None else original.target
            copy = replace(task, inputs=images.flip(-1) if flip else images, target=target)
            raw = self.method.run(copy.part(done, len(copies)))
            original = original or raw
            with torch.inference_mode(mode=False), torch.no_grad():
                undone = [_mirror(m, flip) for m in raw.layers.values()]
                for name, one in zip(raw.layers, undone, strict=True):
                    signed.setdefault(name, []).append(one)
                fused.append(_mirror(self.method.steps.finish(raw.fused, task.size), flip))
        assert original is not None  # noqa: S101
        with torch.inference_mode(mode=False), torch.no_grad():
            return replace(
                original,
                layers={name: torch.stack(maps).mean(0) for name, maps in signed.items()},
                fused=torch.stack(fused).mean(0),
                by_steps=False,
            )


@dataclass(frozen=True)
class EigenSmooth(Wrapper):
    r"""The first principal component of what a method adds up over channels, instead of the sum.

    For $L = \sum_k P^k$, such as $P^k = w_k A^k$, the map is $P v_1$ with $P$ reshaped to $(hw, K)$, centred,
    $P = U \Sigma V^\top$; its sign is turned the way of the sum.

    Methods of the CAM family have such a sum: those that combine activation and gradient channel by channel,
    and those that tell their channel weights in ``details["weights"]``.

    Attributes:
        method: a method of the CAM family.
        sign: see :func:`camlucida.methods.eigencam.principal`; ``"none"`` is pytorch-grad-cam's.

    Source: pytorch-grad-cam, ``eigen_smooth``.

    Example:
        >>> method = camlucida.methods.EigenSmooth(camlucida.methods.GradCAM())
        >>> found = camlucida.explain(model, images, method=method)
    """

    option = "eigen_smooth"

    sign: Sign = "evidence"

    def __post_init__(self) -> None:
        """Check the method, as far as it can be told without running it."""
        super().__post_init__()
        if not self.method.uses_layers:
            raise MethodError(_NO_CHANNELS.format(name=method_name(self.method)))

    def run(self, task: Task) -> RawMap:
        """One tap for methods that combine; else the method itself, and one pass for the activations."""
        if isinstance(self.method, GradientCAM):
            combine = self.method.combine
            tapped = task.tap()
            if type(self.method).run is not GradientCAM.run:
                plain = assemble(self.method, task, tapped, lambda _, a, g: combine(a, g))
                self._check(self.method.run(task).layers, plain.layers)
            return assemble(self.method, task, tapped, lambda _, a, g: self._combine(combine, a, g))
        raw = self.method.run(task)
        weights = self._weights(raw)
        seen = replace(task, target=raw.target).tap(gradients=False).activations
        with calm(task.inputs):
            maps = {
                name: principal(
                    activation * weights[name].to(activation)[:, :, None, None], self.sign
                )
                for name, activation in seen.items()
            }
            return replace(raw, layers=maps, fused=self.steps.fuse(maps, task.size))

    def _combine(
        self, combine: Callable[[Tensor, Tensor], Tensor], activation: Tensor, gradient: Tensor
    ) -> Tensor:
        n, k = activation.shape[:2]
        whole = combine(activation, gradient)
        # Channel by channel: each as an image of its own.
        parts = combine(activation.flatten(0, 1)[:, None], gradient.flatten(0, 1)[:, None])
        products = parts.view(n, k, *whole.shape[1:])
        self._check({"": whole}, {"": products.sum(1)})
        return principal(products, self.sign)

    def _check(self, wanted: dict[str, Tensor], found: dict[str, Tensor]) -> None:
        """Raise unless the method's maps are what adding up its channels gives."""
        for name, whole in wanted.items():
            scale = whole.nan_to_num().abs().flatten(1).amax(1)
            off = (whole - found[name]).nan_to_num().abs().flatten(1).amax(1)
            if (off > 1e-3 * scale).any():
                raise MethodError(_NO_CHANNELS.format(name=method_name(self.method)))

    def _weights(self, raw: RawMap) -> dict[str, Tensor]:
        several = len(raw.layers) > 1
        keys = {name: f"weights[{name}]" if several else "weights" for name in raw.layers}
        if any(key not in raw.details for key in keys.values()):
            raise MethodError(_NO_CHANNELS.format(name=method_name(self.method)))
        return {name: raw.details[key] for name, key in keys.items()}


@dataclass(frozen=True)
class BothSides(Wrapper):
    r"""What speaks for the target, and below zero what speaks against it: $M(Y) - M(-Y)$.

    Both maps are rectified, resized and blurred as the method does it, and keep the method's own scale, so that the
    stronger side shows. A method that scales its map itself (I-CAM, Opti-CAM) has both sides in [0, 1], equally strong;
    where a map holds the target's average at every place (RISE), each counts from its own mean. Of a method whose maps
    change their sign with the target, such as Grad-CAM, this is the map before rectifying. On a margin of class A over
    class B: where the model sees A, and where it sees B.

    Attributes:
        method: any method whose maps depend on the target.

    Example:
        >>> margin = camlucida.LogitMargin(3, rivals=[5])
        >>> found = camlucida.explain(model, images, target=margin, both_sides=True)
        >>> found.label
        'gradcam (both sides)'
    """

    option = "both_sides"

    def __post_init__(self) -> None:
        """Refuse methods that ask for no target."""
        super().__post_init__()
        row = row_of(self.method)
        if row is not None and not row.discriminative:
            raise MethodError(
                f"{row.name} does not depend on what is explained, so its map has no two sides; use another method"
            )

    @property
    def steps(self) -> Steps:
        """The sides are finished before they are compared, and keep their scale."""
        return Steps(rectify=False, normalise="none")

    def run(self, task: Task) -> RawMap:
        """One run of the method for each side."""
        own = preset("unscaled", self.method.steps)
        first = self.method.run(task.part(0, 2))
        second = self.method.run(replace(task, target=first.target.opposite()).part(1, 2))
        with torch.inference_mode(mode=False), torch.no_grad():
            sides = [
                own.finish(
                    own.fuse(raw.layers, task.size) if raw.by_steps else raw.fused, task.size
                )
                for raw in (first, second)
            ]
            sides = self._on_one_scale(sides)
            apart = sides[0] - sides[1]
            size = torch.stack(sides).abs().amax((0, 2, 3))
            same = (apart.abs().amax((1, 2)) <= 1e-5 * size) & (size > 0)
            notes = dict(first.notes)
            for image in same.nonzero().flatten().tolist():
                notes[image] = [*notes.get(image, ()), _ONE_SIDE]
            fused = torch.where(same[:, None, None], 0, apart)
            return replace(first, fused=fused, notes=notes, by_steps=False)

    def _on_one_scale(self, sides: list[Tensor]) -> list[Tensor]:
        """The sides ``(N, H, W)``, on a scale on which they can be compared."""
        row = row_of(self.method)
        if row is not None and row.scale == "average":
            return [side - side.mean((1, 2), keepdim=True) for side in sides]
        return [normalise(side) for side in sides] if row and row.scale == "own" else sides


_ONE_SIDE = (
    "the method's map of the target is also that of its opposite, so it does not tell what speaks for which side; use "
    "another method"
)

_NO_CHANNELS = (
    "{name} adds up no weighted channels, so eigen_smooth has nothing to take the principal component of; "
    "aug_smooth works with every method"
)


def _mirror(maps: Tensor, flip: bool) -> Tensor:
    return maps.flip(-1) if flip else maps
