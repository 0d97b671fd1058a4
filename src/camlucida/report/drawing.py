"""What charts are drawn with: scales, pens, markers, text, axes, and places for labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import pairwise

from camlucida.report.tables import number


@dataclass(frozen=True)
class Scale:
    """An axis.

    Attributes:
        low: the number at its start.
        high: the number at its end, larger than ``low``.
        ticks: numbers and how they are written.
        log: whether steps are powers.
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a number lies, 0 at the start and 1 at the end, never outside."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            at = math.log10(max(value, self.low))
        else:
            low, high, at = self.low, self.high, value
        return min(max((at - low) / (high - low), 0.0), 1.0)

    def written(self, text: Callable[[float], str]) -> Scale:
        """The same with its ticks written otherwise."""
        return replace(self, ticks=tuple((v, text(v)) for v, _ in self.ticks))


def linear(
    values: Sequence[float], limits: tuple[float, float] | None = None, count: int = 5
) -> Scale:
    """An axis over the finite values, its ends rounded outwards to ticks.

    Args:
        values: what must lie on it; without any it goes from 0 to 1.
        limits: ends that are used as they are.
        count: about how many ticks.
    """
    known = [v for v in values if math.isfinite(v)]
    low, high = limits or ((min(known), max(known)) if known else (0.0, 1.0))
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        room = abs(low) * 0.1 or 0.5
        low, high = low - room, high + room
    step = _step((high - low) / count)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if limits is None:
        low, high = first * step, last * step
    places = max(0, -math.floor(math.log10(step)))
    ticks = [
        i * step
        for i in range(first, last + 1)
        if low - 1e-9 * step <= i * step <= high + 1e-9 * step
    ]
    return Scale(low, high, tuple((t, number(t, min(places, 9))) for t in ticks))


def logarithmic(values: Sequence[float]) -> Scale:
    """An axis in powers of ten over the positive values, with ticks at 1, 2 and 5 where there is room."""
    known = [v for v in values if math.isfinite(v) and v > 0] or [1.0]
    low, high = min(known) / 1.3, max(known) * 1.3
    decades = math.log10(high / low)
    heads = (1, 2, 5) if decades < 2.5 else (1,)
    found = [
        head * 10.0**power
        for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for head in heads
    ]
    ticks = [t for t in found if low <= t <= high]
    if len(ticks) < 3:
        ticks = [t for t, _ in linear([low, high]).ticks if low <= t <= high]
    return Scale(low, high, tuple((t, f"{t:g}") for t in ticks), log=True)


