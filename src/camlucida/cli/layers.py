"""``camlucida layers``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text
from rich.tree import Tree

from camlucida.cli.shared.console import console, print_json, print_lines, print_table
from camlucida.cli.shared.listing import grid
from camlucida.cli.shared.model import NamedModel, takes_model
from camlucida.cli.shared.options import AsJson

if TYPE_CHECKING:
    from camlucida.models import LayerRow
    from camlucida.models.layers import ModelLayers

_GUIDE = 4  # columns that rich indents each level by


@takes_model
def layers(
    model: NamedModel,
    tree: Annotated[
        bool, typer.Option("--tree", help="Show every layer that can be explained, as a tree.")
    ] = False,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Show the modules that cannot be explained too, and why, as a tree."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show which layer of a model is explained by default, why, and which others to try.

    Those are the last blocks of each resolution: earlier ones give finer maps of simpler things. The weights of an
    architecture that has a name (timm:NAME, torchvision:NAME, hf:NAME) are not needed and not fetched.

    A layer's map has C x h x w cells. The stride is the distance of neighbouring cells in pixels of the input.
    What a cell sees is its receptive field: how many pixels it can depend on.
    The evidence is why an output is read as a map: operations (rows and columns were followed through everything
    that was done to them), probe (changing a quarter of the image changes the matching quarter of the map, in so many
    percent of the cells) or declared (by the model itself).
    """
    from camlucida.models import describe_layers

    # Preprocessing and outputs make no difference here, so that nothing is said of them.
    found = describe_layers(model.load(say=False, weights=False), model.size)
    chosen = [row for row in found.rows if every or not row.reason]
    if as_json:
        print_json({
            "model": found.model,
            "input": found.input,
            "default": found.default,
            "reason": found.reason,
            "candidates": [row.name for row in found.candidates],
            "layers": [row.to_dict() for row in chosen],
        })  # fmt: skip
        return
    terminal = console()
    without = ", without its weights" if model.is_named else ""
    print_lines(f"{found.model}, input {'x'.join(map(str, found.input))}{without}\n", style="bold")
    if not tree and not every and found.default is not None:
        _open(found)
        return
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
        terminal.print(f"\n★ is the default: {found.default}, as {found.reason}", soft_wrap=True)


_MOST = 12  # candidates of one resolution


def _open(found: ModelLayers) -> None:
    """The default and the candidates."""
    print_lines(f"{found.default} is explained by default: {found.reason}.\n")
    shown = found.candidates[-_MOST:]
    rows = [
        (
            f"{row.name}{' ★' if row.default else ''}", row.kind, _cells(row), _pair(row.stride),
            "" if row.field is None else str(row.field), _how(row),
        )
        for row in shown
    ]  # fmt: skip
    columns = ("layer", "module", "map", "stride", "sees", "evidence")
    table = grid(columns, ((cells, cells[0].endswith("★")) for cells in rows), left=columns)
    print_table(console(), table)
    count = sum(not row.reason for row in found.rows)
    print_lines(
        f"\nOne is chosen with --layer NAME, several are fused. {count} of {len(found.rows)} modules can be explained: "
        "--tree shows them, --all the others too."
    )


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
