"""One door to all models: by name, or from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.common.grammar import nearest
from camlucida.data.class_names import read_class_names
from camlucida.models.checkpoint import SUFFIXES, load_checkpoint
from camlucida.models.embedded import load_embedded
from camlucida.models.huggingface import class_names_of_huggingface, load_huggingface
from camlucida.models.loaded import LoadedModel, put_on
from camlucida.models.masked_vgg import load_masked_vgg
from camlucida.models.small import load_digits
from camlucida.models.timm_models import class_names_of_timm, load_timm, preprocess_of_timm
from camlucida.models.torchvision_models import load_torchvision

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from camlucida.data.preprocess import Preprocess

_SOURCES: dict[str, Callable[[str, bool], LoadedModel]] = {
    "embedded": lambda name, real: load_embedded(name or "lite0", pretrained=real),
    "digits": lambda name, real: load_digits(pretrained=real, folder=Path(name) if name else None),
    "torchvision": lambda name, real: load_torchvision(name, pretrained=real),
    "timm": lambda name, real: load_timm(name, pretrained=real),
    "hf": lambda name, real: load_huggingface(name, pretrained=real),
    "masked-vgg": lambda name, _: load_masked_vgg(name),
}


def load_model(
    spec: str,
    *,
    architecture: str | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    pretrained: bool = True,
    device: str | torch.device | None = None,
) -> LoadedModel:
    """Load an image classifier, with its preprocessing and class names.

    ==========================  ===================================================================
    spec                        model
    ==========================  ===================================================================
    `embedded`                  EfficientNet-Lite0, ImageNet; `embedded:lite1` is one size larger.
                                From an installed package, no network needed
    `digits`                    the small network for digits on photos that `camlucida train digits`
                                trained; `digits:FOLDER` if it was trained with `--out FOLDER`
    `torchvision:NAME`          such as `torchvision:resnet50`, or with chosen weights
                                `torchvision:resnet50@IMAGENET1K_V1`
    `timm:NAME`                 such as `timm:resnet18` or `timm:resnet18.a1_in1k`
    `hf:ORG/NAME`, `hf:FOLDER`  an image classifier of transformers
    `masked-vgg:FILE`           the network that `camlucida train masked-vgg` trained
    a file                      `.pth`, `.pt`, `.bin`, `.ckpt`, `.tar` or `.safetensors` with a
                                state dict; needs `architecture`
    ==========================  ===================================================================

    No code that a file or a repository brings is ever run.

    Args:
        spec: What to load, as above.
        architecture: The network that the weights in a file belong to, such as `timm:resnet18`.
        class_names: Names to use instead of the model's own: a list, or the path of a text file
            with one per line, or of a JSON list. As many as the model has outputs.
        pretrained: False gives random weights; useful for tests, and offline.
        device: Where to put the model; the CPU by default.

    Returns:
        The model in eval mode, and what is known about it.

    Raises:
        ModelError: In one line: the name is unknown, a package is missing, the weights cannot be
            fetched, or a file is missing, damaged, contains code or does not fit.

    Example:
        >>> loaded = camlucida.load_model("torchvision:resnet18", pretrained=False)
        >>> loaded.preprocess.size, loaded.class_names[0]
        ((224, 224), 'tench')
    """
    names = None if class_names is None else read_class_names(class_names)
    loaded = _load(spec, architecture, pretrained=pretrained)
    if names is not None:
        count = _num_outputs(loaded.module)
        if count is not None and count != len(names):
            raise ModelError(
                f"class_names has {len(names)} names, but {loaded.name} has {count} outputs"
            )
        loaded = replace(loaded, class_names=names)
    return put_on(loaded, device)


def preprocess_of(module: nn.Module) -> Preprocess | None:
    """What a bare module itself says about its input.

    Args:
        module: Any model; timm's carry their preprocessing with them, others do not.

    Returns:
        The preprocess, or None.

    Example:
        >>> camlucida.models.preprocess_of(model) is None
        True
    """
    return preprocess_of_timm(_bare(module))


def class_names_of(module: nn.Module) -> tuple[str, ...] | None:
    """What a bare module itself says about its classes.

    Args:
        module: Any model; those of transformers and timm carry their class names or can be told
            to be ImageNet's.

    Returns:
        One name per output, or None.

    Example:
        >>> camlucida.models.class_names_of(model) is None
        True
    """
    bare = _bare(module)
    return class_names_of_huggingface(bare) or class_names_of_timm(bare)


def _load(spec: str, architecture: str | None, *, pretrained: bool) -> LoadedModel:
    source, _, name = spec.partition(":")
    if not pretrained and (source == "masked-vgg" or _is_file(spec)):
        raise ModelError(
            f"pretrained=False leaves the weights in {spec!r} unused; load the architecture "
            "by its name instead"
        )
    if _is_file(spec):
        return load_checkpoint(spec, architecture)
    if architecture is not None:
        raise ModelError(
            f"architecture is only for a checkpoint file, and {spec!r} is not a file here"
        )
    if source in _SOURCES:
        if not name and source not in {"embedded", "digits"}:
            raise ModelError(f"{spec!r} names no model; write {source}:NAME")
        return _SOURCES[source](name, pretrained)
    if Path(spec).is_dir():
        raise ModelError(f"{spec!r} is a folder; for a transformers model write hf:{spec}")
    raise ModelError(
        f"unknown model {spec!r}; expected embedded, digits, torchvision:NAME, timm:NAME, hf:ORG/NAME "
        f"or a checkpoint file{nearest(source, _SOURCES)}"
    )


def _is_file(spec: str) -> bool:
    if spec.partition(":")[0] in _SOURCES:
        return False
    return Path(spec).is_file() or spec.lower().endswith(SUFFIXES)


def _bare(module: nn.Module) -> nn.Module:
    """The model inside DataParallel and torch.compile."""
    for name in ("_orig_mod", "module"):
        inner = getattr(module, name, None)
        if isinstance(inner, nn.Module):
            return _bare(inner)
    return module


def _num_outputs(module: nn.Module) -> int | None:
    """How many classes a classifier has, where it says so."""
    for value in (
        getattr(module, "num_classes", None),
        getattr(getattr(module, "config", None), "num_labels", None),
    ):
        if isinstance(value, int) and value > 0:
            return value
    linear = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return linear[-1].out_features if linear else None
