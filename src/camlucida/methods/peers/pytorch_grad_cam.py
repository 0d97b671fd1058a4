"""pytorch-grad-cam's CAMs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

from torch import Tensor, nn

from camlucida.engine.layers import grid_of
from camlucida.methods.own import Explainer, Wanted
from camlucida.methods.peers.score import Score
from camlucida.methods.registry import Cost, Need, register


def _maps(
    name: str, model: nn.Module, inputs: Tensor, target: Wanted, layers: list[nn.Module]
) -> Any:
    """The finished maps ``(N, H, W)`` of one of the CAMs."""
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    score = Score(model, target)
    cam = getattr(pytorch_grad_cam, name)(
        score, layers, reshape_transform=_reshape(model, inputs, layers)
    )
    # As the library is used: hooks keep gradients of what is in a graph only, and the weights are part of it.
    for weight in model.parameters():
        if weight.is_leaf and weight.is_floating_point():
            weight.requires_grad_()
    try:
        with _without_bars(cam):
            return cam(inputs.requires_grad_(), [ClassifierOutputTarget(0)] * len(inputs))
    finally:
        # It detaches in place what it kept, which views refuse.
        cam.activations_and_grads.activations, cam.activations_and_grads.gradients = [], []


_SILENT = ContextVar("_SILENT", default=False)


@contextmanager
def _without_bars(cam: Any) -> Iterator[None]:
    """Inside the block the module of the CAM draws no bars of its own; who else uses it keeps them."""
    module = sys.modules[type(cam).__module__]
    bars = getattr(module, "tqdm", None)
    if bars is not None and not isinstance(bars, SimpleNamespace):

        def shown(rows: Any, *given: Any, **options: Any) -> Any:
            return rows if _SILENT.get() else bars.tqdm(rows, *given, **options)

        module.tqdm = SimpleNamespace(tqdm=shown)  # type: ignore[attr-defined]
    before = _SILENT.set(True)
    try:
        yield
    finally:
        _SILENT.reset(before)


def _reshape(
    model: nn.Module, inputs: Tensor, layers: list[nn.Module]
) -> Callable[[Tensor], Tensor] | None:
    """How the layer's output is read as a map, where it is none."""
    for name, module in model.named_modules():
        if layers and module is layers[0]:
            grid = grid_of(model, inputs.detach(), name)
            return None if grid.layout == "nchw" else grid.to_map
    return None


def _of_layer(name: str) -> Explainer:
    def cam(model: nn.Module, inputs: Tensor, target: Wanted, *, layer: nn.Module) -> Any:
        return _maps(name, model, inputs, target, [layer])

    return cam


def _of_input(name: str) -> Explainer:
    def cam(model: nn.Module, inputs: Tensor, target: Wanted) -> Any:
        return _maps(name, model, inputs, target, [])

    return cam


_NONE: tuple[Need, ...] = ()
_FREE: dict[str, Any] = {"needs": _NONE, "discriminative": False, "cost": Cost(forward=1)}
_CHANNELS: dict[str, Any] = {
    "needs": _NONE,
    "cost": Cost(forward=1, times=("channels",), first=1),
}
for _name, _class, _paper, _year, _equation, _summary, _facts in (
    ("gradcam", "GradCAM", "Selvaraju et al. 2017", 2017, "1, 2",
     "Each channel weighted by its mean gradient.", {}),
    ("gradcam++", "GradCAMPlusPlus", "Chattopadhay et al. 2018", 2018, "19",
     "Each channel weighted by positive gradients, with weights of higher order.", {}),
    ("hirescam", "HiResCAM", "Draelos & Carin 2020", 2020, "section 3.2",
     "Activation times gradient, cell by cell.", {}),
    ("gradcam-elementwise", "GradCAMElementWise", "Gildenblat et al. 2021", 2021, "GradCAMElementWise",
     "Element-wise Grad-CAM: only positive products count.", {}),
    ("xgradcam", "XGradCAM", "Fu et al. 2020", 2020, "8",
     "Gradients averaged with the normalised activation as weight.", {}),
    ("layercam", "LayerCAM", "Jiang et al. 2021", 2021, "6, 7",
     "Positive gradients times activation, cell by cell.", {}),
    ("eigengradcam", "EigenGradCAM", "Gildenblat et al. 2021", 2021, "EigenGradCAM",
     "First principal component of activation times gradient.", {}),
    ("segeigencam", "SegEigenCAM", "Chung & Ying 2025", 2025, "10, 13",
     "First principal component of activation times absolute gradient, with a corrected sign.", {}),
    ("shapleycam", "ShapleyCAM", "Cai 2025", 2025, "ShapleyCAM",
     "Grad-CAM with a correction of second order.",
     {"needs": ("second derivatives",), "cost": Cost(forward=1, head_backward=2)}),
    ("scorecam", "ScoreCAM", "Wang et al. 2020", 2020, "5",
     "Channels weighted by the value of the image that each of them masks.", _CHANNELS),
    ("ablationcam", "AblationCAM", "Desai & Ramaswamy 2020", 2020, "3",
     "Channels weighted by how far the value falls without them.", _CHANNELS),
    ("eigencam", "EigenCAM", "Muhammad & Yeasin 2020", 2020, "3",
     "First principal component of the activation.", _FREE),
    ("kpca-cam", "KPCA_CAM", "Karmani et al. 2024", 2024, "section III",
     "First principal component of the activation under a kernel.", _FREE),
    ("fem", "FEM", "Fuad et al. 2020", 2020, "section III",
     "Channels weighted by how many cells stand out in them.", _FREE),
    ("randomcam", "RandomCAM", "Gildenblat et al. 2021", 2021, "RandomCAM",
     "Channels weighted at random: what any method has to surpass.", {**_FREE, "cost": Cost(forward=1, backward=1)}),
):  # fmt: skip
    _explainer = _of_layer(_class)
    _explainer.__doc__ = _summary
    register(
        f"pytorch-grad-cam:{_name}", paper=_paper, year=_year, equation=_equation, library="pytorch-grad-cam",
        **_facts,
    )(_explainer)  # fmt: skip

_full = _of_input("FullGrad")
_full.__doc__ = "Gradient times input, and of every bias its share, all as absolute values."
register(
    "pytorch-grad-cam:fullgrad", paper="Srinivas & Fleuret 2019", year=2019, equation="8", library="pytorch-grad-cam",
    needs=("pixel gradients",), cost=Cost(forward=1, backward=1),
)(_full)  # fmt: skip
