"""``camlucida layers``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text
from rich.tree import Tree

from camlucida.cli.shared.console import console, print_json
from camlucida.cli.shared.options import MODELS, Architecture, AsJson, option
from camlucida.common.errors import CamlucidaError, LayerError, ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from camlucida.models import LoadedModel

_GUIDE = 4  # columns that rich indents each level by


def layers(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=MODELS)],
    architecture: Architecture = None,
    size: Annotated[
        str | None,
        option("HxW", "The height and width of the input, in pixels. (default: the model's own)"),
    ] = None,
    every: Annotated[
        bool, typer.Option("--all", help="Show the modules that cannot be explained too, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the layers of a model that can be explained, and which one is the default.

    A layer's map has C x h x w cells. The stride is the distance of neighbouring cells in pixels of the input.
    What a cell sees is its receptive field: how many pixels it can depend on.
    """
    from camlucida.models import load_model

    wanted = None if size is None else _size(size)
    loaded = load_model(model, architecture=architecture)
    inputs = _inputs(loaded, wanted)
    rows, default = _survey(loaded, inputs)
    chosen = [row for row in rows if every or row.candidate]
    shape = tuple(inputs.shape[1:])
    if as_json:
        print_json({
            "model": loaded.name,
            "input": shape,
            "default": default,
            "layers": [row.record() for row in chosen],
        })  # fmt: skip
        return
    terminal = console()
    terminal.print(
        f"{loaded.name}, input {'x'.join(map(str, shape))}\n", style="bold", markup=False
    )
    # Modules that do nothing would double the length of many a tree.
    drawn = [row for row in chosen if every or row.default or row.kind != "Identity"]
    layout = _Layout.of(drawn, terminal.width if terminal.is_terminal else None)
    # A narrower terminal wraps the lines; nothing is cut off.
    terminal.width = max(terminal.width, layout.width)
    terminal.print(layout.tree(drawn))
    if not layout.whole_names:
        terminal.print("\nA layer's name is its path from the root, joined by dots.")
    if default is None:
        terminal.print("\nNo layer can be explained; methods that explain the input still work.")
    else:
        terminal.print(f"\n★ is the default: {default}", markup=False)


@dataclass
class _Row:
    """A module, as far as it is known."""

    name: str
    kind: str
    shape: tuple[int, int, int] | None = None
    stride: tuple[float, float] | None = None
    field: Any = None
    reason: str = ""
    default: bool = False

    @property
    def candidate(self) -> bool:
        return not self.reason

    @property
    def cells(self) -> str:
        return "" if self.shape is None else "x".join(map(str, self.shape))

    def record(self) -> dict[str, Any]:
        seen: Any = None
        if self.field is not None:
            seen = "global" if self.field.is_global else self.field.size
        return {
            "name": self.name,
            "class": self.kind,
            "shape": self.shape,
            "stride": self.stride,
            "receptive_field": seen,
            "candidate": self.candidate,
            "reason": self.reason or None,
            "default": self.default,
        }


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,5})(?:[x,](\d{1,5}))?", text.strip().lower())
    height, width = (int(found[1]), int(found[2] or found[1])) if found else (0, 0)
    if not height or not width:
        raise CamlucidaError(f"--size is HEIGHTxWIDTH in pixels, such as 224x224, got {text!r}")
    return height, width


def _inputs(loaded: LoadedModel, size: tuple[int, int] | None) -> Tensor:
    """One picture of noise, as the model expects it."""
    import torch

    preprocess = loaded.preprocess
    channels = 1 if preprocess is not None and preprocess.channels == "gray" else 3
    if size is None:
        size = (224, 224) if preprocess is None else preprocess.size
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, channels, *size, generator=generator)


