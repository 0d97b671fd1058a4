"""What a protocol runs on: models and labelled photos, or what is at hand where the papers' data cannot be had."""

from __future__ import annotations

from typing import Any, TypeAlias

from camlucida.common.errors import CamlucidaError
from camlucida.common.progress import Say
from camlucida.data.open import open_data
from camlucida.data.samples import DataSet
from camlucida.models import LoadedModel, load_model
from camlucida.training.digits import digits_model

PHOTOS = "labelled photos"
DIGITS = "digits on photos"
DIGIT_IMAGES = 200

Sets: TypeAlias = dict[str, tuple[LoadedModel, DataSet]]
"""By name, a model and the labelled photos that it is measured on."""


def open_sets(
    data: str | None = None,
    model: str = "torchvision:resnet50",
    *,
    device: str | None = None,
    standin: bool = False,
    say: Say | None = None,
    **how: Any,
) -> Sets:
    """Open a model and labelled photos with boxes, or take what is at hand offline.

    Args:
        data: the data, as :func:`camlucida.data.open_data` takes it, such as ``"imagenet:ILSVRC2012"``.
        model: the model, as :func:`camlucida.load_model` takes it.
        device: the device, such as ``"cuda"``; the CPU by default.
        standin: in place of data and model the embedded model on labelled photos with boxes drawn by hand, and a
            small network on digits on photos with exact boxes. The network is trained first where that has not
            been done, which takes a minute or two.
        say: is told about the training.
        **how: further arguments of :func:`camlucida.load_model`, such as ``architecture`` of a checkpoint file.

    Raises:
        CamlucidaError: both or neither of data and stand-ins, or something cannot be opened.

    Example:
        >>> camlucida.studies.published.open_sets()
        Traceback (most recent call last):
        camlucida.common.errors.CamlucidaError: ... data ... or standin=True ...
    """
    if standin == (data is not None):
        raise CamlucidaError(
            "say what to run it on: data with labelled photos and their boxes, or standin=True for what is at hand "
            "offline (on the command line --data or --standin)"
        )
    if data is not None:
        loaded = load_model(model, device=device, **how)
        opened = open_data(data, class_names=loaded.class_names)
        return {opened.name: (loaded, opened)}
    embedded, digits = load_model("embedded"), digits_model(say)
    drawn = open_data("digits", class_names=digits.class_names, count=DIGIT_IMAGES)
    photos = open_data("photos", class_names=embedded.class_names)
    return {PHOTOS: (embedded, photos), DIGITS: (digits, drawn)}
