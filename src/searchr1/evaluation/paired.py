"""Two systems on the same questions: McNemar's exact test, and the difference that a test could have seen.

Q. McNemar, "Note on the sampling error of the difference between correlated proportions or percentages"
(Psychometrika, 1947); the sample size is that of R. J. Connor (Biometrics, 1987).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from searchr1.evaluation.bootstrap import NORMAL

POWER = 0.8
_POWER_QUANTILE = 0.8416212335729143  # of the normal distribution, at POWER


def mcnemar(only_a: int, only_b: int) -> float:
    """The exact two-sided p-value of McNemar's test: is a question that one alone got right as often A's as B's?

    Under the hypothesis ``only_a`` is binomial with ``only_a + only_b`` trials of 1/2; the p-value is twice the smaller
    tail. Sums of logarithms keep it exact for any number of questions. Raises ValueError for negative counts.

    >>> round(mcnemar(1, 5), 9), mcnemar(0, 0), mcnemar(3, 3)
    (0.21875, 1.0, 1.0)
    """
    if min(only_a, only_b) < 0:
        raise ValueError(f"expected counts, got {only_a} and {only_b}")
    trials, fewer = only_a + only_b, min(only_a, only_b)
    if trials - 2 * fewer <= 1:
        return 1.0
    # From the largest term down; the terms are C(trials, k) / 2^trials, relative to that of k = fewer.
    term, total = 1.0, 0.0
    for k in range(fewer, -1, -1):
        total += term
        term *= k / (trials - k + 1)
        if term < total * 1e-17:
            break
    largest = math.lgamma(trials + 1) - math.lgamma(fewer + 1) - math.lgamma(trials - fewer + 1)
    return min(1.0, 2 * math.exp(largest - trials * math.log(2) + math.log(total)))


def detectable_difference(n: int, discordance: float) -> float | None:
    """The smallest true difference of two shares that a paired 5% test finds in 80% of all cases.

    ``n`` questions, ``discordance`` the share of them that exactly one of both gets right: from the data at hand, or
    what is expected when an evaluation is planned. Solves ``sqrt(n) d = 1.96 sqrt(c) + 0.84 sqrt(c - d^2)`` (Connor
    1987) for ``d``. None where ``d`` would be more than ``c``: so few discordant questions (fewer than four to eight)
    can show nothing. Raises ValueError for no questions and for a share outside 0..1.

    >>> round(detectable_difference(500, 0.3), 4), round(detectable_difference(51_713, 0.3), 4)
    (0.0685, 0.0067)
    >>> detectable_difference(125, 0.04) is None
    True
    """
    if n < 1 or not 0 <= discordance <= 1:
        raise ValueError(f"expected questions and a share of them, got {n} and {discordance}")
    if discordance == 0:
        return None
    a, b = NORMAL * math.sqrt(discordance), _POWER_QUANTILE**2
    squared = a * a * n - (n + b) * (a * a - b * discordance)
    if squared < 0:
        return None
    found = (a * math.sqrt(n) + math.sqrt(squared)) / (n + b)
    return found if found <= discordance else None


def detectable_mean(differences: Sequence[Sequence[float]]) -> float | None:
    """`detectable_difference` for anything that is not right or wrong, and for means over sets.

    ``differences`` are the questions' differences, set by set: (1.96 + 0.84) standard errors of the mean over sets of
    the sets' means. None where a set has fewer than two questions or nothing differs. Raises ValueError for no sets.

    >>> round(detectable_mean([[0.5, -0.5] * 50]), 4)
    0.1408
    """
    if not differences:
        raise ValueError("no sets: a mean over sets needs at least one")
    if min(map(len, differences)) < 2:
        return None
    error = math.sqrt(math.fsum(_variance_of_mean(values) for values in differences)) / len(differences)
    return (NORMAL + _POWER_QUANTILE) * error if error > 0 else None


def holm(p_values: Sequence[float]) -> list[float]:
    """S. Holm's adjusted p-values (Scandinavian Journal of Statistics, 1979), in the order of ``p_values``.

    At most 5% of all families in which nothing differs then have a value below 0.05.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[place]))
        adjusted[place] = highest
    return adjusted


def _variance_of_mean(values: Sequence[float]) -> float:
    mean = math.fsum(values) / len(values)
    return math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values)
