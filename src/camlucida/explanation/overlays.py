"""Maps to pictures: colours, overlays, grids."""

from __future__ import annotations

import io
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFont, ImageShow
from torch import Tensor

from camlucida.common.errors import CamlucidaError
from camlucida.common.grammar import nearest
from camlucida.common.limits import NotNegative, Share, check_fields
from camlucida.engine.maps import resize

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = "inferno"
"""Default colour map: rises evenly in brightness, so it is read right in grey and by the colour-blind."""

SIGNED = "PuOr_r"
"""Colour map of maps with negative values: light at 0, told apart by the colour-blind."""

_LONGEST = 1024  # pixels of a drawn picture's longer side


@dataclass(frozen=True)
class View:
    """A picture and the part of it that the model saw.

    Attributes:
        picture: 8-bit RGB.
        box: (left, top, right, bottom) in pixels of the picture; may lie outside where the model saw padding.
    """

    picture: Image.Image
    box: tuple[float, float, float, float]

    @classmethod
    def whole(cls, picture: Image.Image) -> View:
        """A picture all of which the model saw."""
        return cls(picture, (0, 0, picture.width, picture.height))

    def scaled(self, longest: int = _LONGEST) -> View:
        """The same view, no side longer than ``longest`` pixels."""
        width, height = self.picture.size
        factor = min(1.0, longest / max(width, height))
        if factor == 1:
            return self
        size = (max(1, round(width * factor)), max(1, round(height * factor)))
        left, top, right, bottom = (edge * factor for edge in self.box)
        return View(self.picture.resize(size, Image.Resampling.LANCZOS), (left, top, right, bottom))

    @property
    def cut(self) -> bool:
        """Whether a part of the picture was cut away before the model saw it."""
        left, top, right, bottom = (round(edge) for edge in self.box)
        width, height = self.picture.size
        return left > 0 or top > 0 or right < width or bottom < height

    def cropped(self) -> Image.Image:
        """What the model saw; black where it saw padding."""
        left, top, right, bottom = (round(edge) for edge in self.box)
        return self.picture.crop((left, top, max(right, left + 1), max(bottom, top + 1)))


@dataclass(frozen=True)
class Opened:
    """Makes the view of a picture, which can be opened again.

    Attributes:
        read: opens it.
        box: what the model saw, see :class:`View`.
        picture: it, where it is held in memory.
    """

    read: Callable[[], Image.Image]
    box: tuple[float, float, float, float]
    picture: Image.Image | None = None

    def __call__(self) -> View:
        """The view; raises ``ImageError`` where the picture is gone."""
        return View(self.read() if self.picture is None else self.picture, self.box)


class LazyViews(Sequence[View]):
    """The pictures behind a batch, made when they are first drawn.

    Args:
        makers: one function per image.
        class_names: names of the classes, where known.

    Example:
        >>> camlucida.explain(model, images).views[0].picture.size
        (32, 32)
    """

    def __init__(self, makers: Sequence[Any], class_names: Sequence[str] | None = None) -> None:
        self.makers = list(makers)
        self.class_names = class_names

    def named(self, class_names: Sequence[str] | None) -> LazyViews:
        """The same pictures, with these names of the classes."""
        return LazyViews(self.makers, class_names)

    def light(self) -> LazyViews:
        """The same pictures, opened again where that is possible, not held in memory."""
        makers = [replace(m, picture=None) if isinstance(m, Opened) else m for m in self.makers]
        return LazyViews(makers, self.class_names)

    @classmethod
    def joined(cls, parts: Sequence[LazyViews]) -> LazyViews:
        """The pictures of all parts."""
        return cls([m for part in parts for m in part.makers], parts[0].class_names)

    def __len__(self) -> int:
        return len(self.makers)

    def __getitem__(self, index: Any) -> Any:
        """One view, or those of a slice."""
        if isinstance(index, slice):
            return LazyViews([_alone(maker) for maker in self.makers[index]], self.class_names)
        return self.makers[index]()


def _alone(maker: Callable[[], View]) -> Callable[[], View]:
    """The same, with tensors of its own in place of parts of a batch."""
    if not isinstance(maker, partial):
        return maker
    own = (a.detach().clone() if isinstance(a, Tensor) else a for a in maker.args)
    return partial(maker.func, *own, **maker.keywords)


