"""Models of torchvision."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

from camlucida.common.errors import ModelError
from camlucida.common.grammar import nearest
from camlucida.common.optional import require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES
from camlucida.models.loaded import LoadedModel, cannot_fetch, unknown_weights

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn


def load_torchvision(name: str, *, pretrained: bool) -> LoadedModel:
    """A classifier of torchvision by name; "resnet50@IMAGENET1K_V1" chooses the weights.

    Random weights come with the preprocess and class names of the chosen (or default) ones.

    Raises:
        ModelError: torchvision is missing, a name is unknown, or the weights cannot be fetched.
    """
    base, _, tag = name.partition("@")
    models = _models(base)
    weights = _weights(models, base, tag or "DEFAULT")
    extra = {"weights": weights} if pretrained else _quiet_weights(base)
    try:
        module = cast("nn.Module", models.get_model(base, **extra))
    except Exception as error:
        if not pretrained:
            raise ModelError(f"torchvision could not build {base}: {error}") from error
        raise cannot_fetch(f"torchvision:{name}", error) from error
    preprocess, class_names = describe_torchvision(base, tag or "DEFAULT")
    known = CLASSES if class_names else None
    return LoadedModel(module.eval(), f"torchvision:{name}", preprocess, class_names, known)


def build_torchvision(name: str, num_classes: int | None, keys: Iterable[str]) -> nn.Module:
    """A classifier of torchvision with random weights and that many outputs.

    The names of the checkpoint that will be loaded (``keys``) tell whether GoogLeNet and Inception still have their
    auxiliary heads.

    Raises:
        ModelError: torchvision is missing, or the name is unknown.
    """
    models = _models(name)
    extra = _quiet_weights(name)
    if "init_weights" in extra:
        extra["init_weights"] = False  # they are overwritten, and slow
        extra["aux_logits"] = any("aux" in key.lower() for key in keys)
    if num_classes is not None:
        extra["num_classes"] = num_classes
    return cast("nn.Module", models.get_model(name, **extra))


def describe_torchvision(
    name: str, tag: str = "DEFAULT"
) -> tuple[Preprocess | None, tuple[str, ...] | None]:
    """Preprocess and class names of the weights; each ``None`` where the weights do not say it."""
    weights = _weights(_models(name), name, tag)
    if weights is None:
        return None, None
    categories = weights.meta.get("categories")
    preprocess = Preprocess.from_torchvision(weights.transforms())
    return preprocess, tuple(categories) if categories else None


def has_torchvision(name: str) -> bool:
    """Whether a classifier is called so; ``False`` without torchvision."""
    with suppress(ModelError):
        return bool(_models(name))
    return False


def _models(name: str) -> Any:
    models = require("torchvision.models")
    known = models.list_models(module=models)
    if name not in known:
        raise ModelError(f"torchvision has no classifier {name!r}{nearest(name, known)}")
    return models


def _weights(models: Any, name: str, tag: str) -> Any:
    choices = models.get_model_weights(name)
    if tag in choices.__members__:
        return choices[tag]
    if tag == "DEFAULT":
        return None
    raise unknown_weights("torchvision", name, tag, list(choices.__members__))


def _quiet_weights(name: str) -> dict[str, Any]:
    """Arguments for random weights; two models warn unless they are told how to draw them."""
    if name in {"googlenet", "inception_v3"}:
        return {"weights": None, "init_weights": True}
    return {"weights": None}
