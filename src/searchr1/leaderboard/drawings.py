"""The page's drawings as coordinates: dots with their intervals for every column, accuracy against searches."""

from __future__ import annotations

import math
from dataclasses import dataclass

from searchr1.leaderboard.board import Board, Line
from searchr1.leaderboard.words import points, title

COLORS = 6
"""In the style sheet. The last is for what stands alone; more curves than the others begin again."""
ROW, TOP = 22, 8
LEFT, WIDTH = 164, 170
"""Where the axis of the dots begins, after the names, and how long it is; ``PLOT_WIDTH`` is that of the drawing."""
PLOT_WIDTH = LEFT + WIDTH + 8
_NAME = 24  # characters of a name that fit before the axis
_LETTER, _LINE = 6.2, 13.0  # pixels that a letter and a line of text take
CURVE_WIDTH, CURVE_HEIGHT = 640, 340
_MARGIN = (44, 16, 14, 40)  # left, right, top, bottom


@dataclass(frozen=True, slots=True)
class Dot:
    """One entry in one column. Pixels."""

    name: str
    short: str
    shown: str
    kind: str
    """``best``, ``tied`` or nothing: a class of the style sheet."""
    x: float
    low: float
    high: float
    y: float


@dataclass(frozen=True, slots=True)
class Dots:
    """One column as a drawing; every column has the same axis, from 0 to ``top`` percent."""

    title: str
    dots: tuple[Dot, ...]
    height: float
    top: str


@dataclass(frozen=True, slots=True)
class Label:
    """Where a name stands: the end of it that is at ``x`` is said by ``anchor``."""

    x: float
    y: float
    anchor: str
    width: float

    def touches(self, other: Label) -> bool:
        apart = min(self.right, other.right) - max(self.right - self.width, other.right - other.width)
        return apart > 0 and abs(self.y - other.y) < _LINE

    @property
    def right(self) -> float:
        return self.x if self.anchor == "end" else self.x + self.width


@dataclass(frozen=True, slots=True)
class Point:
    """One entry, searches across and accuracy up. Pixels."""

    name: str
    shown: str
    x: float
    y: float
    low: float
    high: float
    label: Label


@dataclass(frozen=True, slots=True)
class Curve:
    """Entries that differ in ``max_searches`` alone, joined; one that stands alone is a point."""

    color: int
    points: tuple[Point, ...]

    @property
    def path(self) -> str:
        return " ".join(f"{point.x:.1f},{point.y:.1f}" for point in self.points)


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid: its place and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Accuracy against mean searches."""

    curves: tuple[Curve, ...]
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]


def dot_plots(board: Board) -> list[Dots]:
    """One drawing a column, entries in the order of the table."""
    cells = [cell for line in board.lines for cell in line.cells.values() if cell]
    top = _ceiling(max((cell.high for cell in cells), default=1.0))
    plots = []
    for column in board.columns:
        dots = []
        for place, line in enumerate(board.lines):
            cell = line.cells[column]
            if cell is None:
                continue
            x, low, high = (LEFT + WIDTH * value / top for value in (cell.value, cell.low, cell.high))
            kind = "best" if cell.best else "tied" if cell.tied else ""
            shown = f"{points(cell.value)} [{points(cell.low)}, {points(cell.high)}]"
            name = line.entry.name
            short = name if len(name) <= _NAME else f"{name[: _NAME - 11]}…{name[-10:]}"
            dots.append(Dot(name, short, shown, kind, x, low, high, TOP + ROW * (place + 0.5)))
        plots.append(Dots(title(column), tuple(dots), TOP + ROW * len(board.lines) + 4, f"{100 * top:.0f}%"))
    return plots


def budget_chart(board: Board) -> Chart | None:
    """None where fewer than two entries say how often they searched."""
    placed = [line for line in board.lines if line.overall is not None and line.costs["searches"] is not None]
    if len(placed) < 2:
        return None
    families: dict[object, list[Line]] = {}
    for place, line in enumerate(placed):
        # What does not say its settings, or not its budget, is nobody's family.
        known = line.entry.max_searches is not None
        families.setdefault(line.entry.family if known else place, []).append(line)
    widest = _ceiling_of(max(_searches(line) for line in placed))
    top = _ceiling(max(line.overall.high for line in placed if line.overall))
    curves, labels = [], list[Label]()
    for number, family in enumerate(sorted(families.values(), key=len, reverse=True)):
        ordered = sorted(family, key=lambda line: line.entry.max_searches or 0)
        color = number % (COLORS - 1) if len(family) > 1 else COLORS - 1
        curves.append(Curve(color, tuple(_point(line, widest, top, labels) for line in ordered)))
    across = [Tick(_x(widest * part / 4, widest), f"{widest * part / 4:g}") for part in range(5)]
    up = [Tick(_y(top * part / 4, top), f"{100 * top * part / 4:g}") for part in range(5)]
    return Chart(tuple(curves), tuple(across), tuple(up))


def _point(line: Line, widest: float, top: float, labels: list[Label]) -> Point:
    """Its name goes where it touches none of ``labels``, and becomes one of them."""
    cell = line.overall
    assert cell is not None
    x, y = _x(_searches(line), widest), _y(cell.value, top)
    shown = f"{points(cell.value)} [{points(cell.low)}, {points(cell.high)}], {_searches(line):.2f} searches"
    label = _place(line.entry.name, x, y, labels)
    labels.append(label)
    return Point(line.entry.name, shown, x, y, _y(cell.low, top), _y(cell.high, top), label)


def _place(name: str, x: float, y: float, taken: list[Label]) -> Label:
    """Beside the point, above or below it, as near as there is room; to the right where nothing is free."""
    width = _LETTER * len(name)
    places = [
        Label(x + side, y + 4 + up * step * _LINE, anchor, width)
        for step in range(5)
        for anchor, side in (("start", 9), ("end", -9))
        for up in ((-1, 1) if step else (1,))
    ]
    inside = [place for place in places if place.right - width > 0 and place.right < CURVE_WIDTH] or places
    return next((place for place in inside if not any(map(place.touches, taken))), inside[0])


def _searches(line: Line) -> float:
    cost = line.costs["searches"]
    assert cost is not None
    return cost.per_question


def _x(value: float, widest: float) -> float:
    left, right, _, _ = _MARGIN
    return left + (CURVE_WIDTH - left - right) * value / widest


def _y(value: float, top: float) -> float:
    _, _, above, below = _MARGIN
    return CURVE_HEIGHT - below - (CURVE_HEIGHT - above - below) * value / top


def _ceiling(value: float) -> float:
    """The next even tenth above a share, or a tenth: quarters of it are short to write."""
    return 0.1 if value <= 0.1 else min(1.0, 2 * math.ceil(5 * value) / 10)


def _ceiling_of(searches: float) -> float:
    """A whole number, even beyond 2, so that quarters are short to write."""
    whole = max(1, math.ceil(searches))
    return float(whole if whole <= 2 else whole + whole % 2)