def _survey(loaded: LoadedModel, inputs: Tensor) -> tuple[list[_Row], str | None]:
    """Every module of the model in its order, and the default layer."""
    from camlucida.engine.layers import default_layer, list_layers
    from camlucida.engine.layers.receptive_field import receptive_fields

    module = loaded.module
    try:
        infos = {info.name: info for info in list_layers(module, inputs)}
    except CamlucidaError:
        raise
    except Exception as error:
        size = "x".join(map(str, inputs.shape[-2:]))
        raise ModelError(
            f"{loaded.name} does not run on an input of {size} pixels ({error}); see --size"
        ) from error
    fields = receptive_fields(module, inputs)
    default: str | None
    try:
        default = default_layer(module, inputs)
    except LayerError:
        default = None
    rows = []
    for name, child in module.named_modules():
        if not name:
            continue
        info = infos.get(name)
        if info is None:
            rows.append(_Row(name, type(child).__name__, reason="does not run by itself"))
            continue
        row = _Row(name, info.kind, info.shape, field=fields.get(name), default=name == default)
        if info.shape is not None:
            row.stride = (inputs.shape[-2] / info.shape[1], inputs.shape[-1] / info.shape[2])
        if not info.candidate:
            row.reason = _reason(info.calls, info.shape)
        rows.append(row)
    return rows, default


def _reason(calls: int, shape: tuple[int, int, int] | None) -> str:
    """Why a module that ran is no candidate."""
    if calls > 1:
        return f"runs {calls} times"
    return "no spatial map" if shape is None else "a single cell"


@dataclass(frozen=True)
class _Layout:
    """Widths of the columns: names (with the tree's lines), module class, map, stride."""

    names: int
    kinds: int
    maps: int
    whole_names: bool = True

    @classmethod
    def of(cls, rows: list[_Row], width: int | None) -> _Layout:
        """Whole names where they fit into the width, else their last parts."""
        kinds = max([len("module"), *(len(row.kind) for row in rows)]) + 2
        maps = max([len("map"), *(len(row.cells) for row in rows)]) + 2
        shown = {name for row in rows for name in (row.name, *_above(row.name))}
        for whole in (True, False):
            ends = [_depth(n) * _GUIDE + len(n if whole else n.rpartition(".")[2]) for n in shown]
            layout = cls(max([len("layer"), *(end + 2 for end in ends)]) + 2, kinds, maps, whole)
            if width is None or layout.width <= width:
                break
        return layout

    @property
    def width(self) -> int:
        """Of the longest line."""
        return self.names + self.kinds + self.maps + len("stride  1000x1000")

    def tree(self, rows: list[_Row]) -> Tree:
        """Modules under the modules that hold them; what is known about each, in columns."""
        heads = f"{'layer':{self.names}}{'module':{self.kinds}}{'map':{self.maps}}stride  sees"
        tree = Tree(Text(heads, style="bold"), guide_style="dim")
        nodes = {"": tree}
        by_name = {row.name: row for row in rows}
        for row in rows:
            for name in (*reversed(_above(row.name)), row.name):
                if name not in nodes:
                    above = nodes[name.rpartition(".")[0]]
                    nodes[name] = above.add(self._label(name, by_name.get(name)))
        return tree

    def _label(self, name: str, row: _Row | None) -> Text:
        short = name if self.whole_names else name.rpartition(".")[2]
        if row is None:
            return Text(short, style="dim")
        room = self.names - _GUIDE * _depth(name)
        text = f"{short + ' ★' if row.default else short:{room}}{row.kind:{self.kinds}}"
        if row.reason:
            return Text(text + row.reason, style="dim")
        sees = "" if row.field is None else str(row.field)
        text += f"{row.cells:{self.maps}}{_pair(row.stride):8}{sees}"
        return Text(text.rstrip(), style="bold green" if row.default else "")


def _depth(name: str) -> int:
    return name.count(".") + 1


def _above(name: str) -> list[str]:
    """The modules that hold a module, the nearest first."""
    parts = name.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def _pair(stride: tuple[float, float] | None) -> str:
    """One number where both are equal."""
    if stride is None:
        return ""
    height, width = (f"{side:.3g}" for side in stride)
    return height if height == width else f"{height}x{width}"
