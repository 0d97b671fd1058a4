"""Run only the part of a model behind a layer, many times, on altered activations.

Where the model allows it, it is cut behind the layer (see :mod:`camlucida.engine.replay.traced`). Values that
cross the cut, such as the skips around the layer, are kept and repeated for the altered copies. Where that is not
possible the whole model runs and a hook puts the altered activation in place: the same numbers at the price of
the trunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from camlucida.common.errors import LayerError
from camlucida.engine.borrow import borrowed, check_inputs
from camlucida.engine.layers import INPUT, GridRule, Layers
from camlucida.engine.replay.traced import Traced, find_cut
from camlucida.engine.replay.whole import Outputs, Whole
from camlucida.engine.tap import Tap, tap
from camlucida.targets import Target, TargetLike, as_target

Path = Literal["auto", "traced", "full"]

_Run = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def replay(
    model: nn.Module,
    inputs: Tensor,
    layers: Layers,
    target: TargetLike | None = None,
    *,
    grid: GridRule | Mapping[str, GridRule] | None = None,
    path: Path = "auto",
) -> Iterator[Replay]:
    """Run a model once, then only the part of it behind a layer.

    Inside the block the model is borrowed: in evaluation mode, its parameters frozen. It is given back as it
    was. No graph is built.

    Args:
        model: any module that takes one tensor.
        inputs: ``(N, C, H, W)`` on the model's device.
        layers: dotted names or modules; ``"input"`` is the input itself.
        target: what is explained; one with a layer ends every pass there.
        grid: how layer outputs are read as feature maps; it must be a :class:`~camlucida.Grid`, since
            altered maps are written back.
        path: ``"auto"`` (default) traces where that is possible; ``"traced"`` raises where it is not;
            ``"full"`` always runs the whole model.

    Yields:
        A :class:`Replay`.

    Raises:
        LayerError: for an unknown layer, one that runs more than once or has no spatial output; with
            ``path="traced"`` also where the model cannot be traced.
        TargetError: for a target that does not fit the output.
        ModelError: for inputs that do not fit the model.
    """
    wanted = as_target(target)
    with borrowed(model, inputs) as module, torch.no_grad():
        check_inputs(module, inputs)
        inputs = inputs.clone() if inputs.is_inference() else inputs.detach()
        kept = Outputs(module, inputs, grid)
        with kept.watch(module, layers):
            tapped = tap(module, inputs, layers, wanted, gradients=False, grid=grid)
        yield Replay(module, inputs, tapped, tapped.target, kept, path)


class Replay:
    """What :func:`replay` yields.

    Attributes:
        tapped: outputs, target, values and activations of the one whole pass.
        paths: how each layer's copies were run so far, ``"traced"`` or ``"full"``.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        tapped: Tap,
        target: Target,
        outputs: Outputs,
        path: Path,
    ) -> None:
        self.tapped = tapped
        self.paths: dict[str, str] = {}
        self._model = model
        self._inputs = inputs
        self._target = target
        self._outputs = outputs
        self._path = path
        self._runs: dict[str, _Run] = {}

    def run(self, layer: str, altered: Tensor, index: Tensor) -> Tensor:
        """The model's output when the layer returns an altered feature map.

        Args:
            layer: its name, one of ``tapped.activations``.
            altered: ``(n, K, h, w)``, shaped like the layer's activation; left as it is.
            index: ``(n,)``, the image that each copy belongs to: what else the rest of the model uses (skips
                around the layer, prefix tokens) is that image's.

        Returns:
            ``(n, M)``, or the feature map of the target's layer.
        """
        shape = tuple(self.tapped.activations[layer].shape[1:])
        if tuple(altered.shape[1:]) != shape or altered.shape[:1] != index.shape:
            raise LayerError(
                f"layer {layer!r} has feature maps (n, {', '.join(map(str, shape))}); got "
                f"{tuple(altered.shape)} for {tuple(index.shape)} images"
            )
        if layer not in self._runs:
            self._runs[layer] = self._prepare(layer)
        return self._runs[layer](altered, index)

    def _prepare(self, layer: str) -> _Run:
        whole = Whole(self._model, self._inputs, layer, self._target, self._outputs)
        if layer == INPUT or self._path == "full":
            self.paths[layer] = "full"
            return whole
        cut = find_cut(whole)
        if isinstance(cut, str):
            if self._path == "traced":
                raise LayerError(f"the model cannot be cut behind layer {layer!r}: {cut}")
            self.paths[layer] = "full"
            return whole
        self.paths[layer] = "traced"
        return Traced(whole, cut)
