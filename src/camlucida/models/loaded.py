"""What loading a model gives, and what all its sources share."""

from __future__ import annotations

import difflib
import importlib
import logging
import socket
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from camlucida.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

    from camlucida.preprocess import Preprocess


@dataclass(frozen=True)
class LoadedModel:
    """A classifier, ready to use, and what is known about it.

    Attributes:
        module: The network, in eval mode; on the CPU unless another device was asked for.
        name: Where it comes from, such as "embedded" or "torchvision:resnet50".
        preprocess: How a photo becomes its input; None where nothing says so.
        class_names: One name per output, in order; None where nothing says so.
    """

    module: nn.Module
    name: str
    preprocess: Preprocess | None
    class_names: tuple[str, ...] | None

    def check_target(self, target: object) -> None:
        """Refuse a target that this model cannot be explained by; a classifier takes any.

        Raises:
            TargetError: saying what to pass.
        """


def require(package: str, extra: str = "models") -> Any:
    """Import an optional package.

    Args:
        package: Name of the module to import.
        extra: The extra of camlucida that installs it.

    Returns:
        The module.

    Raises:
        ModelError: It is not installed, or its import fails.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == package.partition(".")[0]:
            reason = f"{package} is not installed"
        else:
            reason = f"{package} cannot be imported ({first_line(error)})"
        raise ModelError(f'{reason}; install it with: pip install "camlucida[{extra}]"') from error


def first_line(error: BaseException) -> str:
    """The first line of an error's text, at most 200 characters, or the error's type.

    PyTorch's page on weights_only is not passed on: it advises to run the file's code.
    """
    lines = str(error).strip().splitlines()
    if lines and "weights_only" in lines[0]:
        return "it contains code, which is never run, or cannot be read as plain weights"
    return lines[0][:200].rstrip(" .") if lines else type(error).__name__


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error for an unknown name: up to three similar names, or nothing."""
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def cannot_fetch(what: str, error: BaseException) -> ModelError:
    """The error for weights that could not be downloaded or read."""
    return ModelError(
        f"the weights of {what} could not be fetched ({first_line(error)}); without a network use "
        "the model 'embedded', a checkpoint file with architecture=..., or pretrained=False"
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
