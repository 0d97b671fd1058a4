"""Weights from a file, into the architecture that they belong to."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.common.printable import printable
from camlucida.models.weights import check_dense, read_weights

_AVERAGED = re.compile(r"(^|[._])(ema|averaged?|avg|swa|shadow)([._]|$)")
_PART = re.compile(r"-\d+-of-\d+\.")
_WRAPPERS = (
    "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network",
    "weights", "params",
)  # fmt: skip
_PREFIXES = ("module.", "model.", "_orig_mod.")
_SHOWN, _LONGEST = 3, 120


@dataclass(frozen=True)
class Fit:
    """How the tensors under one prefix fit a network.

    Attributes:
        prefix: what stands before the network's names in the file, such as ``"state_dict.model."``.
        state: the fitting tensors by the network's own names.
        missing: names that the file lacks; counters of batch norms, which older files lack, do not count.
        misshapen: names whose tensors have another shape, or hold no real fractions where the network does.
        unexpected: names under the prefix that the network does not have.
        foreign: those of them that lie inside parts of the network, which speaks for another architecture.
    """

    prefix: str
    state: dict[str, Tensor]
    missing: tuple[str, ...]
    misshapen: tuple[str, ...]
    unexpected: tuple[str, ...]
    foreign: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is missing or of another shape, and nothing speaks for another architecture."""
        return not (self.missing or self.misshapen or self.foreign)


