"""One door to all face embedders."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import nn

from camlucida.common.errors import ModelError
from camlucida.common.files import CHECKPOINTS
from camlucida.common.grammar import nearest
from camlucida.data.preprocess import Channels, Preprocess
from camlucida.faces.embedder import Embedder, centred
from camlucida.faces.networks import dlib_net, facenet, iresnet, mobilefacenet
from camlucida.models.loaded import put_on

PRESETS: dict[str, tuple[Channels, tuple[float, ...], tuple[float, ...]]] = {
    "arcface": ("rgb", (0.5,) * 3, (0.5,) * 3),
    "adaface": ("bgr", (0.5,) * 3, (0.5,) * 3),
    "mobilefacenet": ("rgb", mobilefacenet.MEAN, mobilefacenet.STD),
    "facenet": ("rgb", facenet.MEAN, facenet.STD),
    "dlib": ("rgb", dlib_net.MEAN, dlib_net.STD),
}
"""Colour order, mean and standard deviation (pixels in 0 to 1) that a network was trained with."""

ARCHITECTURES = (
    "dlib", "mobilefacenet", "facenet", "iresnet18", "iresnet34", "iresnet50", "iresnet100", "iresnet101",
)  # fmt: skip

# Thresholds: dlib gives its own, below which 1.0 % of 2,077 pairs of different people lie; about the mean face as
# many lie above 0.49; 0.1 % of them lie above 0.4 of MobileFaceNet.
_OPTIONS: dict[str, dict[str, Any]] = {
    "dlib": {"align": "dlib-150", "compare": "distance", "threshold": -0.6, "layer": "levels.2"},
    "mobilefacenet": {"threshold": 0.4, "layer": "conv_6_sep"},
    "facenet": {"align": "facenet-160", "layer": "repeat_2"},
    "iresnet": {"layer": "layer4"},
}
_CENTRED_COSINE = 0.49


def load_embedder(
    spec: str = "dlib",
    *,
    architecture: str | None = None,
    file: str | Path | None = None,
    preset: str | None = None,
    device: str | torch.device | None = None,
) -> Embedder:
    """Load a face embedder, with its size, colours, alignment and threshold.

    ======================  ==========================================================================
    spec                    embedder
    ======================  ==========================================================================
    ``dlib``                dlib's ResNet, 128 numbers, from the installed package
                            face-recognition-models: the default, no network needed
    ``dlib:centred``        the same, compared by the cosine about the mean face (on 63 people with varied
                            pictures this separated a little worse than the distance)
    ``mobilefacenet:FILE``  MobileFaceNet, 512 numbers; an ``.onnx`` file or a state dict
    ``iresnet50:FILE``      IResNet-18, 34, 50, 100 or 101 of ArcFace or AdaFace; ``iresnet:FILE`` reads the
                            depth from the file
    ``facenet:FILE``        Inception-ResNet-v1 of FaceNet
    ======================  ==========================================================================

    Checkpoints are read without running code (``weights_only``).

    Args:
        spec: what to load, as above; or a file, with ``architecture``.
        architecture: the network of a file: one of :data:`ARCHITECTURES`, or ``"iresnet"``.
        file: the weights, where ``spec`` names only the network.
        preset: colour order and normalisation, one of :data:`PRESETS`; by default that of the network, for an
            IResNet that of the layout of its file (AdaFace is BGR, ArcFace RGB).
        device: where to put it; the CPU by default.

    Returns:
        The embedder, in eval mode. dlib's and MobileFaceNet's have a threshold; find others on labelled pairs.

    Raises:
        ModelError: an unknown name, or a file that is missing, damaged, contains code or does not fit.

    Example:
        >>> embedder = camlucida.faces.load_embedder("dlib")
        >>> embedder.size, embedder.threshold
        ((150, 150), -0.6)
    """
    name, _, given = spec.partition(":")
    if spec != "dlib:centred" and (
        Path(spec).is_file() or (spec.lower().endswith(CHECKPOINTS) and not _known(name))
    ):
        if architecture is None:
            raise ModelError(
                f"{spec!r} holds weights only: name their architecture, one of {', '.join(ARCHITECTURES)}"
            )
        name, given = architecture, spec
    elif architecture is not None:
        raise ModelError(f"architecture is only for a file, and {spec!r} is not a file here")
    if file is not None:
        if given:
            raise ModelError(f"two files were given: {given!r} and {str(file)!r}")
        given = str(file)
    if not _known(name):
        raise ModelError(
            f"unknown face embedder {name!r}; there are "
            f"{', '.join(ARCHITECTURES)}{nearest(name, ARCHITECTURES)}"
        )
    embedder = _load(name, given)
    if preset is not None:
        if preset not in PRESETS:
            raise ModelError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
        embedder = replace(embedder, preprocess=preprocess_for(preset, embedder.size[0]))
    return put_on(embedder, device)


def preprocess_for(preset: str, size: int) -> Preprocess:
    """From an aligned crop of any size to the input of a network trained with these colours."""
    channels, mean, std = PRESETS[preset]
    return Preprocess(
        size=(size, size), resize=(size, size), crop=False, mean=mean, std=std, channels=channels
    )


def _known(name: str) -> bool:
    return name in ARCHITECTURES or name == "iresnet"


def _load(name: str, given: str) -> Embedder:
    kind = re.sub(r"\d", "", name)
    if kind == "dlib":
        # It was trained for distances, and people are told apart at 0.6.
        is_centred = given == "centred"
        module: nn.Module = dlib_net.load_dlib(None if is_centred or not given else given)
        found = _embedder("dlib", module, "dlib", dlib_net.SIZE, **_OPTIONS[kind])
        if not is_centred:
            return found
        return replace(
            centred(found, dlib_centre()), name="dlib:centred", threshold=_CENTRED_COSINE
        )
    if not given:
        raise ModelError(
            f"{name} needs the file of its weights: {name}:FILE. Without one use the embedded 'dlib'"
        )
    preset = kind
    if kind == "mobilefacenet":
        module, size = mobilefacenet.load_mobilefacenet(given), mobilefacenet.SIZE
    elif kind == "facenet":
        module, size = facenet.load_facenet(given), facenet.SIZE
    else:
        depth = name.removeprefix(kind)
        module, preset = iresnet.load_iresnet(given, int(depth) if depth else None)
        size = iresnet.SIZE
    return _embedder(f"{name}:{Path(given).name}", module, preset, size, **_OPTIONS[kind])


def _embedder(name: str, module: nn.Module, preset: str, size: int, **options: Any) -> Embedder:
    return Embedder(module=module, name=name, preprocess=preprocess_for(preset, size), **options)


def dlib_centre() -> torch.Tensor:
    """The mean of dlib's embeddings over 63 people, ``(128,)``; its length is 1.33, that of an embedding 1.45.

    Measured on the people of ``camlucida.faces.photos.SOURCES``, the mean of each person's photos first.
    """
    text = (files("camlucida.faces") / "dlib_centre.txt").read_text("ascii")
    return torch.tensor([float(value) for value in text.split()])
