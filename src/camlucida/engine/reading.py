"""What a model's outputs are, and the model made to return what targets take."""

from __future__ import annotations

import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from camlucida.common.errors import TargetError
from camlucida.common.grammar import nearest, options_of, read_values, split
from camlucida.engine.outputs import entries_of, first_tensor
from camlucida.targets import Kind

Activation: TypeAlias = Literal["logits", "softmax", "log-softmax", "sigmoid", "none"]
"""What the model's numbers are: logits, or what an activation makes of them; ``none`` where there is no class."""

OutputsLike: TypeAlias = "Outputs | str | None"
"""An :class:`Outputs`, or its text, such as ``"softmax"`` or ``"labels:threshold=0.3"``."""


@dataclass(frozen=True)
class Outputs:
    """What a model's outputs are.

    Attributes:
        kind: ``"classes"`` that exclude each other, ``"labels"`` of which several may be present, ``"binary"`` (one
            logit between two classes), ``"regression"``, ``"dense"`` or ``"embedding"``; ``None``: to be found.
        activation: ``"logits"``, ``"softmax"``, ``"log-softmax"``, ``"sigmoid"``, or ``"none"`` for values; ``None``:
            to be found.
        head: which of several outputs: its name, its position, or a path such as ``"aux.logits"``; ``None``: the
            logits, where they can be told.
        threshold: from which probability on a label counts as present, 0.5 by default.
        structure: what the model returns, in words; found.
        notes: what was assumed or has to be known, one sentence each; found.

    Raises:
        TargetError: a word is unknown, or kind and activation do not go together.

    Example:
        >>> camlucida.engine.reading.Outputs.of("labels:threshold=0.3").threshold
        0.3
    """

    kind: Kind | None = None
    activation: Activation | None = None
    head: str | int | None = None
    threshold: float = 0.5
    structure: str = field(default="", compare=False)
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        """Check the words."""
        for name, value, known in (
            ("kind", self.kind, get_args(Kind)),
            ("activation", self.activation, get_args(Activation)),
        ):
            if value is not None and value not in known:
                raise TargetError(
                    f"outputs: {name} is {value!r}, but must be one of {', '.join(known)}"
                )
        if not 0 <= self.threshold <= 1:
            raise TargetError(f"outputs: threshold must be in [0, 1], got {self.threshold}")
        wrong = {
            "softmax": ("labels", "binary", "regression", "embedding"),
            "log-softmax": ("labels", "binary", "regression", "embedding"),
            "sigmoid": ("classes", "embedding"),
            "none": (None, "classes", "labels", "binary"),
        }
        if self.activation == "none" and self.kind in wrong["none"]:
            raise TargetError(
                "outputs: the activation none goes with values, so the kind must be regression, dense or embedding, "
                f"not {self.kind or 'open'}"
            )
        if self.activation in wrong and self.kind in wrong[self.activation]:
            raise TargetError(f"outputs: {self.kind} do not come out of {self.activation}")

    @classmethod
    def of(cls, value: OutputsLike) -> Outputs:
        """From its text: a kind, an activation, or both with options, ``labels:activation=sigmoid,head=1``.

        Raises:
            TargetError: the text is unknown.
        """
        if value is None:
            return cls()
        if isinstance(value, Outputs):
            return value
        if not isinstance(value, str):
            raise TargetError(f"outputs must be a text or Outputs, got {type(value).__name__}")
        word, _, rest = (
            value.partition(":") if ":" in value or "=" not in value else ("", "", value)
        )
        given: dict[str, Any] = {}
        word = word.strip().lower().replace("_", "-")
        kinds, activations = get_args(Kind), get_args(Activation)
        if word in kinds:
            given["kind"] = word
        elif word in activations:
            given["activation"] = word
        elif word:
            raise TargetError(
                f"outputs: unknown word {word!r}{nearest(word, (*kinds, *activations))} "
                f"(words: {', '.join((*kinds, *activations))})"
            )
        if not word and not rest.strip():
            raise TargetError(f"outputs: {value!r} says nothing; leave it out to have it found")
        pairs = split(f"outputs:{rest}", TargetError)[1] if rest.strip() else {}
        known = options_of(cls, without=("structure", "notes"))
        for name, read in read_values("outputs", pairs, known, TargetError).items():
            if name in given:
                raise TargetError(f"outputs: {value!r} says the {name} twice")
            given[name] = read
        return cls(**given)

    def over(self, other: Outputs) -> Outputs:
        """What is said here, and where nothing is, what the other says."""
        if self == Outputs():
            return other
        if self.head is not None and self.head != other.head:
            return self  # what is known of another head says nothing of this one
        known = self if self.kind or self.activation else other
        return replace(self, head=other.head, kind=known.kind, activation=known.activation)

    @property
    def settled(self) -> bool:
        """Whether nothing has to be found, and what was said has been held against an output."""
        return self.kind is not None and self.activation is not None and bool(self.structure)

    @property
    def as_is(self) -> bool:
        """Whether the model already returns what targets take."""
        return (
            self.head is None
            and self.activation in (None, "logits", "log-softmax", "none")
            and self.kind not in ("binary", "regression", "labels")
        )

    def pick(self, output: Any) -> Tensor:
        """The tensor that is meant, out of whatever the model returned.

        Raises:
            TargetError: there is none, or no such head.
        """
        found = first_tensor(output if self.head is None else _head(output, self.head))
        if found.layout is not torch.strided:
            layout = str(found.layout).removeprefix("torch.")
            raise TargetError(
                f"the model returned a {layout} tensor {tuple(found.shape)}; wrap it so that its output holds all of "
                "its values (to_dense)"
            )
        return found

    def read(self, output: Any) -> Tensor:
        r"""What targets take, out of whatever the model returned.

        Args:
            output: of any structure.

        Returns:
            Of ``classes`` logits ``(N, M)``, or log-probabilities, which are logits up to one constant per image; of
            ``labels`` a logit each, ``(N, M)``; of one logit :math:`z` the logits :math:`(-z/2, z/2)` of both
            classes, whose softmax is the sigmoid of it; of a regression its values ``(N, M)``; all else as it is.
        """
        tensor = self.pick(output)
        if self.kind in ("binary", "regression") and tensor.ndim == 1:
            tensor = tensor[:, None]
        if self.kind in ("embedding", "dense", "regression"):
            return tensor
        if self.activation in ("softmax", "sigmoid") and tensor.dtype in (
            torch.float16,
            torch.bfloat16,
        ):
            tensor = tensor.float()
        if self.activation == "softmax":
            tensor = tensor.clamp_min(torch.finfo(tensor.dtype).tiny).log()
        elif self.activation == "sigmoid":
            least, most = torch.finfo(tensor.dtype).tiny, 1 - torch.finfo(tensor.dtype).eps / 2
            tensor = tensor.clamp_min(least).log() - (-tensor.clamp_max(most)).log1p()
        return torch.cat([-tensor / 2, tensor / 2], 1) if self.kind == "binary" else tensor

    def probabilities(self, read: Tensor) -> Tensor | None:
        """The model's own probabilities ``(N, M)`` of what :meth:`read` returned; ``None`` where it has none."""
        if self.kind in ("regression", "dense", "embedding") or read.ndim != 2:
            return None
        wide = read.float() if read.dtype in (torch.float16, torch.bfloat16) else read
        if self.kind == "labels":
            return wide.sigmoid()
        return wide.softmax(1) if read.shape[1] > 1 else None

    def names(self, given: Sequence[str] | None) -> tuple[str, ...] | None:
        """The names of all classes: a single one of a single logit leaves the other class its negation."""
        if self.kind == "binary" and given and len(given) == 1:
            return (f"not {given[0]}", given[0])
        return None if given is None else tuple(given)

    def describe(self) -> dict[str, Any]:
        """All that is known, ready for JSON."""
        names = ("kind", "activation", "head", "threshold", "structure")
        return {name: getattr(self, name) for name in names}


