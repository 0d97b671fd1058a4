"""``camlucida layers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from camlucida.cli.shared.console import console, print_json, print_lines
from camlucida.cli.shared.model import NamedModel, takes_model
from camlucida.cli.shared.options import AsJson

if TYPE_CHECKING:
    from camlucida.models import LayerRow

_GUIDE = 4  # columns that rich indents each level by


@takes_model
def layers(
    model: NamedModel,
    every: Annotated[
        bool, typer.Option("--all", help="Show the modules that cannot be explained too, and why.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the layers of a model that can be explained, and which one is the default.

    A layer's map has C x h x w cells. The stride is the distance of neighbouring cells in pixels of the input.
    What a cell sees is its receptive field: how many pixels it can depend on.
    The evidence is why an output is read as a map: operations (rows and columns were followed through everything
    that was done to them), probe (changing a quarter of the image changes the matching quarter of the map, in so many
    percent of the cells) or declared (by the model itself).
    """
    from camlucida.models import describe_layers

    # Preprocessing and outputs make no difference here, so that nothing is said of them.
    found = describe_layers(model.load(say=False), model.size)
    chosen = [row for row in found.rows if every or not row.reason]
    if as_json:
        print_json({
            "model": found.model,
            "input": found.input,
            "default": found.default,
            "reason": found.reason or None,
            "layers": [row.to_dict() for row in chosen],
        })  # fmt: skip
        return
    terminal = console()
    print_lines(f"{found.model}, input {'x'.join(map(str, found.input))}\n", style="bold")
    # Modules that do nothing would double the length of many a tree.
    drawn = [row for row in chosen if every or row.default or row.kind != "Identity"]
    if not drawn:
        print_lines(f"No layer can be explained: {found.reason}")
        return
    layout = _Layout.of(drawn, terminal.width if terminal.is_terminal else None)
    # A narrower terminal wraps the lines; nothing is cut off.
    terminal.width = max(terminal.width, layout.width)
    terminal.print(layout.tree(drawn))
    if not layout.whole_names:
        terminal.print("\nA layer's name is its path from the root, joined by dots.")
    if found.default is None:
        print_lines(f"\nNo layer can be explained by default: {found.reason}")
    else:
        terminal.print(f"\n★ is the default: {found.default}")


@dataclass(frozen=True)
class _Layout:
    """Widths of the columns: names (with the tree's lines), module class, map, stride."""

    names: int
    kinds: int
    maps: int
    whole_names: bool = True
    evidence: int = 0

    @classmethod
    def of(cls, rows: list[LayerRow], width: int | None) -> _Layout:
        """Whole names where they fit into the width, else their last parts."""
        kinds = max([len("module"), *(len(row.kind) for row in rows)]) + 2
        maps = max([len("map"), *(len(_cells(row)) for row in rows)]) + 2
        evidence = max([0, *(len(_how(row)) for row in rows)])
        shown = {name for row in rows for name in (row.name, *_above(row.name))}
        for whole in (True, False):
            ends = [_depth(n) * _GUIDE + len(n if whole else n.rpartition(".")[2]) for n in shown]
            layout = cls(
                max([len("layer"), *(end + 2 for end in ends)]) + 2, kinds, maps, whole, evidence
            )
            if width is None or layout.width <= width:
                break
        return layout

    @property
    def width(self) -> int:
        """Of the longest line."""
        return self.names + self.kinds + self.maps + len("stride  1000x1000 ") + self.evidence

    def tree(self, rows: list[LayerRow]) -> Tree:
        """Modules under the modules that hold them; what is known about each, in columns."""
        heads = f"{'layer':{self.names}}{'module':{self.kinds}}{'map':{self.maps}}stride  sees      evidence"
        tree = Tree(Text(heads, style="bold"), guide_style="dim")
        nodes = {"": tree}
        by_name = {row.name: row for row in rows}
        for row in rows:
            for name in (*reversed(_above(row.name)), row.name):
                if name not in nodes:
                    above = nodes[name.rpartition(".")[0]]
                    nodes[name] = above.add(self._label(name, by_name.get(name)))
        return tree

    def _label(self, name: str, row: LayerRow | None) -> Text:
        short = name if self.whole_names else name.rpartition(".")[2]
        if row is None:
            return Text(short, style="dim")
        room = self.names - _GUIDE * _depth(name)
        text = f"{short + ' ★' if row.default else short:{room}}{row.kind:{self.kinds}}"
        if row.reason:
            return Text(text + row.reason, style="dim")
        sees = "" if row.field is None else str(row.field)
        text += f"{_cells(row):{self.maps}}{_pair(row.stride):8}{sees:10}{_how(row)}"
        return Text(text.rstrip(), style="bold green" if row.default else "")


def _how(row: LayerRow) -> str:
    """By what evidence the output is read as a map, and how, where that is not channels first."""
    if row.evidence is None or row.grid is None:
        return ""
    measured = "" if row.evidence.agreement is None else f" {row.evidence.agreement:.0%}"
    read = "" if row.grid.layout == "nchw" else f", {row.grid}"
    return row.evidence.kind + measured + read


def _cells(row: LayerRow) -> str:
    return "" if row.shape is None else "x".join(map(str, row.shape))


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
