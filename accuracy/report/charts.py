"""Charts as SVG text for an HTML page. report.css styles them.

A chart is 360 units wide, about the pixels of a phone, so its 11 px letters are legible there.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from dlink.accuracy.bootstrap import Floats

WIDTH, HEIGHT = 360, 280
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 42
MOST_DOTS = 1500


@dataclass(frozen=True)
class Axis:
    """One axis of a chart."""

    title: str
    low: float = 0.0
    high: float = 1.0

    @property
    def ticks(self) -> list[float]:
        """Four to seven round numbers."""
        span = self.high - self.low
        step = next(s for e in range(-9, 9) for m in (1, 2, 5) if span / (s := m * 10.0**e) <= 6)
        first = int(np.ceil(self.low / step - 1e-9))
        return [round(i * step, 9) for i in range(first, int(np.floor(self.high / step + 1e-9)) + 1)]

    def at(self, value: float) -> float:
        """The position of a value, from 0 to 1."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Chart:
    """A frame with two axes, for marks."""

    x: Axis
    y: Axis

    def px(self, value: float) -> float:
        return LEFT + self.x.at(value) * (WIDTH - LEFT - RIGHT)

    def py(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.y.at(value) * (HEIGHT - TOP - BOTTOM)

    def line(self, xs: Sequence[float] | Floats, ys: Sequence[float] | Floats, kind: str) -> str:
        """A line through points; a gap where one is NaN."""
        points = [(self.px(x), self.py(y)) if np.isfinite([x, y]).all() else None for x, y in zip(xs, ys, strict=True)]
        path, pen = [], "M"
        for point in points:
            if point is None:
                pen = "M"
                continue
            path.append(f"{pen}{point[0]:.1f} {point[1]:.1f}")
            pen = "L"
        return f'<path class="line {kind}" d="{"".join(path)}"/>'

    def dot(self, x: float, y: float, kind: str, title: str = "", radius: float = 4) -> str:
        tip = f"<title>{escape(title)}</title>" if title else ""
        return f'<circle class="dot {kind}" cx="{self.px(x):.1f}" cy="{self.py(y):.1f}" r="{radius:.1f}">{tip}</circle>'

    def word(
        self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", dx: float = 0, dy: float = 0
    ) -> str:
        """Text at a value; dx and dy are in the chart's units, down and to the right."""
        at = f'x="{self.px(x) + dx:.1f}" y="{self.py(y) + dy:.1f}"'
        return f'<text class="word {kind}" {at} text-anchor="{anchor}">{escape(text)}</text>'

    def upright(self, x: float, kind: str) -> str:
        """A line from bottom to top."""
        return f'<path class="mark {kind}" d="M{self.px(x):.1f} {HEIGHT - BOTTOM}V{TOP}"/>'

    def svg(self, description: str, marks: Iterable[str], below: float = 0) -> str:
        """The whole chart, with room below. Screen readers read the description."""
        return svg(WIDTH, HEIGHT + below, description, [self.frame(), *marks])

    def frame(self) -> str:
        parts = []
        for t in self.x.ticks:
            at, low = self.px(t), HEIGHT - BOTTOM
            parts.append(f'<path class="grid" d="M{at:.1f} {TOP}V{low}"/>')
            parts.append(f'<text class="tick" x="{at:.1f}" y="{low + 15}" text-anchor="middle">{plain(t)}</text>')
        for t in self.y.ticks:
            at = self.py(t)
            parts.append(f'<path class="grid" d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{plain(t)}</text>')
        middle = TOP + (HEIGHT - TOP - BOTTOM) / 2
        parts.append(
            f'<text class="title" x="{LEFT + (WIDTH - LEFT - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(self.x.title)}</text>"
            f'<text class="title" transform="translate(12 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(self.y.title)}</text>"
        )
        return "".join(parts)


def svg(width: float, height: float, description: str, parts: Iterable[str]) -> str:
    label = escape(description, quote=True)
    return f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def around(values: Sequence[float], step: float = 0.1) -> tuple[float, float]:
    """Round bounds that hold fractions of 1, at least a step apart."""
    low, high = np.floor(min(values) / step) * step, np.ceil(max(values) / step) * step
    if high - low < step / 2:
        low, high = (low - step, high) if low >= step else (low, high + step)
    return round(max(low, 0.0), 6), round(min(high, 1.0), 6)


def few(order: NDArray[np.intp]) -> NDArray[np.intp]:
    """The items to draw: all up to MOST_DOTS, otherwise evenly chosen ones with both ends."""
    if len(order) <= MOST_DOTS:
        return order
    chosen: NDArray[np.intp] = order[np.linspace(0, len(order) - 1, MOST_DOTS).round().astype(np.intp)]
    return chosen


def key(*entries: tuple[str, str]) -> str:
    """The legend of a chart: for each kind of mark (its class in report.css) its words."""
    items = []
    for kind, words in entries:
        shape = '<path class="{}" d="M0 6H28"/>'
        if kind.startswith("dot"):
            shape = '<circle class="{}" cx="14" cy="6" r="5"/>'
        elif kind.startswith(("swatch", "bar")):
            shape = '<rect class="{}" x="8" width="12" height="12"/>'
        items.append(f'<li><svg viewBox="0 0 28 12" aria-hidden="true">{shape.format(kind)}</svg>{escape(words)}</li>')
    return f'<ul class="key">{"".join(items)}</ul>'


def plain(value: float) -> str:
    """A tick's number with a typographic minus."""
    return f"{value:g}".replace("-", "\N{MINUS SIGN}")
