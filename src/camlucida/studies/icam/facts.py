"""What results depend on besides the photos."""

from __future__ import annotations

from typing import Any

from torch import nn

from camlucida.common.provenance import fingerprint
from camlucida.engine.layers import Layers, resolve_all
from camlucida.explanation.explain import MethodLike
from camlucida.explanation.subject import Subject
from camlucida.methods import Method, read_method
from camlucida.methods.registry import METHODS
from camlucida.models import LoadedModel


def told(method: MethodLike) -> dict[str, Any]:
    """A method and its options, ready for JSON."""
    if isinstance(method, Method):
        return method.describe()
    called, more = method if isinstance(method, tuple) else (method, {})
    name, options = read_method(
        (called if isinstance(called, str) else METHODS.name_of(called), more)
    )
    return {"method": name, "options": options}


def facts_of(
    model: nn.Module | LoadedModel, method: MethodLike, layers: Layers | None, seed: int
) -> dict[str, Any]:
    """Weights, preparation, method, layers and seed, ready for JSON."""
    subject = Subject.of(model, None, None)
    return {
        "model": type(subject.module).__name__,
        "weights": fingerprint(subject.module),
        "preprocess": subject.preprocess.to_dict() if subject.preprocess else None,
        "method": told(method),
        "layers": None if layers is None else list(resolve_all(subject.module, layers)),
        "seed": seed,
    }
