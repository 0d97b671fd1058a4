"""The engine: activations and gradients at chosen layers, from one forward and one backward pass.

:func:`tap` is a function, not an object that is armed and called later: it holds no state, and the
model is given back as it was found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.arguments import argument
from camlucida.common.errors import LayerError, TargetError
from camlucida.common.turns import here, turn
from camlucida.engine.borrow import borrowed, check_inputs, unwrap
from camlucida.engine.failures import quantized_layer
from camlucida.engine.layers import (
    INPUT,
    Grid,
    GridRule,
    Layer,
    Layers,
    check_map,
    checked,
    grid_of,
    reading,
    resolve,
    resolve_all,
    single_tensor,
    survey,
)
from camlucida.engine.layers.again import FirstRun
from camlucida.engine.outputs import first_tensor
from camlucida.targets import Target, TargetLike, as_target, target_values


@dataclass(frozen=True)
class Tap:
    """What :func:`tap` saw.

    Attributes:
        outputs: the model's output, ``(N, M)`` for a classifier, detached unless differentiable; the
            layer's feature map when the target stops the forward pass at a layer.
        target: the target with the class of each image fixed.
        values: the target's value per image, ``(N,)``.
        activations: feature map ``(N, K, h, w)`` of each layer, the module's own output before any
            in-place operation behind it; single precision at least.
        gradients: ``dY/dA`` of each layer, shaped like its activation; zeros where the target does not
            depend on the layer.
        connected: whether the target depends on each layer at all.

    Example:
        >>> camlucida.tap(model, images, ["4"], camlucida.Logit(3)).activations["4"].shape
        torch.Size([2, 16, 16, 16])
    """

    outputs: Tensor
    target: Target
    values: Tensor
    activations: dict[str, Tensor]
    gradients: dict[str, Tensor] = field(default_factory=dict)
    connected: dict[str, bool] = field(default_factory=dict)

    @property
    def only(self) -> tuple[Tensor, Tensor]:
        """Activation and gradient of the single layer that was tapped."""
        (name,) = self.activations
        return self.activations[name], self.gradients[name]


def tap(
    model: nn.Module,
    inputs: Tensor,
    layers: Layers,
    target: TargetLike | None = None,
    *,
    gradients: bool = True,
    differentiable: bool = False,
    grid: GridRule | Mapping[str, GridRule] | None = None,
    own_pass: bool = False,
) -> Tap:
    """Activations ``A`` at the layers and, with gradients, ``dY/dA`` of the target ``Y``.

    The part of the model before the first layer runs without a graph, so that the cost is one forward pass
    and the backward pass of the head behind that layer. Works with frozen parameters, under an outer
    ``no_grad``, ``inference_mode`` or autocast, with reduced precision, with in-place operations behind a
    layer, and on wrapped or compiled models, whose original module is run.

    Args:
        model: any module that takes one tensor.
        inputs: ``(N, C, H, W)`` on the model's device, as the model expects them.
        layers: dotted names or modules; ``"input"`` is the input itself.
        target: what is differentiated, see :func:`camlucida.targets.as_target`; ``None`` is the logit of
            the predicted class.
        gradients: ``False`` only records activations; the values are still those of the target.
        differentiable: keep the graph into the parameters and through the gradients, and the model's own
            training mode, so that maps can take part in a loss. Nothing is detached and module buffers are
            updated as in any training step.
        grid: how outputs are read as feature maps, for all layers or by name; found from the shapes by
            default.
        own_pass: run the model also where a pass of these inputs is shared, see :func:`sharing`; for callers that
            watch what the model does.

    Raises:
        LayerError: for an unknown layer, one that did not run, ran twice, or has no spatial output.
        TargetError: for a target that does not fit the output.
        ModelError: for inputs that do not fit the model.

    Example:
        >>> seen = camlucida.tap(model, images, ["1"])
        >>> activation, gradient = seen.only
        >>> activation.shape == gradient.shape
        True
    """
    check_inputs(unwrap(model), inputs)
    chosen = resolve_all(model, layers)
    wanted = as_target(target)
    if differentiable:
        with turn(unwrap(model)), torch.enable_grad():
            return _tap(unwrap(model), inputs, chosen, wanted, gradients, True, grid)
    shared = _SHARED.get()
    if shared is not None and shared.inputs is inputs and not own_pass:
        return shared.tap(model, chosen, wanted, gradients, grid)
    with borrowed(model, inputs) as module, torch.set_grad_enabled(gradients):
        return _tap(module, _plain(inputs), chosen, wanted, gradients, False, grid)


@contextmanager
def sharing(inputs: Tensor) -> Iterator[None]:
    """Inside the block, taps of these very inputs share their forward passes.

    Methods that look at the same layers of the same images then cost one forward pass together, and each
    target the backward pass of the head. The head's graph is held until the block ends; taps of any other
    tensor are not touched.

    Args:
        inputs: ``(N, C, H, W)``; the object itself is recognised, not its values, which must not change.
    """
    token = _SHARED.set(_Shared(inputs))
    try:
        yield
    finally:
        _SHARED.reset(token)


class _Shared:
    """The forward passes of one batch."""

    def __init__(self, inputs: Tensor) -> None:
        self.inputs = inputs
        self._passes: list[tuple[tuple[Any, ...], tuple[_Kept, Tensor]]] = []

    def tap(
        self,
        model: nn.Module,
        layers: dict[str, nn.Module | None],
        target: Target,
        gradients: bool,
        grid: GridRule | Mapping[str, GridRule] | None,
    ) -> Tap:
        autocast = torch.is_autocast_enabled(self.inputs.device.type)
        key = (unwrap(model), tuple(layers), target.layer, grid, autocast)
        with borrowed(model, self.inputs) as module, torch.enable_grad():
            ran = next((ran for known, ran in self._passes if known == key), None)
            if ran is None:
                ran = _forward(module, _plain(self.inputs), layers, target, True, False, grid)
                self._passes.append((key, ran))
            with torch.set_grad_enabled(gradients):
                return _read(ran, target, gradients, differentiable=False, again=True)


_SHARED: ContextVar[_Shared | None] = ContextVar("camlucida_shared_taps", default=None)


def _plain(inputs: Tensor) -> Tensor:
    return inputs.clone() if inputs.is_inference() else inputs.detach()


def _tap(
    model: nn.Module,
    inputs: Tensor,
    layers: dict[str, nn.Module | None],
    target: Target,
    gradients: bool,
    differentiable: bool,
    grid: GridRule | Mapping[str, GridRule] | None,
) -> Tap:
    ran = _forward(model, inputs, layers, target, gradients, differentiable, grid)
    return _read(ran, target, gradients, differentiable=differentiable, again=False)


def _forward(
    model: nn.Module,
    inputs: Tensor,
    layers: dict[str, nn.Module | None],
    target: Target,
    gradients: bool,
    differentiable: bool,
    grid: GridRule | Mapping[str, GridRule] | None,
) -> tuple[_Kept, Tensor]:
    """What the layers returned, and the model's output."""
    rules = _rules(model, inputs, layers, grid)
    kept = _Kept(model, inputs, gradients, differentiable, rules)
    outputs = run(model, inputs, layers, kept.keep, target)
    missing = [name for name in layers if name not in kept.maps]
    if missing:
        raise LayerError(
            f"layer {missing[0]!r} did not run"
            + (
                f" before the target's layer {target.layer!r}"
                if target.layer
                else "; it is not on the path from input to output"
            )
        )
    kept.maps = {name: kept.maps[name] for name in layers}
    return kept, outputs


