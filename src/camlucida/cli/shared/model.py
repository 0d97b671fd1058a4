"""The model of a command: one group of options, put into the signatures of all commands that take a model."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camlucida.cli.shared.console import complain
from camlucida.cli.shared.device import on_device
from camlucida.cli.shared.options import MODELS, model_option, option
from camlucida.common.errors import CamlucidaError, ModelError
from camlucida.common.files import CHECKPOINTS, check_regular

if TYPE_CHECKING:
    from camlucida.models import LoadedModel

_PANEL = "The model"


def _of_model(metavar: str, text: str) -> Any:
    made = option(metavar, text)
    made.rich_help_panel = _PANEL
    return made


Architecture = Annotated[
    str | None,
    _of_model(
        "NAME",
        "The architecture that a checkpoint file is for: timm:NAME, torchvision:NAME, hf:FOLDER, or your own "
        "function that returns it, package.module:factory or path/to/file.py:factory, whose code is run.",
    ),
]
DETAILS: Mapping[str, Any] = {
    "architecture": Architecture,
    "class_names": Annotated[
        Path | None,
        _of_model(
            "FILE",
            "A file with the names of the classes: one per line, or a JSON list. (default: the model's own names)",
        ),
    ],
    "outputs": Annotated[
        str | None,
        _of_model(
            "KIND",
            "What the model's outputs are: classes, labels, binary, regression, dense or embedding, or the activation "
            "that they come from, logits, softmax, log-softmax or sigmoid; with options as in labels:threshold=0.3 or "
            "classes:head=age. (default: what they look like, which is said)",
        ),
    ],
    "size": Annotated[
        str | None,
        _of_model("PIXELS", "Preprocessing: the side of the model's input, or HEIGHTxWIDTH."),
    ],
    "resize": Annotated[
        str | None,
        _of_model(
            "PIXELS",
            "Preprocessing: the length that a photo's shorter side gets before the crop, HEIGHTxWIDTH, or none.",
        ),
    ],
    "crop": Annotated[
        bool | None,
        typer.Option(
            "--crop/--no-crop",
            help="Preprocessing: cut the centre out of the resized photo, or resize to the size itself.",
            rich_help_panel=_PANEL,
            show_default=False,
        ),
    ],
    "mean": Annotated[
        str | None,
        _of_model("NUMBERS", "Preprocessing: mean of each channel, for pixels in [0, 1], as in 0.5,0.5,0.5."),
    ],
    "std": Annotated[
        str | None,
        _of_model(
            "NUMBERS", "Preprocessing: standard deviation of each channel, for pixels in [0, 1], as in 0.5,0.5,0.5."
        ),
    ],
    "interpolation": Annotated[
        str | None,
        _of_model("FILTER", "Preprocessing: nearest, bilinear, bicubic or lanczos."),
    ],
}  # fmt: skip
"""Options beside ``--model``, by the parameter's name; without a value each is ``None``."""


@dataclass(frozen=True)
class Chosen:
    """The model that a command was given, not loaded yet.

    Attributes:
        name: what :func:`camlucida.load_model` takes; ``None`` where none was named.
        how: its other arguments, those that were given.
    """

    name: str | None
    how: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that ``--size`` says."""
        size = self.how.get("preprocess", {}).get("size")
        return (size, size) if isinstance(size, int) else size

    @property
    def is_named(self) -> bool:
        """Whether it is an architecture that has a name and weights of its own, which are fetched."""
        return (self.name or "").partition(":")[0] in ("timm", "torchvision", "hf")

    def load(
        self,
        device: str | None = None,
        *,
        say: bool = True,
        name: str | None = None,
        weights: bool = True,
    ) -> LoadedModel:
        """The model, on a device.

        Args:
            device: such as ``"cuda"``; ``None`` for a GPU where there is one, which is said.
            say: print what was assumed, one line each.
            name: the model where none was named.
            weights: whether they matter; without, those of an architecture with a name are not fetched.

        Raises:
            CamlucidaError: it cannot be loaded.
        """
        from camlucida.models import load_model

        device = on_device(device)
        how = {**self.how, **({"pretrained": False} if self.is_named and not weights else {})}
        loaded = load_model(self.name or name or "embedded", **how, device=device)
        if say:
            for text in (*loaded.notes, *(loaded.outputs.notes if loaded.outputs else ())):
                complain(f"note: {text}")
        return loaded


EMBEDDED = Chosen("embedded")
NOBODY = Chosen(None)
"""Defaults of a command's model."""