def load_weights(
    file: Path, architecture: str, build: Callable[[int | None, Sequence[str]], nn.Module]
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network and fill it with the weights of a file.

    The prefix under which the file holds the network's names is found by trying all. Where several fit, a
    moving average goes first.

    Args:
        file: as for :func:`camlucida.models.weights.read_weights`.
        architecture: what the network is called, for people.
        build: makes the network with random weights, from the number of outputs, ``None`` for its usual one,
            and the names in the file.

    Returns:
        The network, and what a user has to know about the choice, one sentence each.

    Raises:
        ModelError: the file cannot be read or does not fit.
    """
    held = read_weights(file)
    names = list(held.tensors)
    module = build(None, names)
    fits = fits_of(held.tensors, module)
    if fits:
        check_dense(
            {k: held.tensors[fits[0].prefix + k] for k in fits[0].misshapen}, repr(file.name)
        )
        count = _outputs_in_file(fits[0], held.tensors, module)
        if count is not None:
            module = build(count, names)
            fits = fits_of(held.tensors, module)
    if not fits or not fits[0].whole:
        raise ModelError(_misfit(file.name, architecture, fits, held.tensors, module))
    chosen = fits[0]
    check_dense(chosen.state, repr(file.name))
    own = module.state_dict()
    module.load_state_dict({**own, **chosen.state}, strict=True)
    return module, tuple(_remarks(file.name, fits, names, held.passed_over))


def fits_of(tensors: Mapping[str, Tensor], module: nn.Module) -> list[Fit]:
    """How the tensors of a file fit a network, under every prefix that occurs; the best first.

    Args:
        tensors: by the file's names.
        module: the network.
    """
    own = module.state_dict()
    counts: Counter[str] = Counter()
    for key in tensors:
        parts = key.split(".")
        for i in range(len(parts)):
            if ".".join(parts[i:]) in own:
                counts[".".join(parts[:i]) + ("." if i else "")] += 1
    most = max(counts.values(), default=0)
    likely = [prefix for prefix, count in counts.items() if 2 * count >= most]
    found = [_fit(prefix, tensors, own) for prefix in likely]
    return sorted(
        found,
        key=lambda f: (
            not f.whole,
            0 if f.whole else -len(f.state),
            _AVERAGED.search(f.prefix) is None,
        ),
    )


def _fit(prefix: str, tensors: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> Fit:
    under = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    parts = {key.partition(".")[0] for key in own}
    unexpected = tuple(key for key in under if key not in own)
    return Fit(
        prefix,
        {k: v for k, v in under.items() if k in own and _alike(own[k], v)},
        tuple(k for k in own if k not in under and not k.endswith("num_batches_tracked")),
        tuple(k for k in own if k in under and not _alike(own[k], under[k])),
        unexpected,
        tuple(k for k in unexpected if (part := k.partition(".")[0]) in parts or part.isdigit()),
    )


def _alike(own: Tensor, given: Tensor) -> bool:
    """Whether a tensor can take the place of another: integers are quantized weights without their scales."""
    fractions = given.is_floating_point() or not own.is_floating_point()
    return own.shape == given.shape and fractions and not given.is_complex()


def _outputs_in_file(fit: Fit, tensors: Mapping[str, Tensor], module: nn.Module) -> int | None:
    """How many outputs the file's classifier has, where that is all in which the shapes differ."""
    own = module.state_dict()
    usual = num_outputs(module)
    counts = {
        tensors[fit.prefix + key].shape[0]
        for key in fit.misshapen
        if tensors[fit.prefix + key].ndim
        and own[key].shape[1:] == tensors[fit.prefix + key].shape[1:]
        and own[key].shape[0] == usual
    }
    return counts.pop() if len(counts) == 1 else None


def num_outputs(module: nn.Module) -> int | None:
    """How many classes a classifier has, where it says so; its last dense layer's outputs otherwise."""
    for value in (
        getattr(module, "num_classes", None),
        getattr(getattr(module, "config", None), "num_labels", None),
    ):
        if isinstance(value, int) and value > 0:
            return value
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return linear[-1].out_features if linear else None


# ---- what is said -------------------------------------------------------------------------------


def _misfit(
    file: str,
    architecture: str,
    fits: Sequence[Fit],
    tensors: Mapping[str, Tensor],
    module: nn.Module,
) -> str:
    if not fits:
        return f"{file!r} does not fit {architecture}: none of its names ({_some(list(tensors))}) belongs to it"
    fit = fits[0]
    part = (
        "; it is one of several files that hold the weights together" if _PART.search(file) else ""
    )
    under = f" (its names stand under {fit.prefix!r})" if fit.prefix else ""
    return (
        f"{file!r} does not fit {architecture}{under}: {'; '.join(_faults(fit, tensors, module))}"
        f"{part}"
    )


def _faults(fit: Fit, tensors: Mapping[str, Tensor], module: nn.Module) -> list[str]:
    own = module.state_dict()
    shapes = [f"{k} {_put(tensors[fit.prefix + k], own[k])}" for k in fit.misshapen]
    faults = {
        "missing": fit.missing,
        "unexpected": fit.unexpected,
        "of another shape or type": shapes,
    }
    return [f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys]


def _put(given: Tensor, own: Tensor) -> str:
    """In which a tensor differs: its shape, else its type."""
    if given.shape != own.shape:
        return f"{tuple(given.shape)} instead of {tuple(own.shape)}"
    return f"{given.dtype} instead of {own.dtype}".replace("torch.", "")


def _remarks(
    file: str, fits: Sequence[Fit], names: Sequence[str], passed_over: Sequence[str]
) -> list[str]:
    said = []
    others = [fit.prefix for fit in fits[1:] if fit.whole]
    prefix = fits[0].prefix
    if others:
        average = ", a moving average," if _AVERAGED.search(prefix) else ""
        said.append(
            f"{file} holds these weights {len(others) + 1} times: those under {prefix!r}{average} were taken, "
            f"those under {', '.join(map(repr, others))} were not"
        )
    beside = [
        name
        for name in names
        if name.removeprefix(prefix) not in fits[0].state
        and not any(name.startswith(other) for other in others if other)
    ]
    if beside:
        said.append(
            f"{file} holds {len(beside)} {'tensors' if len(beside) > 1 else 'tensor'} that the model does not "
            f"have, which {'are' if len(beside) > 1 else 'is'} left out: {_some(beside, 12)}"
        )
    if passed_over:
        said.append(
            f"{file} holds values beside its weights, which were not read: {_some(passed_over, 12)}"
        )
    return said


def _some(names: Sequence[str], most: int = _SHOWN) -> str:
    shown = (printable(name)[:_LONGEST] for name in names[:most])
    return ", ".join(shown) + (", ..." if len(names) > most else "")


# ---- for networks that are told by the names in the file ----------------------------------------


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict of a checkpoint file, by name, for networks that are told by its names and shapes.

    Args:
        path: as for :func:`camlucida.models.weights.read_weights`.

    Returns:
        The tensors on the CPU, without the usual keys and prefixes before all names.

    Raises:
        ModelError: as for :func:`camlucida.models.weights.read_weights`.
    """
    held = read_weights(path)
    prefix = ""
    while inner := next((w for w in _WRAPPERS if f"{prefix}{w}." in held.nested), None):
        prefix += f"{inner}."
    under = {k.removeprefix(prefix): v for k, v in held.tensors.items() if k.startswith(prefix)}
    state = {key: value for key, value in under.items() if key != "n_averaged"}
    while shared := next(
        (p for p in _PREFIXES if state and all(k.startswith(p) for k in state)), None
    ):
        state = {key.removeprefix(shared): value for key, value in state.items()}
    if not state:
        raise ModelError(f"{str(path)!r} holds no state dict, which maps names to tensors")
    check_dense(state, repr(str(path)))
    return state


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], problem: str, *, finite: bool = False
) -> None:
    """Load every tensor, or say which do not fit.

    Args:
        module: takes the tensors.
        state: its tensors by name; counters of batches may be missing, as they are in older files.
        problem: how the error begins.
        finite: refuse values that are not finite.

    Raises:
        ModelError: Names are missing or left over, shapes differ, or values are not finite.
    """
    own = module.state_dict()
    said = _faults(_fit("", state, own), state, module)
    bad = [key for key, value in state.items() if finite and not value.isfinite().all()]
    if bad and not said:
        said = [f"{bad[0]} has values that are not finite"]
    if said:
        raise ModelError(f"{problem}: {'; '.join(said)}")
    module.load_state_dict({**own, **state}, strict=True)
