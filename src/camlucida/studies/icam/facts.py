"""What results of I-CAM depend on besides the photos."""

from __future__ import annotations

from typing import Any

from torch import nn

from camlucida.common.provenance import fingerprint
from camlucida.engine.layers import Layers, resolve_all
from camlucida.explanation.subject import Subject
from camlucida.methods.icam import ICAM
from camlucida.models import LoadedModel


def icam_facts(
    model: nn.Module | LoadedModel, method: ICAM, layers: Layers | None, seed: int
) -> dict[str, Any]:
    """Weights, preparation, method, layers and seed, ready for JSON."""
    subject = Subject.of(model, None, None)
    return {
        "model": type(subject.module).__name__,
        "weights": fingerprint(subject.module),
        "preprocess": subject.preprocess.to_dict() if subject.preprocess else None,
        "method": method.describe(),
        "layers": None if layers is None else list(resolve_all(subject.module, layers)),
        "seed": seed,
    }
