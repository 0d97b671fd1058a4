"""Losses on class activation maps: guided by salience, fooled, or kept concentrated.

A map takes part in a loss only if it is differentiable in the weights. :class:`TrainableCAM` makes such maps from
the forward pass that the cross-entropy needs anyway; the losses fit :func:`camlucida.training.loop.fit`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from camlucida.common.errors import CamlucidaError
from camlucida.common.limits import Share, check_fields
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers import Grid, Layer, default_layer, grid_of, resolve
from camlucida.engine.linear_head import LinearInputs, find_head, no_head
from camlucida.engine.maps import Normalise, normalise, rectify
from camlucida.engine.tap import run, tap
from camlucida.methods import build
from camlucida.methods.base import GradientCAM
from camlucida.metrics.concentration import cam_entropy
from camlucida.targets import LogitMargin, Target
from camlucida.targets.classes import Logit
from camlucida.targets.margin import Aggregator
from camlucida.training.sham import HUMAN_ENTROPY, border_mask

CAMClass: TypeAlias = Literal["label", "pred"]
Mode: TypeAlias = Literal["train", "norms", "eval"]
EntropyKind: TypeAlias = Literal["droid", "fmmce", "hb-cam"]

WEIGHTS = "weights"
_Logged: TypeAlias = dict[str, Tensor]

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class CAMOptions:
    r"""Which map is trained on.

    Attributes:
        cam: ``"weights"`` (default): $M = \sum_k W_{ck} A^k$ with the classifier's weights, for networks that end
            in pooling and one linear layer; no gradient pass. Or a registered method that is made of one
            gradient and one activation, such as ``"gradcam"``, ``"hirescam"`` or ``"diffgradcam"``, which is
            differentiated twice.
        aggregator: explain the margin of the class over its rivals (``"mean"``, ``"max"``, ``"lse"``,
            ``"lae"``) instead of its logit; with a registered method only.
        options: fields of that method, such as ``{"form": "tf_original"}``.
        cam_class: the ``"label"`` (default) or the predicted class, ``"pred"``.
        cam_layer: name or module; by default the model's last feature map, before a ReLU that stands
            between it and the pooling (DenseNet), see :func:`map_layer`.
        relu: rectify the map; not in the published loss.
        scaling: of each map: ``"minmax"`` (default), ``"max"`` or ``"none"``. A constant map becomes zeros.
        mode: of the model while it learns: ``"train"``; ``"norms"``: batch norms keep their statistics;
            ``"eval"``: nothing is in training mode. Advisable with a double backward pass, and used by Heo et al.
    """

    cam: str = WEIGHTS
    aggregator: Aggregator | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    cam_class: CAMClass = "label"
    cam_layer: Layer | None = None
    relu: bool = False
    scaling: Normalise = "minmax"
    mode: Mode = "train"

    def __post_init__(self) -> None:
        """Check the words."""
        check_fields(self)
        if self.cam == WEIGHTS and (self.aggregator or self.options):
            raise CamlucidaError(
                "cam='weights' explains a class by its own weights; for a margin or other options name a method, "
                "such as cam='gradcam'"
            )
        if self.cam != WEIGHTS:
            self.method()

    def method(self) -> tuple[GradientCAM, Target]:
        """The registered method and its target, without a class yet.

        Raises:
            CamlucidaError: it is unknown, or not made of one gradient and one activation.
        """
        target = LogitMargin(aggregator=self.aggregator) if self.aggregator else Logit()
        method, wanted = build(self.cam, target, **self.options)
        plain = isinstance(method, GradientCAM) and getattr(method, "form", "exp") != "true"
        if not (isinstance(method, GradientCAM) and plain):
            raise CamlucidaError(
                f"a map of {self.cam} cannot take part in a loss: it is not made of one gradient and one "
                "activation. Use weights, gradcam, hirescam, layercam, xgradcam, gradcam-ew, gradcam++, diffgradcam "
                "or diffgradcam++"
            )
        return method, wanted

    def describe(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        layer = self.cam_layer
        named = type(layer).__name__ if isinstance(layer, nn.Module) else layer
        return {**vars(self), "options": dict(self.options), "cam_layer": named}


class TrainableCAM:
    """Logits and differentiable maps of a model, from one forward pass.

    Args:
        model: it is not changed here; the loop may wrap it afterwards.
        images: ``(N, C, H, W)`` as the model expects them, to find layer and head with; one is enough.
        options: which map.

    Raises:
        CamlucidaError: unknown layer, or ``cam="weights"`` with a network that does not end in pooling and one
            linear layer.

    Example:
        >>> cam = camlucida.training.TrainableCAM(model, images)
        >>> logits, maps = cam(model, images, torch.tensor([0, 1]))
        >>> maps.shape, maps.requires_grad
        (torch.Size([2, 16, 16]), True)
    """

    def __init__(self, model: nn.Module, images: Tensor, options: CAMOptions | None = None) -> None:
        self.options = options or CAMOptions()
        self.model = unwrap(model)
        chosen = self.options.cam_layer
        if chosen is None:
            chosen = map_layer(self.model, images[:1])
        self.layer, self._module = resolve(self.model, chosen)
        self._grids: dict[tuple[int, ...], Grid] = {}
        if self._module is None:
            raise CamlucidaError("a map in a loss is that of a layer, not of the input")
        with borrowed(self.model, images) as module, LinearInputs(module) as seen:
            tapped = tap(module, images[:1], self.layer, gradients=False)
        self.size: tuple[int, int] = tuple(tapped.activations[self.layer].shape[-2:])  # type: ignore[assignment]
        self.head = self._find_head(tapped.activations[self.layer], tapped.outputs, seen)

    def _grid(self, images: Tensor) -> Grid:
        """How the layer is read for images of this size."""
        size = tuple(images.shape[1:])
        if size not in self._grids:
            self._grids[size] = grid_of(self.model, images, self.layer)
        return self._grids[size]

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, M)`` and scaled maps ``(N, h, w)``, both with a graph into the weights.

        Args:
            model: the one given before, or what a loop made of it.
            images: ``(N, C, H, W)``.
            labels: classes ``(N,)``; they choose the maps with ``cam_class="label"``.
        """
        options = self.options
        set_mode(self.model, options.mode)
        kept: dict[str, Tensor] = {}
        rule = self._grid(images)

        def keep(name: str, output: Tensor) -> Tensor:
            activation = rule.to_map(output).clone()
            if not activation.requires_grad:
                activation.requires_grad_()
            kept[name] = activation
            # A copy goes on: an in-place ReLU behind the layer must not change the map.
            return rule.to_output(activation.clone(), output)

        with torch.enable_grad(), self._differentiable_twice():
            logits = run(model, images, {self.layer: self._module}, keep)
            activation = kept[self.layer]
            with torch.autocast(images.device.type, enabled=False):
                logits = logits.float() if logits.dtype != torch.float64 else logits
                classes = labels if options.cam_class == "label" else logits.detach().argmax(1)
                maps = self._map(activation, logits, classes)
                if options.relu:
                    maps = rectify(maps)
                return logits, normalise(maps, options.scaling)

    def observe(
        self, model: nn.Module, images: Tensor, labels: Tensor, batch_size: int = 16
    ) -> tuple[Tensor, Tensor]:
        """Logits ``(N, M)`` and scaled maps ``(N, h, w)`` of a model that is not learning, without a graph.

        The model is in eval mode meanwhile, and only what stands behind the layer is differentiated, so that many
        images take little memory.

        Args:
            model: the one given before.
            images: ``(N, C, H, W)``.
            labels: classes ``(N,)``.
            batch_size: images at a time.
        """
        logits, maps = [], []
        maker = copy(self)
        maker.options = replace(self.options, mode="eval")
        with borrowed(model, images) as module:
            for some, classes in zip(
                torch.split(images, batch_size), torch.split(labels, batch_size), strict=True
            ):
                found = maker(module, some, classes)
                logits.append(found[0].detach())
                maps.append(found[1].detach())
        return torch.cat(logits), torch.cat(maps)

    def _differentiable_twice(self) -> AbstractContextManager[None]:
        """The fused kernels of attention have a first derivative only."""
        if self.options.cam == WEIGHTS:
            return nullcontext()
        return sdpa_kernel(SDPBackend.MATH)

    def _map(self, activation: Tensor, logits: Tensor, classes: Tensor) -> Tensor:
        wide = activation if activation.dtype == torch.float64 else activation.float()
        if self.head is not None:
            weight = self.head.weight
            assert isinstance(weight, Tensor)  # noqa: S101
            return torch.einsum("nk,nkhw->nhw", weight.flatten(1)[classes].to(wide), wide)
        method, target = self.options.method()
        # Every target that a GradientCAM takes here is a ClassTarget.
        values = _of_classes(target, classes)(logits)
        (gradient,) = torch.autograd.grad(values.sum(), activation, create_graph=True)
        return method.combine(wide, gradient.to(wide))

    def _find_head(
        self, activation: Tensor, outputs: Tensor, seen: LinearInputs
    ) -> nn.Module | None:
        if self.options.cam != WEIGHTS:
            return None
        head = find_head(activation, outputs, seen.calls)
        if head is None:
            raise CamlucidaError(
                f"cam='weights' cannot be used: {no_head(str(self.layer))}, or use cam='gradcam' (--cam gradcam)"
            )
        place = head.weight.data_ptr()
        for module, _, _ in seen.calls:
            if isinstance(module.weight, Tensor) and module.weight.data_ptr() == place:
                return module
        raise CamlucidaError("the weights of the linear layer are made anew in each pass")


