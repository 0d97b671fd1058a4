"""How a result came about, so that anybody can get it again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from camlucida.common.jsonable import digest
from camlucida.common.turns import turn
from camlucida.common.version import __version__

_Versions = tuple[tuple[int, int, int], ...]


def fingerprint(*parts: Any) -> str:
    """SHA-256 over everything that a result depends on, to the last bit.

    Args:
        parts: models (names, shapes, types and values of parameters and persistent buffers), tensors, and values
            that JSON can hold.
    """
    found = hashlib.sha256()
    for part in parts:
        if isinstance(part, nn.Module):
            tensors = part.state_dict()
        elif isinstance(part, torch.Tensor):
            tensors = {"": part}
        else:
            found.update(digest([part]).encode())
            continue
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.Tensor):
                continue
            found.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype};".encode())
            dense = (
                tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
            )
            dense = dense.int_repr() if dense.is_quantized else dense
            flat = dense.to("cpu").contiguous().view(-1)
            found.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return found.hexdigest()


def _versions(model: nn.Module) -> _Versions:
    """What tells that a tensor was replaced or written to (but not by writing to its ``.data``)."""
    tensors = [*model.parameters(), *model.buffers()]
    return tuple(
        (id(t), _address(t), 0 if t.is_inference() else t._version)  # noqa: SLF001
        for t in tensors
    )


def _address(tensor: torch.Tensor) -> int:
    return tensor.data_ptr() if tensor.layout == torch.strided else 0


@dataclass
class Provenance:
    """Version, model, weights, method, target and seed behind an explanation.

    The weights are hashed when the record is first asked for: hashing costs more than many a map.

    Attributes:
        model: the module that was explained.
        facts: everything else, ready for JSON.
        hashes: of weights by their state, shared by records of one model, so that it is hashed once for all.
    """

    model: nn.Module = field(repr=False)
    facts: Mapping[str, Any]
    hashes: dict[Any, str] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Remember in which state the weights were."""
        with turn(self.model):
            self._state = (id(self.model), _versions(self.model))

    @property
    def weights(self) -> str:
        """SHA-256 of the weights; says so when they have changed since the explanation was made."""
        if self._state not in self.hashes:
            with turn(self.model):
                if _versions(self.model) != self._state[1]:
                    return "unknown: the weights were changed after this explanation was made"
                self.hashes[self._state] = fingerprint(self.model)
        return self.hashes[self._state]

    def to_dict(self) -> dict[str, Any]:
        """The whole record, ready for JSON."""
        return {
            "camlucida": __version__,
            "torch": torch.__version__,
            **self.facts,
            "weights_sha256": self.weights,
        }

    def alone(self) -> Provenance:
        """The same record without the model, so that it keeps no weights in memory; they are hashed now."""
        found = Provenance.__new__(Provenance)
        found.__setstate__(self.__getstate__())
        return found

    def __getstate__(self) -> dict[str, Any]:
        """A pickled record holds the hash, not the model."""
        return {"facts": dict(self.facts), "weights": self.weights}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore without a model."""
        self.model = nn.Identity()
        self.facts = state["facts"]
        self._state = (0, ())
        self.hashes = {self._state: state["weights"]}