def _read(
    ran: tuple[_Kept, Tensor], target: Target, gradients: bool, *, differentiable: bool, again: bool
) -> Tap:
    """The target's value and its gradients; ``again`` keeps the graph for further targets."""
    kept, outputs = ran
    maps = kept.maps
    with torch.autocast(outputs.device.type, enabled=False):
        target = target.pin(outputs.detach())
        values = target_values(target, outputs, kept.images)
        found: dict[str, Tensor] = {}
        connected: dict[str, bool] = {}
        if gradients:
            raw = (
                [None] * len(maps)
                if not values.requires_grad
                else torch.autograd.grad(
                    values.sum(),
                    list(maps.values()),
                    create_graph=differentiable,
                    retain_graph=differentiable or again,
                    allow_unused=True,
                )
            )
            for (name, leaf), gradient in zip(maps.items(), raw, strict=True):
                connected[name] = gradient is not None
                if gradient is None and name in kept.cut:
                    raise LayerError(
                        f"layer {name!r} runs where the model itself switches gradients off (torch.no_grad or "
                        "inference_mode in a forward method), so that no gradient leads back to it; choose a layer "
                        "behind that part, or a method without gradients, such as scorecam"
                    )
                found[name] = torch.zeros_like(leaf) if gradient is None else gradient
            if not any(connected.values()) and (named := quantized_layer(kept.model)):
                raise LayerError(
                    f"no gradient leads through the quantized layer {named!r}; use a method without gradients, such as "
                    "scorecam, or explain the model before it is quantized"
                )
        finish = _keep_graph if differentiable else _drop_graph
        return Tap(
            outputs=finish(outputs),
            target=target,
            values=finish(values),
            activations={name: finish(kept.read(name, leaf)) for name, leaf in maps.items()},
            gradients={name: finish(kept.read(name, g)) for name, g in found.items()},
            connected=connected,
        )


