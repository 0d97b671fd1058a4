"""One door to all models: by name, or from a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camlucida.common.arguments import argument
from camlucida.common.errors import ModelError
from camlucida.common.files import CHECKPOINTS
from camlucida.common.grammar import nearest
from camlucida.common.own_code import is_code
from camlucida.data.class_names import read_class_names
from camlucida.data.preprocess import Preprocess, PreprocessLike, as_preprocess
from camlucida.engine.borrow import unwrap
from camlucida.engine.finding import find_outputs
from camlucida.engine.reading import Outputs, OutputsLike, original, reading
from camlucida.models.checkpoint import load_weights, num_outputs
from camlucida.models.embedded import load_embedded
from camlucida.models.factory import ArchitectureLike, Factory, architecture_name
from camlucida.models.huggingface import (
    build_huggingface,
    class_names_of_huggingface,
    load_huggingface,
    preprocess_of_folder,
)
from camlucida.models.loaded import LoadedModel, put_on
from camlucida.models.masked_vgg import load_masked_vgg
from camlucida.models.planted import planted_network
from camlucida.models.small import load_digits
from camlucida.models.timm_models import (
    build_timm,
    class_names_of_timm,
    has_timm,
    load_timm,
    outputs_of_timm,
    preprocess_of_timm,
)
from camlucida.models.torchvision_models import (
    build_torchvision,
    describe_torchvision,
    has_torchvision,
    load_torchvision,
)
from camlucida.models.weights import read_weights

_ASSUMED = "the model's preprocessing is assumed to be"
"""How a note begins that says so."""

_SOURCES: dict[str, Callable[[str, bool], LoadedModel]] = {
    "embedded": lambda name, real: load_embedded(name or "lite0", pretrained=real),
    "digits": lambda name, real: load_digits(pretrained=real, folder=Path(name) if name else None),
    "torchvision": lambda name, real: load_torchvision(name, pretrained=real),
    "timm": lambda name, real: load_timm(name, pretrained=real),
    "hf": lambda name, real: load_huggingface(name, pretrained=real),
    "masked-vgg": lambda name, _: load_masked_vgg(name),
    "planted": lambda name, _: planted_network(name),
}


_LIBRARIES: Mapping[str, Callable[[str], bool]] = {"timm": has_timm, "torchvision": has_torchvision}
"""Whether a library has a model of a name."""

_ARCHITECTURES = (
    "timm:NAME, torchvision:NAME, hf:FOLDER, package.module:factory or path/to/file.py:factory"
)


def load_model(
    spec: str | os.PathLike[str],
    *,
    architecture: ArchitectureLike | None = None,
    class_names: Sequence[str] | str | os.PathLike[str] | None = None,
    outputs: OutputsLike = None,
    preprocess: PreprocessLike | Mapping[str, Any] | None = None,
    pretrained: bool = True,
    device: str | torch.device | None = None,
) -> LoadedModel:
    """Load an image classifier, with its preprocessing and class names.

    ==========================  ===================================================================
    spec                        model
    ==========================  ===================================================================
    `embedded`                  EfficientNet-Lite0, ImageNet; `embedded:lite1` is one size larger,
                                `embedded:dogs` a MobileNetV2 for 19 breeds of dogs. From an installed
                                package, no network needed
    `digits`                    the small network for digits on photos that `camlucida train digits`
                                trained; `digits:FOLDER` if it was trained with `--out FOLDER`
    `torchvision:NAME`          such as `torchvision:resnet50`, or with chosen weights
                                `torchvision:resnet50@IMAGENET1K_V1`
    `timm:NAME`                 such as `timm:resnet18` or `timm:resnet18.a1_in1k`
    `hf:ORG/NAME`, `hf:FOLDER`  an image classifier of transformers
    `masked-vgg:FILE`           the network that `camlucida train masked-vgg` trained
    `planted:NAME`              a small network that is built, so that what it looks at is known, for the
                                data `planted:NAME`; `planted:NAME@1` has other channels
    a file                      `.pth`, `.pt`, `.bin`, `.ckpt`, `.tar` or `.safetensors` with a
                                state dict; needs `architecture`
    `package.module:factory`,   a function or class of your own that returns the network with its
    `path/to/file.py:factory`   weights
    ==========================  ===================================================================

    No code that a checkpoint or a repository brings is ever run. A factory is code of your own: naming
    it runs it.

    Args:
        spec: What to load, as above.
        architecture: For a file: the network that its weights belong to, such as `timm:resnet18`,
            `torchvision:resnet50`, `hf:FOLDER`, or a factory, as text or itself. The number of classes is read
            from the file; a factory gets it as `num_classes` if it takes that. The prefix before the file's
            names is found.
        class_names: Names to use instead of the model's own: a list, or the path of a text file
            with one per line, or of a JSON list. As many as the model has outputs.
        outputs: What its outputs are, as for `camlucida.explain`: such as `softmax`, `labels:threshold=0.3`,
            `regression` or `classes:head=age`. By default it is found, and what is assumed is among the notes.
        preprocess: How a photo becomes its input, in place of the model's own: a `Preprocess`, any function of a
            photo, or some of a `Preprocess`'s values by name, which change the model's own, or the usual ones of
            ImageNet where it has none.
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
    if not isinstance(spec, str | os.PathLike):
        raise ModelError(
            f"a model to load is a name or a file, got {type(spec).__name__}; a torch.nn.Module is explained as "
            "it is: camlucida.explain(model, images)"
        )
    if isinstance(architecture, nn.Module) or not (
        architecture is None or isinstance(architecture, str) or callable(architecture)
    ):
        raise ModelError(
            f"architecture is a name or a function that returns the network, got {type(architecture).__name__}; a "
            "network that is at hand takes its weights with load_state_dict and is explained as it is"
        )
    names = None if class_names is None else read_class_names(class_names)
    loaded = _load(os.fspath(spec), architecture, pretrained=pretrained)
    if preprocess is not None:
        loaded = prepared(loaded, preprocess)
    look = loaded.outputs is None or names is not None or outputs is not None
    loaded = replace(loaded, class_names=names or loaded.class_names)
    return put_on(with_outputs(loaded, Outputs.of(outputs), look=look), device)


