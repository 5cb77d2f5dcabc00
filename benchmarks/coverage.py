"""How often do the 95% intervals hold the truth? Prints the table of docs/statistics.md.

    python benchmarks/coverage.py [--repeats 10000] [--seed 0]

Worlds whose truth is known are drawn again and again, each time the interval is computed as the program computes it,
and what is counted is how often it holds the truth. A question is as hard as a draw from a beta or a normal
distribution says, so that seeds and samples of one question are alike as they are in reality.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from searchr1.evaluation.bootstrap import macro_interval, mean_interval, paired_difference, paired_macro_difference
from searchr1.evaluation.pooled import pooled_difference, pooled_interval

SIZES = {
    "nq": 3610, "triviaqa": 11313, "popqa": 14267, "hotpotqa": 7405, "2wikimultihopqa": 12576, "musique": 2417,
    "bamboogle": 125,
}  # fmt: skip
"""Test questions of the seven sets: 51,713."""
SHARES = (0.35, 0.55, 0.40, 0.33, 0.28, 0.07, 0.10)
"""Exact match as it is met on them."""
Trial = Callable[[np.random.Generator], bool]


def holds(low: float, truth: float, high: float) -> bool:
    return low <= truth <= high


def share(n: int, p: float) -> Trial:
    """Exact match of ``n`` questions."""

    def trial(generator: np.random.Generator) -> bool:
        _, low, high = mean_interval((generator.random(n) < p).astype(float))
        return holds(low, p, high)

    return trial


def bootstrapped_share(n: int, p: float) -> Trial:
    """What the percentile bootstrap would have said: a binomial around the observed share."""

    def trial(generator: np.random.Generator) -> bool:
        observed = generator.binomial(n, p) / n
        low, high = np.quantile(generator.binomial(n, observed, size=2000) / n, (0.025, 0.975))
        return holds(low, p, high)

    return trial


def macro(sizes: tuple[int, ...], shares: tuple[float, ...]) -> Trial:
    """The average over sets."""
    truth = math.fsum(shares) / len(shares)

    def trial(generator: np.random.Generator) -> bool:
        groups = [(generator.random(n) < p).astype(float) for n, p in zip(sizes, shares, strict=True)]
        _, low, high = macro_interval(groups)  # type: ignore[arg-type]
        return holds(low, truth, high)

    return trial


def paired(n: int, only_a: float, only_b: float) -> Trial:
    """Two systems, a share of questions that one alone gets right."""

    def trial(generator: np.random.Generator) -> bool:
        a, b = _pair(generator, n, only_a, only_b)
        _, low, high, _ = paired_difference(a, b)  # type: ignore[arg-type]
        return holds(low, only_b - only_a, high)

    return trial


def paired_macro(sizes: tuple[int, ...], only_a: float, only_b: float) -> Trial:
    """Two systems on several sets."""

    def trial(generator: np.random.Generator) -> bool:
        pairs = [_pair(generator, n, only_a, only_b) for n in sizes]
        _, low, high, _ = paired_macro_difference(pairs)  # type: ignore[arg-type]
        return holds(low, only_b - only_a, high)

    return trial


def samples(n: int, p: float, each: int) -> Trial:
    """Means over ``each`` samples of one question; its own share is a beta draw around ``p``."""

    def trial(generator: np.random.Generator) -> bool:
        shares = generator.beta(p, 1 - p, size=n)
        _, low, high = mean_interval(generator.binomial(each, shares) / each)  # type: ignore[arg-type]
        return holds(low, p, high)

    return trial


def pooled(seeds: int, n: int, spread: float) -> Trial:
    """``seeds`` trained models; ``spread`` is the standard deviation of their log-odds."""
    truth = _world_mean(spread)

    def trial(generator: np.random.Generator) -> bool:
        _, low, high = pooled_interval([_crossed(generator, seeds, generator.normal(0, _HARD, n), spread).tolist()])
        return holds(low, truth, high)

    return trial


def pooled_pair(seeds: int, n: int, spread: float) -> Trial:
    """Two systems of ``seeds`` models each, as good as each other."""

    def trial(generator: np.random.Generator) -> bool:
        hard = generator.normal(0, _HARD, n)
        a, b = (_crossed(generator, seeds, hard, spread).tolist() for _ in range(2))
        _, low, high, _ = pooled_difference([a], [b])
        return holds(low, 0.0, high)

    return trial


def coverage(trial: Trial, repeats: int, seed: int = 0) -> float:
    """The share of ``repeats`` worlds in which the interval held the truth."""
    generator = np.random.default_rng(seed)
    return sum(trial(generator) for _ in range(repeats)) / repeats


_HARD, _LEVEL = 1.5, -0.5  # how the log-odds of questions are spread, and around what


def _pair(generator: np.random.Generator, n: int, only_a: float, only_b: float) -> tuple[np.ndarray, np.ndarray]:
    draw = generator.random(n)
    both = generator.random(n) < 0.5
    a = np.where(draw < only_a, 1.0, np.where(draw < only_a + only_b, 0.0, both))
    b = np.where(draw < only_a, 0.0, np.where(draw < only_a + only_b, 1.0, both))
    return a, b


def _crossed(generator: np.random.Generator, seeds: int, hard: np.ndarray, spread: float) -> np.ndarray:
    luck = generator.normal(0, spread, seeds)[:, np.newaxis]
    return (generator.random((seeds, hard.size)) < 1 / (1 + np.exp(-(_LEVEL + luck + hard)))).astype(float)


def _world_mean(spread: float) -> float:
    """The mean of the logistic function under a normal distribution, by Gauss and Hermite."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    values = 1 / (1 + np.exp(-(_LEVEL + math.hypot(_HARD, spread) * nodes)))
    return float((weights * values).sum() / weights.sum())


