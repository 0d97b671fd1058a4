"""The calls of pytorch-grad-cam's CAMs, targets and overlays, answered by camlucida: only the import changes.

``camlucida.explanation.pytorch_grad_cam`` stands in place of ``pytorch_grad_cam`` in imports, and so do its modules
``utils.model_targets`` and ``utils.image``. Maps are scaled as that library scales them. What differs, because it is
wrong there: a target is needed for each image, errors are raised, the model stays as it was, Grad-CAM++ divides by
alpha's own denominator, EigenCAM's sign is fixed, and FullGrad adds up what the paper adds up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from camlucida.explanation.explain import explain
from camlucida.explanation.pytorch_grad_cam.utils.model_targets import ForClass, OneEach
from camlucida.methods import method_row
from camlucida.targets import Target

__all__ = [
    "AblationCAM",
    "BaseCAM",
    "EigenCAM",
    "EigenGradCAM",
    "FullGrad",
    "GradCAM",
    "GradCAMElementWise",
    "GradCAMPlusPlus",
    "HiResCAM",
    "LayerCAM",
    "ScoreCAM",
    "ShapleyCAM",
    "XGradCAM",
]


class BaseCAM:
    """What all CAMs of that library share.

    Args:
        model: as :func:`camlucida.explain` takes it.
        target_layers: modules whose maps are averaged; methods that explain the input pass them over.
        reshape_transform: from a layer's output to ``(N, K, h, w)``; found where it is left out.

    Attributes:
        method: the registered name.
        batch_size: images that are explained at a time.
        outputs: the model's output for the images that were explained last.
    """

    method: ClassVar[str]
    batch_size = 32
    outputs: Any = None

    def __init__(
        self,
        model: nn.Module,
        target_layers: Sequence[nn.Module],
        reshape_transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.model = model
        self.target_layers = list(target_layers)
        self.reshape_transform = reshape_transform

    def __call__(
        self,
        input_tensor: Tensor,
        targets: Sequence[Callable[..., Any]] | None = None,
        aug_smooth: bool = False,
        eigen_smooth: bool = False,
    ) -> np.ndarray[Any, Any]:
        """The maps ``(N, H, W)`` in [0, 1].

        Args:
            input_tensor: ``(N, C, H, W)``, as the model takes it.
            targets: one for each image, each a function of the output for that image; ``None`` for the predicted class.
            aug_smooth: the mean over flipped and dimmed copies.
            eigen_smooth: the first principal direction of the weighed channels.

        Raises:
            CamlucidaError: as :func:`camlucida.explain`.
        """
        wrapping = {"aug_smooth": aug_smooth, "eigen_smooth": eigen_smooth}
        found = explain(
            self.model,
            input_tensor,
            method=self.method,
            target=None if targets is None else _target(targets),
            layers=None if method_row(self.method).explains == "input" else self.target_layers,
            grid=self.reshape_transform,
            steps="unscaled"
            if aug_smooth
            else "pytorch-grad-cam",  # copies are scaled, their mean is not
            batch_size=self.batch_size,
            **{name: True for name, wanted in wrapping.items() if wanted},
        )
        self.outputs = found.logits
        if self.outputs is None:
            with torch.no_grad():
                self.outputs = self.model(input_tensor)
        return found.numpy()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        """Nothing has to be undone, and no error is swallowed."""


def _target(targets: Sequence[Callable[..., Any]]) -> Target:
    """One target of the batch from those of its images."""
    first, *rest = targets
    if isinstance(first, ForClass) and all(type(one) is type(first) for one in rest):
        return replace(first.target, classes=[one.category for one in targets])  # type: ignore[attr-defined]
    return OneEach(tuple(targets), range(len(targets)))


class GradCAM(BaseCAM):
    """``gradcam``."""

    method = "gradcam"


class HiResCAM(BaseCAM):
    """``hirescam``."""

    method = "hirescam"


class GradCAMElementWise(BaseCAM):
    """``gradcam-ew``."""

    method = "gradcam-ew"


class GradCAMPlusPlus(BaseCAM):
    """``gradcam++``."""

    method = "gradcam++"


class XGradCAM(BaseCAM):
    """``xgradcam``."""

    method = "xgradcam"


class LayerCAM(BaseCAM):
    """``layercam``."""

    method = "layercam"


class ShapleyCAM(BaseCAM):
    """``shapleycam``."""

    method = "shapleycam"


class EigenCAM(BaseCAM):
    """``eigencam``."""

    method = "eigencam"


class EigenGradCAM(BaseCAM):
    """``eigengradcam``."""

    method = "eigengradcam"


class ScoreCAM(BaseCAM):
    """``scorecam``."""

    method = "scorecam"


class AblationCAM(BaseCAM):
    """``ablationcam``."""

    method = "ablationcam"


class FullGrad(BaseCAM):
    """``fullgrad``."""

    method = "fullgrad"