def prepared(loaded: LoadedModel, given: PreprocessLike | Mapping[str, Any]) -> LoadedModel:
    """The model with a preprocess that was given, or changed by the values given.

    Values by name change the model's own preprocess, or the usual one of ImageNet where it has none.
    """
    notes = tuple(note for note in loaded.notes if not note.startswith(_ASSUMED))
    if not isinstance(given, Mapping):
        return replace(loaded, preprocess=as_preprocess(given), notes=notes)
    if loaded.preprocess is not None:
        changed = loaded.preprocess.changed(**given)
        kept = tuple(n.replace(loaded.preprocess.words, changed.words) for n in loaded.notes)
        return replace(loaded, preprocess=changed, notes=kept)
    made = Preprocess(**({"size": given["size"]} if "size" in given else {})).changed(**given)
    words = {
        "size": f"an input of {made.size[0]} x {made.size[1]} pixels",
        "resize": f"a photo's shorter side resized to {made.resize} pixels" if made.crop else "",
        "crop": "the centre cut out",
        "interpolation": f"{made.interpolation} interpolation",
        "mean": f"mean {', '.join(f'{v:g}' for v in made.mean)}",
        "std": f"std {', '.join(f'{v:g}' for v in made.std)}",
    }
    if unsaid := ", ".join(text for name, text in words.items() if name not in given and text):
        notes = (*notes, f"{_ASSUMED} that of ImageNet in what was not said: {unsaid}")
    return replace(loaded, preprocess=made, notes=notes)


def with_outputs(
    loaded: LoadedModel, given: Outputs | None = None, *, look: bool = True
) -> LoadedModel:
    """The model, made to return what targets take, with what its outputs are: to look, it is shown a picture."""
    module = original(loaded.module)
    known = (given or Outputs()).over(loaded.outputs or Outputs())
    if look and not known.settled:
        count = len(loaded.class_names or ())
        with suppress(ModelError):  # it takes another size: the first images will tell
            known = find_outputs(module, noise(loaded), known, named=count)
    read = loaded if known == Outputs() else replace(loaded, outputs=known)
    names = known.names(loaded.class_names)
    return replace(read, module=reading(module, known), class_names=names)


def noise(loaded: LoadedModel) -> torch.Tensor:
    """An image of noise ``(1, C, H, W)`` as the model takes it, as far as that is known, on its device."""
    module = original(loaded.module)
    height, width = (224, 224) if loaded.preprocess is None else loaded.preprocess.size
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    channels = 3 if first is None else first.in_channels
    made = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    weight = next((p for p in module.parameters() if p.is_floating_point()), made)
    return made.to(weight.device, weight.dtype)


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
    return preprocess_of_timm(unwrap(module))


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
    bare = unwrap(module)
    names = class_names_of_huggingface(bare) or class_names_of_timm(bare)
    sizes = {getattr(m, "out_features", getattr(m, "out_channels", None)) for m in bare.modules()}
    # A head of the user's own leaves the names of the old one behind.
    return names if names and len(names) in sizes else None


def outputs_said(module: nn.Module) -> Outputs | None:
    """What a bare module's library says about its outputs.

    Args:
        module: Any model; timm's classifiers can be told to be ImageNet's.

    Returns:
        That they are logits of classes that exclude each other, or None.

    Example:
        >>> camlucida.models.outputs_said(model) is None
        True
    """
    return outputs_of_timm(unwrap(module)) if class_names_of(module) else None