def _keep_graph(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _drop_graph(tensor: Tensor) -> Tensor:
    return _keep_graph(tensor.detach())


def _twice(name: str, module: nn.Module | None) -> LayerError:
    return LayerError(
        f"layer {name!r} ({type(module).__name__}) runs more than once in a forward pass, so its map is not defined; "
        "choose a layer that runs once, such as the block around it"
    )


def _rules(
    model: nn.Module,
    inputs: Tensor,
    layers: Mapping[str, nn.Module | None],
    grid: GridRule | Mapping[str, GridRule] | None,
) -> dict[str, GridRule]:
    """How each layer is read: as it was said, or by evidence."""
    rules: dict[str, GridRule] = {INPUT: Grid()}
    asked = []
    for name in layers:
        said = grid.get(name) if isinstance(grid, Mapping) else grid
        if said is None and name != INPUT:
            asked.append(name)
        elif said is not None:
            rules.setdefault(name, said)
    found = survey(model, inputs) if asked else None
    for name in asked:
        assert found is not None  # noqa: S101
        read = found.reading(unwrap(model), inputs, name)
        if read.calls > 1:
            raise _twice(name, layers[name])
        if read.calls == 1 and read.shape is not None:
            rules[name] = checked(read, name)
    # What does not run once, or returns no tensor, is told apart when it runs.
    return rules


class _Kept:
    """Keeps the feature map of each layer and passes a copy on to the rest of the model."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        gradients: bool,
        differentiable: bool,
        rules: Mapping[str, GridRule],
    ) -> None:
        self.model = model
        self.images = int(inputs.shape[0])
        self.gradients = gradients
        self.differentiable = differentiable
        self.rules = rules
        self.maps: dict[str, Tensor] = {}
        self.cut: set[str] = set()
        """Layers that the model runs without gradients."""
        self.readers: dict[str, Callable[[Tensor], Tensor]] = {}

    def keep(self, name: str, output: Tensor) -> Tensor:
        if output.shape[:1] != (self.images,):
            why = "as where windows, crops or copies of an image are folded into the batch; choose the block around it"
            if len(output) < self.images:
                one = argument("batch_size", 1)
                why = f"as the model takes them apart; explain one image at a time ({one})"
            raise LayerError(
                f"layer {name!r} returns shape {tuple(output.shape)} for {self.images} images, {why}"
            )
        rule = self.rules.get(name)
        if rule is None:
            raise LayerError(
                f"layer {name!r} does not run once for every image, so that nothing tells how its output is read; "
                f"choose another layer, or say it with {argument('grid')}"
            )
        if isinstance(rule, Grid):
            if not rule.fits(output.shape):
                raise LayerError(
                    f"layer {name!r} returns shape {tuple(output.shape)}, which cannot be read as {rule}"
                )
            leaf = self._leaf(name, rule.to_map(output))
            self.maps[name] = leaf
            # A copy goes on, so that an in-place operation behind the layer leaves the leaf alone.
            return rule.to_output(leaf.clone(), output)
        leaf = self._leaf(name, output)
        self.maps[name] = leaf
        self.readers[name] = rule
        check_map(name, rule(leaf.detach()))
        return leaf.clone()

    def _leaf(self, name: str, feature_map: Tensor) -> Tensor:
        # A copy is kept: the tensor may be an input of the layer that something else writes to.
        leaf = feature_map.clone()
        if self.gradients and not torch.is_grad_enabled():
            self.cut.add(name)
        if self.gradients and not leaf.requires_grad:
            leaf.requires_grad_()
        return leaf

    def read(self, name: str, tensor: Tensor) -> Tensor:
        return self.readers[name](tensor) if name in self.readers else tensor


# ------------------------------------------------------------------------------------- running a model


class _Stop(BaseException):
    """Ends a forward pass at the target's layer; no ``except Exception`` of a model catches it."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def run(
    model: nn.Module,
    inputs: Tensor,
    layers: Mapping[str, nn.Module | None] = MappingProxyType({}),
    edit: Callable[[str, Tensor], Tensor] = lambda _, output: output,
    target: Target | None = None,
) -> Tensor:
    """One forward pass in which ``edit(name, output)`` replaces the output of each layer.

    Args:
        model: the module to run as it is; see :func:`camlucida.engine.borrow.borrowed`.
        inputs: ``(N, C, H, W)``.
        layers: names and modules, ``None`` for the input; none by default.
        edit: called once per layer.
        target: its layer, if it has one, ends the pass.

    Returns:
        The model's output as a tensor, or the feature map ``(N, K, h, w)`` of the target's layer.

    Raises:
        LayerError: when a layer runs more than once or returns several tensors.
        TargetError: when the target's layer did not run or the output has no logits.
    """
    with _hooks(model, inputs, layers, edit, target) as edited:
        try:
            outputs = first_tensor(model(edited))
        except _Stop as stop:
            return stop.output
    if target is not None and target.layer is not None:
        raise TargetError(f"the target's layer {target.layer!r} did not run in the forward pass")
    return outputs


