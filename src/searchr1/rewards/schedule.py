"""Weights that change while a run goes on: linear between the steps that are named."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

_EXPECTED = "expected a finite number, or steps with weights such as {0 = 1.0, 100 = 0.2} or [[0, 1.0], [100, 0.2]]"


@dataclass(frozen=True, slots=True)
class Schedule:
    """A weight at every step: ``points`` are (step, weight), steps ascending; before and after them it is constant.

    >>> schedule = Schedule(((0, 1.0), (100, 0.2)))
    >>> [round(schedule.at(step), 3) for step in (0, 50, 75, 100, 1000)]
    [1.0, 0.6, 0.4, 0.2, 0.2]
    """

    points: tuple[tuple[int, float], ...]

    def at(self, step: int) -> float:
        """The weight at ``step``: exactly the one that was given where it was given."""
        first_step, first_weight = self.points[0]
        if step <= first_step:
            return first_weight
        for (left, low), (right, high) in pairwise(self.points):
            if step == right:
                return high
            if step < right:
                return low + (high - low) * (step - left) / (right - left)
        return self.points[-1][1]


def parse_weight(value: Any) -> Schedule:
    """The schedule of a recipe's ``weight``: a number, a table of steps, or a list of pairs. Raises ValueError.

    The keys of a TOML table are text, and so are those of JSON:

    >>> parse_weight({"0": 1, "100": 0.2}) == parse_weight([[0, 1.0], [100, 0.2]])
    True
    >>> parse_weight(0.5).at(7)
    0.5
    """
    if isinstance(value, Mapping):
        points = _points(value.items(), value)
    elif isinstance(value, list | tuple):
        points = _points(value, value)
    else:
        points = [(0, _weight(value, value))]
    if not points:
        raise ValueError(f"{_EXPECTED}, got {value!r}")
    return Schedule(tuple(points))


def _points(pairs: Iterable[Any], whole: Any) -> list[tuple[int, float]]:
    points = []
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"{_EXPECTED}, got {whole!r}")
        points.append((_step(pair[0], whole), _weight(pair[1], whole)))
    points.sort(key=lambda point: point[0])
    for (left, _), (right, _) in pairwise(points):
        if left == right:
            raise ValueError(f"expected one weight a step, step {left} has two in {whole!r}")
    return points


def _step(value: Any, whole: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"expected steps that are whole numbers of at least 0, got {value!r} in {whole!r}")
    return value


def _weight(value: Any, whole: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{_EXPECTED}, got {whole!r}")
    return float(value)
