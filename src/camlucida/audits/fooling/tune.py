"""Fine-tune a copy of a model so that its maps lie: SHAM, and attacks on any differentiable method."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn

from camlucida.audits.trial import output_layer
from camlucida.common.errors import CamlucidaError
from camlucida.common.jsonable import digest
from camlucida.common.limits import Count, Limits, NotNegative, Positive, Share
from camlucida.common.progress import Say
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import resolve
from camlucida.engine.outputs import first_tensor
from camlucida.methods import method_row
from camlucida.targets import LogitMargin
from camlucida.training.cam_loss import (
    HEO,
    WEIGHTS,
    CAMOptions,
    LocationFooling,
    SalienceLoss,
    TrainableCAM,
    set_mode,
)
from camlucida.training.classifier import Shuffled, class_loss
from camlucida.training.loop import FitOptions, Loss, fit
from camlucida.training.sham import Layout, border_mask, sham_mask

Trainable: TypeAlias = Literal["all", "head"]
AttackKind: TypeAlias = Literal["sham", "location", "none", "holes"]

ADAM_RATE = 0.15
"""Adam's learning rate as a share of SGD's: 0.003 on the stand-in, where SGD has 0.02."""


_HOLES = 0.1
"""The largest share of an image that is holes: F-Fidelity removes no more by default."""


@dataclass(frozen=True)
class Attack(FitOptions):
    r"""How a model is made to lie; as published one epoch of SGD with learning rate 0.002.

    Attributes:
        kind: ``"sham"`` (default): $a\,\mathrm{CE} + (1 - a)\,\mathrm{MSE}$ of map and mask; ``"location"``: Heo et
            al., Grad-CAM pushed to the border (they train with Adam, learning rate 2e-6, 8 images per step);
            ``"none"``: the same training with cross-entropy alone, the control; ``"holes"``: no attack either, but
            random pixels of every image are 0, up to a tenth, for the metric F-Fidelity.
        cam: the map that is attacked.
        weight: $a$; 0.5 as published.
        strength: of the location loss.
        trainable: ``"all"``, or the ``"head"`` alone: the last linear layer; everything before it then stays as
            it is, batch statistics included.
        batch: images per step.
        layout: of the mask, or a mask of your own, see :func:`camlucida.training.sham.sham_mask`.
        entropy: of the mask in nats.

    Example:
        >>> attack = camlucida.audits.Attack(epochs=2).adaptive("gradcam:mean")
        >>> attack.cam.cam, attack.cam.aggregator, attack.optimizer
        ('gradcam', 'mean', 'adam')
    """

    epochs: Count = 1
    learning_rate: Positive = 0.002
    weight_decay: NotNegative = 1e-6
    step_size: Count = 12
    kind: AttackKind = "sham"
    cam: CAMOptions = field(default_factory=CAMOptions)
    weight: Share = 0.5
    strength: float = 2.0
    trainable: Trainable = "all"
    batch: Annotated[int, Limits(2)] = 20
    layout: Layout | Tensor = "rounded"
    entropy: float | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        super().__post_init__()
        if not isinstance(self.layout, Tensor) and self.layout not in get_args(Layout):
            raise CamlucidaError(
                f"layout must be {', '.join(get_args(Layout))} or a tensor, got {self.layout!r}"
            )

    def describe(self) -> dict[str, Any]:
        """Everything, ready for JSON."""
        found = {**vars(self), "cam": self.cam.describe()}
        del found["accelerator"]  # where it runs may change
        if isinstance(self.layout, Tensor):
            found["layout"] = self.layout.tolist()
        return found

    def against(self, method: str) -> Attack:
        """The same attack on another method's map, rectified where that method shows it so.

        Args:
            method: ``"sham"`` or ``"cam"`` for the class-weight map, or a method as :class:`CAMOptions` knows them,
                with its margin after a colon: ``"hirescam"``, ``"gradcam:max"``, ``"diffgradcam:lse"``.
        """
        name, _, margin = method.partition(":")
        if name in {"sham", "cam", "weights"}:
            if margin:
                raise CamlucidaError(
                    f"the class-weight map has no margin; name a method, not {method!r}"
                )
            return replace(self, cam=replace(self.cam, cam=WEIGHTS, aggregator=None, relu=False))
        if (row := method_row(name)).target is LogitMargin:
            name, margin = row.base.name, margin or "mean"
        aggregator: Any = margin or None
        # A double backward pass is unsteady, above all through moving batch statistics.
        cam = replace(self.cam, cam=name, aggregator=aggregator, mode="norms")
        cam = replace(cam, relu=cam.method()[0].steps.rectify)
        return replace(self, cam=cam)

    def adaptive(self, method: str) -> Attack:
        """The attack on another method's map, as it was found to work on a mean margin.

        The published settings fail here: a map that is rectified has no gradient where it is zero, which is where
        the mask wants it to be one, and where little of it is left, scaling makes the gradient of a few images
        drown all others. So the map is attacked before its ReLU and divided by its maximum, which keeps zero where
        it is, with Adam, clipped gradients of norm 1, and a fifth of the loss for the cross-entropy. ``docs/audits.md``
        lists the settings that were tried.

        Args:
            method: as for :meth:`against`. The attack on the class-weight map stays as it is.
        """
        found = self.against(method)
        if found.cam.cam == WEIGHTS:
            return found
        return replace(
            found,
            cam=replace(found.cam, relu=False, scaling="max"),
            weight=0.2,
            clip=1.0,
            optimizer="adam",
            learning_rate=self.learning_rate * (1 if self.optimizer == "adam" else ADAM_RATE),
        )

    @property
    def shown(self) -> CAMOptions:
        """The attacked map as its method shows it: that is what counts after an attack."""
        if self.kind == "location":
            return replace(HEO, cam_layer=self.cam.cam_layer, scaling="minmax")
        if self.kind != "sham" or self.cam.cam == WEIGHTS or self.cam.scaling != "max":
            return self.cam
        return replace(self.cam, relu=self.cam.method()[0].steps.rectify, scaling="minmax")


def published_attack(main: Attack, learning_rate: float = Attack.learning_rate) -> Attack:
    """The main attack where it is on the class-weight map, else SHAM as published, as long and with the same mask."""
    if main.cam.cam == WEIGHTS:
        return main
    return Attack(
        trainable=main.trainable,
        epochs=main.epochs,
        learning_rate=learning_rate,
        layout=main.layout,
        entropy=main.entropy,
        seed=main.seed,
    )


def fitting(attack: Attack, model: nn.Module, images: Tensor, layer: str) -> Attack:
    """The attack itself, or that on Grad-CAM's map where the model has no class-weight map of the layer.

    Raises:
        CamlucidaError: the model has no such layer.
    """
    if attack.cam.cam != WEIGHTS:
        return attack
    resolve(model, layer)
    try:
        TrainableCAM(model, images[:1], replace(attack.cam, cam_layer=layer))
    except CamlucidaError:
        return replace(attack, cam=replace(attack.cam, cam="gradcam", mode="norms"))
    return attack


def named_attack(name: str, main: Attack, published: Attack, control: Attack) -> Attack:
    """An attack by name: ``"none"``, ``"holes"``, ``"sham"``, ``"location"``, or as for :meth:`Attack.adaptive`.

    The main attack is not made twice.
    """
    if name in {"none", "holes"}:
        return replace(control, kind=name)  # type: ignore[arg-type]
    if name == "location":
        return replace(published, kind="location")
    published = replace(published, kind="sham")
    if name == "sham":
        return published
    found = published.adaptive(name)
    return main if main.kind == "sham" and main.cam == found.cam else found


@dataclass(frozen=True)
class Begun:
    """A copy of a model that is about to be attacked.

    Attributes:
        model: the copy; what is not trained is frozen.
        attack: with the layer, and whatever else follows from the model.
        loss: of a batch of inputs and labels.
        mask: where its maps are pushed, ``(h, w)``.
        layer: the layer whose map is attacked.
    """

    model: nn.Module
    attack: Attack
    loss: Loss
    mask: Tensor
    layer: str

    @classmethod
    def of(
        cls, model: nn.Module, first: Tensor, labels: Tensor, attack: Attack, layer: str | None
    ) -> Begun:
        """Of a model, one input and all labels.

        Raises:
            CamlucidaError: the model does not allow the attack, or labels are none of its classes.
        """
        copied = copy.deepcopy(model)
        check_labels(labels, copied, first)
        if attack.trainable == "head":
            head = last_linear(copied, first)
            for p in copied.parameters():
                p.requires_grad_(False)
            for p in head.parameters():
                p.requires_grad_(True)
            attack = replace(attack, cam=replace(attack.cam, mode="eval"))
        else:
            for p in copied.parameters():
                p.requires_grad_(p.is_floating_point())
        if layer is not None:
            attack = replace(attack, cam=replace(attack.cam, cam_layer=layer))
        if attack.kind == "location":
            attack = replace(attack, cam=replace(HEO, cam_layer=attack.cam.cam_layer))
        cam = TrainableCAM(copied, first, attack.cam)
        mask = sham_mask(cam.size, attack.layout, entropy=attack.entropy)
        loss, mask = _loss(attack, cam, copied, mask)
        return cls(copied, attack, loss, mask, cam.layer)

    def done(self, model: nn.Module) -> nn.Module:
        """The copy, trained, with the gradient flags of the model that it was made of."""
        for mine, theirs in zip(self.model.parameters(), model.parameters(), strict=True):
            mine.requires_grad_(theirs.requires_grad)
            mine.grad = None
        return self.model


@dataclass(frozen=True)
class Fooled:
    """An attacked copy.

    Attributes:
        model: in eval mode; the original is untouched.
        mask: where its maps were pushed, ``(h, w)``.
        layer: the layer whose map was attacked.
        record: options, curves and seconds, ready for JSON.
    """

    model: nn.Module
    mask: Tensor
    layer: str
    record: dict[str, Any]


def fool(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    attack: Attack | None = None,
    *,
    layer: str | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    checkpoint: Path | None = None,
    accelerator: Literal["auto", "cpu", "gpu"] | None = None,
    say: Say | None = None,
) -> Fooled:
    """Fine-tune a copy of a model so that its maps lie.

    ``prepare`` makes inputs of a batch of images, such as of uint8. The map is that of ``layer``, by default the
    model's last feature map. A stopped attack goes on at its ``checkpoint``; it runs where the model is, unless an
    ``accelerator`` is named.

    Raises:
        CamlucidaError: an attack that the model does not allow, or labels that are none of its classes.
    """
    attack = attack or Attack()
    make = prepare or (lambda some: some)
    where = next(model.parameters()).device
    begun = Begun.of(model, make(images[:1]).to(where), labels, attack, layer)
    places = Shuffled(len(images), attack.batch, attack.seed)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ((make(images[some]), labels[some]) for some in places(epoch))

    start = time.perf_counter()
    on_cpu = where.type == "cpu"
    fitted = fit(
        begun.model,
        batches,
        begun.loss,
        options=replace(begun.attack, accelerator=accelerator or ("cpu" if on_cpu else "gpu")),
        steps_per_epoch=places.steps,
        checkpoint=checkpoint,
        progress=None if say is None else lambda d, t, _: say("fine-tuning", d, t),
    )
    copied = begun.done(model).to(where)
    if checkpoint is not None:
        checkpoint.unlink(missing_ok=True)
    record = {
        "attack": begun.attack.describe(),
        "images": len(images),
        "steps": fitted.steps,
        "seconds": time.perf_counter() - start,
        "curves": fitted.curves,
    }
    return Fooled(copied.eval(), begun.mask, begun.layer, record)


def check_labels(labels: Tensor, model: nn.Module, inputs: Tensor) -> None:
    """Refuse labels ``(N,)`` that are no classes of a model.

    Raises:
        CamlucidaError: naming the label and the number of classes.
    """
    with borrowed(model, inputs) as module, torch.no_grad():
        classes = first_tensor(module(inputs[:1])).shape[-1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise CamlucidaError(
            f"the model has classes 0 to {classes - 1}, but a label is {low if low < 0 else high}"
        )


def attack_key(attack: Attack, images: int) -> str:
    """A short name for the parts that belong to an attack."""
    described = digest([attack.describe(), images])[:8]
    return f"{attack.kind}-{attack.cam.cam}-{attack.cam.aggregator or ''}-{attack.trainable}-{described}"


def last_linear(model: nn.Module, inputs: Tensor) -> nn.Module:
    """The linear layer that a model ends in.

    Raises:
        CamlucidaError: it ends in something else.
    """
    head = output_layer(model, inputs)
    if head is None:
        raise CamlucidaError(
            "trainable='head' needs a model whose output is that of a linear layer; this one's is not. Use "
            "trainable='all'"
        )
    return head


def _loss(attack: Attack, cam: TrainableCAM, model: nn.Module, mask: Tensor) -> tuple[Loss, Tensor]:
    if attack.kind == "location":
        fooling = LocationFooling(cam, attack.strength)
        return fooling, border_mask(cam.size)
    if attack.kind == "sham":
        return SalienceLoss(cam, attack.weight, mask), mask

    def control(net: nn.Module, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        set_mode(model, attack.cam.mode)
        return class_loss(net, _with_holes(batch) if attack.kind == "holes" else batch)

    return control, mask


def _with_holes(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Random pixels of every image become 0, of each another share, up to a tenth (Zheng et al. 2025, section 4.1)."""
    images, labels = batch
    share = _HOLES * torch.rand(len(images), 1, 1, 1, device=images.device)
    gone = torch.rand(len(images), 1, *images.shape[2:], device=images.device) < share
    return images.masked_fill(gone, 0.0), labels