@contextmanager
def _hooks(
    model: nn.Module,
    inputs: Tensor,
    layers: Mapping[str, nn.Module | None],
    edit: Callable[[str, Tensor], Tensor],
    target: Target | None,
) -> Iterator[Tensor]:
    ran: dict[str, FirstRun] = {}
    # Before any hook is in place: it may take a pass to know how the layer is read.
    ending = None if target is None or target.layer is None else _end(model, inputs, target.layer)

    def editing(name: str) -> Callable[[nn.Module, Any, Any], Any]:
        def hook(module: nn.Module, args: Any, output: Any) -> Any:
            tensor = _layer_tensor(name, module, output)
            if name not in ran:
                ran[name] = FirstRun(args, tensor, edit(name, tensor))
            elif not ran[name].is_same(args, tensor):
                raise _twice(name, module)
            edited = ran[name].passed_on
            if isinstance(output, Tensor):
                return edited
            items = [edited, *output[1:]]
            return type(output)(*items) if hasattr(output, "_fields") else type(output)(items)

        return hook

    handles = []
    try:
        for name, module in layers.items():
            if module is not None:
                handles.append(module.register_forward_hook(here(editing(name))))
        if ending is not None:
            handles.append(ending[0].register_forward_hook(here(ending[1])))
        # A copy: some models write to their input.
        yield edit(INPUT, inputs) if INPUT in layers else inputs.clone()
    finally:
        for handle in handles:
            handle.remove()


def _end(
    model: nn.Module, inputs: Tensor, layer: Layer
) -> tuple[nn.Module, Callable[[nn.Module, Any, Any], None]]:
    """The module that the pass ends at, and the hook that ends it."""
    name, module = resolve(model, layer)
    if module is None:
        raise TargetError("a target cannot stop at the input; name a layer of the model")
    grid = grid_of(model, inputs, name) if reading(model, inputs, name).calls else Grid()

    def stop(module: nn.Module, _: Any, output: Any) -> None:
        raise _Stop(grid.to_map(_layer_tensor(name, module, output)))

    return module, stop


def _layer_tensor(name: str, module: nn.Module, output: Any) -> Tensor:
    tensor = single_tensor(output)
    if tensor is None:
        found = (
            ", ".join(type(item).__name__ for item in output)
            if isinstance(output, tuple | list)
            else type(output).__name__
        )
        raise LayerError(
            f"layer {name!r} ({type(module).__name__}) returns no single tensor ({found}); "
            "choose a layer inside it that does"
        )
    return tensor
