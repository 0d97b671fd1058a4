"""The model and the labelled images that several commands open."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from camlucida.cli.shared.console import complain, shown
from camlucida.cli.shared.device import on_device
from camlucida.common.errors import CamlucidaError

if TYPE_CHECKING:
    from torch import Tensor

    from camlucida.cli.shared.model import Chosen
    from camlucida.data.samples import DataSet
    from camlucida.models import LoadedModel
    from camlucida.targets import Target


def known_methods(texts: Sequence[str], target: Target | None = None) -> list[str]:
    """Refuse wrong words in ``--method`` before a model is loaded; the texts themselves are returned.

    Raises:
        MethodError: A name or an option is unknown, or does not go with the target.
    """
    from camlucida.methods import build

    for text in texts:
        build(text, target)
    return list(texts)


def photos_of(data: str, class_names: Sequence[str] | None) -> DataSet:
    """What :func:`camlucida.data.open.open_known` opens, with notes on what a user may not expect.

    Raises:
        CamlucidaError: The data cannot be opened.
    """
    from camlucida.data.open import namesake, open_known

    if said := namesake(data):
        complain(f"note: {said}")
    opened = open_known(data, class_names=class_names)
    for path, reason in opened.skipped[:1]:
        complain(f"note: {len(opened.skipped)} left out, such as '{shown(path)}': {reason}")
    return opened


def labelled_case(
    model: Chosen,
    data: str | None,
    count: int | None,
    device: str | None,
    *,
    quick: bool,
    say: Callable[[str, float, float], object] | None = None,
) -> tuple[LoadedModel, Tensor, Tensor, str]:
    """The model, ``digits`` where none is named, inputs, their classes, and what the two are called."""
    import torch

    from camlucida.data.open import open_data
    from camlucida.engine.outputs import first_tensor
    from camlucida.explanation.subject import prepare
    from camlucida.models.loaded import put_on
    from camlucida.training.digits import digits_model

    name = model.name or "digits"
    if name == "digits" and data is None and not model.how:
        loaded = put_on(digits_model(say), on_device(device))
    else:
        loaded = model.load(device, name=name)
    if data is None and name != "digits":
        raise CamlucidaError(
            "give --data with photos too: folders by class, ImageNet, a CSV list, or plain photos"
        )
    opened = open_data(data or "digits", class_names=loaded.class_names)
    most = min(len(opened), count or (60 if quick else 600))
    # Folders come class by class: the first photos alone would show one or two classes.
    order = torch.randperm(len(opened), generator=torch.Generator().manual_seed(0))
    samples = [opened[i] for i in sorted(order[:most].tolist())]
    _, inputs, _, _ = prepare(loaded, [s.picture() for s in samples])
    known = [s.label for s in samples]
    if any(label is None for label in known):
        with torch.no_grad():
            predicted = torch.cat(
                [first_tensor(loaded.module(part)).argmax(1) for part in torch.split(inputs, 16)]
            )
        return loaded, inputs, predicted, f"{loaded.name} on {opened.name}, predicted classes"
    labels = torch.tensor([int(label or 0) for label in known], device=inputs.device)
    return loaded, inputs, labels, f"{loaded.name} on {opened.name}"


def compared_case(
    model: Chosen,
    data: str | None,
    layer: str | None,
    count: int | None,
    device: str | None,
    **others: str | None,
) -> dict[str, Any]:
    """A clean model, photos, and others such as ``fooled``, as functions that compare given models take them.

    Raises:
        CamlucidaError: one of them was not named.
    """
    named = {"clean": model.name, "data": data, **others}
    lacking = [f"--{name}" for name, given in named.items() if given is None and name != "control"]
    if lacking:
        raise CamlucidaError(
            f"two given models are compared on photos: {', '.join(lacking)} is missing; weights are made with "
            "camlucida train sham"
        )
    loaded = model.load(device)
    opened = photos_of(str(data), loaded.class_names)
    return {
        "clean": loaded,
        "data": opened,
        "layers": layer,
        "count": count,
        "batch_size": 50,
        **others,
    }
