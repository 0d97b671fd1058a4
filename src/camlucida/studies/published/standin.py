"""What a protocol runs on where the papers' data cannot be had."""

from __future__ import annotations

from camlucida.common.errors import ModelError
from camlucida.common.progress import Say
from camlucida.data.open import open_data
from camlucida.data.samples import DataSet
from camlucida.models import LoadedModel, load_model

PHOTOS = "labelled photos"
DIGITS = "digits on photos"
DIGIT_IMAGES = 200


def stand_ins(say: Say | None = None) -> dict[str, tuple[LoadedModel, DataSet]]:
    """The embedded model on labelled photos, and a small network on digits on photos with exact boxes.

    The small network is trained first where that has not been done, which takes a minute or two.

    Args:
        say: told about the training.

    Raises:
        CamlucidaError: a package that they need is not installed.
    """
    embedded = load_model("embedded")
    try:
        digits = load_model("digits")
    except ModelError:
        from camlucida.training.digits import train_digits

        train_digits(progress=say)
        digits = load_model("digits")
    return {
        PHOTOS: (embedded, open_data("photos", class_names=embedded.class_names)),
        DIGITS: (
            digits,
            open_data("digits", class_names=digits.class_names, count=DIGIT_IMAGES),
        ),
    }
