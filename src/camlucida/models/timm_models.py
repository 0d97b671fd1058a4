"""Models of timm."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from camlucida.common.errors import ModelError
from camlucida.common.grammar import nearest
from camlucida.common.optional import require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES, Outputs
from camlucida.models.loaded import LoadedModel, cannot_fetch, short_wait, unknown_weights

if TYPE_CHECKING:
    from torch import nn


def load_timm(name: str, *, pretrained: bool) -> LoadedModel:
    """A model of timm by name, such as "resnet18", or with a weight tag "resnet18.a1_in1k".

    Raises:
        ModelError: timm is missing, the name is unknown, or the weights cannot be fetched.
    """
    timm = require("timm")
    constants = require("huggingface_hub.constants")
    _check_name(timm, name)
    try:
        with short_wait(constants):
            module = cast("nn.Module", timm.create_model(name, pretrained=pretrained))
    except Exception as error:
        if not pretrained:
            raise ModelError(f"timm could not build {name}: {error}") from error
        raise cannot_fetch(f"timm:{name}", error) from error
    return LoadedModel(
        module=module.eval(),
        name=f"timm:{name}",
        preprocess=preprocess_of_timm(module),
        class_names=class_names_of_timm(module),
        outputs=outputs_of_timm(module),
    )


def build_timm(name: str, num_classes: int | None) -> nn.Module:
    """A model of timm with random weights and that many outputs.

    Raises:
        ModelError: timm is missing, or the name is unknown.
    """
    timm = require("timm")
    _check_name(timm, name)
    outputs = {} if num_classes is None else {"num_classes": num_classes}
    return cast("nn.Module", timm.create_model(name, pretrained=False, **outputs))


def preprocess_of_timm(module: nn.Module) -> Preprocess | None:
    """What a timm model says about its input; ``None``, with a warning, where that cannot be expressed."""
    config = getattr(module, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "input_size" not in config:
        return None
    try:
        return Preprocess.from_timm(config)
    except ModelError as error:
        warnings.warn(f"no preprocess for this timm model: {error}", stacklevel=2)
        return None


def class_names_of_timm(module: nn.Module) -> tuple[str, ...] | None:
    """A timm model's own class names, or ImageNet's where the number of outputs agrees; else ``None``."""
    config = getattr(module, "pretrained_cfg", None)
    count = getattr(module, "num_classes", None)
    if not isinstance(config, Mapping) or not isinstance(count, int) or count < 1:
        return None
    given = config.get("label_names")
    if given and len(given) == count:
        texts: Any = config.get("label_descriptions") or {}
        return tuple(str(texts.get(label, label)) for label in given)
    if config.get("num_classes") != count:
        return None  # a head of the user's own, that happens to have any number of outputs
    data = require("timm.data")
    try:
        subset = data.infer_imagenet_subset({"num_classes": count})
        info = _info(subset) if subset else None
    except (AssertionError, FileNotFoundError, KeyError):
        return None
    return tuple(info.label_descriptions()) if info and info.num_classes() == count else None


def imagenet_names(classes: Sequence[int]) -> tuple[str, ...]:
    """What some of ImageNet's 1000 classes are called."""
    names = _info("imagenet-1k").label_descriptions()
    return tuple(names[one] for one in classes)


@cache
def _info(subset: str) -> Any:
    """The classes of a part of ImageNet as timm lists them, in a large file that is read once."""
    return require("timm.data").ImageNetInfo(subset)


def outputs_of_timm(module: nn.Module) -> Outputs | None:
    """Logits, where the classes are those of a data set that timm knows, whose photos show one class each."""
    return CLASSES if class_names_of_timm(module) else None


def has_timm(name: str) -> bool:
    """Whether a model is called so; ``False`` without timm."""
    with suppress(ModelError):
        return bool(require("timm").is_model(name))
    return False


def _check_name(timm: Any, name: str) -> None:
    base, _, tag = name.partition(".")
    if not timm.is_model(base):
        raise ModelError(f"timm has no model {base!r}{nearest(base, timm.list_models())}")
    known = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
    if tag and tag not in known:
        raise unknown_weights("timm", base, tag, known)
