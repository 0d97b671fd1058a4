"""Trace a model's operations around some of its modules, and run such operations one by one.

Only the modules that are opened are traced; all others stay closed and are called as they are.
"""

from __future__ import annotations

import copy
import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, fx, nn

PREFIX = "model."
"""What stands before a module's name in the operations."""


class Untraceable(Exception):  # noqa: N818
    """Why a model cannot be cut behind a layer."""


class _Shell(nn.Module):
    """Calls the model with one argument; what the tracer attaches to its root stays off the model."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Any:
        return self.model(inputs)


_TRACING = threading.RLock()


class OneThread(fx.Tracer):
    """A tracer of its own thread.

    While one traces, torch exchanges how modules of the whole process are called: other threads run theirs as ever, and
    trace one after the other, as what each puts back is what it found.
    """

    def trace(self, *args: Any, **kwargs: Any) -> fx.Graph:
        """When no other thread traces."""
        with _TRACING:
            self.thread = threading.get_ident()
            return super().trace(*args, **kwargs)

    @property
    def elsewhere(self) -> bool:
        """Whether it is asked by another thread."""
        return threading.get_ident() != self.thread

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """An operation of the graph, or in another thread the module's run."""
        if self.elsewhere:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """A symbol for a weight, or in another thread the weight."""
        if self.elsewhere:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)


class _Tracer(OneThread):
    """Opens only the modules that the layer lies in; all others are called as they are.

    With a probe every operation also runs on it, so that branches on shapes and types, which are the same for
    all inputs of the probe's size, can be taken. Branches on numbers in a tensor cannot.
    """

    proxy_buffer_attributes = True

    def __init__(
        self, opened: Sequence[nn.Module], model: nn.Module, probe: Tensor | None = None
    ) -> None:
        super().__init__()
        self.opened = {id(module) for module in opened}
        self.model = model
        self.probe = probe
        self.values: dict[fx.Node, Any] = {}
        self.decisions: list[bool] = []
        self.running = False

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:  # noqa: ARG002
        return id(m) not in self.opened

    def create_arg(self, a: Any) -> Any:
        known = getattr(self, "tensor_attrs", {})
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter) and a not in known:
            raise Untraceable("a tensor is made while the model runs")
        return super().create_arg(a)

    def create_proxy(self, *args: Any, **kwargs: Any) -> fx.Proxy:
        proxy = super().create_proxy(*args, **kwargs)
        node = proxy.node
        if self.probe is not None and node.op != "output":
            self.running = True
            try:
                execute(self.model, [node], self.values, self.probe, set(self.values))
            finally:
                self.running = False
        return proxy

    @property
    def elsewhere(self) -> bool:
        """Whether modules are to run as ever: in another thread, or on the probe."""
        return self.running or super().elsewhere

    def to_bool(self, obj: fx.Proxy) -> bool:
        if obj.node in self.values and _of_shapes(obj.node, self.values):
            self.decisions.append(bool(self.values[obj.node]))
            return self.decisions[-1]
        return super().to_bool(obj)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        value = self.values.get(obj.node)
        if isinstance(value, tuple | list):
            return iter([operator.getitem(obj, i) for i in range(len(value))])
        return super().iter(obj)


_SHAPES = ("shape", "dtype", "device", "ndim", "size", "dim", "numel", "is_floating_point")


def _of_shapes(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    """Whether a value depends on the shapes and types of tensors only."""
    if isinstance(values[node], Tensor) or node.op in ("placeholder", "call_module", "get_attr"):
        return False
    name = node.args[1] if node.target is getattr else node.target
    if (node.target is getattr or node.op == "call_method") and name in _SHAPES:
        return True
    sources = node.all_input_nodes
    return bool(sources) and all(_of_shapes(source, values) for source in sources)


def trace(
    model: nn.Module, opened: Sequence[nn.Module], probe: Tensor | None = None
) -> tuple[fx.Graph, list[bool]]:
    """The model's operations and the branches taken."""
    with put_back(opened):
        tracer = _Tracer(opened, model, probe)
        return tracer.trace(_Shell(model)), tracer.decisions


@contextmanager
def put_back(modules: Iterable[nn.Module]) -> Iterator[None]:
    """Undo whatever is written to the modules' attributes inside the block.

    A forward method that runs on symbols may keep some; the lists, dictionaries and sets that modules hold
    get their former content back too.
    """
    saved = [(vars(module), dict(vars(module))) for module in modules]
    inside = [
        (value, copy.copy(value))
        for _, attributes in saved
        for value in attributes.values()
        if isinstance(value, list | dict | set)
    ]
    try:
        yield
    finally:
        for now, before in (*saved, *inside):
            if not _identical(now, before):
                now.clear()
                if isinstance(now, list):
                    now.extend(before)
                else:
                    now.update(before)


def _identical(now: Any, before: Any) -> bool:
    """Whether two containers hold the very same objects."""
    if isinstance(now, dict):
        return list(now) == list(before) and _identical([*now.values()], [*before.values()])
    return len(now) == len(before) and all(a is b for a, b in zip(now, before, strict=True))


# ------------------------------------------------------------------------------------------ executing


def operands(value: Any) -> set[fx.Node]:
    """The operations that a value, of any structure, is made of."""
    found: set[fx.Node] = set()
    fx.node.map_arg(value, found.add)
    return found


def execute(
    model: nn.Module,
    nodes: Sequence[fx.Node],
    env: dict[fx.Node, Any],
    inputs: Tensor | None,
    keep: set[fx.Node],
) -> dict[fx.Node, Any]:
    """Run operations one by one on the model as it is now, dropping values after their last use."""
    last: dict[fx.Node, fx.Node] = {}
    for node in nodes:
        for source in node.all_input_nodes:
            last[source] = node
    unused: dict[fx.Node, list[fx.Node]] = {}
    for source, node in last.items():
        if source not in keep:
            unused.setdefault(node, []).append(source)
    for node in nodes:
        args = fx.node.map_arg(node.args, env.__getitem__)
        kwargs = fx.node.map_arg(node.kwargs, env.__getitem__)
        env[node] = _operation(model, node, inputs, args, kwargs)
        for source in unused.get(node, ()):
            del env[source]
    return env


def _operation(
    model: nn.Module,
    node: fx.Node,
    inputs: Tensor | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    if node.op == "placeholder":
        return inputs
    if node.op == "call_function":
        return node.target(*args, **kwargs)  # type: ignore[operator]
    assert isinstance(node.target, str)  # noqa: S101
    if node.op == "call_method":
        return getattr(args[0], node.target)(*args[1:], **kwargs)
    path = node.target.removeprefix(PREFIX)
    if node.op == "call_module":
        return model.get_submodule(path)(*args, **kwargs)
    value: Any = model
    for part in path.split("."):
        value = getattr(value, part)
    return value
