"""A model with images, and how methods explain them: what every audit works on."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.audits.candidates import Candidate
from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers import default_layer
from camlucida.engine.linear_head import LinearHead, LinearInputs, find_head
from camlucida.engine.outputs import first_tensor
from camlucida.engine.tap import tap
from camlucida.explanation import Explanation
from camlucida.explanation.explain import explain
from camlucida.explanation.left_out import reason
from camlucida.methods import Progress
from camlucida.targets import Target

UNFIT = (CamlucidaError, RuntimeError, TypeError, NotImplementedError)
"""What is raised where a method or a check does not fit a model; one of them must not end the audit of all."""


@dataclass(frozen=True)
class Trial:
    """A model with images, and how methods explain them.

    Attributes:
        model: the network itself.
        inputs: ``(N, C, H, W)``.
        classes: what is explained of each image, ``(N,)``; what the model predicts where it is ``None``.
        layer: the explained layer; the methods' own default where it is ``None``.
        preprocess: how photos become inputs, for methods that work on pixels.
        seed: of methods that draw.
        batch_size: images at a time.
        name: of the model, for people.
        images: what the images are, ready for JSON.
        labels: the classes that the data name, ``(N,)``; ``None`` where they do not name all of them.
        rivals: the class that comes second, ``(N,)``; see :meth:`ranked`.
        others: the class that comes last, ``(N,)``.
    """

    model: nn.Module
    inputs: Tensor
    classes: Tensor | None = None
    layer: str | None = None
    preprocess: Preprocess | None = None
    seed: int = 0
    batch_size: int = 16
    name: str = ""
    images: Mapping[str, Any] = field(default_factory=dict)
    labels: Tensor | None = None
    rivals: Tensor | None = None
    others: Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return int(self.inputs.shape[-2]), int(self.inputs.shape[-1])

    @property
    def explained_layer(self) -> str | None:
        """The layer that is explained; ``None`` where the model has no feature map."""
        try:
            return self.layer or default_layer(self.model, self.inputs[:1])
        except CamlucidaError:
            return None

    def few(self, count: int | None) -> Trial:
        """The first images only."""
        return self.part(0, count)

    def part(self, start: int, stop: int | None) -> Trial:
        """The images ``start`` to ``stop``, the end exclusive."""
        known = {k: getattr(self, k) for k in ("inputs", "classes", "labels", "rivals", "others")}
        cut: dict[str, Any] = {k: None if v is None else v[start:stop] for k, v in known.items()}
        return replace(self, **cut)

    def exact(self) -> Trial:
        """A copy of the model in double precision, with the images."""
        return replace(self, model=copied(self.model, torch.float64), inputs=self.inputs.double())

    def ranked(self) -> Trial:
        """With the most probable, the second and the last class of each image.

        Raises:
            CamlucidaError: the model is no classifier of two or more classes, or returns nothing but NaN.
        """
        if getattr(unwrap(self.model), "embeds", False) is True:
            raise CamlucidaError(
                f"{type(unwrap(self.model)).__name__} returns embeddings, which have no classes; the audits compare "
                "the maps of classes and need a classifier"
            )
        logits = self.logits()
        if logits.ndim != 2 or logits.shape[1] < 2:
            raise CamlucidaError(
                "the audits compare the maps of classes, so the model must return logits (N, M) of two or more; it "
                f"returned {tuple(logits.shape)}"
                + (
                    "; a model with one logit z can be wrapped to return the two logits (0, z)"
                    if logits.ndim == 2
                    else ""
                )
            )
        if not logits.isfinite().any():
            raise CamlucidaError(
                "the model returns NaN or infinite logits for every image, so that there is nothing to explain"
            )
        best = logits.topk(2, dim=1).indices
        return replace(self, classes=best[:, 0], rivals=best[:, 1], others=logits.argmin(1))

    def logits(self) -> Tensor:
        """The model's outputs, ``(N, M)``."""
        with borrowed(self.model, self.inputs) as module, torch.no_grad():
            parts = torch.split(self.inputs, self.batch_size)
            return torch.cat([first_tensor(module(part.clone())) for part in parts])

    def explain(
        self,
        group: Sequence[Candidate],
        target: Target | Tensor | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Explanation]:
        """Explanations by label; methods of a group share their forward passes.

        Either all methods of a group explain the audit's layer, or none does. By default the trial's classes are
        explained.

        Raises:
            CamlucidaError: a method cannot explain this model.
        """
        first = group[0]
        trial = self if first.images is None else self.few(first.images)
        wanted: Any = target if target is not None else trial.classes
        if isinstance(wanted, Tensor):
            wanted = first.target(wanted)
        made = explain(
            trial.model,
            trial.inputs,
            method=[(one.name, one.options) for one in group],
            target=wanted,
            layers=None if first.own_layers else trial.layer,
            preprocess=trial.preprocess,
            seed=trial.seed,
            batch_size=trial.batch_size,
            progress=progress,
            strict=True,
        )
        return dict(zip((one.label for one in group), made.values(), strict=True))

    def maps(
        self,
        group: Sequence[Candidate],
        target: Target | Tensor | None = None,
        progress: Progress | None = None,
    ) -> dict[str, Explanation | str]:
        """Explanations by label, or why there is none."""
        found: dict[str, Explanation | str] = {}
        # Where all explain the input, no layer can be named.
        for own in (False, True):
            if part := [one for one in group if one.own_layers == own]:
                found |= self._together(part, target, progress)
        return {one.label: found[one.label] for one in group}

    def _together(
        self, group: Sequence[Candidate], target: Target | Tensor | None, progress: Progress | None
    ) -> dict[str, Explanation | str]:
        try:
            return {**self.explain(group, target, progress)}
        except torch.OutOfMemoryError:
            raise  # a smaller batch helps, and the command says so
        except UNFIT as error:
            if len(group) == 1:
                return {group[0].label: reason(error)}
        alone: dict[str, Explanation | str] = {}
        for one in group:
            alone |= self._together([one], target, progress)
        return alone

    def raw(self, one: Candidate, model: nn.Module | None = None) -> Tensor:
        """A method's own maps ``(N', h, w)`` before enlarging, rectified where its formula rectifies.

        Of the trial's model, unless another one is given.

        Raises:
            CamlucidaError: the method cannot explain this model.
        """
        trial = self if model is None else replace(self, model=model)
        return trial.explain([one])[one.label].raw.detach()