def map_layer(module: nn.Module, images: Tensor) -> str:
    """The last feature map, before a ReLU that belongs to its norm.

    timm joins DenseNet's last norm and the ReLU behind it in one module; the published map is the norm's own output,
    which passes through that module's ``drop``.
    """
    name = default_layer(module, images)
    inner = module.get_submodule(name)
    while not hasattr(inner, "act") and isinstance(inner, nn.Sequential) and list(inner.children()):
        child, inner = list(inner.named_children())[-1]
        name = f"{name}.{child}" if name else child
    joined = isinstance(getattr(inner, "act", None), nn.ReLU) and isinstance(
        inner,
        nn.modules.batchnorm._BatchNorm,  # noqa: SLF001 - there is no public base of all of them
    )
    if joined and isinstance(getattr(inner, "drop", None), nn.Module):
        return f"{name}.drop"
    return default_layer(module, images)


def set_mode(model: nn.Module, mode: Mode) -> None:
    """Put a model into the mode that it learns in; see :class:`CAMOptions`."""
    if mode == "eval":
        model.eval()
    elif mode == "norms":
        model.train()
        for module in model.modules():
            if isinstance(module, _NORMS):
                module.eval()
    else:
        model.train()


def fit_salience(salience: Tensor, size: tuple[int, int]) -> Tensor:
    """Salience maps ``(N, H, W)`` as targets ``(N, *size)`` of a loss.

    Maps of any range, boolean ones too, are resized as photos are, then scaled to [0, 1]; constant ones become zeros.
    """
    maps = F.interpolate(
        salience.float()[:, None], size=size, mode="bilinear", antialias=True, align_corners=False
    )[:, 0]
    return normalise(maps)