def _step(rough: float) -> float:
    """The next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(head * power for head in (1, 2, 5, 10) if head * power >= rough * (1 - 1e-9))


COLOURS = ("#1a1a1a", "#0072b2", "#d55e00", "#009e73", "#aa4499", "#b87400", "#3a8fc4")
"""Okabe and Ito's black, blue, vermillion and green, and their purple, orange and sky blue darkened to a
contrast of 3:1 on white."""

DASHES = ("", "6 3", "2 2.5", "9 3 2 3", "12 4", "5 2 1.5 2 1.5 2")

WIDTH = 460
TEXT, SMALL = 12, 11
_LETTER = 0.64  # of the font size: mean width of a letter in the widest of the usual system fonts
_GAP = 14.0
_LONGEST = 22


def style(index: int) -> tuple[str, str, int]:
    """Colour, dashes and marker of the series number ``index``.

    Of the first 30 any two differ in at least two of the three, and in dashes or marker where there is no colour.
    """
    colour = (index + 3 * (index // 7)) % len(COLOURS)
    return f"var(--s{colour},{COLOURS[colour]})", DASHES[index % len(DASHES)], index % 7


class Frame:
    """Axes, ticks and labels; turns numbers into pixels."""

    def __init__(
        self,
        name: str,
        title: str,
        describe: str,
        x: Scale,
        y: Scale | None,
        x_label: str,
        y_label: str,
        height: int,
        margin: float,
        left: float | None = None,
    ) -> None:
        self.name, self.title, self.describe = name, title, describe
        self.x, self.y, self.x_label, self.y_label = x, y, x_label, y_label
        ticks = max((width_of(t) for _, t in y.ticks), default=0.0) if y else 0.0
        self.left = 10 + ticks if left is None else left
        self.top, self.height = (26.0 if y_label else 8.0), height
        self.bottom, self.right = height - 40.0, WIDTH - margin

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a number lies, in pixels."""
        across = self.left + self.x.place(x) * (self.right - self.left)
        down = 0.0 if self.y is None else self.bottom - self.y.place(y) * (self.bottom - self.top)
        return across, down

    def svg(self, drawn: Sequence[str]) -> str:
        """The chart: axes, and what is drawn over them."""
        axes = []
        for value, text in self.y.ticks if self.y else ():
            y = self.at(self.x.low, value)[1]
            axes.append(
                f'<path d="M{self.left:.1f} {y:.1f}H{self.right:.1f}" style="stroke:var(--grid,#e3e3e3)"/>'
            )
            axes.append(words(self.left - 6, y + 4, text, SMALL, "end", quiet=True))
        last = -math.inf
        for value, text in self.x.ticks:
            x = self.at(value, 0)[0]
            axes.append(f'<path d="M{x:.1f} {self.bottom:.1f}v4" style="stroke:var(--ink,#111)"/>')
            half = width_of(text) / 2
            if x - half > last + 4:
                axes.append(words(x, self.bottom + 17, text, SMALL, "middle", quiet=True))
                last = x + half
        axes.append(
            f'<path d="M{self.left:.1f} {self.bottom:.1f}H{self.right:.1f}" style="stroke:var(--ink,#111)"/>'
        )
        middle = (self.left + self.right) / 2
        axes.append(words(middle, self.height - 6, self.x_label, TEXT, "middle"))
        if self.y_label:
            axes.append(words(2, 12, self.y_label, TEXT))
        return draw(self.name, self.title, self.describe, WIDTH, self.height, [*axes, *drawn])


def draw(
    name: str,
    title: str,
    describe: str,
    width: float,
    height: float,
    drawn: Sequence[str],
    *,
    wide: bool = True,
) -> str:
    """An ``<svg>`` with a title and a description."""
    return (
        f'<svg class="{"chart wide" if wide else "chart"}" role="img" '
        f'viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" aria-labelledby="{name}-title {name}-desc" xmlns="http://www.w3.org/2000/svg" '
        'font-family="system-ui, sans-serif">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-desc">{escape(describe)}</desc>'
        f"{''.join(drawn)}</svg>"
    )


def words(
    x: float,
    y: float,
    text: str,
    size: int,
    anchor: str = "start",
    ink: str = "",
    *,
    turned: bool = False,
    quiet: bool = False,
) -> str:
    """A text; long ones of the small size are cut."""
    shown = text if len(text) <= _LONGEST or size == TEXT else text[: _LONGEST - 1] + "…"
    fill = ink or ("var(--quiet,#555)" if quiet else "var(--ink,#111)")
    turn = f' transform="rotate(-90 {x:.1f} {y:.1f})"' if turned else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
        f'style="fill:{fill}"{turn}>'
        f"{escape(shown)}</text>"
    )


def width_of(text: str) -> float:
    """About how many pixels a label takes."""
    return min(len(text), _LONGEST) * SMALL * _LETTER


def path(frame: Frame, xs: Sequence[float], ys: Sequence[float], pen: str, label: str) -> str:
    """A line with gaps where heights are not finite."""
    d, lifted = [], True
    for x, y in zip(xs, ys, strict=True):
        if not math.isfinite(y):
            lifted = True
            continue
        across, down = frame.at(x, y)
        d.append(f"{'M' if lifted else 'L'}{across:.1f} {down:.1f}")
        lifted = False
    return f'<path d="{"".join(d)}" style="{pen}"><title>{escape(label)}</title></path>'


