"""Find, name and check layers, and bring what they return into the form of a feature map.

A layer is a module of the model whose output is a feature map ``(N, K, h, w)``. Token sequences and
channels-last maps are brought into this form by a :class:`Grid`.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from camlucida.borrow import borrowed, unwrap
from camlucida.errors import LayerError
from camlucida.outputs import first_tensor

INPUT = "input"
"""The name under which the model's input itself is a layer."""

Layer: TypeAlias = str | nn.Module
Layers: TypeAlias = Layer | Sequence[Layer]

_MAX_PREFIX = 17  # a class token and up to 16 registers


# ---------------------------------------------------------------------------------------------- naming


def resolve(model: nn.Module, layer: Layer) -> tuple[str, nn.Module | None]:
    """Name and module of a layer.

    Args:
        model: the model, wrapped or not.
        layer: a dotted name, where negative indices count from the end (``"layer4.-1"``); a module of the
            model; or ``"input"``.

    Returns:
        The dotted name and the module, ``None`` for the input.

    Raises:
        LayerError: when the model has no such layer, naming the nearest ones, or when it never runs
            by itself (``ModuleList``, ``ModuleDict``).
    """
    model = unwrap(model)
    if isinstance(layer, nn.Module):
        layer = unwrap(layer)
        for name, module in model.named_modules():
            if module is layer:
                return _runnable(name, module)
        raise LayerError(
            f"the given {type(layer).__name__} is not a module of this {type(model).__name__}; "
            "pass one of its own modules or a dotted name"
        )
    if not isinstance(layer, str):
        raise LayerError(f"a layer is a dotted name or a module, got {type(layer).__name__}")
    if layer == INPUT:
        return INPUT, None
    module = model
    parts: list[str] = []
    for part in layer.removeprefix("module.").split("."):
        children = dict(module.named_children())
        if part.startswith("-") and part[1:].isdigit() and 0 < int(part[1:]) <= len(children):
            part = list(children)[int(part)]  # noqa: PLW2901
        if part not in children:
            raise LayerError(_unknown(model, layer))
        parts.append(part)
        module = children[part]
    return _runnable(".".join(parts), module)


def resolve_all(model: nn.Module, layers: Layers) -> dict[str, nn.Module | None]:
    """Names and modules of one or several layers, in the order given.

    Raises:
        LayerError: for an unknown layer, none at all, or the same one twice.
    """
    if not isinstance(layers, str | nn.Module | Sequence):
        raise LayerError(
            f"layers must be names or modules of the model, got {type(layers).__name__}; "
            "`camlucida layers` lists the names"
        )
    chosen = [layers] if isinstance(layers, str | nn.Module) else list(layers)
    if not chosen:
        raise LayerError(
            "no layer was given; pass a name, a module, or leave the choice to camlucida"
        )
    found: dict[str, nn.Module | None] = {}
    for layer in chosen:
        name, module = resolve(model, layer)
        if name in found:
            raise LayerError(f"layer {name!r} was given twice")
        found[name] = module
    return found


def _runnable(name: str, module: nn.Module) -> tuple[str, nn.Module]:
    if isinstance(module, nn.ModuleList | nn.ModuleDict):
        raise LayerError(
            f"layer {name!r} is a {type(module).__name__}, which never runs by itself; "
            f"choose one of its members, e.g. {name + '.-1'!r}"
        )
    return name, module


def _unknown(model: nn.Module, layer: str) -> str:
    names = [name for name, _ in model.named_modules() if name]
    near = difflib.get_close_matches(layer, names, n=3, cutoff=0.5) or names[-3:]
    return (
        f"{type(model).__name__} has no layer {layer!r}; nearest: {', '.join(map(repr, near))} "
        "(`camlucida layers` lists them all)"
    )


# ----------------------------------------------------------------------------------------------- grids