Model = Annotated[Chosen, model_option()]
NamedModel = Annotated[Chosen, typer.Argument(metavar="MODEL", help=MODELS)]
AttackedModel = Annotated[
    Chosen, model_option("A copy of it is attacked. (default: a small network that is trained now)")
]
CleanModel = Annotated[
    Chosen,
    typer.Option(
        "--clean",
        "--model",
        "-m",
        metavar="NAME|FILE",
        help=f"{MODELS} A copy of it is attacked; with --fooled it is the clean model. (default: a small network that "
        "is trained now)",
    ),
]
"""Annotations of a command's parameter ``model``, for :func:`takes_model`."""
_OTHER = "The weights of the clean model after {}: a checkpoint file for the same architecture, or a model's name."
FooledModel = Annotated[
    str | None,
    option(
        "FILE|NAME", _OTHER.format("the fine-tuning, such as fooled.pt of camlucida train sham")
    ),
]
ControlModel = Annotated[
    str | None, option("FILE|NAME", _OTHER.format("the same fine-tuning without an attack"))
]


def takes_model(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a model: its parameter ``model`` becomes ``--model`` and all of :data:`DETAILS`.

    The parameter is annotated as a :class:`Chosen`, which the command gets, with the option of its name.
    """
    written = inspect.signature(command, eval_str=True)
    details = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=kind)
        for name, kind in DETAILS.items()
    ]

    @functools.wraps(command)
    def run(**given: Any) -> Any:
        values = {name: given.pop(name) for name in DETAILS}
        _check_file(given["model"])
        return command(**{**given, "model": Chosen(given["model"], how_of(values))})

    parameters: list[inspect.Parameter] = []
    for parameter in written.parameters.values():
        parameter = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)  # noqa: PLW2901
        if parameter.name != "model":
            parameters.append(parameter)
            continue
        default = (
            parameter.default if parameter.default is parameter.empty else parameter.default.name
        )
        text: Any = str if default is not None else str | None
        annotation = Annotated[text, *parameter.annotation.__metadata__]
        parameters += [parameter.replace(annotation=annotation, default=default), *details]
    run.__signature__ = written.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    del run.__wrapped__
    return run


def _check_file(name: str | None) -> None:
    """Refuse a checkpoint that is not there before anything heavy is imported."""
    if name is not None and ":" not in name and name.lower().endswith(CHECKPOINTS):
        check_regular(Path(name), "checkpoint file", ModelError)


def how_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of :func:`camlucida.load_model` out of the values of the options; those not given are left out.

    Raises:
        CamlucidaError: a text is no size or number.
    """
    given = {name: value for name, value in values.items() if value is not None}
    how: dict[str, Any] = {}
    for name in ("architecture", "class_names", "outputs"):
        if name in given:
            how[name] = given.pop(name)
    for name in ("size", "resize"):
        if name in given:
            given[name] = _size(name, given[name])
    for name in ("mean", "std"):
        if name in given:
            given[name] = _numbers(name, given[name])
    return {**how, "preprocess": given} if given else how


_DIGITS = 5
"""Of a side in pixels."""


def _size(name: str, text: str) -> int | tuple[int, int] | None:
    if name == "resize" and text.strip().lower() == "none":
        return None
    found = re.fullmatch(r"([1-9]\d*)(?:[x,]([1-9]\d*))?", text.strip().lower())
    if found is None or max(map(len, filter(None, found.groups()))) > _DIGITS:
        raise CamlucidaError(
            f"--{name} takes 1 to {10**_DIGITS - 1} pixels, such as 224 or 224x224 (height x width), got {text!r:.60}"
        )
    return (int(found[1]), int(found[2])) if found[2] else int(found[1])


def _numbers(name: str, text: str) -> float | tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.replace("/", ",").split(","))
    except ValueError as error:
        raise CamlucidaError(
            f"--{name} takes numbers, such as 0.5 or 0.485,0.456,0.406, got {text!r}"
        ) from error
    return numbers[0] if len(numbers) == 1 else numbers
