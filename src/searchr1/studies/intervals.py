"""Intervals from a handful of seeds: Student's t, because three values say little about their own spread."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from searchr1.evaluation.student import t_quantile

Verdict = Literal["agrees", "disagrees", "cannot tell"]


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval over ``n`` seeds; from a single seed there is no interval."""

    mean: float
    low: float | None
    high: float | None
    n: int


def interval(values: Sequence[float]) -> Interval:
    """Mean and interval of independent values, one a seed. Raises ValueError for none.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.low, 3), round(found.high, 3)
    (2.0, -0.484, 4.484)
    """
    if not values:
        raise ValueError("no values: an interval needs at least one")
    mean, n = fmean(values), len(values)
    if n == 1:
        return Interval(mean, None, None, 1)
    half = t_quantile(n - 1) * stdev(values) / math.sqrt(n)
    return Interval(mean, mean - half, mean + half, n)


def paired(higher: Mapping[int, float], lower: Mapping[int, float]) -> Interval | None:
    """The interval of ``higher`` minus ``lower``, both by seed, over the seeds of both; None where they share none."""
    seeds = sorted(higher.keys() & lower.keys())
    return interval([higher[seed] - lower[seed] for seed in seeds]) if seeds else None


def verdict(difference: Interval | None) -> Verdict:
    """What a difference says of the expectation that it is positive: `agrees` needs the whole interval above 0.

    >>> verdict(Interval(0.1, 0.05, 0.15, 3)), verdict(Interval(0.1, -0.05, 0.25, 3)), verdict(None)
    ('agrees', 'cannot tell', 'cannot tell')
    """
    if difference is None or difference.low is None or difference.high is None:
        return "cannot tell"
    return "agrees" if difference.low > 0 else "disagrees" if difference.high < 0 else "cannot tell"