@dataclass(frozen=True)
class Grid:
    """How a layer's output is read as a feature map ``(N, K, h, w)``, and written back.

    Attributes:
        layout: ``"nchw"``; ``"nhwc"``; or ``"tokens"``, ``(N, T, K)`` in row-major order.
        prefix: number of class and register tokens in front, which are no part of the map.
        size: (h, w) of a token grid.
    """

    layout: Literal["nchw", "nhwc", "tokens"] = "nchw"
    prefix: int = 0
    size: tuple[int, int] | None = None

    def to_map(self, output: Tensor) -> Tensor:
        """The feature map ``(N, K, h, w)`` in a layer's output."""
        if self.layout == "nchw":
            return output
        if self.layout == "nhwc":
            return output.permute(0, 3, 1, 2)
        assert self.size is not None  # noqa: S101
        tokens = output[:, self.prefix :]
        return tokens.reshape(tokens.shape[0], *self.size, -1).permute(0, 3, 1, 2)

    def to_output(self, feature_map: Tensor, output: Tensor) -> Tensor:
        """The layer's output with its feature map replaced; prefix tokens stay ``output``'s own."""
        if self.layout == "nchw":
            return feature_map
        if self.layout == "nhwc":
            return feature_map.permute(0, 2, 3, 1)
        tokens = feature_map.flatten(2).transpose(1, 2)
        return torch.cat([output[:, : self.prefix], tokens], dim=1) if self.prefix else tokens


GridRule: TypeAlias = Grid | Callable[[Tensor], Tensor]
"""A grid, or a function from a layer's output to ``(N, K, h, w)`` (a ``reshape_transform``)."""


def find_grid(output: Tensor, input_size: tuple[int, int], name: str = "layer") -> Grid:
    """Read the grid off an output's shape and the input's size.

    A map has the input's aspect ratio up to rounding: that decides between channels first and last, and
    which factors of a token count, after how many prefix tokens, are its height and width. Where both
    readings fit, channels first and the smaller prefix win.

    Args:
        output: what the layer returned.
        input_size: (H, W) of the model's input.
        name: the layer's name, for the error.

    Raises:
        LayerError: when the output has no spatial extent.
    """
    if output.ndim == 4:
        first, last = tuple(output.shape[2:4]), tuple(output.shape[1:3])
        if _mismatch(last, input_size) < _mismatch(first, input_size):
            return Grid("nhwc")
        return Grid()
    tokens = output.shape[1] if output.ndim == 3 and output.shape[2] > 1 else 0
    if tokens and (found := _token_grid(tokens, input_size)):
        return Grid("tokens", *found)
    raise LayerError(
        f"layer {name!r} returns shape {tuple(output.shape)}, which is no feature map (N, K, h, w), "
        f"(N, h, w, K) or token grid of a {input_size[0]}x{input_size[1]} input; choose a layer before "
        "pooling, or pass grid= a function from its output to (N, K, h, w)"
    )


def _mismatch(size: tuple[int, ...], input_size: tuple[int, int]) -> float:
    """How far the two strides that a map of this size implies differ, beyond rounding."""
    best = math.inf
    for rows, columns in ((size[0], size[1]), (size[0] - 1, size[1]), (size[0], size[1] - 1)):
        if rows > 0 and columns > 0:
            ratio = (input_size[0] / rows) / (input_size[1] / columns)
            best = min(best, abs(math.log(ratio)))
    return best