def trials() -> Iterator[tuple[str, str, Trial]]:
    """Every row of the table: the function, the world, the trial."""
    for n in (125, 500, 3610):
        for p in (0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5):
            yield "mean_interval", f"{n} questions, {p:.0%} right", share(n, p)
    for n in (125, 500, 3610):
        for p in (0.01, 0.03, 0.05, 0.1):
            yield "(percentile bootstrap instead)", f"{n} questions, {p:.0%} right", bootstrapped_share(n, p)
    sizes = tuple(SIZES.values())
    yield "macro_interval", "the seven sets", macro(sizes, SHARES)
    yield "macro_interval", "7 sets of 125, the same shares", macro((125,) * 7, SHARES)
    for n, only_a, only_b in ((125, 0.1, 0.15), (500, 0.1, 0.1), (500, 0.02, 0.03), (3610, 0.1, 0.15)):
        yield "paired_difference", f"{n} questions, {only_a:.0%} / {only_b:.0%} discordant", paired(n, only_a, only_b)
    yield "paired_macro_difference", "the seven sets, 10% / 15% discordant", paired_macro(sizes, 0.1, 0.15)
    for n, p in ((125, 0.05), (125, 0.3), (500, 0.05), (500, 0.3), (3610, 0.3)):
        yield "mean_interval, 4 samples each", f"{n} questions, {p:.0%} right", samples(n, p, 4)
    for seeds in (2, 3, 5):
        for n in (125, 500):
            for spread in (0.0, 0.1, 0.2, 0.5):
                world = f"{seeds} seeds, {n} questions, seeds' spread {100 * _points(spread):.1f} points"
                yield "pooled_interval", world, pooled(seeds, n, spread)
    for seeds in (3, 5):
        for spread in (0.0, 0.2):
            world = f"{seeds} seeds each, 500 questions, seeds' spread {100 * _points(spread):.1f} points"
            yield "pooled_difference", world, pooled_pair(seeds, 500, spread)


def _points(spread: float) -> float:
    """A seed's standard deviation in exact match, to first order."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    values = 1 / (1 + np.exp(-(_LEVEL + _HARD * nodes)))
    return spread * float((weights * values * (1 - values)).sum() / weights.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the table there instead of to stdout")
    given = parser.parse_args()
    lines = ["| interval | world | held the truth |", "|---|---|---:|"]
    for name, world, trial in trials():
        started = time.monotonic()
        found = coverage(trial, given.repeats, given.seed)
        lines.append(f"| `{name}` | {world} | {100 * found:.1f}% |".replace("`(", "(").replace(")`", ")"))
        print(f"{name}, {world}: {100 * found:.1f}% ({time.monotonic() - started:.0f} s)", file=sys.stderr)
    table = "\n".join(lines) + "\n"
    given.out.write_text(table) if given.out else sys.stdout.write(table)


if __name__ == "__main__":
    main()
