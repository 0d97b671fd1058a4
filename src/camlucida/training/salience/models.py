"""Networks to train with salience: built with a new head, kept as weights, and loaded again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from camlucida.common.arguments import Code, argument
from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.common.files import write_bytes
from camlucida.common.jsonable import to_json
from camlucida.common.optional import first_line, require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.borrow import borrowed
from camlucida.engine.layers import default_layer
from camlucida.models import LoadedModel, load_model
from camlucida.models.small import SmallCNN, SmallConfig, load_digits, small_preprocess
from camlucida.training.cam_loss import map_layer
from camlucida.training.digits import save_digits

SMALL = "small"
"""The small network of the stand-ins, for images of any size that is divisible by 8."""

RECORD = "result.json"

_LITE = {"embedded": "tf_efficientnet_lite0", "embedded:lite1": "tf_efficientnet_lite1"}


@dataclass(frozen=True)
class Start:
    """A network before it is trained.

    Attributes:
        module: with as many outputs as there are classes.
        preprocess: photos are resized to its size directly, without a crop, so that maps lie on them.
        architecture: what :func:`camlucida.models.load_model` needs to load its weights; ``"small"`` for the
            small network.
        layer: whose map is trained.
    """

    module: nn.Module
    preprocess: Preprocess
    architecture: str
    layer: str


def build_start(
    model: str,
    classes: int,
    *,
    architecture: str | None = None,
    pretrained: bool = True,
    size: int = 224,
    layer: str | None = None,
    seed: int = 0,
) -> Start:
    """A network to start from; its new head depends on the seed alone.

    Args:
        model: ``"small"``, ``"embedded"``, ``"timm:NAME"``, ``"torchvision:NAME"``, or a checkpoint file.
        classes: outputs. A head that has as many stays as it is, in a file.
        architecture: of a checkpoint file.
        pretrained: ``False`` starts from random weights.
        size: height and width of the images.
        layer: whose map is trained; by default the last feature map, before a ReLU that stands between it and
            the pooling (DenseNet).
        seed: of everything drawn.

    Raises:
        ModelError: it is unknown, its weights cannot be had, or it has no linear head to replace.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if model == SMALL:
            module: nn.Module = SmallCNN(SmallConfig(size=size, classes=classes))
            return Start(
                module, small_preprocess(size), SMALL, layer or default_layer(module, _probe(size))
            )
        loaded, kind = _loaded(model, architecture, pretrained=pretrained)
        module = loaded.module
        count = _outputs(module, size)
        if count != classes or not Path(model).is_file():
            _new_head(module, count, classes, model)
    own = loaded.preprocess or Preprocess.imagenet(size)
    preprocess = replace(own, size=(size, size), resize=(size, size), crop=False, cover=False)
    chosen = layer or map_layer(module, _probe(size))
    return Start(module, preprocess, kind, chosen)


def save_weights(folder: Path, module: nn.Module, start: Start, record: Mapping[str, Any]) -> Path:
    """Write the weights of a trained network.

    The file is ``weights.safetensors``; of a small network it is what ``load_model("digits:FOLDER")`` reads, with the
    record of the training.
    """
    state = {k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}
    if isinstance(module, SmallCNN):
        copy = SmallCNN(module.config)
        copy.load_state_dict(state)
        return save_digits(copy, {**record, "config": asdict(module.config)}, folder)[0]
    content = require("safetensors.torch", "train").save(state)
    path = write_bytes(folder / "weights.safetensors", content)
    write_bytes(
        folder / "model.json",
        to_json(
            {
                "architecture": start.architecture,
                "preprocess": start.preprocess.to_dict(),
                "layer": start.layer,
                "class_names": list(record.get("class_names") or ()),
                "weights": path.name,
            }
        ).encode(),
    )
    return path


def load_trained(folder: str | Path) -> LoadedModel:
    """The network of a training such as ``RUN/sham/seed-0``, with its own preprocessing and class names.

    Raises:
        ModelError: there is none, or its files are damaged.
    """
    place = Path(folder)
    if not (place / "model.json").is_file():
        return load_digits(folder=place)
    try:
        known = json.loads((place / "model.json").read_text(encoding="utf-8"))
        file = place / Path(known["weights"]).name
        preprocess = Preprocess.from_dict(known["preprocess"])
        names: Sequence[str] = known["class_names"]
        architecture = str(known["architecture"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, CamlucidaError):
            raise
        raise ModelError(
            f"{str(place / 'model.json')!r} is damaged; train anew, or load the weights with "
            f"{argument('architecture', Code('NAME'))}"
        ) from error
    loaded = load_model(str(file), architecture=architecture, class_names=tuple(names) or None)
    return replace(loaded, preprocess=preprocess)


# ---- heads --------------------------------------------------------------------------------------


def _probe(size: int) -> Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))


def _loaded(model: str, architecture: str | None, *, pretrained: bool) -> tuple[LoadedModel, str]:
    source = model.partition(":")[0]
    if Path(model).is_file():
        return load_model(model, architecture=architecture), str(architecture)
    if model in _LITE:
        return load_model(model, pretrained=pretrained), f"timm:{_LITE[model]}"
    if source not in {"timm", "torchvision"}:
        raise ModelError(
            f"{model!r} cannot be trained here; expected small, embedded, timm:NAME, torchvision:NAME or a "
            "checkpoint file with --architecture"
        )
    try:
        loaded = load_model(model, architecture=architecture, pretrained=pretrained)
    except ModelError as error:
        if pretrained and "could not be fetched" in str(error):
            raise ModelError(
                f"{str(error).partition(';')[0]}; start from a checkpoint file (--model FILE --architecture {model}), "
                "from the weights that install as a package (--model embedded), or from random ones (--random)"
            ) from error
        raise
    return loaded, model.partition("@")[0]


def _outputs(module: nn.Module, size: int) -> int:
    probe = _probe(size)
    try:
        with borrowed(module, probe) as quiet, torch.no_grad():
            found = quiet(probe)
    except Exception as error:  # networks for one size raise many kinds
        raise ModelError(
            f"the network takes no images of {size} x {size} pixels ({first_line(error)}); set another size (--size)"
        ) from error
    if not isinstance(found, Tensor) or found.ndim != 2:
        raise ModelError("the network returns no logits (N, classes), so it cannot be trained here")
    return int(found.shape[1])


def _new_head(module: nn.Module, count: int, classes: int, name: str) -> None:
    """Put a new last linear layer into a network."""
    reset = getattr(module, "reset_classifier", None)
    if callable(reset):
        reset(classes)
        return
    linear = [
        (path, inner)
        for path, inner in module.named_modules()
        if isinstance(inner, nn.Linear) and inner.out_features == count
    ]
    if not linear:
        raise ModelError(f"{name!r} has no last linear layer that could be replaced")
    path, old = linear[-1]
    parent, _, child = path.rpartition(".")
    setattr(
        module.get_submodule(parent),
        child,
        nn.Linear(old.in_features, classes, bias=old.bias is not None),
    )
