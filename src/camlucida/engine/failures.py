"""What a model raised, in words."""

from __future__ import annotations

import traceback
from types import FrameType

from torch import Tensor, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import CamlucidaError
from camlucida.engine.chunks import out_of_memory

_CALLS = frozenset({"_call_impl", "_wrapped_call_impl", "__call__"})


def in_words(error: Exception, model: nn.Module, inputs: Tensor | None) -> str | None:
    """What went wrong where the model itself or its gradient raised; ``None`` for everything else.

    Everything else is what camlucida says on purpose, what a user's own target or grid function raised, and memory
    that ran out.
    """
    if isinstance(error, CamlucidaError) or out_of_memory(error):
        return None
    said = _said(error)
    name = type(model).__name__
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = frame.f_globals.get("__name__", "")
        if _calls_a_module(frame):
            shown = _shown(error)
            shown = inputs if shown is None else shown
            on = "" if shown is None else f" on inputs of shape {tuple(shown.shape)}"
            advice = ""
            if isinstance(error, TypeError) and "argument" in str(error):
                advice = (
                    "; camlucida calls the model with one tensor, so wrap a model that takes more in a module that "
                    "fills in the rest"
                )
            if shown is not None and shown.ndim == 4:
                advice += _other_size(model, (int(shown.shape[2]), int(shown.shape[3])))
            return f"{name} does not run{on}: {said}{advice}"
        if module.startswith("torch.autograd") and (layer := quantized_layer(model)):
            return no_gradient(layer)
        if module.startswith("torch.autograd"):
            return (
                f"the gradient of {name} could not be computed: {said}; methods without gradients, such as scorecam, "
                "may work"
            )
        # Modes that watch operations run each of them.
        if module.startswith("camlucida.") and not frame.f_code.co_name.startswith("__torch_"):
            return None
    return None


def _shown(error: Exception) -> Tensor | None:
    """The images that the model was called with: those of a method are more, or altered."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if _calls_a_module(frame):
            given = frame.f_locals.get("args", ())
            return given[0] if given and isinstance(given[0], Tensor) else None
    return None


def _other_size(model: nn.Module, size: tuple[int, int]) -> str:
    """That a part of the model says that it is made for images of another size; empty where none does."""
    for name, module in model.named_modules():
        for owner in (module, getattr(module, "config", None)):
            made_for = getattr(owner, "img_size", getattr(owner, "image_size", None))
            sides = [made_for] * 2 if isinstance(made_for, int) else made_for
            if not isinstance(sides, list | tuple) or len(sides) != 2 or tuple(sides) == size:
                continue
            height, width = sides
            value = height if height == width else f"{height}x{width}"
            what = f"its layer {name!r}" if name else "it"
            return f"; {what} is made for {height} x {width} pixels: {argument('preprocess', {'size': value})}"
    return ""


def quantized_layer(model: nn.Module) -> str | None:
    """The first layer that computes in integers, which have no gradient."""
    return next(
        (name for name, m in model.named_modules() if ".quantized" in type(m).__module__), None
    )


def no_gradient(layer: str) -> str:
    """Why a quantized model has no gradient, and what explains it all the same."""
    return (
        f"no gradient leads through the quantized layer {layer!r}; use a method without gradients, such as scorecam, "
        "rise or eigencam, or explain the model before it is quantized"
    )


def _calls_a_module(frame: FrameType) -> bool:
    return frame.f_code.co_name in _CALLS and isinstance(frame.f_locals.get("self"), nn.Module)


def _said(error: Exception) -> str:
    first = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    return f"{kind}: {first}" if first else kind
