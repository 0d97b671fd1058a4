"""The tensors of a checkpoint file: nothing else in the file is ever built, and no code in it is run."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from camlucida.common.errors import ModelError
from camlucida.common.files import check_regular
from camlucida.common.optional import first_line, require

_MOST_CLASSES = 64
"""Kinds of values beside the tensors that are left unread before a file is refused."""

_LARGEST = 256
"""How many times its own size a file may claim to hold; compressed weights shrink by far less."""

_MAGIC = (
    (b"version https://git-lfs", "is only a Git LFS pointer; fetch the file itself (git lfs pull)"),
    (
        b"\x89HDF",
        "is an HDF5 file, as Keras writes it, and holds no PyTorch weights; camlucida explains PyTorch models",
    ),
    (b"\x93NUMPY", "is a NumPy array; save tensors with torch.save(model.state_dict(), path)"),
    (b"\x1f\x8b", "is compressed with gzip; unpack it first"),
    (b"<", "is a web page or XML text, such as what a download gives in place of a file"),
    (b"[", "is text, no file of weights"),
    (
        b"{",
        "is JSON text, such as the index of weights in several files, and holds no weights itself",
    ),
    (
        b"GGUF",
        "is a GGUF file of quantized weights, which no PyTorch model loads; use the weights it was made from",
    ),
)


@dataclass(frozen=True)
class Weights:
    """What a checkpoint file holds.

    Attributes:
        tensors: every tensor under a dotted name: the keys of nested dictionaries are joined, as in
            ``"state_dict.model.conv1.weight"``. On the CPU; see :func:`check_dense`.
        nested: what the names of tensors in a dictionary of its own begin with, such as ``"state_dict."``.
        passed_over: kinds of the other values, such as ``"pathlib.PosixPath"``; none of them was built.
    """

    tensors: dict[str, Tensor]
    nested: frozenset[str] = frozenset()
    passed_over: tuple[str, ...] = ()


def read_weights(path: Path) -> Weights:
    """Read all tensors of a ``torch.save`` or safetensors file.

    Numbers, dates, paths, options and objects beside the tensors neither stop this nor are they built.

    Args:
        path: the file.

    Raises:
        ModelError: the file is missing, no regular file, damaged, of another kind (TorchScript, torch.export,
            ONNX, a whole pickled model), or holds no tensors.
    """
    name = repr(str(path))
    check_regular(path, "checkpoint file", ModelError)
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise ModelError(f"{name} cannot be read: {error.strerror or error}") from error
    if not head:
        raise ModelError(f"{name} is an empty file")
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise ModelError(f"{name} {what}")
    if path.suffix.lower() == ".onnx" or re.match(rb"\x08.\x12.{0,20}(pytorch|onnx|tf2onnx)", head):
        raise ModelError(
            f"{name} is an ONNX graph, whose layers cannot be observed and which has no gradients; explain the "
            "PyTorch model that it was exported from"
        )
    if path.suffix == ".safetensors" or head[8:9] == b"{":
        return Weights(_read_safetensors(path))
    if zipfile.is_zipfile(path):
        _check_archive(path, name)
    content, passed_over = _read_pickle(path, head)
    tensors: dict[str, Tensor] = {}
    nested: set[str] = set()
    _flatten(content, "", tensors, nested, set())
    if not tensors:
        raise ModelError(_nothing(content, passed_over, name))
    return Weights(tensors, frozenset(nested), passed_over)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    safetensors = require("safetensors.torch")
    try:
        found: dict[str, Tensor] = safetensors.load_file(path, device="cpu")
    except Exception as error:
        raise ModelError(
            f"{str(path)!r} is damaged or not a safetensors file: {first_line(error)}"
        ) from error
    return found


def _check_archive(path: Path, name: str) -> None:
    """Refuse archives of other kinds, and those that would grow beyond measure when unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError) as error:
        raise ModelError(
            f"{name} is damaged or not a PyTorch checkpoint ({first_line(error)})"
        ) from error
    names = [entry.filename for entry in entries]
    if names and not any(
        one.endswith(("data.pkl", "constants.pkl", ".json", "archive_format")) for one in names
    ):
        arrays = all(one.endswith(".npy") for one in names)
        raise ModelError(
            f"{name} is {'a NumPy archive (.npz)' if arrays else 'an archive of other files'} ({names[0]}, ...), no "
            "PyTorch checkpoint; save tensors with torch.save(model.state_dict(), path)"
        )
    inside = {entry.filename.partition("/")[2] for entry in entries}
    if "constants.pkl" in inside and any(file.startswith("code/") for file in inside):
        raise ModelError(
            f"{name} is a TorchScript program, whose layers cannot be observed; save model.state_dict() of the "
            "original instead"
        )
    exported = {"serialized_exported_program.json", "models/model.json", "archive_format"}
    if exported & (inside | {entry.filename for entry in entries}):
        raise ModelError(
            f"{name} is a torch.export program, a graph without the model's modules; save model.state_dict() of "
            "the original instead"
        )
    if sum(entry.file_size for entry in entries) > _LARGEST * path.stat().st_size:
        raise ModelError(
            f"{name} claims to hold more than {_LARGEST} times its size; it is not read"
        )


# ---- pickles ------------------------------------------------------------------------------------


