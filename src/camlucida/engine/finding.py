"""What a model's outputs are: found where it can be found, and said where it is assumed."""

from __future__ import annotations

import inspect
import re
from dataclasses import replace
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from camlucida.common.arguments import argument
from camlucida.common.errors import CamlucidaError, ModelError, TargetError
from camlucida.engine.borrow import borrowed
from camlucida.engine.outputs import KEYS, entries_of
from camlucida.engine.reading import Activation, Outputs, OutputsLike, reading
from camlucida.targets import Kind

_UNIT = 16  # numbers of an embedding, at least, before unit length says that it is one
_CLOSE, _SUM = 1e-3, 1e-2


def find_outputs(
    module: nn.Module,
    inputs: Tensor,
    given: OutputsLike = None,
    *,
    named: int = 0,
    argument: str | None = None,
) -> Outputs:
    """Complete what is said about a model's outputs by what one image shows.

    One forward pass, whose result is remembered while the model lives and stays as it is; the operations that made
    the output tell its activation, its shape the rest.

    Args:
        module: the model; returned as it was.
        inputs: ``(N, C, H, W)``; the first image is used.
        given: what is known, and not looked for.
        named: number of classes that have names, 0 for none.
        argument: the name of the argument that takes the images; ``None`` for the first.

    Returns:
        The outputs, settled unless the structure tells nothing; ``notes`` says what was assumed.

    Raises:
        ModelError: the model does not run on the image.
        TargetError: what it returns is not what was said.
    """
    known = Outputs.of(given)
    state = _state(module)
    place = (tuple(inputs.shape[1:]), inputs.dtype, inputs.device, known, named, argument)
    before = _FOUND.setdefault(module, {})
    if place in before and before[place][0] == state:
        return before[place][1]
    found = _find(module, inputs, known, named, argument)
    before[place] = (state, found)
    return found


_FOUND: WeakKeyDictionary[nn.Module, dict[Any, tuple[Any, Outputs]]] = WeakKeyDictionary()


def _state(module: nn.Module) -> tuple[Any, ...]:
    """What changes when a model is changed: its modules, their weights and their attributes."""
    weights = tuple((id(p), p._version) for p in module.parameters())  # noqa: SLF001
    attributes = tuple(
        (id(one), name, id(value))
        for one in module.modules()
        for name, value in vars(one).items()
        if not name.startswith("_") and name != "training"
    )
    config = getattr(module, "config", None)
    options = (getattr(config, "problem_type", None), getattr(config, "num_labels", None))
    return weights, attributes, options


def _find(
    module: nn.Module, inputs: Tensor, known: Outputs, named: int, argument: str | None
) -> Outputs:
    output = look(module, inputs, argument)
    structure = _structure(output)
    try:
        tensor = known.pick(output)
    except TargetError:
        if known.head is not None:
            raise
        return replace(known, structure=structure)  # a function may know what to do with it
    notes = _of_heads(output, tensor, known)
    found = replace(known, structure=structure)
    if not tensor.is_floating_point() and not tensor.is_complex():
        raise TargetError(
            f"the model returns {tensor.dtype} of shape {tuple(tensor.shape)} for one image, which are decisions or "
            "counts that have no gradient; let it return the numbers that it decides by"
        )
    if tensor.is_complex() or tensor.ndim == 0:
        return found
    if len(tensor) != 1:
        raise TargetError(
            f"the model returned shape {tuple(tensor.shape)} for one image, which has no entry per image; wrap it so "
            "that its output begins with the batch"
        )
    activation = found.activation or _activation(tensor)
    kind, assumed = found.kind, False
    if kind is None:
        kind, assumed = _kind(module, tensor, activation, named)
    if kind in ("regression", "embedding") and found.activation is None:
        activation = "none"
    _check_fit(known, kind, tensor.detach(), named)
    found = replace(found, kind=kind, activation=activation)
    said = _words(found, tensor, assumed=assumed, activation_given=known.activation is not None)
    return replace(found, notes=(*notes, *said))


