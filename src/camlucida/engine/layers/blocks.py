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
from camlucida.engine.layers import POOLING, LayerInfo, default_layer, observe, single_tensor
from camlucida.engine.outputs import first_tensor

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
_Known = dict[tuple[Any, ...], tuple[str, ...]]
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
    key = (*inputs.shape[1:], rectified)
    known = _KNOWN.setdefault(module, {})
    names = {name for name, _ in module.named_modules()}
    if key not in known or not names.issuperset(known[key]):
        noise = torch.randn((1, *inputs.shape[1:]), generator=torch.Generator().manual_seed(0))
        with borrowed(module, inputs):
            watched = _watch(module, noise.to(inputs).requires_grad_())
        found = _blocks(watched) or _last_of_each_convolution(watched)
        if rectified:
            found = [_rectified(name, watched) for name in found]
        order = {call.info.name: position for position, call in enumerate(watched)}
        chosen = tuple(sorted(found, key=order.__getitem__))
        known[key] = chosen or (default_layer(module, inputs),)
    return known[key]


@dataclass(frozen=True)
class _Watched:
    """A module that ran.

    Attributes:
        info: its name and map.
        module: the module.
        node: graph node of what it returned, when it returned it; ``None`` where nothing leads to it.
        signed: its map has negative values.
        on_trunk: every path from the input to the output passes through this node.
        usable: it can be explained, and the output depends on the cells of its map.
    """

    info: LayerInfo
    module: nn.Module
    node: Any
    signed: bool
    on_trunk: bool
    usable: bool

    @property
    def is_unit(self) -> bool:
        """A module of one's own making, rather than a leaf or a plain container."""
        has_parts = next(self.module.children(), None) is not None
        return has_parts and type(self.module).forward is not nn.Sequential.forward


def _watch(module: nn.Module, probe: Tensor) -> list[_Watched]:
    """Everything that runs, in the order in which it ends."""
    nodes: dict[str, Any] = {}
    signed: dict[str, bool] = {}

    def keep(name: str) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            tensor = single_tensor(output)
            # In-place operations to come give the same tensor another node.
            nodes[name] = None if tensor is None else tensor.grad_fn
            signed[name] = tensor is not None and bool((tensor < 0).any())

        return hook

    handles = [m.register_forward_hook(keep(name)) for name, m in module.named_modules() if name]
    try:
        calls, result = observe(module, probe)
    finally:
        for handle in handles:
            handle.remove()
    output = first_tensor(result)
    # Behind a head that is still zero nothing has a gradient; then look from its input.
    heads = [c.input for c in calls if isinstance(c.module, nn.Linear) and c.input is not None]
    for end in [output, *heads[-1:]]:
        usable = _reached(end, calls)
        if usable:
            break
    trunk = _trunk(output.grad_fn, probe)
    return [
        _Watched(
            call.info,
            call.module,
            nodes.get(call.name),
            signed.get(call.name, False),
            nodes.get(call.name) in trunk,
            call.name in usable,
        )
        for call in calls
        if call.info.calls == 1
    ]


def _reached(end: Tensor, calls: list[Any]) -> set[str]:
    """Names of the candidates whose cells have a gradient."""
    candidates = [
        c for c in calls if c.info.candidate and c.output is not None and c.output.requires_grad
    ]
    if not end.requires_grad or not candidates:
        return set()
    # A random direction: sums cancel in normalised embeddings and softmax outputs.
    generator = torch.Generator().manual_seed(0)
    score = (end * torch.randn(end.shape, generator=generator).to(end)).sum()
    gradients = torch.autograd.grad(
        score, [c.output for c in candidates], retain_graph=True, allow_unused=True
    )
    return {
        c.name
        for c, gradient in zip(candidates, gradients, strict=True)
        if gradient is not None and c.info.grid.to_map(gradient).any()
    }


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
        return [w for w in watched if w.info.name.startswith(outer.info.name + ".")]

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
    taken = {one.info.name for one in blocks}
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
    for one in sorted([*blocks, *(a for a in alike if a.info.name not in taken)], key=_depth):
        # Of modules that return the same map, the outermost; and nothing inside a block.
        if not any(one.info.name.startswith(name + ".") for name in found.values()):
            found.setdefault(one.node, one.info.name)
    return list(found.values())


def _rectified(name: str, watched: list[_Watched]) -> str:
    """The last activation function inside a convolutional block with a signed map; else the block."""
    inside = [w for w in watched if w.info.name.startswith(name + ".")]
    (block,) = (w for w in watched if w.info.name == name)
    activations = [
        w
        for w in inside
        if type(w.module).__module__ == nn.ReLU.__module__
        or "activation" in type(w.module).__module__
    ]
    maps = [w for w in activations if w.usable and w.info.grid and w.info.grid.layout == "nchw"]
    if not block.signed or not maps:
        return name
    # Named after the outermost module that returns this map, such as a norm with its activation.
    same = [w for w in inside if w.node is maps[-1].node and w.info.calls == 1]
    return min(same, key=_depth).info.name


def _place(one: _Watched) -> str:
    """A name without its numbers: blocks in the same kind of place."""
    return re.sub(r"\d+", "#", one.info.name)


def _depth(one: _Watched) -> int:
    return one.info.name.count(".")


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
            found[-1], node = one.info.name, one.node
    return [name for name in found if name]
