"""What loading a model gives, and what all its sources share."""

from __future__ import annotations

import logging
import socket
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn.parameter import is_lazy

from camlucida.common.arguments import Code, argument
from camlucida.common.errors import ModelError
from camlucida.common.grammar import nearest
from camlucida.common.optional import first_line
from camlucida.common.printable import few

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from camlucida.data.preprocess import Preprocess
    from camlucida.engine.reading import Outputs


@dataclass(frozen=True, repr=False)
class LoadedModel:
    """A classifier, ready to use, and what is known about it.

    Attributes:
        module: The network, in eval mode; on the CPU unless another device was asked for.
        name: Where it comes from, such as "embedded" or "torchvision:resnet50".
        preprocess: How a photo becomes its input; None where nothing says so.
        class_names: One name per output, in order; None where nothing says so.
        outputs: What its outputs are; None where that is not known. The module returns what targets take: of a
            network that ends in a softmax or sigmoid its logits (see `camlucida.engine.reading`).
        notes: What a user has to know about how it was loaded, such as what was assumed or left out, one
            sentence each; every explanation repeats them.

    Example:
        >>> preprocess = camlucida.Preprocess(size=(32, 32), resize=32)
        >>> loaded = camlucida.LoadedModel(model, "mine", preprocess, class_names=tuple("0123456789"))
        >>> camlucida.explain(loaded, photo).maps.shape
        torch.Size([1, 32, 32])
    """

    module: nn.Module
    name: str
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None
    outputs: Outputs | None = None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """A few lines: which network, what it takes and returns, and what has to be known of it."""
        weights = sum(p.numel() for p in self.module.parameters() if not is_lazy(p))
        device = next((str(p.device) for p in self.module.parameters()), "cpu")
        head = f"{type(self).__name__} {self.name}: {type(self.module).__name__}, {weights:,} weights on {device}"
        photos = "not known how photos become its inputs"
        if self.preprocess is not None:
            height, width = self.preprocess.size
            photos = f"takes photos, as {height} x {width} inputs"
        names = self.class_names
        classes = (
            [f"{len(names)} classes: {few(n.partition(',')[0] for n in names)}"] if names else []
        )
        notes = [f"note: {note}" for note in self.notes[:3]]
        return "\n  ".join([head, photos, *classes, *notes])

    def check_target(self, target: object) -> None:
        """Refuse a target that this model cannot be explained by; a classifier takes any.

        Raises:
            TargetError: saying what to pass.
        """


Loaded = TypeVar("Loaded", bound=LoadedModel)


def put_on(loaded: Loaded, device: str | torch.device | None) -> Loaded:
    """The model on a device; None leaves it where it is.

    Raises:
        ModelError: There is no such device.
    """
    if device is not None:
        try:
            loaded.module.to(torch.device(device))
        except (RuntimeError, AssertionError) as error:
            raise ModelError(
                f"the model cannot be put on device {str(device)!r}: {first_line(error)}"
            ) from error
    return loaded


def cannot_fetch(what: str, error: BaseException) -> ModelError:
    """The error for weights that could not be downloaded or read."""
    return ModelError(
        f"the weights of {what} could not be fetched ({first_line(error)}); without a network use "
        f"the model 'embedded', a checkpoint file with {argument('architecture', Code('NAME'))}, or random weights, "
        f"{argument('pretrained', False)}"
    )


def unknown_weights(package: str, model: str, tag: str, known: Sequence[str]) -> ModelError:
    """The error for weights that a model does not have."""
    return ModelError(
        f"{package} has no weights {tag!r} for {model}{nearest(tag, known)} "
        f"(there are: {', '.join(known) or 'none'})"
    )


@contextmanager
def short_wait(hub: Any) -> Iterator[bool]:
    """Spare the user a minute of retries where the model hub's name cannot even be resolved.

    Args:
        hub: The module `huggingface_hub.constants`, whose offline switch is set meanwhile.

    Yields:
        Whether the hub may be reachable: True behind a proxy, where names need not resolve.
    """
    host = urllib.parse.urlparse(hub.ENDPOINT).hostname
    reachable = not hub.HF_HUB_OFFLINE
    if reachable and host and not urllib.request.getproxies():
        try:
            socket.getaddrinfo(host, None)
        except OSError:
            reachable = False
    before = hub.HF_HUB_OFFLINE
    logger = logging.getLogger("timm.models._builder")
    level = logger.level
    hub.HF_HUB_OFFLINE = not reachable
    if not reachable:
        logger.setLevel(logging.CRITICAL)
    try:
        yield reachable
    finally:
        hub.HF_HUB_OFFLINE = before
        logger.setLevel(level)
