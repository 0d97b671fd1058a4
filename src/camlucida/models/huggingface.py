"""Image classifiers of transformers, from the hub or a local folder."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlucida.common.errors import ModelError
from camlucida.common.optional import first_line, require
from camlucida.data.preprocess import Preprocess
from camlucida.models.loaded import LoadedModel, cannot_fetch, short_wait

if TYPE_CHECKING:
    from torch import nn


def load_huggingface(name: str, *, pretrained: bool) -> LoadedModel:
    """An image classifier of transformers, "ORG/NAME" on the hub or a folder that `save_pretrained` wrote.

    Code that a repository brings is never run. Without usable preprocessing in the repository, the preprocess is None
    and a warning says why.

    Raises:
        ModelError: transformers is missing, or the model is not found, does not fit or cannot be fetched.
    """
    with _hub(name) as (transformers, where):
        config = _config(transformers, name, where)
        factory = transformers.AutoModelForImageClassification
        try:
            if pretrained:
                module, info = factory.from_pretrained(
                    name, config=config, weights_only=True, output_loading_info=True, **where
                )
            else:
                module = factory.from_config(config, trust_remote_code=False)
        except Exception as error:
            if type(config) not in factory._model_mapping:  # noqa: SLF001
                raise ModelError(
                    f"hf:{name} is no image classifier, but a model of type {config.model_type}"
                ) from error
            if Path(name).is_dir():
                raise ModelError(f"hf:{name} cannot be loaded: {first_line(error)}") from error
            raise cannot_fetch(f"hf:{name}", error) from error
        if pretrained and info["missing_keys"]:
            lacking = sorted(info["missing_keys"])
            raise ModelError(
                f"hf:{name} has no weights for {', '.join(lacking[:3])}"
                f"{', ...' if len(lacking) > 3 else ''}: it is not a trained classifier"
            )
        preprocess = _preprocess(transformers, name, where)
    module = cast("nn.Module", module)
    return LoadedModel(
        module=module.eval(),
        name=f"hf:{name}",
        preprocess=preprocess,
        class_names=class_names_of_huggingface(module),
    )


def build_huggingface(name: str, num_classes: int | None) -> nn.Module:
    """An image classifier with random weights and that many outputs, its usual number for ``None``.

    Only the configuration is read.

    Raises:
        ModelError: transformers is missing, or the configuration is not an image classifier's.
    """
    with _hub(name) as (transformers, where):
        config = _config(transformers, name, where)
    if num_classes is not None and config.num_labels != num_classes:
        config.num_labels = num_classes
    try:
        module = transformers.AutoModelForImageClassification.from_config(
            config, trust_remote_code=False
        )
    except ValueError as error:
        raise ModelError(f"hf:{name} cannot be built: {first_line(error)}") from error
    return cast("nn.Module", module)


def preprocess_of_folder(name: str) -> Preprocess | None:
    """The preprocess that a hub repository or a local folder names; None if it has none."""
    with _hub(name) as (transformers, where):
        return _preprocess(transformers, name, where)


def class_names_of_huggingface(module: nn.Module) -> tuple[str, ...] | None:
    """The class names in a transformers model's configuration; ``None`` where there are mere numbers."""
    labels = getattr(getattr(module, "config", None), "id2label", None)
    if not isinstance(labels, Mapping) or not labels:
        return None
    try:
        ordered = [str(labels[index]) for index in range(len(labels))]
    except KeyError:
        return None
    if all(re.fullmatch(r"LABEL_\d+", label) for label in ordered):
        return None
    return tuple(ordered)


@contextmanager
def _hub(name: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The package transformers, and from where it may load."""
    transformers = require("transformers")
    with short_wait(require("huggingface_hub.constants")) as reachable, _quiet(transformers):
        offline = _is_local(name) or not reachable
        yield transformers, {"trust_remote_code": False, "local_files_only": offline}


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bar of transformers' own, which would count the tensors of a file; downloads keep theirs."""
    logging = transformers.utils.logging
    before = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if before:
            logging.enable_progress_bar()


def _is_local(name: str) -> bool:
    """Whether the name is a folder here; a path that does not exist is an error of its own."""
    path = Path(name)
    if path.is_dir():
        return True
    if path.is_absolute() or name.startswith(("./", "../", "~")) or name.count("/") > 1:
        raise ModelError(f"hf:{name} looks like a path, but there is no such folder")
    return False


def _config(transformers: Any, name: str, where: dict[str, Any]) -> Any:
    try:
        return transformers.AutoConfig.from_pretrained(name, **where)
    except Exception as error:
        if where["local_files_only"] and Path(name).is_dir():
            raise ModelError(
                f"hf:{name} is not a folder of a transformers model ({first_line(error)})"
            ) from error
        raise cannot_fetch(f"hf:{name}", error) from error


def _preprocess(transformers: Any, name: str, where: dict[str, Any]) -> Preprocess | None:
    try:
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(name, **where)
        except ImportError:  # without torchvision: its configuration says all that is needed
            mixin = transformers.image_processing_base.ImageProcessingMixin
            processor, _ = mixin.get_image_processor_dict(name, **where)
        return Preprocess.from_huggingface(processor)
    except Exception as error:
        warnings.warn(f"no preprocess for hf:{name}: {first_line(error)}", stacklevel=2)
        return None
