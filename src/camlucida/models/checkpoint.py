"""Weights from a file: never runs code that the file contains."""

from __future__ import annotations

import argparse
import pickle
import re
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from camlucida.common.errors import ModelError
from camlucida.common.optional import first_line, require
from camlucida.models.huggingface import (
    build_huggingface,
    class_names_of_huggingface,
    preprocess_of_folder,
)
from camlucida.models.loaded import LoadedModel
from camlucida.models.timm_models import (
    build_timm,
    class_names_of_timm,
    classifier_keys_of_timm,
    preprocess_of_timm,
)
from camlucida.models.torchvision_models import build_torchvision, describe_torchvision

if TYPE_CHECKING:
    from camlucida.data.preprocess import Preprocess

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar", ".safetensors")
_WRAPPERS = (
    "state_dict_ema", "model_ema", "state_dict", "model_state_dict", "model", "net", "network",
    "weights", "params",
)  # fmt: skip
_PREFIXES = ("module.", "model.", "_orig_mod.")


def load_checkpoint(file: str, architecture: str | None) -> LoadedModel:
    """Load a checkpoint file into an architecture with random weights.

    The number of classes is read from the checkpoint. The preprocess is that of the architecture's
    usual weights: if the model was trained otherwise, replace it.

    Args:
        file: A file with a state dict, plain or under one of the usual keys ("state_dict", "model", ...), with or
            without a prefix that all its names share ("module.", "model.", "_orig_mod.").
        architecture: "timm:NAME", "torchvision:NAME" or "hf:FOLDER".

    Raises:
        ModelError: The file is missing, damaged, contains code or does not fit the architecture.
    """
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"no such checkpoint file: {file!r}")
    source, _, name = (architecture or "").partition(":")
    if source not in {"timm", "torchvision", "hf"} or not name:
        raise ModelError(
            f"a checkpoint file holds weights only; for {file!r} name their architecture, such as timm:resnet18, "
            f"torchvision:resnet50 or hf:FOLDER (architecture was {architecture!r})"
        )
    state = read_state_dict(path)
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None
    if source == "timm":
        count = _num_classes(state, path, classifier_keys_of_timm(name))
        module = build_timm(name, count)
        preprocess, class_names = preprocess_of_timm(module), class_names_of_timm(module)
    elif source == "torchvision":
        count = _num_classes(state, path)
        module = build_torchvision(name, count, state)
        preprocess, class_names = describe_torchvision(name)
    else:
        count = _num_classes(state, path)
        module = build_huggingface(name, count)
        preprocess, class_names = preprocess_of_folder(name), class_names_of_huggingface(module)
    load_state(module, state, f"{path.name!r} does not fit {architecture}")
    if class_names is not None and len(class_names) != count:
        class_names = None
    return LoadedModel(module.eval(), f"{architecture}@{path.name}", preprocess, class_names)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint file, by name; no code in the file is ever run.

    Args:
        path: The file, as for `load_checkpoint`.

    Returns:
        The tensors on the CPU, unwrapped and without common prefixes.

    Raises:
        ModelError: The file is missing, damaged, contains code or holds no state dict.
    """
    name = repr(str(path))
    if not path.is_file():
        raise ModelError(f"no such checkpoint file: {name}")
    with path.open("rb") as stream:
        head = stream.read(64)
    if not head:
        raise ModelError(f"{name} is an empty file")
    if head.startswith(b"version https://git-lfs"):
        raise ModelError(f"{name} is only a Git LFS pointer; fetch the file itself (git lfs pull)")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    return _without_prefix(_unwrapped(content, name))


def _read_safetensors(path: Path) -> Any:
    safetensors = require("safetensors.torch")
    try:
        return safetensors.load_file(path, device="cpu")
    except Exception as error:
        raise ModelError(
            f"{str(path)!r} is damaged or not a safetensors file: {first_line(error)}"
        ) from error


def _read_pickle(path: Path) -> Any:
    name = repr(str(path))
    # timm's and many other training scripts store their options; a Namespace only holds values
    allow: Any = getattr(torch.serialization, "safe_globals", None)
    try:
        with allow([argparse.Namespace]) if allow else nullcontext(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on protocols and TorchScript: the errors say more
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        text = str(error)
        wants = re.search(r"Unsupported (?:global|class|operand)[^\n]*", text)
        if isinstance(error, pickle.UnpicklingError) and wants and "operand" not in wants[0]:
            named = re.search(r"GLOBAL ([\w.]+)|class ([\w.]+)", text)
            what = next(filter(None, named.groups()), "") if named else ""
            raise ModelError(
                f"{name} contains code{f' ({what})' if what else ''}, which is never run; save the "
                "weights alone: torch.save(model.state_dict(), path)"
            ) from error
        if "TorchScript" in text:
            raise ModelError(
                f"{name} is a TorchScript program; save model.state_dict() of the original instead"
            ) from error
        raise ModelError(
            f"{name} is damaged or not a PyTorch checkpoint ({_short(error)})"
        ) from error


def _short(error: Exception) -> str:
    """PyTorch's own reason, out of a page of advice."""
    found = re.search(r"WeightsUnpickler error: ([^\n]*)", str(error))
    return (found and found[1].strip()) or first_line(error)