def _check_fit(known: Outputs, kind: Kind | None, tensor: Tensor, named: int) -> None:
    """Refuse an output that cannot be what was said of it.

    Raises:
        TargetError: its shape, its values or the number of class names contradict.
    """
    said = argument("outputs", known.kind or known.activation)
    fitting = {"regression": (1, 2), "binary": (1, 2), "dense": (3, 4, 5)}
    if known.kind is not None and tensor.ndim not in fitting.get(known.kind, (2,)):
        raise TargetError(
            f"{said} does not fit: the model returned shape {tuple(tensor.shape)} for one image"
        )
    if kind == "binary" and tensor[0].numel() != 1:
        raise TargetError(
            f"{said} means one number per image, but the model returned {tuple(tensor.shape)} for one"
        )
    if known.activation is not None and (why := _no_shares(tensor.float(), known.activation)):
        said = argument("outputs", known.activation)
        raise TargetError(f"{said} does not fit: the model returned {why}")
    count = 2 if kind == "binary" else tensor[0].numel()
    fits = (0, 1, 2) if kind == "binary" else (0, count)  # one name says that all else is not it
    if kind in ("classes", "labels", "binary") and named not in fits:
        of = " (one logit decides between them)" if kind == "binary" else ""
        raise TargetError(
            f"there are {named} class names, but the model has {count} classes{of}; give as many with "
            f"{argument('class_names')}"
        )


def _no_shares(values: Tensor, activation: Activation) -> str:
    """Why an activation cannot have given these numbers; empty where it can, or where they are not finite."""
    shares = values.exp() if activation == "log-softmax" else values
    if activation not in ("softmax", "log-softmax", "sigmoid") or not shares.isfinite().all():
        return ""
    if shares.amin() < -_CLOSE or shares.amax() > 1 + _CLOSE:
        what = "no logarithms of probabilities" if shares is not values else "no probabilities"
        return f"{float(values.amin()):.3g} to {float(values.amax()):.3g}, which are {what}"
    total = shares.sum(1) if activation != "sigmoid" else shares.new_ones(())
    off = float((total - 1).abs().amax())
    return f"probabilities of classes whose sum is off 1 by {off:.3g}" if off > _SUM else ""


def look(module: nn.Module, inputs: Tensor, argument: str | None = None) -> Any:
    """What the model returns for one image, with its graph.

    Args:
        module: the model; returned as it was.
        inputs: ``(N, C, H, W)``; the first image is used.
        argument: the name of the argument that takes the images; ``None`` for the first.

    Raises:
        ModelError: naming what it raised, and which other inputs it takes.
    """
    others = further_inputs(module, argument)
    needed = [name for name, optional in others if not optional]
    if needed:
        raise ModelError(
            f"{type(module).__name__} needs more than an image ({', '.join(needed)}); camlucida varies the image "
            "alone, so wrap the model in a module whose forward takes the image and fills in the rest"
        )
    try:
        return _run(module, inputs[:1], argument)
    except CamlucidaError as error:
        if len(inputs) > 1:
            try:  # some models take batches of one size alone
                return tree_map(
                    lambda one: one[:1] if isinstance(one, Tensor) and one.ndim else one,
                    _run(module, inputs, argument),
                )
            except CamlucidaError:
                pass
        left_out = ", ".join(_missed(error, [name for name, _ in others]))
        if not left_out:
            raise
        raise type(error)(
            f"{error}; its forward also takes {left_out}, which camlucida leaves out"
        ) from error


def _missed(error: CamlucidaError, others: list[str]) -> list[str]:
    """Which of the inputs that were left out the model speaks of, or all where it met a ``None``."""
    raised = str(error.__cause__ or error)
    named = [name for name in others if re.search(rf"\b{re.escape(name.lstrip('*'))}\b", raised)]
    return named or (others if re.search(r"\bNone(Type)?\b", raised) else [])


def _run(module: nn.Module, inputs: Tensor, argument: str | None) -> Any:
    images = inputs.detach().clone().requires_grad_()
    with borrowed(reading(module, argument=argument), inputs) as lent:
        return lent(images * 1)  # a model may write to its input