@dataclass(frozen=True)
class Style:
    """How maps are drawn.

    Attributes:
        alpha: opacity of the map over the picture, 0 to 1; 0.6 by default.
        colours: a matplotlib colour map; by default ``"inferno"``, and ``"PuOr_r"`` with light at 0 for a map with
            negative values.
        largest: the value that is drawn brightest, in all images alike; by default each map's own largest one where
            it is above 1 or negative values are drawn, else 1.

    Example:
        >>> style = camlucida.explanation.Style(alpha=0.8, colours="viridis")
        >>> dataclasses.replace(camlucida.explain(model, images), style=style).overlay().size
        (32, 32)
    """

    alpha: Share = 0.6
    colours: str | None = None
    largest: NotNegative | None = None

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            CamlucidaError: naming the one that does not fit.
        """
        check_fields(self)
        if self.colours is not None:
            import matplotlib as mpl

            if self.colours not in mpl.colormaps:
                raise CamlucidaError(
                    f"matplotlib has no colour map {self.colours!r}{nearest(self.colours, mpl.colormaps)}"
                )


PLAIN = Style()


def colourise(attribution: Tensor, colours: str = COLOURS) -> Image.Image:
    """An attribution map ``(H, W)`` in [0, 1] as an RGB picture of the same size."""
    import matplotlib as mpl

    values = attribution.detach().to("cpu", torch.float32).clamp(0, 1).numpy()
    return Image.fromarray((mpl.colormaps[colours](values)[..., :3] * 255).round().astype(np.uint8))


def scaled(
    attribution: Tensor, style: Style = PLAIN, *, signed: bool = False
) -> tuple[Tensor, str]:
    """A map as it is coloured: in [0, 1], with the colours for it.

    Args:
        attribution: ``(H, W)``.
        style: how it is drawn.
        signed: colour a map without negative values as one with them, with 0 in the middle.
    """
    lowest, highest = float(attribution.min()), float(attribution.max())
    signed = signed or lowest < 0
    own = max(-lowest, highest) if signed else max(highest, 1.0)
    largest = (own if style.largest is None else style.largest) or 1
    if signed:
        return (attribution / (2 * largest) + 0.5).clamp(0, 1), style.colours or SIGNED
    return attribution / largest, style.colours or COLOURS


def overlay(
    view: View, attribution: Tensor, style: Style = PLAIN, *, signed: bool = False
) -> Image.Image:
    """Lay a map over the picture it explains.

    The picture is drawn in grey, so that all colour belongs to the map, and the map is placed on the part
    that the model saw; the rest stays dark.

    Args:
        view: the picture.
        attribution: ``(H, W)``, of the model's input; coloured as :func:`scaled` says.
        style: how it is drawn.
        signed: use the colours of maps with negative values in any case.

    Returns:
        RGB, at most 1024 pixels to a side.
    """
    view = view.scaled()
    left, top, right, bottom = (round(edge) for edge in view.box)
    size = (max(1, bottom - top), max(1, right - left))
    # Pooled to the size drawn where the picture is smaller than the map.
    values, colours = scaled(attribution.detach().to("cpu", torch.float32), style, signed=signed)
    enlarged = colourise(resize(values[None], size)[0], colours)
    coloured = Image.new("RGB", view.picture.size)
    coloured.paste(enlarged, (left, top))
    seen = np.zeros((view.picture.height, view.picture.width), dtype=np.bool_)
    seen[max(top, 0) : max(top + size[0], 0), max(left, 0) : max(left + size[1], 0)] = True
    drawn = blend(view.picture, coloured, seen, style.alpha)
    bands: Any = view.cropped().getextrema()
    empty = not bool(attribution.any()) or all(low == high for low, high in bands)
    return _marked(drawn) if empty else drawn


def _marked(picture: Image.Image) -> Image.Image:
    """The picture with the mark of a map that means nothing; the messages say why."""
    font = ImageFont.load_default(size=max(8, min(picture.size) // 10))
    draw = ImageDraw.Draw(picture)
    middle = (picture.width / 2, picture.height / 2)
    box = draw.textbbox(middle, _NOTHING, font=font, anchor="mm", align="center")
    edge = (box[3] - box[1]) // 6
    left, top, right, bottom = box
    draw.rectangle((left - edge, top - edge, right + edge, bottom + edge), fill="black")
    draw.text(middle, _NOTHING, fill="white", font=font, anchor="mm", align="center")
    return picture


def blend(
    picture: Image.Image, coloured: Image.Image, seen: npt.NDArray[np.bool_], alpha: float
) -> Image.Image:
    """Colours over a grey picture where ``seen``, a mask of its ``(H, W)`` pixels; the rest stays dark."""
    grey = np.asarray(picture.convert("L"), dtype=np.float32)[..., None].repeat(3, axis=2)
    mixed = (1 - alpha) * grey + alpha * np.asarray(coloured, dtype=np.float32)
    drawn = np.where(seen[..., None], mixed, 0.25 * grey)
    return Image.fromarray(drawn.round().clip(0, 255).astype(np.uint8))


OWN_SCALE = "attribution, each map on its own scale"

_NOTHING = "this map\nmeans nothing"

_LETTERS = 15
"""Of a row's label in an inch."""


