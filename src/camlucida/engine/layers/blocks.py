"""Candidate layers of a model: its residual blocks, convolution stages or transformer blocks.

There is no table of architectures. The autograd graph of one forward pass tells through which modules
everything flows, and blocks are told by their insides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.engine.borrow import borrowed, unwrap
from camlucida.engine.layers.calls import Call, observe
from camlucida.engine.layers.default import POOLING, default_layer, ends, gradients, parents
from camlucida.engine.layers.evidence import Survey, survey, weights_of
from camlucida.engine.layers.grids import Grid, map_shape
from camlucida.engine.outputs import outcome

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_Known = dict[tuple[Any, ...], tuple[Any, tuple[str, ...]]]
_KNOWN: WeakKeyDictionary[nn.Module, _Known] = WeakKeyDictionary()


def candidate_layers(
    model: nn.Module, inputs: Tensor, *, rectified: bool = False
) -> tuple[str, ...]:
    """The blocks of a model, in network order: what a method that weighs layers chooses among.

    A module is on the *trunk* if everything that reaches the output flows through what it returns; a
    convolution inside a residual block is not, as the shortcut passes it by. Blocks are modules

    * that run once, return a feature map of more than one cell, and are no plain container
      (``Sequential``, ``ModuleList``);
    * whose whole class lies on the trunk, and has something inside that does not: a shortcut, branches;
      or that stand where such modules stand (the first block of an EfficientNet has no shortcut);
    * that hold no further blocks, so that the blocks of a stage are taken and not the stage.

    This yields the 16 bottlenecks of ResNet-50, the dense blocks of DenseNet, the MBConv blocks of
    MobileNet and EfficientNet, the blocks of ConvNeXt, Swin and ViT, the Fire and Inception modules. A
    model without blocks, such as VGG, gives the last map of each convolution before the next one or
    before pooling: its 13 ReLUs.

    Layers through whose cells the output is not reached are left out. For a ViT that reads its class token
    that is the last block: its patch tokens are computed and thrown away.

    Args:
        model: the model, wrapped or not; returned as it was. The choice is remembered while it lives.
        inputs: ``(N, C, H, W)`` on the model's device; only the shape matters, the pass is made with noise.
        rectified: for methods made for maps behind a ReLU, such as I-CAM: of a convolutional block whose
            map has negative values (the linear bottlenecks of MobileNet and EfficientNet) name the
            last activation function inside it instead. Blocks whose activation function sees tokens or
            channels-last maps (ViT, Swin, ConvNeXt) stay as they are.

    Raises:
        LayerError: when nothing in the model returns a spatial map.
    """
    module = unwrap(model)
    key = (*inputs.shape[1:], inputs.dtype, inputs.device, rectified)
    known = _KNOWN.setdefault(module, {})
    weights = weights_of(module)
    if key not in known or known[key][0] != weights:
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(
            (1, *inputs.shape[1:]), generator=generator, dtype=torch.float32, device="cpu"
        )
        with borrowed(module, inputs):
            noise = noise.to(inputs).repeat(survey(module, inputs).images, 1, 1, 1)
            watched = _watch(module, inputs, noise.requires_grad_())
        found = _covering(watched)
        if rectified:
            found = [_rectified(name, watched) for name in found]
        order = {one.name: position for position, one in enumerate(watched)}
        chosen = tuple(sorted(dict.fromkeys(found), key=order.__getitem__))
        known[key] = (weights, chosen or (default_layer(module, inputs),))
    return known[key][1]


@dataclass(frozen=True)
class _Watched:
    """A module that ran once.

    Attributes:
        name: dotted name.
        module: the module.
        node: graph node of what it returned, when it returned it; ``None`` where nothing leads to it.
        signed: its map has negative values.
        on_trunk: every path from the input to the output passes through this node.
        grid: how its map is read, where it can be explained and the output depends on the cells of its map.
        size: (h, w) of this map.
        set_aside: it is a part of an attention module, or comes out of pooling.
    """

    name: str
    module: nn.Module
    node: Any
    signed: bool
    on_trunk: bool
    grid: Grid | None
    size: tuple[int, int] | None
    set_aside: bool

    @property
    def is_feature(self) -> bool:
        """A map that a method may look at, rather than a part of attention or a bare projection."""
        return self.usable and not self.set_aside and not isinstance(self.module, nn.Linear)

    @property
    def usable(self) -> bool:
        return self.grid is not None

    @property
    def is_unit(self) -> bool:
        """A module of one's own making, rather than a leaf or a plain container."""
        has_parts = next(self.module.children(), None) is not None
        return has_parts and type(self.module).forward is not nn.Sequential.forward


