"""Cut a model behind a layer, so that only the rest of it runs.

The forward methods of the modules around the layer are traced (``torch.fx``); every other module stays closed
and is called as it is. A cut is checked against the whole model once, remembered while the model lives, and works
on the modules and parameters as they are.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_map

from camlucida.engine.layers import grid_of, resolve
from camlucida.engine.outputs import first_tensor
from camlucida.engine.replay.tracing import PREFIX, Untraceable, execute, operands, trace
from camlucida.engine.replay.whole import Whole, cloned, layer_tensor

_LOG = logging.getLogger("camlucida")


@dataclass(frozen=True)
class Cut:
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


class Traced:
    """Runs what lies behind the cut."""

    def __init__(self, whole: Whole, cut: Cut) -> None:
        self.whole = whole
        self.cut = cut
        self.values: dict[fx.Node, Any] = {}
        if cut.crossing:
            # A copy: some models write to their input.
            env = execute(whole.model, cut.before, {}, whole.inputs.clone(), set(cut.crossing))
            self.values = {node: env[node] for node in cut.crossing}

    def __call__(self, altered: Tensor, index: Tensor) -> Tensor:
        """As :class:`camlucida.engine.replay.whole.Whole`."""
        # Copies throughout: something behind the layer may write to them.
        env = {
            node: tree_map(lambda v: v[index], value)
            if self.cut.crossing[node]
            else tree_map(cloned, value)
            for node, value in self.values.items()
        }
        env[self.cut.layer] = self.whole.outputs.replaced(self.whole.layer, altered, index)
        env = execute(self.whole.model, self.cut.behind, env, None, operands(self.cut.result))
        output = first_tensor(fx.node.map_arg(self.cut.result, env.__getitem__))
        if self.whole.target.layer is None:
            return output
        name = str(resolve(self.whole.model, self.whole.target.layer)[0])
        return grid_of(self.whole.model, self.whole.inputs, name).to_map(output)


_CUTS: WeakKeyDictionary[nn.Module, dict[Any, tuple[tuple[Any, ...], Cut | str]]] = (
    WeakKeyDictionary()
)


def find_cut(whole: Whole) -> Cut | str:
    """The cut behind a layer, made and checked once, or why there is none."""
    model, inputs = whole.model, whole.inputs
    stop = None if whole.target.layer is None else resolve(model, whole.target.layer)[0]
    autocast = torch.is_autocast_enabled(inputs.device.type)
    key = (whole.layer, stop, tuple(inputs.shape[1:]), inputs.dtype, inputs.device, autocast)
    opened = _ancestors(model, [name for name in (whole.layer, stop) if name])
    fingerprint = _fingerprint(opened)
    known = _CUTS.setdefault(model, {})
    if key in known and known[key][0] == fingerprint:
        return known[key][1]
    found: Cut | str
    try:
        found = _make(whole, stop, opened)
        _verify(whole, found)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever a user's forward method does to a symbol; the whole model always works.
        found = f"{type(error).__name__}: {error}".partition("\n")[0]
        found = found.removeprefix("Untraceable: ")
        if not any(
            isinstance(cut, str) for (name, *_), (_, cut) in known.items() if name == whole.layer
        ):
            _LOG.warning(
                "%s cannot be cut behind layer %r (%s): the whole model runs for each altered copy",
                type(model).__name__,
                whole.layer,
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


_OWN = frozenset(vars(nn.Module()))
"""Attributes that torch itself keeps on a module."""


def _fingerprint(opened: Mapping[str, nn.Module]) -> tuple[Any, ...]:
    """What a traced forward pass depends on: the modules, their children, hooks and plain attributes."""
    return tuple(
        (
            name,
            ref(module),
            type(module).forward,
            _hooked(module),
            tuple((child, ref(m)) for child, m in module._modules.items() if m is not None),  # noqa: SLF001
            tuple((key, _plain(value)) for key, value in vars(module).items() if key not in _OWN),
        )
        for name, module in opened.items()
    )


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)  # noqa: SLF001


def _plain(value: Any, depth: int = 3) -> Any:
    """What can be compared of an attribute without holding on to a tensor or a module."""
    if isinstance(value, bool | int | float | str | None):
        return value
    if depth and isinstance(value, dict):
        return tuple((key, _plain(item, depth - 1)) for key, item in value.items())
    if depth and isinstance(value, list | tuple | set | frozenset):
        return tuple(_plain(item, depth - 1) for item in value)
    return id(value) if callable(value) else type(value)


def _make(whole: Whole, stop: str | None, opened: Mapping[str, nn.Module]) -> Cut:
    for name, module in opened.items():
        if _hooked(module):
            raise Untraceable(f"{name or 'the model'} has forward hooks")
        if "forward" in vars(module):
            raise Untraceable(f"the forward method of {name or 'the model'} was replaced")
    try:
        graph, _ = trace(whole.model, list(opened.values()))
    except fx.proxy.TraceError:
        graph, decisions = trace(whole.model, list(opened.values()), _probe(whole))
        if decisions != trace(whole.model, list(opened.values()), _probe(whole)[:1])[1]:
            raise Untraceable("a branch depends on the number of images") from None
    nodes = list(graph.nodes)
    layer = _only(nodes, whole.layer)
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
    env = execute(whole.model, before, {}, _probe(whole), set(before))
    crossing, again = _crossing(behind, result, layer, env, _dependent(before))
    graph.lint()
    return Cut(before, layer, (*again, *behind), result, crossing, graph)


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


def _probe(whole: Whole) -> Tensor:
    """Copies of one image, of a number that is not the batch's."""
    return whole.inputs[-1:].expand(_COPIES, *whole.inputs.shape[1:]).clone()


def _verify(whole: Whole, cut: Cut) -> None:
    """Raise unless both paths give the same numbers on altered activations."""
    returned = layer_tensor(whole.outputs.raw[whole.layer])
    activation = whole.outputs.rule(whole.layer).to_map(returned)[-1]
    copies = torch.stack([activation, activation.roll(1, 0) / 2, activation.flip(1) * 0])
    index = torch.full((_COPIES,), len(whole.inputs) - 1, device=whole.inputs.device)
    wanted, found = whole(copies, index), Traced(whole, cut)(copies, index)
    # Under autocast the layer is coarser than the inputs.
    kinds = {whole.inputs.dtype, returned.dtype, wanted.dtype}
    rounding = max(torch.finfo(kind).eps for kind in kinds) ** 0.5
    wanted, found = wanted.cpu().double(), found.cpu().double()
    scale = float(wanted.nan_to_num().abs().amax())
    if found.shape != wanted.shape or not torch.allclose(
        found, wanted, rtol=rounding, atol=rounding * scale, equal_nan=True
    ):
        raise Untraceable("the traced operations do not give the model's numbers")
