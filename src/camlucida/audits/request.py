"""What an audit is asked: model, data, methods, and the words shared by all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from camlucida.common.progress import Say
from camlucida.data.preprocess import Preprocess
from camlucida.models import LoadedModel


@dataclass(frozen=True)
class Request:
    """What an audit is asked to do.

    Attributes:
        model: as the user gave it.
        module: the network itself.
        name: of the model, for people.
        inputs: ``(N, C, H, W)``, what the images have become.
        methods: to be judged.
        preprocess: how photos become inputs.
        layer: the explained layer; the methods' own default where it is ``None``.
        quick: minutes rather than hours.
        seed: of everything.
        batch_size: images at a time.
        labels: whether small networks may be trained, as the check with shuffled labels needs.
        folder: where finished parts are kept.
        say: told about the progress.
    """

    model: nn.Module | LoadedModel
    module: nn.Module
    name: str
    inputs: Tensor
    methods: tuple[Tested, ...]
    preprocess: Preprocess | None = None
    layer: str | None = None
    quick: bool = True
    seed: int = 0
    batch_size: int = 16
    labels: bool = True
    folder: Path | None = None
    say: Say = field(default=lambda *_: None, repr=False)

    def of(self, chosen: Callable[[Tested], bool]) -> tuple[Tested, ...]:
        """Those of the methods."""
        return tuple(t for t in self.methods if chosen(t))


@dataclass(frozen=True)
class Tested:
    """A method as it is put to the test.

    Attributes:
        label: for tables.
        name: registered name.
        options: of the method.
        own_layers: whether it explains the layers that it chooses itself, and not the audit's.
        given: the options that the user wrote.
    """

    label: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    own_layers: bool = False
    given: Mapping[str, Any] = field(default_factory=dict)