def grid(
    pictures: Sequence[Sequence[Image.Image]],
    *,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    bar: tuple[str, float, float] | None = (COLOURS, 0, 1),
    said: str = OWN_SCALE,
    ends: tuple[str, str] = ("", ""),
    note: str = "",
    cell: float = 2.6,
) -> Figure:
    """Pictures in rows and columns, with headings.

    Args:
        pictures: one list per row, all of one length.
        columns: a heading for each column.
        rows: a label for each row; lines that are longer than the picture is high are broken.
        bar: colour map of a bar and its ends; ``None`` for no bar.
        said: what the bar shows.
        ends: what stands below and above the bar.
        note: what stands below the pictures.
        cell: width of a picture in inches.

    Returns:
        A matplotlib figure, not attached to any window.
    """
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    n_rows, n_columns = len(pictures), max(len(row) for row in pictures)
    heights = [min(1.6, max(p.height / p.width for p in row)) for row in pictures]
    figure = Figure(
        figsize=(cell * n_columns + 0.6, cell * sum(heights) + 0.15 * n_rows + 0.3),
        layout="constrained",
    )
    axes = figure.subplots(n_rows, n_columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for r, row in enumerate(pictures):
        for c in range(n_columns):
            axis = axes[r, c]
            axis.set_axis_off()
            if c < len(row):
                axis.imshow(np.asarray(row[c]))
            if r == 0 and c < len(columns):
                axis.set_title(columns[c], fontsize=9, parse_math=False)
        if r < len(rows):
            room = max(16, int(_LETTERS * cell * heights[r]))
            label = "\n".join(textwrap.fill(line, room) for line in rows[r].splitlines())
            axes[r, 0].text(
                -0.03, 0.5, label, transform=axes[r, 0].transAxes, rotation=90, ha="right",
                va="center", fontsize=8, parse_math=False,
            )  # fmt: skip
    if bar is not None:
        colours, low, high = bar
        drawn = figure.colorbar(
            ScalarMappable(Normalize(low, high), cmap=colours),
            ax=axes.ravel().tolist(),
            fraction=0.03,
            pad=0.01,
        )
        drawn.ax.tick_params(labelsize=7)
        drawn.set_label(said, fontsize=7)
        below, above = ("\n".join(textwrap.wrap(end, 14)) for end in ends)
        drawn.ax.set_title(above, fontsize=7, parse_math=False)
        drawn.ax.set_xlabel(below, fontsize=7, parse_math=False)
    if note:
        figure.supxlabel(note, fontsize=7)
    return figure


def png(figure: Figure, dpi: int = 130) -> bytes:
    """A figure as PNG bytes."""
    buffer = io.BytesIO()
    write(figure, buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def write(figure: Figure, target: Path | io.BytesIO, **options: Any) -> None:
    """A figure as a file; of a name in letters that the font lacks the picture shows boxes, without a word."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(target, **options)


def show(figure: Figure) -> None:
    """Show a figure: in a notebook below the cell, otherwise in the system's picture viewer.

    Raises:
        CamlucidaError: there is no picture viewer.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    picture = Image.open(io.BytesIO(png(figure)))
    if hasattr(shell, "kernel"):
        ipython.display.display(picture)  # type: ignore[union-attr]
    elif not ImageShow.show(picture, title="camlucida"):
        raise CamlucidaError(
            "there is no picture viewer to show the figure in; write it to a file with save('explanation.png')"
        )