def band(
    frame: Frame, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], colour: str
) -> str:
    """The area between two edges; gaps where an edge is not finite are closed."""
    edges = [
        (x, low, high)
        for x, low, high in zip(xs, lows, highs, strict=True)
        if math.isfinite(low) and math.isfinite(high)
    ]
    upper = [frame.at(x, high) for x, _, high in edges]
    lower = [frame.at(x, low) for x, low, _ in reversed(edges)]
    d = "L".join(f"{x:.1f} {y:.1f}" for x, y in (*upper, *lower))
    return f'<path d="M{d}Z" style="fill:{colour};fill-opacity:.14"/>' if edges else ""


def marker_at(shape: int, x: float, y: float, colour: str, r: float = 3.4) -> str:
    """One of seven markers."""
    if shape == 0:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" style="fill:{colour}"/>'
    if shape in {5, 6}:
        s = r if shape == 5 else r * 1.25
        cross = (
            f"M{x - s:.1f} {y - s:.1f}L{x + s:.1f} {y + s:.1f}M{x - s:.1f} {y + s:.1f}L{x + s:.1f} {y - s:.1f}"
            if shape == 5
            else f"M{x - s:.1f} {y:.1f}h{2 * s:.1f}M{x:.1f} {y - s:.1f}v{2 * s:.1f}"
        )
        return f'<path d="{cross}" style="stroke:{colour};stroke-width:1.6;fill:none"/>'
    corners = {
        1: ((-1, -1), (1, -1), (1, 1), (-1, 1)),
        2: ((0, -1.25), (1.2, 0.95), (-1.2, 0.95)),
        3: ((0, -1.4), (1.4, 0), (0, 1.4), (-1.4, 0)),
        4: ((0, 1.25), (1.2, -0.95), (-1.2, -0.95)),
    }[shape]
    d = "L".join(f"{x + r * a:.1f} {y + r * b:.1f}" for a, b in corners)
    fill = "var(--paper,#fff)" if shape in {1, 4} else colour
    return f'<path d="M{d}Z" style="fill:{fill};stroke:{colour};stroke-width:1.3"/>'


# ------------------------------------------------------------------------------------------- placing


def spread(wanted: Sequence[float], top: float, bottom: float) -> list[float]:
    """Heights near the wanted ones, in the same order, far enough apart for a line of text."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    gap = min(_GAP, (bottom - top + 20) / max(len(wanted), 1))
    placed = [wanted[i] for i in order]
    for i in range(1, len(placed)):
        placed[i] = max(placed[i], placed[i - 1] + gap)
    # Those pushed below the frame push the others back up.
    limit = bottom + 8
    for i in reversed(range(len(placed))):
        placed[i] = min(placed[i], limit)
        limit = placed[i] - gap
    found = [0.0] * len(wanted)
    for i, y in zip(order, placed, strict=True):
        found[i] = y
    assert all(b - a > 0 for a, b in pairwise(placed))  # noqa: S101 - labels never lie on each other
    return found


def free_place(
    x: float,
    y: float,
    width: float,
    frame: Frame,
    taken: Sequence[tuple[float, float, float, float]],
) -> tuple[float, float, float, float] | None:
    """A box for a label beside a point that covers nothing; ``None`` where there is none."""
    for down in (0, -13, 13, -24, 24):
        for left in (x + 8, x - 8 - width, x - width / 2):
            if left == x - width / 2 and down == 0:
                continue
            box = (left, y + down - 7, left + width, y + down + 7)
            inside = (
                box[0] >= frame.left
                and box[2] <= WIDTH
                and frame.top - 8 <= box[1]
                and box[3] <= frame.bottom
            )
            if inside and not any(
                box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in taken
            ):
                return box
    return None