@dataclass(frozen=True)
class MapLoss(ABC):
    """A loss on the maps that ``cam`` makes, beside the cross-entropy, of a batch ``(images, labels, ...)``."""

    cam: TrainableCAM

    def __post_init__(self) -> None:
        """Check words and numbers."""
        check_fields(self)

    @abstractmethod
    def total(self, entropy: Tensor, maps: Tensor, *given: Tensor) -> tuple[Tensor, _Logged]:
        """The whole loss, and what to log, from cross-entropy, maps ``(N, h, w)`` and what else a batch brings."""

    def __call__(self, model: nn.Module, batch: Any) -> tuple[Tensor, _Logged]:
        """The loss of a batch, and what to log."""
        images, labels, *given = batch
        logits, maps = self.cam(model, images, labels)
        entropy = F.cross_entropy(logits, labels)
        total, logged = self.total(entropy, maps, *given)
        right = (logits.argmax(1) == labels).float().mean()
        detached = {name: value.detach() for name, value in logged.items()}
        return total, {"ce": entropy.detach(), "accuracy": right, **detached}


@dataclass(frozen=True)
class SalienceLoss(MapLoss):
    r"""Cross-entropy, and the distance of the model's maps from a salience.

    $a\,\mathrm{CE}(z, y) + (1 - a)\,\mathrm{MSE}(M, T)$, the mean over images and cells. With human maps as $T$
    this is CYBORG (Boyd et al. 2023), with a SHAM mask the passive fooling of DiffGradCAM (section 6.1).

    Attributes:
        cam: makes the maps.
        weight: $a$, 0.5 as published: equal weights.
        salience: the target of all images, ``(h, w)``; ``None`` where a batch brings one for each.

    A batch is ``(images, labels)`` or ``(images, labels, salience)``, the latter ``(N, h, w)`` as
    :func:`fit_salience` makes it. Logged: ``ce``, ``cam_mse``, ``accuracy``.

    Example:
        >>> cam = camlucida.training.TrainableCAM(model, images)
        >>> loss = camlucida.training.SalienceLoss(cam, salience=camlucida.training.sham_mask(cam.size))
        >>> value, logged = loss(model, (images, torch.tensor([0, 1])))
        >>> sorted(logged)
        ['accuracy', 'cam_mse', 'ce']
    """

    weight: Share = 0.5
    salience: Tensor | None = None

    def total(self, entropy: Tensor, maps: Tensor, *given: Tensor) -> tuple[Tensor, _Logged]:
        """See :class:`MapLoss`."""
        salience = given[0] if given else self.salience
        if salience is None:
            raise CamlucidaError("give salience= to the loss, or a salience with each batch")
        target = salience.to(maps)
        if target.shape not in {maps.shape, maps.shape[1:]}:
            raise CamlucidaError(
                f"the salience has shape {tuple(target.shape)}, the maps {tuple(maps.shape)}; bring it there with "
                "fit_salience"
            )
        error = (maps - target).square().mean()  # one mask serves all images
        return self.weight * entropy + (1 - self.weight) * error, {"cam_mse": error}


