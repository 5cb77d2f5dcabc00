"""How "now", "early" and "best" are measured in a history of metric rows, and what is a fall or a rise beside noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from searchr1.alarms.settings import Alarms

Row = Mapping[str, Any]

CERTAIN = 4.5
"""A fall or rise counts when it is larger than so many standard deviations of the noise from row to row."""
SCALES = (1, 2, 4)
"""Windows to look for a fall or a rise in, in multiples of ``alarms.window``."""


@dataclass(frozen=True, slots=True)
class Move:
    """From ``then`` (its best or its early level) to ``now``, past ``limit``."""

    now: float
    then: float
    limit: float


@dataclass(frozen=True, slots=True)
class History:
    """The rows, and how "now", "early" and "best" are measured in them."""

    rows: Sequence[Row]
    alarms: Alarms

    @property
    def step(self) -> int:
        return int(self.rows[-1]["step"])

    def series(self, metric: str) -> list[float] | None:
        """Every finite value of ``metric``; None during warm-up, or where the newest row does not have it."""
        if not _finite(self.rows[-1].get(metric)):
            return None
        values = [float(row[metric]) for row in self.rows if _finite(row.get(metric))]
        return values if len(values) > self.alarms.warmup else None

    def now(self, values: Sequence[float], scale: int = 1) -> float:
        return median(values[-scale * self.alarms.window :])

    def early(self, values: Sequence[float]) -> float:
        return median(values[: self.alarms.warmup])

    def best(self, values: Sequence[float], scale: int = 1) -> float:
        window = min(scale * self.alarms.window, len(values))
        return max(median(values[end - window : end]) for end in range(window, len(values) + 1))

    def fall(self, metric: str, limit: Callable[[float], float]) -> Move | None:
        """Where "now" is below ``limit`` of the best, and that far below it that noise cannot be the cause.

        Tried on windows of one, two and four times ``window`` rows: the shortest sees a clear fall at once, the others
        a fall that is small beside the noise. None during warm-up, or where nothing fell.
        """
        values = self.series(metric) or []
        spread = CERTAIN * noise(values)
        for scale in SCALES if values else ():
            now, best = self.now(values, scale), self.best(values, scale)
            if now < limit(best) and best - now > spread / math.sqrt(scale):
                return Move(now, best, limit(best))
        return None

    def rise(self, metric: str, limit: Callable[[float], float]) -> Move | None:
        """Where "now" is above ``limit`` of its early level, on the same windows."""
        values = self.series(metric) or []
        spread = CERTAIN * noise(values)
        for scale in SCALES if values else ():
            now, early = self.now(values, scale), self.early(values)
            if now > limit(early) and now - early > spread / math.sqrt(scale):
                return Move(now, early, limit(early))
        return None


def noise(values: Sequence[float]) -> float:
    """Standard deviation from row to row, whatever the trend: that of the differences of neighbours over sqrt(2).

    >>> noise([1.0, 2.0, 3.0]), round(noise([0.0, 1.0, 0.0, 1.0, 0.0]), 3)
    (0.0, 0.707)
    """
    steps = [later - earlier for earlier, later in pairwise(values)]
    if len(steps) < 2:
        return 0.0
    mean = fmean(steps)
    return math.sqrt(fmean([(step - mean) ** 2 for step in steps]) / 2)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
