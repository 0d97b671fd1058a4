"""Finding the logits in whatever a model returns."""

from collections import OrderedDict, namedtuple
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch

from camlucida import TargetError
from camlucida.engine.outputs import first_tensor

Z = torch.randn(2, 3)
OTHER = torch.randn(2, 4, 5)
Pair = namedtuple("Pair", "features logits")  # noqa: PYI024
Inception = namedtuple("Inception", "main aux")  # noqa: PYI024


@dataclass
class Output:
    features: torch.Tensor
    logits: torch.Tensor


@pytest.mark.parametrize(
    "output",
    [
        Z,
        (Z, OTHER),
        [Z, OTHER],
        (None, Z),
        {"loss": None, "hidden": OTHER, "logits": Z},
        OrderedDict(out=Z, aux=OTHER),
        {"anything": Z},
        Pair(OTHER, Z),
        Inception(Z, OTHER),
        Output(OTHER, Z),
        SimpleNamespace(embeddings=Z, other=OTHER),
        {"pooler_output": Z, "last_hidden_state": OTHER},
    ],
    ids=lambda o: type(o).__name__,
)
def test_found(output):
    assert first_tensor(output) is Z


def test_model_output():
    transformers = pytest.importorskip("transformers")
    output = transformers.modeling_outputs.ImageClassifierOutput(logits=Z, hidden_states=(OTHER,))
    assert first_tensor(output) is Z
    pooled = transformers.modeling_outputs.BaseModelOutputWithPooling(
        last_hidden_state=OTHER, pooler_output=Z
    )
    assert first_tensor(pooled) is Z


@pytest.mark.parametrize("output", [None, 3, {}, (), "text", {"a": Z, "b": OTHER}])
def test_not_found(output):
    with pytest.raises(TargetError, match="no logits"):
        first_tensor(output)


def test_the_error_names_what_was_there():
    with pytest.raises(TargetError, match="first, second"):
        first_tensor({"first": Z, "second": OTHER})