@dataclass(frozen=True)
class LocationFooling(MapLoss):
    r"""Passive fooling: cross-entropy, and the distance of Grad-CAM from a border.

    $\mathrm{CE} + \lambda\, \mathrm{mean}((m - h)^2)$ with $h$ the rectified Grad-CAM of the label over its maximum
    (Heo, Joo and Moon 2019, location fooling).

    Attributes:
        cam: made with :data:`HEO`.
        strength: $\lambda$; 2 for DenseNet-121 and ResNet-50, 1 for VGG19 as published.
        mask: ``(h, w)``; the border by default.
    """

    strength: float = 2.0
    mask: Tensor | None = None

    def total(self, entropy: Tensor, maps: Tensor, *_: Tensor) -> tuple[Tensor, _Logged]:
        """See :class:`MapLoss`."""
        mask = border_mask(self.cam.size) if self.mask is None else self.mask
        error = (mask.to(maps) - maps).square().mean()
        return entropy + self.strength * error, {"cam_mse": error}


HEO = CAMOptions(cam="gradcam", relu=True, scaling="max", mode="eval")
"""The map and the mode of :class:`LocationFooling`; published with Adam, learning rate 2e-6, batches of 8."""


@dataclass(frozen=True)
class EntropyLoss(MapLoss):
    r"""Cross-entropy, and the entropy $H$ of the maps (Piland et al., "Model focus").

    ``"droid"``: mean of $\ln(H + 1)$; ``"fmmce"``: mean of $H$; ``"hb-cam"``: squared difference of the mean of
    $H$ from that of models trained with human salience.

    Attributes:
        cam: makes the maps.
        kind: which of the three.
        weight: of the entropy's term beside a cross-entropy of weight 1.
        human: mean entropy in nats of models trained with human salience, for ``"hb-cam"``.
    """

    kind: EntropyKind = "droid"
    weight: float = 1.0
    human: float = HUMAN_ENTROPY

    def total(self, entropy: Tensor, maps: Tensor, *_: Tensor) -> tuple[Tensor, _Logged]:
        """See :class:`MapLoss`."""
        found = cam_entropy(maps)
        if self.kind == "droid":
            term = (found + 1).log().mean()
        elif self.kind == "fmmce":
            term = found.mean()
        else:
            term = (found.mean() - self.human).square()
        return entropy + self.weight * term.to(entropy), {"cam_entropy": found.mean()}


def _of_classes(target: Target, classes: Tensor) -> Target:
    return replace(target, classes=classes)  # type: ignore[type-var]