def further_inputs(module: nn.Module, argument: str | None = None) -> list[tuple[str, bool]]:
    """What a model's forward takes beside the image, and whether it may be left out."""
    parameters = [p for p in _parameters(module) if p.kind is not p.VAR_KEYWORD]
    image = next(
        (p for p in parameters if p.name == argument), parameters[0] if parameters else None
    )
    return [
        (f"*{p.name}", True) if p.kind is p.VAR_POSITIONAL else (p.name, p.default is not p.empty)
        for p in parameters
        if p is not image
    ]


def argument_for(module: nn.Module, name: str) -> str | None:
    """How a model takes images that were given by name: by that name, or as its first argument (``None``)."""
    parameters = _parameters(module)
    if parameters and parameters[0].name == name:
        return None
    known = any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
    return name if known else None


def _parameters(module: nn.Module) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return []


def _structure(output: Any) -> str:
    """In words, such as ``"dict (age, sex)"``."""
    if isinstance(output, Tensor):
        return f"tensor {('N', *output.shape[1:])}".replace("'", "")
    if isinstance(output, tuple | list) and not hasattr(output, "_fields"):
        inside = {_structure(item).partition(" ")[0] for item in output}
        return f"{type(output).__name__} of {len(output)} ({', '.join(sorted(inside))})"
    entries = entries_of(output)
    names = ", ".join(str(name) for name, value in entries.items() if value is not None)
    return f"{type(output).__name__} ({names})" if entries else type(output).__name__


def _of_heads(output: Any, tensor: Tensor, known: Outputs) -> list[str]:
    """That one of several heads was taken, where nobody said which."""
    if isinstance(output, Tensor) or known.head is not None:
        return []
    entries = entries_of(output)
    if any(entries.get(key) is tensor for key in KEYS):
        return []
    several = list(output) if isinstance(output, tuple | list) else list(entries.values())
    tensors = [item for item in several if isinstance(item, Tensor)]
    if len(tensors) < 2:
        return []
    return [
        f"the model returns {_structure(output)}; its first tensor, of shape {('N', *tensor.shape[1:])}, is "
        f"explained; {argument('head')} names or numbers another".replace("'N'", "N")
    ]


_ENDS: dict[str, Activation] = {
    "Softmax": "softmax",
    "LogSoftmax": "log-softmax",
    "Sigmoid": "sigmoid",
}
_PASSING = (
    "View", "UnsafeView", "Reshape", "Squeeze", "Unsqueeze", "Clone", "ToCopy", "Alias", "Expand", "Select",
    "Slice", "Transpose", "Permute", "T", "Detach", "AsStrided", "UnsafeSplit", "Split", "Unbind",
)  # fmt: skip
"""Operations of torch's graph that move numbers and do not change them."""
_LINEAR = (
    "Addmm",
    "Mm",
    "Bmm",
    "Linear",
    "Convolution",
    "Addbmm",
    "Baddbmm",
    "NativeBatchNorm",
    "CudnnBatchNorm",
)


def _activation(tensor: Tensor) -> Activation:
    """What made these numbers: by the operation that did, else by the numbers."""
    node = tensor.grad_fn
    while node is not None and _operation(node) in _PASSING and node.next_functions:
        node = node.next_functions[0][0]
    name = "" if node is None else _operation(node)
    values = tensor.detach().float()
    if not bool(values.isfinite().all()) or name in _LINEAR:
        return _ENDS.get(name, "logits")
    several = values.ndim > 1 and values.shape[1] > 1
    # Averages and other mixtures of probabilities too, and what nothing can be seen of but its numbers.
    if several and _sums_to_one(values):
        return "softmax"
    if name == "LogSoftmax" and several and _sums_to_one(values.exp()):
        return "log-softmax"
    bounded = bool(((values >= 0) & (values <= 1)).all())
    seen = (
        values.numel() > 2
        if node is None
        else any("igmoid" in one for one in {name, *_behind(node)})
    )
    return "sigmoid" if bounded and seen else "logits"


def _sums_to_one(values: Tensor) -> bool:
    """Whether the numbers are probabilities of classes, along the second dimension."""
    return bool((values >= 0).all()) and bool(((values.sum(1) - 1).abs() < _CLOSE).all())