def _watch(module: nn.Module, inputs: Tensor, probe: Tensor) -> list[_Watched]:
    """Everything that runs once, in the order in which it ends."""
    found = survey(module, inputs)
    calls, result = observe(module, probe)
    outputs = outcome(result)
    reached: dict[str, Tensor] = {}
    for end in ends(calls, outputs):
        reached = reached or _reached(end, calls)
    trunk = _trunk(outputs[0].grad_fn if outputs else None, probe)
    pooled = {c.identity for c in calls if POOLING.search(type(c.module).__name__)}
    watched = []
    for call in calls:
        if call.calls != 1:
            continue
        grid = _grid(module, inputs, found, call, reached.get(call.name))
        size = None
        if grid is not None and call.output is not None:
            size = map_shape(grid, tuple(call.output.shape))[1:]
        if size == (1, 1):
            grid = size = None
        watched.append(
            _Watched(
                call.name,
                call.module,
                call.node,
                call.signed,
                call.node in trunk,
                grid,
                size,
                call.identity in pooled
                or any(parent in found.attention for parent in parents(call.name)),
            )
        )
    return watched


def _grid(
    module: nn.Module, inputs: Tensor, found: Survey, call: Call, gradient: Tensor | None
) -> Grid | None:
    """How a map is read that the output depends on."""
    if gradient is None or not gradient.any():
        return None
    read = found.reading(module, inputs, call.name)
    if read.grid is None or read.calls != 1 or not read.grid.to_map(gradient).any():
        return None
    return read.grid


def _reached(end: list[Tensor], calls: list[Call]) -> dict[str, Tensor]:
    """Gradients of the outputs that may be maps."""
    candidates = [
        c
        for c in calls
        if c.output is not None and c.output.ndim in (3, 4) and c.output.requires_grad
    ]
    found = gradients(end, [c.output for c in candidates if c.output is not None])
    return {
        c.name: gradient
        for c, gradient in zip(candidates, found, strict=True)
        if gradient is not None and gradient.any()
    }


def _covering(watched: list[_Watched]) -> list[str]:
    """Blocks, or else the last map of each convolution, and the last map of every stage that these leave out."""
    at = {one.name: place for place, one in enumerate(watched)}

    def missing(names: list[str]) -> list[tuple[int, int]]:
        """Resolutions that the network works at behind the first of these layers, but none of them has."""
        first = min((at[name] for name in names), default=0)
        sizes = [one.size for one in watched[first:] if one.size and one.is_feature]
        return [
            size
            for size in dict.fromkeys(sizes)
            if size not in {watched[at[n]].size for n in names}
        ]

    sizes = {one.size for one in watched if one.size and one.is_feature}

    def covered(names: list[str]) -> int:
        return len({watched[at[name]].size for name in names})

    found = _blocks(watched)
    if not found or 2 * covered(found) < len(sizes):
        chain = _last_of_each_convolution(watched)
        found = chain if covered(chain) > covered(found) else found
    units = _repeated([one for one in watched if not set(parents(one.name)) & set(found)])
    more = len(units) >= _TWICE * len(found) and not set(units) & set(found)
    if covered(units) > covered(found) or (more and covered(units) == covered(found)):
        found = units
    alike = _alike(watched) if len(found) < _OFTEN else []
    if covered(alike) >= covered(found) and len(alike) >= _OFTEN * len(found):
        found = alike
    left_out = missing(found) if found else []
    for size in left_out:
        here = [one for one in watched if one.size == size and one.is_feature]
        best = [one for one in here if one.on_trunk] or here
        found.append(best[-1].name)
    return found


_WEIGHTED = (*_CONVOLUTIONS, nn.Linear)
_OFTEN = 4
_TWICE = 2


def _repeated(watched: list[_Watched]) -> list[str]:
    """The units of the class that works at most resolutions, the outermost first: for networks with several trunks."""
    by_class: dict[type[nn.Module], list[_Watched]] = {}
    for one in watched:
        weighted = [
            m for m in one.module.modules() if next(m.parameters(recurse=False), None) is not None
        ]
        # Not what merely joins a convolution with its norm.
        if one.is_unit and one.is_feature and sum(isinstance(m, _WEIGHTED) for m in weighted) > 1:
            by_class.setdefault(type(one.module), []).append(one)
    often = [kind for kind in by_class.values() if len(kind) >= _OFTEN]
    if not often:
        return []
    best = max(
        often,
        key=lambda kind: (len({one.size for one in kind}), -min(map(_depth, kind)), len(kind)),
    )
    names = {one.name for one in best}
    return [one.name for one in best if not any(parent in names for parent in parents(one.name))]