def _unwrapped(content: Any, name: str) -> dict[str, Tensor]:
    """The state dict inside a training checkpoint."""
    for _ in range(4):
        if not isinstance(content, Mapping):
            break
        inner = next((content[k] for k in _WRAPPERS if isinstance(content.get(k), Mapping)), None)
        if inner is None:
            break
        content = inner
    if isinstance(content, Mapping):
        state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
        if state:
            return state
    raise ModelError(
        f"{name} holds no state dict; expected names mapped to tensors, plain or under "
        f"{', '.join(_WRAPPERS[2:5])}"
    )


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what DataParallel, Lightning and torch.compile put before every name."""
    state = {key: value for key, value in state.items() if key != "n_averaged"}
    while prefix := next((p for p in _PREFIXES if all(k.startswith(p) for k in state)), None):
        if not state:
            break
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state


def _num_classes(state: Mapping[str, Tensor], path: Path, layers: Sequence[str] = ()) -> int:
    """How many outputs the checkpoint's classifier has."""
    for layer in layers:
        if f"{layer}.weight" in state:
            return int(state[f"{layer}.weight"].shape[0])
    weights = [value for key, value in state.items() if key.endswith("weight") and value.ndim == 2]
    heads = [
        value
        for key, value in state.items()
        if value.ndim == 4 and re.match(r"(classifier|head|fc)\b.*weight$", key)
    ]
    if not weights and not heads:
        raise ModelError(
            f"{str(path)!r} has no classifier: no two-dimensional weight among its names"
        )
    return int((weights or heads)[-1].shape[0])


def load_state(
    module: nn.Module, state: Mapping[str, Tensor], problem: str, *, finite: bool = False
) -> None:
    """Load every tensor, or say which do not fit.

    Args:
        module: takes the tensors.
        state: its tensors by name; counters of batches may be missing, as they are in older files.
        problem: how the error begins.
        finite: refuse values that are not finite.

    Raises:
        ModelError: Names are missing or left over, shapes differ, or values are not finite.
    """
    own = module.state_dict()
    counters = {key for key in own if key.endswith("num_batches_tracked")}
    faults = {
        "missing": [key for key in own if key not in state and key not in counters],
        "unexpected": [key for key in state if key not in own],
        "of another shape": [
            f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
            for key in own
            if key in state and own[key].shape != state[key].shape
        ],
    }
    said = [
        f"{len(keys)} {fault} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
        for fault, keys in faults.items()
        if keys
    ]
    bad = [key for key, value in state.items() if finite and not value.isfinite().all()]
    if bad and not said:
        said = [f"{bad[0]} has values that are not finite"]
    if said:
        raise ModelError(f"{problem}: {'; '.join(said)}")
    kept = {key: own[key] for key in counters if key not in state}
    module.load_state_dict({**state, **kept}, strict=True)