def grouped(tested: Sequence[Candidate]) -> tuple[tuple[Candidate, ...], ...]:
    """Methods of one forward pass together, so that they share it; the others alone."""
    cheap = tuple(one for one in tested if not one.row.cost.times)
    rest = [(one,) for one in tested if one not in cheap]
    return ((cheap,) if cheap else ()) + tuple(rest)


def copied(model: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy that shares nothing with the model, in eval mode and frozen, its weights of another type if told.

    Raises:
        ModelError: it cannot be copied or converted.
    """
    try:
        module = copy.deepcopy(unwrap(model)).eval().requires_grad_(False)
        return module if dtype is None else module.to(dtype)
    except Exception as error:
        raise ModelError(
            f"{type(unwrap(model)).__name__} cannot be copied ({type(error).__name__}: {error}), which this "
            "check needs"
        ) from error


def head_behind(
    model: nn.Module, inputs: Tensor, layer: str
) -> tuple[Tensor, LinearHead | None, Tensor]:
    """A layer's maps, the pooling and one linear layer behind it (``None`` for another head), and the outputs."""
    with borrowed(model, inputs) as module, LinearInputs(module) as seen:
        tapped = tap(module, inputs, layer, gradients=False)
    activation, outputs = tapped.activations[layer], tapped.outputs.detach()
    return activation, find_head(activation, outputs, seen.calls), outputs


def output_layer(model: nn.Module, inputs: Tensor) -> nn.Module | None:
    """The linear layer (or 1 x 1 convolution) whose output is the model's; ``None`` where there is none."""
    with borrowed(model, inputs) as module, LinearInputs(module) as seen, torch.no_grad():
        outputs = first_tensor(module(inputs[:1].clone()))
    same = (m for m, _, returned in reversed(seen.calls) if torch.equal(returned, outputs))
    return next(same, None)
