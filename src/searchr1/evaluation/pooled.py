"""Several seeds of one system on the same questions: intervals that count both, the seeds and the questions.

A table of seeds x questions has two kinds of luck: which questions were drawn and which seeds. Its mean varies with
both (A. C. Cameron, J. B. Gelbach and D. L. Miller, "Robust inference with multiway clustering", 2011):

    V = V_questions + V_seeds - V_intersection

because what is neither question nor seed is in the first two alike. The intersection is what remains after the means
of question and of seed are taken away, as in the analysis of variance of a crossed table, so that the sum is unbiased
for two or three seeds too (with residuals of the grand mean alone, a third of what questions vary would be lost at
three seeds). V is floored at the larger of the first two. The interval is Student's t at the degrees of freedom of
F. E. Satterthwaite (Biometrics Bulletin, 1946): where seeds differ a lot, three of them give an interval as wide as
three values deserve.

Over several sets the mean is unweighted; questions are drawn within each set, a seed keeps its luck across the sets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from searchr1.evaluation.student import t_quantile, t_tail

Table = Sequence[Sequence[float]]
"""Seeds x questions."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One term of a variance and the degrees of freedom behind it."""

    variance: float
    degrees: int


@dataclass(frozen=True, slots=True)
class _Luck:
    """Mean over sets, and where its variance comes from. One seed alone says nothing of ``seeds``."""

    mean: float
    questions: tuple[_Part, ...]
    seeds: _Part | None
    rest: tuple[_Part, ...]


def pooled_interval(sets: Sequence[Table]) -> tuple[float, float, float]:
    """Mean over sets, seeds and questions and its 95% interval: ``(mean, low, high)``.

    Every set is a table of the same number (at least two) of seeds, in the same order, by its own questions (at least
    two). Raises ValueError otherwise and for what is not finite.

    >>> tuple(round(bound, 3) for bound in pooled_interval([[[1, 0, 1, 0], [1, 1, 1, 0]]]))
    (0.625, -0.286, 1.536)
    """
    luck = _luck(sets)
    if luck.seeds is None:
        raise ValueError("expected at least two seeds, got one; one seed's interval is that of its questions")
    between = max(0.0, luck.seeds.variance - _sum(luck.rest))
    variance = max(_sum(luck.questions) + between, luck.seeds.variance)
    half = t_quantile(_satterthwaite(variance, [*luck.questions, luck.seeds, *luck.rest])) * math.sqrt(variance)
    return luck.mean, luck.mean - half, luck.mean + half


def pooled_difference(a: Sequence[Table], b: Sequence[Table]) -> tuple[float, float, float, float]:
    """How much better ``b`` is than ``a`` on the same questions: ``(difference, low, high, p_value)``.

    Questions are paired, seeds are not: seed 1 of one system has nothing in common with seed 1 of another. Either side
    may have a single seed, of whose luck nothing is then known: the result is about that very model. ``p_value`` is
    two-sided. Raises ValueError as `pooled_interval`, and where the sets do not have the same questions.

    >>> pooled_difference([[[0, 1, 0], [0, 1, 0]]], [[[0, 1, 0]]])
    (0.0, 0.0, 0.0, 1.0)
    """
    if [np.shape(table)[-1] for table in a] != [np.shape(table)[-1] for table in b]:
        raise ValueError("expected the same questions on both sides")
    sides = [_luck(a), _luck(b)]
    # What is left of a question after the means over the seeds of both sides holds each side's rest once.
    means = [
        (np.mean(_checked(y), axis=0) - np.mean(_checked(x), axis=0))[np.newaxis] for x, y in zip(a, b, strict=True)
    ]
    questions = _luck(means).questions
    parts, variance = list(questions), _sum(questions)
    for side in sides:
        if side.seeds is not None:
            variance += max(0.0, side.seeds.variance - _sum(side.rest))
            parts += [side.seeds, *side.rest]
    difference = sides[1].mean - sides[0].mean
    if variance == 0:
        return difference, difference, difference, 1.0 if difference == 0 else 0.0
    degrees = _satterthwaite(variance, parts)
    half = t_quantile(degrees) * math.sqrt(variance)
    return difference, difference - half, difference + half, t_tail(difference / math.sqrt(variance), degrees)


def _luck(sets: Sequence[Table]) -> _Luck:
    """The mean squares of every set's crossed table, scaled to variances of the mean over sets."""
    if not sets:
        raise ValueError("no sets: a mean over sets needs at least one")
    tables = [_checked(table) for table in sets]
    seeds = tables[0].shape[0]
    if any(table.shape[0] != seeds for table in tables):
        raise ValueError("expected the same seeds in every set")
    questions, rest = [], []
    for table in tables:
        n, scale = table.shape[1], len(tables) ** 2
        by_question, by_seed = table.mean(axis=0), table.mean(axis=1)
        questions.append(_Part(float(by_question.var(ddof=1)) / n / scale, n - 1))
        if seeds > 1:
            left = table - by_question - by_seed[:, np.newaxis] + table.mean()
            degrees = (seeds - 1) * (n - 1)
            rest.append(_Part(float((left**2).sum()) / degrees / table.size / scale, degrees))
    by_seed = np.mean([table.mean(axis=1) for table in tables], axis=0)
    between = _Part(float(by_seed.var(ddof=1)) / seeds, seeds - 1) if seeds > 1 else None
    return _Luck(float(by_seed.mean()), tuple(questions), between, tuple(rest))


def _checked(table: Table | npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    array = np.asarray(table, dtype=np.float64)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 2:
        raise ValueError(f"expected seeds x questions, at least two questions, got the shape {array.shape}")
    if not np.isfinite(array).all():
        raise ValueError("expected finite values, got NaN or infinity")
    return array


def _sum(parts: Sequence[_Part]) -> float:
    return math.fsum(part.variance for part in parts)


def _satterthwaite(variance: float, parts: Sequence[_Part]) -> float:
    """Degrees of freedom of a sum of independent mean squares, cut to tenths: fewer are on the safe side."""
    spread = math.fsum(part.variance**2 / part.degrees for part in parts)
    return max(1.0, math.floor(10 * variance**2 / spread) / 10) if spread > 0 else 1.0
