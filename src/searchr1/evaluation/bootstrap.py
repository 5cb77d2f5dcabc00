"""Intervals of means over questions, and the paired bootstrap (Efron and Tibshirani 1993, chapters 13 and 16).

Means of anything are given percentile bootstrap intervals. Shares (every value 0 or 1, as exact match) are the
exception: there the percentile bootstrap is a binomial around the observed share, which is far too sure of itself near
0 (125 questions at 3%: its 95% interval holds the truth 88% of the time) and has no width at all at 0. They are given
Wilson's interval, which keeps its promise. ``docs/statistics.md`` has the figures.

To resample ``n`` values with replacement is to draw how often each *distinct* value occurs from a multinomial
distribution. Scores take few distinct values (exact match takes two), so this is exact, independent of the order of
the values, and far quicker and smaller than drawing ``resamples x n`` indices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

NORMAL = 1.959963984540054
"""How many standard errors the normal distribution takes to each side for 95%."""
_CELLS = 4_000_000  # counts drawn at once: 32 MB, whatever the number of values and resamples


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """Mean of ``values`` and its 95% interval: ``(mean, low, high)``.

    Where all values are 0 or 1 it is Wilson's interval and draws nothing; else the percentile bootstrap. Raises
    ValueError for no values, for values that are not finite and for fewer than one resample.

    >>> mean_interval([0.5, 0.5, 0.5])
    (0.5, 0.5, 0.5)
    >>> tuple(round(bound, 3) for bound in mean_interval([0.0] * 125))
    (0.0, 0.0, 0.03)
    """
    array = _checked(values)
    _check_resamples(resamples)
    mean = float(array.mean())
    if ((array == 0) | (array == 1)).all():
        return mean, *wilson(int(array.sum()), array.size)
    return mean, *_interval(_resampled_means(array, seed, resamples), mean)


def wilson(successes: int, n: int) -> tuple[float, float]:
    """The 95% score interval of a share (E. B. Wilson 1927; Brown, Cai and DasGupta 2001).

    Raises ValueError where ``successes`` is not among 0..n or n is 0.

    >>> tuple(round(bound, 4) for bound in wilson(1, 10))
    (0.0179, 0.4042)
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"expected 0 to n successes of at least one trial, got {successes} of {n}")
    share = successes / n
    scale = 1 + NORMAL**2 / n
    centre = (share + NORMAL**2 / (2 * n)) / scale
    half = NORMAL / scale * math.sqrt(share * (1 - share) / n + NORMAL**2 / (4 * n**2))
    # Rounding alone could leave 0 of n a hair above 0, and n of n a hair below 1.
    return (0.0 if successes == 0 else centre - half), (1.0 if successes == n else centre + half)


def macro_interval(
    groups: Sequence[Sequence[float]], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Unweighted mean of the groups' means and its 95% interval.

    The groups' own intervals are joined side by side: the distance from mean to lower bound is the root of the sum of
    the squared distances within the groups, divided by their number, and so above (Zou and Donner 2008:
    "method of variance estimates recovery"). One group alone keeps its interval. Raises ValueError for no groups and as
    `mean_interval`.

    >>> macro_interval([[0.5, 0.5], [0.25]])
    (0.375, 0.375, 0.375)
    """
    if not groups:
        raise ValueError("no groups: a mean over groups needs at least one")
    found = [mean_interval(group, seed, resamples) for group in groups]
    mean = math.fsum(value for value, _, _ in found) / len(found)
    below = math.hypot(*(value - low for value, low, _ in found)) / len(found)
    above = math.hypot(*(high - value for value, _, high in found)) / len(found)
    return mean, mean - below, mean + above


def paired_difference(
    a: Sequence[float], b: Sequence[float], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float, float]:
    """How much better ``b`` is than ``a`` on the same items: ``(difference, low, high, p_value)``.

    ``difference`` is ``mean(b) - mean(a)``. Items are resampled in pairs; the p-value is two-sided, twice the share of
    resamples on the far side of zero, with one added to both counts so that it is never zero (Davison and Hinkley 1997,
    equation 4.11). Raises ValueError as `mean_interval`, and where the lengths differ.

    >>> paired_difference([0.0, 1.0], [0.0, 1.0])
    (0.0, 0.0, 0.0, 1.0)
    """
    if len(a) != len(b):
        raise ValueError(f"paired values must come in equal number, got {len(a)} and {len(b)}")
    array = _checked(b) - _checked(a)
    difference = float(array.mean())
    means = _resampled_means(array, seed, resamples)
    return difference, *_interval(means, difference), _p_value(means)


def paired_macro_difference(
    pairs: Sequence[tuple[Sequence[float], Sequence[float]]], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float, float]:
    """`paired_difference` of the unweighted mean over sets: every set, a pair ``(a, b)``, is resampled within itself.

    Raises ValueError for no sets and as `paired_difference`.

    >>> paired_macro_difference([([0.0, 0.0], [1.0, 1.0]), ([1.0], [1.0])], resamples=999)
    (0.5, 0.5, 0.5, 0.002)
    """
    if not pairs:
        raise ValueError("no sets: a mean over sets needs at least one")
    for a, b in pairs:
        if len(a) != len(b):
            raise ValueError(f"paired values must come in equal number, got {len(a)} and {len(b)}")
    arrays = [_checked(b) - _checked(a) for a, b in pairs]
    difference = float(np.mean([array.mean() for array in arrays]))
    # Each set draws from its own stream: with one stream for all, equal sets would be resampled in step.
    drawn = [_resampled_means(array, (seed, place), resamples) for place, array in enumerate(arrays)]
    means = np.mean(drawn, axis=0)
    return difference, *_interval(means, difference), _p_value(means)


def _checked(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values: a mean and its interval need at least one")
    if not np.isfinite(array).all():
        raise ValueError("a mean and its interval need finite values, got NaN or infinity")
    return array


def _check_resamples(resamples: int) -> None:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")


def _resampled_means(
    array: npt.NDArray[np.float64], seed: int | tuple[int, ...], resamples: int
) -> npt.NDArray[np.float64]:
    _check_resamples(resamples)
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(array, return_counts=True)
    chunk = max(1, _CELLS // distinct.size)
    shares = counts / array.size
    means = [
        generator.multinomial(array.size, shares, size=min(chunk, resamples - start)) @ distinct / array.size
        for start in range(0, resamples, chunk)
    ]
    return np.concatenate(means)


def _p_value(means: npt.NDArray[np.float64]) -> float:
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (tail + 1) / (means.size + 1))


def _interval(means: npt.NDArray[np.float64], centre: float) -> tuple[float, float]:
    """The middle 95% of ``means``, widened to ``centre`` where rounding alone would leave it outside."""
    low, high = np.quantile(means, (0.025, 0.975))
    return min(float(low), centre), max(float(high), centre)