def _token_grid(tokens: int, input_size: tuple[int, int]) -> tuple[int, tuple[int, int]] | None:
    height, width = input_size
    for exact in (True, False):
        for prefix in range(min(_MAX_PREFIX, tokens - 1) + 1):
            for stride in range(1, min(height, width) + 1):
                if exact and (height % stride or width % stride):
                    continue
                for rows, columns in {
                    (height // stride, width // stride),
                    (-(-height // stride), -(-width // stride)),
                }:
                    if rows * columns == tokens - prefix and rows * columns > 1:
                        return prefix, (rows, columns)
    return None


# ------------------------------------------------------------------------------------------ candidates


@dataclass(frozen=True)
class LayerInfo:
    """A module seen in a forward pass.

    Attributes:
        name: dotted name.
        kind: class name of the module.
        calls: how often it ran; only layers that ran once can be explained.
        shape: (K, h, w) of its feature map, ``None`` where it has none.
        grid: how the map is read.
        candidate: whether it can be explained: it ran once and returns a spatial map.
    """

    name: str
    kind: str
    calls: int
    shape: tuple[int, int, int] | None
    grid: Grid | None = field(repr=False, default=None)

    @property
    def candidate(self) -> bool:
        """Whether the layer can be explained."""
        return self.calls == 1 and self.shape is not None and self.shape[1] * self.shape[2] > 1


@dataclass
class Call:
    """One run of a module in a forward pass.

    Attributes:
        name: dotted name.
        module: the module.
        info: what is known about its output.
        input: its first argument, where that is a tensor.
        output: what it returned, where that is one tensor; kept alive, as identity is told by ``id()``.
        identity: tensor and version: two modules may return the very same map.
    """

    name: str
    module: nn.Module
    info: LayerInfo
    input: Tensor | None
    output: Tensor | None
    identity: tuple[int, int] | None


def observe(model: nn.Module, inputs: Tensor) -> tuple[list[Call], Any]:
    """Run once and list all module calls in the order in which they end."""
    size = (int(inputs.shape[-2]), int(inputs.shape[-1]))
    calls: list[Call] = []
    counts: dict[str, int] = {}
    handles = []

    def watch(name: str, module: nn.Module) -> None:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            counts[name] = counts.get(name, 0) + 1
            tensor = single_tensor(output)
            grid, shape = None, None
            # Windowed attention folds its windows into the batch: no map of the image.
            whole = tensor is not None and tensor.shape[:1] == inputs.shape[:1]
            if tensor is not None and whole and tensor.is_floating_point():
                try:
                    grid = find_grid(tensor, size, name)
                    k, h, w = grid.to_map(tensor).shape[1:]
                    shape = (int(k), int(h), int(w))
                    # An attention head's (N, heads, T, d) is four-dimensional, but no map of the image.
                    if grid.layout != "tokens" and _mismatch((h, w), size) > math.log(1.5):
                        grid, shape = None, None
                except LayerError:
                    pass
            info = LayerInfo(name, type(module).__name__, 1, shape, grid)
            identity = None if tensor is None else (id(tensor), tensor._version)  # noqa: SLF001
            first = args[0] if args and isinstance(args[0], Tensor) else None
            calls.append(Call(name, module, info, first, tensor, identity))

        handles.append(module.register_forward_hook(hook))

    for name, module in model.named_modules():
        if name:
            watch(name, module)
    try:
        result = model(inputs.clone())
    finally:
        for handle in handles:
            handle.remove()
    for call in calls:
        call.info = LayerInfo(
            call.name, call.info.kind, counts[call.name], call.info.shape, call.info.grid
        )
    return calls, result


def list_layers(model: nn.Module, inputs: Tensor) -> list[LayerInfo]:
    """Every module that runs, in network order (the order of ``named_modules``).

    Args:
        model: the model, wrapped or not; returned as it was.
        inputs: ``(N, C, H, W)``, one image is enough.
    """
    with borrowed(model, inputs) as module, torch.no_grad():
        calls, _ = observe(module, inputs)
        seen = {call.name: call.info for call in calls}
        return [seen[name] for name, _ in module.named_modules() if name in seen]


POOLING = re.compile(r"pool([12]d)?(same)?$", re.IGNORECASE)
_DEFAULTS: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def default_layer(model: nn.Module, inputs: Tensor) -> str:
    """The layer that a class activation map is drawn from when none is named.

    It is the last feature map before the image is pooled or read through a class token: among the modules
    that run once and return a spatial map, the last one through which the output depends on the map's
    cells. Pooling layers are passed over (a map is explained before it is coarsened), and so are bare
    linear projections inside attention. Of several modules that return this same map, the innermost
    block is named. This yields the customary choices, e.g. ``layer4.2`` of ResNet-50, the last ReLU before
    the final pooling of VGG, ``features`` of DenseNet, the last block of ConvNeXt and the first
    norm of a ViT's last block.

    Args:
        model: the model, wrapped or not; returned as it was. The choice is remembered while it lives.
        inputs: ``(N, C, H, W)`` on the model's device; the first image is used.

    Raises:
        LayerError: when nothing in the model returns a spatial map.
    """
    module = unwrap(model)
    known = _DEFAULTS.get(module)
    if known is not None and known in dict(module.named_modules()):
        return known
    with borrowed(module, inputs):
        probe = inputs[:1].detach().clone().requires_grad_()
        calls, result = observe(module, probe)
        # Behind a head that is still zero nothing has a gradient; then look from its input.
        head = [c.input for c in calls if isinstance(c.module, nn.Linear) and c.input is not None]
        outputs = [first_tensor(result), *head[-1:]]
        if head and _is_blind(outputs[0], head[-1]):
            del outputs[0]
        for output in outputs:
            name = _last_map(calls, output)
            if name is not None:
                _DEFAULTS[module] = name
                return name
    raise LayerError(
        f"no module of {type(module).__name__} returns a feature map that its output depends on; pass "
        "layers= a name (`camlucida layers` lists what runs) or explain the input itself"
    )


def _is_blind(output: Tensor, head: Tensor) -> bool:
    """Whether the output has no gradient at all with respect to what went into its head."""
    if not (output.requires_grad and head.requires_grad) or output is head:
        return False
    (gradient,) = torch.autograd.grad(output.sum(), head, retain_graph=True, allow_unused=True)
    return gradient is not None and not gradient.any()


def _last_map(calls: list[Call], output: Tensor) -> str | None:
    # A random direction: sums cancel in normalised embeddings and softmax outputs.
    generator = torch.Generator().manual_seed(0)
    score = (output * torch.randn(output.shape, generator=generator).to(output)).sum()
    passed_over = {c.identity for c in calls if POOLING.search(type(c.module).__name__)}
    usable = [
        c
        for c in calls
        if c.info.candidate
        and c.output is not None
        and c.identity not in passed_over
        and c.output.requires_grad
        and not isinstance(c.module, nn.Linear)
        and type(c.module).__name__ != "Permute"
        and not _is_attention_part(c.name, calls)
    ]
    for call in reversed(usable if score.requires_grad else []):
        assert call.output is not None  # noqa: S101
        assert call.info.grid is not None  # noqa: S101
        (gradient,) = torch.autograd.grad(score, call.output, retain_graph=True, allow_unused=True)
        if gradient is None or not call.info.grid.to_map(gradient).any():
            continue
        same = [c for c in usable if c.identity == call.identity]
        blocks = [c for c in same if next(c.module.children(), None) is not None]
        inner = [c for c in blocks if type(c.module) is not nn.Sequential]
        # Calls end innermost first.
        return (inner or blocks[-1:] or same)[0].name
    return None


def _is_attention_part(name: str, calls: list[Call]) -> bool:
    """Whether the module lies inside an attention module (its projections, norms and dropouts)."""
    attention = {c.name for c in calls if "attention" in type(c.module).__name__.lower()}
    return any(parent in attention for parent in _parents(name))


def _parents(name: str) -> Iterator[str]:
    while "." in name:
        name = name.rpartition(".")[0]
        yield name


def single_tensor(output: Any) -> Tensor | None:
    """The one tensor that a layer returned, also inside a tuple of its own; ``None`` if not exactly one."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple | list):
        tensors = [item for item in output if isinstance(item, Tensor)]
        if len(tensors) == 1 and isinstance(output[0], Tensor):
            return output[0]
    return None
