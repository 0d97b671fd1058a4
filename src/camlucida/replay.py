"""Run only the part of a model behind a layer, many times, on altered activations.

Where the model allows it, the forward methods of the modules around the layer are traced (``torch.fx``) and
cut behind it; every other module stays closed and is called as it is. Values that cross the cut, such as the
skips around the layer, are kept and repeated for the altered copies. A cut is checked against the whole model
once, remembered while the model lives, and works on the modules and parameters as they are. Where that is not
possible the whole model runs and a hook puts the altered activation in place: the same numbers at the price
of the trunk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map

from camlucida.borrow import borrowed, check_inputs
from camlucida.errors import LayerError
from camlucida.layers import INPUT, Grid, GridRule, Layers, find_grid, resolve, resolve_all
from camlucida.outputs import first_tensor
from camlucida.tap import Tap, run, tap
from camlucida.targets import Target, TargetLike, as_target
from camlucida.trace import PREFIX, Untraceable, execute, operands, trace

_LOG = logging.getLogger("camlucida")

Path = Literal["auto", "traced", "full"]


# ------------------------------------------------------------------------------------------ what is used


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
        kept = _Outputs(inputs, grid)
        with kept.watch(module, layers):
            tapped = tap(module, inputs, layers, wanted, gradients=False, grid=grid)
        assert tapped.target is not None  # noqa: S101
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
        outputs: _Outputs,
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
        full = _Full(self._model, self._inputs, layer, self._target, self._outputs)
        if layer == INPUT or self._path == "full":
            self.paths[layer] = "full"
            return full
        cut = _cut(full)
        if isinstance(cut, str):
            if self._path == "traced":
                raise LayerError(f"the model cannot be cut behind layer {layer!r}: {cut}")
            self.paths[layer] = "full"
            return full
        self.paths[layer] = "traced"
        return _Traced(full, cut)


_Run = Callable[[Tensor, Tensor], Tensor]


class _Outputs:
    """What the layers themselves returned, and how it is read as a feature map."""

    def __init__(self, inputs: Tensor, grid: GridRule | Mapping[str, GridRule] | None) -> None:
        self.size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
        self.grid = grid
        self.raw: dict[str, Any] = {INPUT: inputs}

    @contextmanager
    def watch(self, model: nn.Module, layers: Layers) -> Iterator[None]:
        """Keep the outputs of the layers in a forward pass."""

        def keeping(name: str) -> Callable[[nn.Module, Any, Any], None]:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                # Copied: something behind the layer may write to it.
                self.raw[name] = tree_map(_cloned, output)

            return hook

        chosen = resolve_all(model, layers)
        handles = [
            module.register_forward_hook(keeping(name))
            for name, module in chosen.items()
            if module is not None
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def rule(self, name: str) -> Grid:
        rule = self.grid.get(name) if isinstance(self.grid, Mapping) else self.grid
        if name == INPUT:
            return Grid()
        if rule is None:
            return find_grid(_first(self.raw[name]), self.size, name)
        if not isinstance(rule, Grid):
            raise LayerError(
                f"the grid of layer {name!r} is a function, which reads a feature map but cannot write an "
                "altered one back; pass a camlucida.Grid"
            )
        return rule

    def replaced(self, name: str, altered: Tensor, index: Tensor) -> Any:
        """The layer's output for the images ``index``, with another feature map in it."""
        raw = self.raw[name]
        rule, first = self.rule(name), _first(raw)
        own = first[index] if rule.prefix else first
        tensor = rule.to_output(altered.to(first.dtype), own)
        if tensor.data_ptr() == altered.data_ptr():
            tensor = tensor.clone()
        return tensor if isinstance(raw, Tensor) else type(raw)([tensor, *raw[1:]])


def _cloned(value: Any) -> Any:
    return value.clone() if isinstance(value, Tensor) else value


def _first(output: Any) -> Tensor:
    tensor = output if isinstance(output, Tensor) else output[0]
    assert isinstance(tensor, Tensor)  # noqa: S101
    return tensor