CLASSES = Outputs("classes", "logits")
"""What a classifier returns of whose classes a library says that they exclude each other."""


def _head(output: Any, head: str | int) -> Any:
    """One of several outputs, by name, position or path."""
    found = output
    for part in str(head).split(".") if isinstance(head, str) else [head]:
        entries = entries_of(found)
        listed = list(found) if isinstance(found, tuple | list) else list(entries.values())
        position = int(part) if str(part).lstrip("-").isdecimal() else None
        if part in entries:
            found = entries[part]
        elif position is not None and -len(listed) <= position < len(listed):
            found = listed[position]
        else:
            there = ", ".join(map(str, entries)) or (
                f"0 to {len(listed) - 1}" if listed else "only one"
            )
            raise TargetError(f"the model's outputs have no head {head!r}; there is: {there}")
    return found


# ---- a model that returns what targets take ------------------------------------------------------


_ALIASES: WeakKeyDictionary[nn.Module, dict[Any, nn.Module]] = WeakKeyDictionary()


def reading(
    module: nn.Module,
    outputs: Outputs | None = None,
    *,
    function: Callable[[Any], Any] | None = None,
    argument: str | None = None,
) -> nn.Module:
    """The model, made to return what targets take: :meth:`Outputs.read` of its output.

    It is no copy: the result has the very attributes, submodules, weights and hooks of the model, and the names of
    all layers; only what its ``forward`` returns, and how that gets the images, is another.

    Args:
        module: the model.
        outputs: what its outputs are; ``None`` for its output as it is.
        function: instead, any function of the model's own output to one number per image, ``(N,)``.
        argument: the name of the argument that takes the images; ``None`` for the first.

    Returns:
        The module itself where nothing has to be changed. Of the same module and outputs always the same object.
    """
    if function is None and argument is None and (outputs is None or outputs.as_is):
        return module
    key = (outputs, argument)
    known = _ALIASES.setdefault(module, {})
    if function is None and key in known:
        return known[key]
    base = type(module)
    own = vars(module).get("forward")  # put there by the user, in place of the class's
    read = function or (_as_it_is if outputs is None else outputs.read)

    def forward(self: nn.Module, images: Tensor) -> Any:
        run = own or types.MethodType(base.forward, self)
        return read(run(images) if argument is None else run(**{argument: images}))

    facts = {"forward": forward, "camlucida_reading": (outputs or Outputs(), base)}
    alias = _sharing(module, type(base.__name__, (base,), {**facts, "__module__": base.__module__}))
    if own is not None:
        object.__setattr__(
            alias, "__dict__", {k: v for k, v in vars(module).items() if k != "forward"}
        )
    if function is None and own is None:
        known[key] = alias
    return alias


def _as_it_is(output: Any) -> Any:
    return output


def _sharing(module: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """The module as an object of another class, with the same attributes."""
    made: nn.Module = object.__new__(kind)
    object.__setattr__(made, "__dict__", vars(module))
    return made


def outputs_of(module: nn.Module) -> Outputs | None:
    """What the outputs were said to be of a model that :func:`reading` returned; ``None`` for any other."""
    found = getattr(type(module), "camlucida_reading", None)
    return None if found is None else found[0]


def original(module: nn.Module) -> nn.Module:
    """The model behind :func:`reading`, which returns what it returns; any other model itself."""
    found = getattr(type(module), "camlucida_reading", None)
    return module if found is None else _sharing(module, found[1])


def probabilities(module: nn.Module, read: Tensor) -> Tensor:
    """The model's own probabilities ``(N, M)`` of what it returned: a softmax, of labels a sigmoid each.

    Args:
        module: the model, as :func:`reading` made it or as it is.
        read: its outputs ``(N, M)``.
    """
    outputs = outputs_of(module)
    own = None if outputs is None else outputs.probabilities(read)
    return F.softmax(read, dim=1) if own is None else own
