"""Percentile bootstrap intervals and the paired bootstrap test (Efron and Tibshirani 1993, chapters 13 and 16).

To resample ``n`` values with replacement is to draw how often each *distinct* value occurs from a multinomial
distribution. Scores take few distinct values (exact match takes two), so this is exact, independent of the order of
the values, and far quicker and smaller than drawing ``resamples x n`` indices.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

_CELLS = 4_000_000  # counts drawn at once: 32 MB, whatever the number of values and resamples


def mean_interval(values: Sequence[float], seed: int = 0, resamples: int = 2000) -> tuple[float, float, float]:
    """Mean of ``values`` and its 95% bootstrap interval: ``(mean, low, high)``.

    Raises ValueError for no values, for values that are not finite and for fewer than one resample.

    >>> mean_interval([1.0, 1.0, 1.0])
    (1.0, 1.0, 1.0)
    """
    array = _checked(values)
    mean = float(array.mean())
    return mean, *_interval(_resampled_means(array, seed, resamples), mean)


def macro_interval(
    groups: Sequence[Sequence[float]], seed: int = 0, resamples: int = 2000
) -> tuple[float, float, float]:
    """Unweighted mean of the groups' means and its 95% interval: every group is resampled within itself.

    Raises ValueError for no groups and as `mean_interval`.

    >>> macro_interval([[1.0, 1.0], [0.0]])
    (0.5, 0.5, 0.5)
    """
    if not groups:
        raise ValueError("no groups: a mean over groups needs at least one")
    arrays = [_checked(group) for group in groups]
    mean = float(np.mean([array.mean() for array in arrays]))
    # Each group draws from its own stream: with one stream for all, equal groups would be resampled in step.
    means = [_resampled_means(array, (seed, place), resamples) for place, array in enumerate(arrays)]
    return mean, *_interval(np.mean(means, axis=0), mean)


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
    tail = min(int((means <= 0).sum()), int((means >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
    return difference, *_interval(means, difference), p_value


def _checked(values: Sequence[float]) -> npt.NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.size == 0:
        raise ValueError("no values: a mean and its interval need at least one")
    if not np.isfinite(array).all():
        raise ValueError("a mean and its interval need finite values, got NaN or infinity")
    return array


def _resampled_means(
    array: npt.NDArray[np.float64], seed: int | tuple[int, ...], resamples: int
) -> npt.NDArray[np.float64]:
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")
    generator = np.random.default_rng(seed)
    distinct, counts = np.unique(array, return_counts=True)
    chunk = max(1, _CELLS // distinct.size)
    shares = counts / array.size
    means = [
        generator.multinomial(array.size, shares, size=min(chunk, resamples - start)) @ distinct / array.size
        for start in range(0, resamples, chunk)
    ]
    return np.concatenate(means)


def _interval(means: npt.NDArray[np.float64], centre: float) -> tuple[float, float]:
    """The middle 95% of ``means``, widened to ``centre`` where rounding alone would leave it outside."""
    low, high = np.quantile(means, (0.025, 0.975))
    return min(float(low), centre), max(float(high), centre)
