"""A model with several outputs, as a model for each of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from camlucida.app.question import Written
from camlucida.common.errors import CamlucidaError
from camlucida.engine.finding import look
from camlucida.engine.outputs import heads_of
from camlucida.engine.reading import Outputs, original
from camlucida.models import LoadedModel
from camlucida.models.loading import noise, with_outputs

_MOST = 64


@dataclass(frozen=True)
class Head:
    """A model that the page can ask.

    Attributes:
        model: made to return this output.
        written: how it is named on the command line.
        of: the number of the first head of the same model, which is the model as it was loaded.
        name: of the output; empty where the model has only one.
    """

    model: LoadedModel
    written: Written
    of: int
    name: str = ""


def heads(model: LoadedModel, written: Written, of: int) -> Iterator[Head]:
    """The model as it was loaded, and then the same model with each other output that can be explained.

    Names of classes are those of the output that the model was loaded with; nothing says that they fit another.
    """
    if model.outputs is None:  # so that everything behind the page reads them alike
        with suppress(CamlucidaError):
            model = with_outputs(model)
    outputs = model.outputs or Outputs()
    found, own = {}, ""
    with suppress(CamlucidaError):  # the first photo will tell what is wrong
        output = look(original(model.module), noise(model))
        found = heads_of(output)
        chosen = outputs.pick(output)
        own = next((name for name, tensor in found.items() if tensor is chosen), "")
    if not own or len(found) < 2:
        yield Head(model, written, of)
        return
    yield Head(model, written, of, own)
    for name in [name for name in found if name != own][:_MOST]:
        bare = replace(model, module=original(model.module), class_names=None, outputs=None)
        with suppress(CamlucidaError):  # decisions, counts: nothing that can be explained
            how = {**written.how, "outputs": f"head={name}"}
            how.pop("class_names", None)
            yield Head(with_outputs(bare, Outputs(head=name)), replace(written, how=how), of, name)