def _operation(node: Any) -> str:
    return node.name().partition("Backward")[0].lstrip("_")  # type: ignore[no-any-return]


def _behind(node: Any, depth: int = 6) -> set[str]:
    """The operations a few steps back."""
    found, layer = set(), [node]
    for _ in range(depth):
        layer = [before for one in layer for before, _ in one.next_functions if before is not None]
        found |= {_operation(one) for one in layer}
    return found


def _kind(
    module: nn.Module, tensor: Tensor, activation: Activation, named: int
) -> tuple[Kind | None, bool]:
    """What the numbers are, and whether that is assumed."""
    if tensor.ndim > 2:
        return ("dense", True) if tensor.ndim == 4 else (None, False)
    config = getattr(module, "config", None)
    if (said := kind_by_config(module)) is not None:
        return said, False
    if tensor.ndim == 1 or tensor.shape[1] == 1:
        if activation == "sigmoid" or named in (1, 2):
            return "binary", named == 1
        by_config = getattr(config, "num_labels", None) == 1  # as transformers itself takes it
        return ("regression" if tensor.ndim == 1 or by_config else "binary"), True
    length = torch.linalg.vector_norm(tensor.detach().float(), dim=1)
    unit = tensor.shape[1] >= _UNIT and bool(((length - 1).abs() < _CLOSE).all())
    if unit or getattr(module, "embeds", False) is True:
        return "embedding", False
    known: dict[Activation, Kind] = {
        "softmax": "classes",
        "log-softmax": "classes",
        "sigmoid": "labels",
    }
    return known.get(activation, "classes"), activation == "logits"


def kind_by_config(module: nn.Module) -> Kind | None:
    """What a model of transformers says it was trained for; ``None`` where nothing does."""
    said: dict[Any, Kind] = {
        "single_label_classification": "classes",
        "multi_label_classification": "labels",
        "regression": "regression",
    }
    return said.get(getattr(getattr(module, "config", None), "problem_type", None))


def _words(found: Outputs, tensor: Tensor, *, assumed: bool, activation_given: bool) -> list[str]:
    """What a user has to know, one sentence each."""
    count = 1 if tensor.ndim == 1 else int(tensor.shape[1])
    said = []
    shares = bool(((tensor >= 0) & (tensor <= 1)).all())
    if assumed and found.kind == "classes":
        more = (
            f"; all lie in [0, 1]: if they are probabilities already, say {argument('outputs', 'softmax')} or sigmoid"
            if shares and not activation_given
            else ""
        )
        said.append(
            f"the {count} outputs are taken for logits of classes that exclude each other (softmax); the model does "
            f"not say so: if several may be present, say {argument('outputs', 'labels')}{more}"
        )
    if assumed and found.kind == "binary":
        said.append(
            "the single output is taken for the logit of class 1 against class 0; the model does not say so: if it is "
            f"a value, say {argument('outputs', 'regression')}"
        )
    if assumed and found.kind == "regression":
        said.append(
            "the single output is taken for a value (regression); the model does not say so: if it is the logit "
            f"of class 1 against class 0, say {argument('outputs', 'binary')}"
        )
    if assumed and found.kind == "dense":
        shape = str(("N", *tensor.shape[1:])).replace("'", "")
        said.append(
            f"the output {shape} is taken for one map per class (dense); the model does not say so"
        )
    if found.activation == "softmax" and found.kind == "classes":
        said.append(
            "the model returns probabilities (softmax), which are shown as they are; their logarithms, which are its "
            "logits up to one constant per image, stand for the logits"
        )
    if found.activation == "log-softmax" and found.kind == "classes":
        said.append(
            "the model returns log-probabilities, which are its logits up to one constant per image and stand for them"
        )
    if (
        found.activation == "sigmoid"
        and found.kind in ("labels", "binary")
        and not activation_given
    ):
        what = "a label of its own" if found.kind == "labels" else "the probability of class 1"
        said.append(
            f"the model ends in a sigmoid, so each output is taken for {what}; its probabilities are shown as they "
            "are"
        )
    return said