class _Full:
    """The whole model, with a hook that replaces the layer's output."""

    def __init__(
        self, model: nn.Module, inputs: Tensor, layer: str, target: Target, outputs: _Outputs
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.layer = layer
        self.target = target
        self.outputs = outputs
        _, self.module = resolve(model, layer)

    def __call__(self, altered: Tensor, index: Tensor) -> Tensor:
        replaced = self.outputs.replaced(self.layer, altered, index)
        return run(
            self.model,
            self.inputs[index],
            {self.layer: self.module},
            lambda *_: _first(replaced),
            self.target,
        )


# ------------------------------------------------------------------------------------------- tracing


@dataclass(frozen=True)
class _Cut:
    """A model's operations in front of and behind a layer; holds no module and no parameter.

    Attributes:
        before: operations up to and with the layer.
        layer: the layer's own.
        behind: all others that are needed.
        result: what the model returns, in terms of operations.
        crossing: operations in front whose values are used behind, and whether each is one per image.
        graph: owns the operations.
    """

    before: tuple[fx.Node, ...]
    layer: fx.Node
    behind: tuple[fx.Node, ...]
    result: Any
    crossing: dict[fx.Node, bool]
    graph: fx.Graph = field(repr=False)


class _Traced:
    """Runs what lies behind the cut."""

    def __init__(self, full: _Full, cut: _Cut) -> None:
        self.full = full
        self.cut = cut
        self.values: dict[fx.Node, Any] = {}
        if cut.crossing:
            env = execute(full.model, cut.before, {}, full.inputs, set(cut.crossing))
            self.values = {node: env[node] for node in cut.crossing}

    def __call__(self, altered: Tensor, index: Tensor) -> Tensor:
        # Copies throughout: something behind the layer may write to them.
        env = {
            node: tree_map(lambda v: v[index], value)
            if self.cut.crossing[node]
            else tree_map(_cloned, value)
            for node, value in self.values.items()
        }
        env[self.cut.layer] = self.full.outputs.replaced(self.full.layer, altered, index)
        env = execute(self.full.model, self.cut.behind, env, None, operands(self.cut.result))
        output = first_tensor(fx.node.map_arg(self.cut.result, env.__getitem__))
        if self.full.target.layer is None:
            return output
        name = str(resolve(self.full.model, self.full.target.layer)[0])
        return find_grid(output, self.full.outputs.size, name).to_map(output)


_CUTS: WeakKeyDictionary[nn.Module, dict[Any, tuple[tuple[Any, ...], _Cut | str]]] = (
    WeakKeyDictionary()
)


def _cut(full: _Full) -> _Cut | str:
    """The cut behind a layer, made and checked once, or why there is none."""
    model, inputs = full.model, full.inputs
    stop = None if full.target.layer is None else resolve(model, full.target.layer)[0]
    autocast = torch.is_autocast_enabled(inputs.device.type)
    key = (full.layer, stop, tuple(inputs.shape[1:]), inputs.dtype, inputs.device, autocast)
    opened = _ancestors(model, [name for name in (full.layer, stop) if name])
    fingerprint = _fingerprint(opened)
    known = _CUTS.setdefault(model, {})
    if key in known and known[key][0] == fingerprint:
        return known[key][1]
    found: _Cut | str
    try:
        found = _make(full, stop, opened)
        _verify(full, found)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever a user's forward method does to a symbol; the whole model always works.
        found = f"{type(error).__name__}: {error}".partition("\n")[0]
        found = found.removeprefix("Untraceable: ")
        if not any(
            isinstance(cut, str) for (name, *_), (_, cut) in known.items() if name == full.layer
        ):
            _LOG.warning(
                "%s cannot be cut behind layer %r (%s): the whole model runs for each altered copy",
                type(model).__name__,
                full.layer,
                found,
            )
    known[key] = (fingerprint, found)
    return found


def _ancestors(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The modules around the named ones, the model itself first."""
    found = {"": model}
    for name in names:
        parts = name.split(".")
        for length in range(1, len(parts)):
            inner = ".".join(parts[:length])
            found[inner] = model.get_submodule(inner)
    return found


def _fingerprint(opened: Mapping[str, nn.Module]) -> tuple[Any, ...]:
    """What a traced forward pass depends on: the modules, their children and their plain attributes."""
    return tuple(
        (
            name,
            ref(module),
            type(module).forward,
            tuple((child, ref(m)) for child, m in module._modules.items() if m is not None),  # noqa: SLF001
            tuple(
                (key, value)
                for key, value in vars(module).items()
                if isinstance(value, bool | int | float | str | None) and key != "training"
            ),
        )
        for name, module in opened.items()
    )


def _make(full: _Full, stop: str | None, opened: Mapping[str, nn.Module]) -> _Cut:
    for name, module in opened.items():
        if module._forward_hooks or module._forward_pre_hooks:  # noqa: SLF001
            raise Untraceable(f"{name or 'the model'} has forward hooks")
        if "forward" in vars(module):
            raise Untraceable(f"the forward method of {name or 'the model'} was replaced")
    try:
        graph, _ = trace(full.model, list(opened.values()))
    except fx.proxy.TraceError:
        graph, decisions = trace(full.model, list(opened.values()), _probe(full))
        if decisions != trace(full.model, list(opened.values()), _probe(full)[:1])[1]:
            raise Untraceable("a branch depends on the number of images") from None
    nodes = list(graph.nodes)
    layer = _only(nodes, full.layer)
    position = nodes.index(layer)
    (output,) = [node for node in nodes if node.op == "output"]
    result: Any = output.args[0]
    end = nodes.index(output)
    if stop is not None:
        result = _only(nodes, stop)
        end = nodes.index(result) + 1
        if end <= position + 1:
            raise Untraceable(f"the target's layer {stop!r} does not lie behind it")
    before = tuple(nodes[: position + 1])
    behind = list(nodes[position + 1 : end])
    env = execute(full.model, before, {}, _probe(full), set(before))
    crossing, again = _crossing(behind, result, layer, env, _dependent(before))
    graph.lint()
    return _Cut(before, layer, (*again, *behind), result, crossing, graph)


def _only(nodes: Sequence[fx.Node], name: str) -> fx.Node:
    calls = [n for n in nodes if n.op == "call_module" and n.target == PREFIX + name]
    if len(calls) != 1:
        raise Untraceable(f"layer {name!r} is called {len(calls)} times in the trace")
    return calls[0]


def _dependent(nodes: Sequence[fx.Node]) -> set[fx.Node]:
    """The operations whose value depends on the input."""
    found: set[fx.Node] = set()
    for node in nodes:
        if node.op == "placeholder" or any(source in found for source in node.all_input_nodes):
            found.add(node)
    return found


def _crossing(
    behind: Sequence[fx.Node],
    result: Any,
    layer: fx.Node,
    env: Mapping[fx.Node, Any],
    dependent: set[fx.Node],
) -> tuple[dict[fx.Node, bool], list[fx.Node]]:
    """Which values cross the cut, and which operations in front have to be repeated behind it.

    Numbers read off a tensor, such as the size of the batch, are read again off the repeated one.
    """
    own = {layer, *behind}
    wanted = [s for node in behind for s in node.all_input_nodes if s not in own]
    wanted += [node for node in operands(result) if node not in own]
    crossing: dict[fx.Node, bool] = {}
    repeated: set[fx.Node] = set()
    while wanted:
        node = wanted.pop()
        if node in crossing or node in repeated or node is layer:
            continue
        leaves, _ = tree_flatten(env[node])
        if leaves and all(isinstance(leaf, Tensor) for leaf in leaves):
            crossing[node] = node in dependent
            if node in dependent and any(leaf.shape[:1] != (_COPIES,) for leaf in leaves):
                shapes = [tuple(leaf.shape) for leaf in leaves]
                raise Untraceable(f"a value of shape {shapes[0]} goes around the layer")
        else:
            repeated.add(node)
            wanted += node.all_input_nodes
    return crossing, [node for node in env if node in repeated]


_COPIES = 3


def _probe(full: _Full) -> Tensor:
    """Copies of one image, of a number that is not the batch's."""
    return full.inputs[-1:].expand(_COPIES, *full.inputs.shape[1:]).clone()


def _verify(full: _Full, cut: _Cut) -> None:
    """Raise unless both paths give the same numbers on altered activations."""
    activation = full.outputs.rule(full.layer).to_map(_first(full.outputs.raw[full.layer]))[-1]
    copies = torch.stack([activation, activation.roll(1, 0) / 2, activation.flip(1) * 0])
    index = torch.full((_COPIES,), len(full.inputs) - 1, device=full.inputs.device)
    wanted, found = full(copies, index), _Traced(full, cut)(copies, index)
    # Under autocast the layer is coarser than the inputs.
    kinds = {full.inputs.dtype, _first(full.outputs.raw[full.layer]).dtype, wanted.dtype}
    rounding = max(torch.finfo(kind).eps for kind in kinds) ** 0.5
    wanted, found = wanted.cpu().double(), found.cpu().double()
    scale = float(wanted.nan_to_num().abs().amax())
    if found.shape != wanted.shape or not torch.allclose(
        found, wanted, rtol=rounding, atol=rounding * scale, equal_nan=True
    ):
        raise Untraceable("the traced operations do not give the model's numbers")