def _load(spec: str, architecture: ArchitectureLike | None, *, pretrained: bool) -> LoadedModel:
    source, _, name = spec.partition(":")
    is_file = _is_file(spec)
    if not pretrained and (source == "masked-vgg" or is_file):
        raise ModelError(
            f"pretrained=False leaves the weights in {spec!r} unused; load the architecture "
            "by its name instead"
        )
    if architecture is not None and not is_file:
        raise ModelError(
            f"{argument('architecture')} is only for a checkpoint file, and {spec!r} is not a file here"
        )
    if is_file and spec.endswith(".py"):
        raise ModelError(_no_function(spec))
    if is_file:
        return _load_file(Path(spec), architecture)
    if source in _SOURCES:
        if not name and source not in {"embedded", "digits"}:
            raise ModelError(f"{spec!r} names no model; write {source}:NAME")
        return _SOURCES[source](name, pretrained)
    if is_code(spec) and "." in spec.rpartition(":")[0]:
        return _completed(Factory(spec).build())
    if Path(spec).is_dir():
        raise ModelError(f"{spec!r} is a folder; for a transformers model write hf:{spec}")
    near = [f"{which}:{spec}" for which, has in _LIBRARIES.items() if has(spec)]
    hint = f"; did you mean {' or '.join(near)}?" if near else nearest(source, _SOURCES)
    raise ModelError(
        f"unknown model {spec!r}{hint} (expected embedded, digits, torchvision:NAME, timm:NAME, hf:ORG/NAME, "
        "masked-vgg:FILE, planted:NAME, a checkpoint file, package.module:factory or path/to/file.py:factory)"
    )


def _load_file(path: Path, given: ArchitectureLike | None) -> LoadedModel:
    """A checkpoint's weights in the architecture named beside it."""
    if given is None:
        read_weights(path)  # says what is true of a file of another kind
        raise ModelError(
            f"a checkpoint file holds weights only; name the architecture of {str(path)!r} with "
            f"{argument('architecture')}: {_ARCHITECTURES}"
        )
    network, architecture = _network(given), str(architecture_name(given))
    module, notes = load_weights(path, architecture, network.build)
    said = network.describe(module)
    names = said.class_names
    if names is not None and len(names) != num_outputs(module):
        names = None
    if said.preprocess is not None and network.assumed:
        assumed = (
            f"{_ASSUMED} that of {architecture}'s usual weights "
            f"({said.preprocess.words}); if the model was trained otherwise, say how with {argument('preprocess')}"
        )
        notes = (*notes, assumed)
    return replace(
        said, name=f"{architecture}@{path.name}", class_names=names, notes=(*said.notes, *notes)
    )


def _no_function(file: str) -> str:
    return f"{file!r} is Python code; name the function that returns the model too: {file}:FUNCTION"


@dataclass(frozen=True)
class _Network:
    """An architecture without weights.

    Attributes:
        build: makes it, from the number of outputs (``None``: its usual one) and the names in the file.
        describe: what is known about the network that was built.
        assumed: whether its preprocessing is that of other weights than the file's.
    """

    build: Callable[[int | None, Sequence[str]], nn.Module]
    describe: Callable[[nn.Module], LoadedModel]
    assumed: bool = True


def _network(given: ArchitectureLike) -> _Network:
    """The architecture of a name or function.

    Raises:
        ModelError: the name is none, or its code does not exist or fails.
    """
    source, _, name = given.partition(":") if isinstance(given, str) else ("", "", "")
    if isinstance(given, str) and given.endswith(".py"):
        raise ModelError(_no_function(given))
    if isinstance(given, str) and not (name and (source in {"hf", *_LIBRARIES} or is_code(given))):
        raise ModelError(f"the architecture {given!r} is unknown; write {_ARCHITECTURES}")
    if source == "timm":
        return _Network(lambda count, _: build_timm(name, count), _described)
    if source == "torchvision":
        return _Network(
            lambda count, names: build_torchvision(name, count, names),
            lambda module: LoadedModel(module.eval(), "", *describe_torchvision(name)),
        )
    if source == "hf":
        return _Network(
            lambda count, _: build_huggingface(name, count),
            lambda module: replace(_described(module), preprocess=preprocess_of_folder(name)),
            assumed=False,
        )
    factory = Factory(given)
    made: dict[nn.Module, LoadedModel] = {}

    def build(count: int | None, _: Sequence[str]) -> nn.Module:
        loaded = factory.build(count)
        made[loaded.module] = loaded
        return loaded.module

    return _Network(build, lambda module: _completed(made[module]))


def _described(module: nn.Module) -> LoadedModel:
    """A network with what it says about itself."""
    return _completed(LoadedModel(module.eval(), type(module).__name__, None, None))


def _completed(loaded: LoadedModel) -> LoadedModel:
    """With what the network itself says wherever nothing else does."""
    return replace(
        loaded,
        preprocess=loaded.preprocess or preprocess_of(loaded.module),
        class_names=loaded.class_names or class_names_of(loaded.module),
        outputs=loaded.outputs or outputs_said(loaded.module),
    )


def _is_file(spec: str) -> bool:
    if spec.partition(":")[0] in _SOURCES:
        return False
    if spec.lower().endswith(CHECKPOINTS):
        return True
    path = Path(spec)
    return path.exists() and not path.is_dir()