def _alike(watched: list[_Watched]) -> list[str]:
    """Maps that stand in the same kind of place, such as a norm of every block."""
    by_place: dict[str, list[_Watched]] = {}
    for one in watched:
        if one.is_feature:
            by_place.setdefault(_place(one), []).append(one)
    best = max(
        by_place.values(),
        key=lambda kind: (len({o.size for o in kind}), len(kind), -_depth(kind[0])),
        default=[],
    )
    return [one.name for one in best]


def _trunk(end: Any, probe: Tensor) -> set[Any]:
    """Nodes of the graph through which every path from the output to the input leads.

    Through a node lead as many paths as there are from the output to it, times those from it to the
    input; it is on the trunk if that is all of them.
    """
    order = _topological(end)
    to_input: dict[Any, int] = {}
    for node in reversed(order):
        if getattr(node, "variable", None) is probe:
            to_input[node] = 1
        else:
            to_input[node] = sum(to_input[after] for after in _next(node))
    from_output = dict.fromkeys(order, 0)
    if end is not None:
        from_output[end] = 1
    for node in order:
        for after in _next(node):
            from_output[after] += from_output[node]
    whole = to_input.get(end, 0)
    return {node for node in order if whole and from_output[node] * to_input[node] == whole}


def _next(node: Any) -> list[Any]:
    return [after for after, _ in node.next_functions if after is not None]


def _topological(end: Any) -> list[Any]:
    """All nodes behind ``end``, each before those it leads to."""
    order: list[Any] = []
    seen: set[Any] = set()
    stack: list[tuple[Any, Iterator[Any]]] = []
    if end is not None:
        seen.add(end)
        stack.append((end, iter(_next(end))))
    while stack:
        node, rest = stack[-1]
        for after in rest:
            if after not in seen:
                seen.add(after)
                stack.append((after, iter(_next(after))))
                break
        else:
            order.append(node)
            stack.pop()
    return order[::-1]


def _blocks(watched: list[_Watched]) -> list[str]:
    by_class: dict[type[nn.Module], list[_Watched]] = {}
    for one in watched:
        by_class.setdefault(type(one.module), []).append(one)

    def inside(outer: _Watched) -> list[_Watched]:
        return [w for w in watched if w.name.startswith(outer.name + ".")]

    branching = [
        one
        for kind in by_class.values()
        if kind[0].is_unit
        and all(w.on_trunk for w in kind)
        and any(not w.on_trunk and w.node is not None for one in kind for w in inside(one))
        for one in kind
        if one.usable
    ]
    # A stage holds blocks: maps of the trunk other than its own.
    stages = {
        type(one.module)
        for one in branching
        if any(w.node is not one.node for w in inside(one) if w in branching)
    }
    blocks = [one for one in branching if type(one.module) not in stages]
    places = {_place(one) for one in blocks}
    taken = {one.name for one in blocks}
    alike = [
        one
        for one in watched
        if one.is_unit
        and one.usable
        and one.on_trunk
        and _place(one) in places
        and type(one.module) not in stages
    ]
    found: dict[Any, str] = {}
    for one in sorted([*blocks, *(a for a in alike if a.name not in taken)], key=_depth):
        # Of modules that return the same map, the outermost; and nothing inside a block.
        if not any(one.name.startswith(name + ".") for name in found.values()):
            found.setdefault(one.node, one.name)
    return list(found.values())


def _rectified(name: str, watched: list[_Watched]) -> str:
    """The last activation function inside a convolutional block with a signed map; else the block."""
    inside = [w for w in watched if w.name.startswith(name + ".")]
    (block,) = (w for w in watched if w.name == name)
    activations = [
        w
        for w in inside
        if type(w.module).__module__ == nn.ReLU.__module__
        or "activation" in type(w.module).__module__
    ]
    maps = [w for w in activations if w.grid and w.grid.layout == "nchw" and w.size == block.size]
    if not block.signed or not maps:
        return name
    # Named after the outermost module that returns this map, such as a norm with its activation.
    same = [w for w in inside if w.node is maps[-1].node]
    return min(same, key=_depth).name


def _place(one: _Watched) -> str:
    """A name without its numbers: blocks in the same kind of place."""
    return re.sub(r"\d+", "#", one.name)


def _depth(one: _Watched) -> int:
    return one.name.count(".")


def _last_of_each_convolution(watched: list[_Watched]) -> list[str]:
    """For models without blocks: the last map of the trunk before the next convolution or pooling."""
    found: list[str] = []
    open_group, node = False, None
    for one in watched:
        if next(one.module.children(), None) is not None:
            continue
        if isinstance(one.module, _CONVOLUTIONS):
            open_group = True
            found.append("")
        elif POOLING.search(type(one.module).__name__):
            open_group = False
        # What hands the same map on (Identity, dropout) changes nothing.
        if open_group and one.on_trunk and one.usable and one.node is not node:
            found[-1], node = one.name, one.node
    return [name for name in found if name]