class _PassedOver:
    """Stands in for whatever the file would build: takes its arguments and state, and keeps neither."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, _: object) -> None:
        """Keep nothing."""


class _PassedOverDict(_PassedOver):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return (
            OrderedDict()
        )  # the only kind of dictionary whose items and attributes may both follow


class _PassedOverList(_PassedOver):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return []


class _PassedOverAttribute(_PassedOver):
    def __new__(cls, *_: Any, **__: Any) -> Any:
        return _PassedOver  # a class inside a class, which the file then calls


def _read_pickle(path: Path, head: bytes) -> tuple[Any, tuple[str, ...]]:
    """The file's content, with stand-ins for all that is neither a tensor nor plain, and what those stand for.

    PyTorch's restricted unpickler stops at the first name that it does not know; that name then gets a
    stand-in, and the file is read again.
    """
    name = repr(str(path))
    known: dict[str, type[_PassedOver]] = {}
    for _ in range(2 * _MOST_CLASSES):
        try:
            with _allowing(list(known.values())), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # on protocols: the errors say more
                return torch.load(path, map_location="cpu", weights_only=True), tuple(known)
        except Exception as error:
            more = _stand_in(str(error), known)
            if more is None or len(known) > _MOST_CLASSES:
                raise _unreadable(path, head, error) from error
            known |= more
    raise ModelError(f"{name} holds too many kinds of values beside its weights")


def _allowing(stand_ins: list[type[_PassedOver]]) -> Any:
    return torch.serialization.safe_globals([_PassedOver, *stand_ins])


def _stand_in(
    said: str, known: Mapping[str, type[_PassedOver]]
) -> dict[str, type[_PassedOver]] | None:
    """The stand-in that an error of the unpickler asks for; ``None`` where none helps."""
    if found := re.search(r"Unsupported global: GLOBAL ([\w.]+) was not", said):
        full = found[1] if "." in found[1] else f"builtins.{found[1]}"
        kind = _PassedOverAttribute if full == "builtins.getattr" else _PassedOver
        return None if full in known else {full: _named(full, kind)}
    found = re.search(r"Can only (append|extend|SETITEM)\S* .*but got <class '(\S+)'>", said)
    if found and found[2] in known:
        kind = _PassedOverDict if found[1] == "SETITEM" else _PassedOverList
        return None if issubclass(known[found[2]], kind) else {found[2]: _named(found[2], kind)}
    return None


def _named(full: str, kind: type[_PassedOver]) -> type[_PassedOver]:
    module, _, name = full.rpartition(".")
    return type(name, (kind,), {"__module__": module, "__qualname__": name})


def _unreadable(path: Path, head: bytes, error: Exception) -> ModelError:
    text, name = str(error), repr(str(path))
    if (blocked := re.search(r"GLOBAL (\S+)", text)) or "reduce for unrecognized function" in text:
        what = f" ({blocked[1]})" if blocked else ""
        return ModelError(
            f"{name} contains code{what}, which is never run; save the weights alone: "
            "torch.save(model.state_dict(), path)"
        )
    newer = head.startswith(b"PK") or (head.startswith(b"\x80") and head[1:2] > b"\x02")
    if newer and "Unsupported operand" in text:
        return ModelError(
            f"{name} was written with a newer pickle protocol than 2, the only one that can be read without "
            "running code; save it with torch.save(model.state_dict(), path)"
        )
    reason = f"it begins with {head[:16]!r}"
    if head.startswith(b"PK"):
        whole = zipfile.is_zipfile(path)
        reason = first_line(error) if whole else "it is a zip archive without its end"
    return ModelError(f"{name} is damaged, cut off or no PyTorch checkpoint ({reason})")


def _flatten(
    content: Any, prefix: str, into: dict[str, Tensor], nested: set[str], seen: set[int]
) -> None:
    """Collect the tensors of nested dictionaries under dotted names; each dictionary once."""
    if not isinstance(content, Mapping) or id(content) in seen or prefix.count(".") > 32:
        return
    seen.add(id(content))
    nested.add(prefix)
    for key, value in content.items():
        if not isinstance(key, str):
            continue  # the state of an optimiser
        if isinstance(value, Tensor):
            into[prefix + key] = value.detach()
        else:
            _flatten(value, f"{prefix}{key}.", into, nested, seen)


def _nothing(content: Any, passed_over: tuple[str, ...], name: str) -> str:
    held = content if isinstance(content, Mapping) else {"": content}
    for key, value in held.items():
        if isinstance(value, _PassedOver):
            kind = f"{type(value).__module__}.{type(value).__qualname__}"
            if kind.startswith("numpy."):
                return f"{name} holds NumPy values ({kind}) where tensors are expected; save those: torch.from_numpy"
            return (
                f"{name} is a whole pickled {'model' if not key else f'object under {key!r}'} ({kind}), which "
                "contains code that is never run; load it where its class is at hand and save the weights alone: "
                "torch.save(model.state_dict(), path)"
            )
    beside = f" (beside {', '.join(passed_over[:3])})" if passed_over else ""
    return f"{name} holds no state dict, which maps names to tensors{beside}"


def check_dense(tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors whose numbers are not all in the file: building their like could fill the memory.

    Args:
        tensors: by name.
        name: of the file, for people.

    Raises:
        ModelError: one is a meta, sparse, quantized or expanded tensor.
    """
    for key, value in tensors.items():
        if value.is_meta:
            what = "a meta tensor, which has a shape and no values"
        elif value.layout != torch.strided:
            what = f"a sparse tensor ({value.layout}); save its dense form"
        elif value.is_quantized:
            what = "a quantized tensor; save the weights that it was made from"
        elif value.numel() * value.element_size() > value.untyped_storage().nbytes():
            what = (
                f"expanded: its shape {tuple(value.shape)} has more numbers than the file; save it with "
                ".contiguous()"
            )
        else:
            continue
        raise ModelError(f"{key!r} in {name} is {what}")
