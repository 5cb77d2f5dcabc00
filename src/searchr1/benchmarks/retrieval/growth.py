"""How search cost, memory and disk grow with the corpus, and what that would make of the 21 million passages.

A power law is fitted to what was measured. Where its residuals are small it describes the sizes that were measured;
beyond them it is an extrapolation, and every row that extrapolates says so.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from searchr1.benchmarks.retrieval.base import LINE, Row, row
from searchr1.benchmarks.retrieval.lexical import Bench, Searched
from searchr1.benchmarks.retrieval.systems import NAMES
from searchr1.errors import UserError

SIZES = (37_000, 100_000, 300_000, 1_000_000, 2_000_000)
WIKIPEDIA = 21_000_000
"""Passages of the corpus that Search-R1 was trained with, about."""
_LEAST_SIZES = 3
_SMALLEST_RESIDUAL = 0.01  # percent

MEASURES: dict[str, tuple[str, Callable[[Searched], float]]] = {
    "processor time": (LINE, lambda found: found.best),
    "memory of its own": ("MB", lambda found: found.anonymous_mb),
    "disk with the text": ("MB", lambda found: found.folder_mb),
}


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """``factor * passages ** exponent``; ``residuals`` are measured / fitted - 1."""

    factor: float
    exponent: float
    residuals: tuple[float, ...]

    def at(self, passages: float) -> float:
        return float(self.factor * passages**self.exponent)


def fit(sizes: Sequence[int], values: Sequence[float]) -> PowerLaw:
    """Least squares on logarithms.

    >>> law = fit([10, 100, 1000], [2.0, 20.0, 200.0])
    >>> round(law.exponent, 6), round(law.at(10_000), 3)
    (1.0, 2000.0)
    """
    exponent, offset = np.polyfit(np.log(sizes), np.log(values), 1)
    law = PowerLaw(math.exp(offset), float(exponent), ())
    measured = zip(sizes, values, strict=True)
    return PowerLaw(law.factor, law.exponent, tuple(value / law.at(size) - 1 for size, value in measured))


def figure_growth(bench: Bench) -> list[Row]:
    """Every size measured, the law through them, its worst residual, and what it says of 21 million passages."""
    options = bench.options
    sizes = sorted(set(options.passages or SIZES))
    if len(sizes) < _LEAST_SIZES:
        raise UserError(f"growth: expected at least {_LEAST_SIZES} sizes, got {len(sizes)}; give more --passages")
    if options.plot is not None and importlib.util.find_spec("matplotlib") is None:
        raise UserError("--plot: the library matplotlib is missing; run: pip install 'searchr1[bench]'")
    found = {size: bench.searched(size) for size in sizes}
    rows: list[Row] = []
    for peer in [system for system in found[sizes[0]] if system != "ours"]:
        for what in MEASURES:
            rows += _rows(bench, found, peer, what)
    if options.plot is not None:
        draw(options.plot, found)
        options.say(f"wrote {options.plot}")
    return rows


def _rows(bench: Bench, found: Mapping[int, Mapping[str, Searched]], peer: str, what: str) -> list[Row]:
    unit, value = MEASURES[what]
    sizes, name = list(found), NAMES[peer]
    ours, theirs = ([value(found[size][system]) for size in sizes] for system in ("ours", peer))
    rows = [
        row(f"growth, {what}, {bench.corpus(size).label}", unit, mine, name, other)
        for size, mine, other in zip(sizes, ours, theirs, strict=True)
    ]

    def compared(figure: str, unit: str, of: Callable[[PowerLaw], float], last: int = len(sizes)) -> Row:
        laws = [fit(sizes[-last:], values[-last:]) for values in (ours, theirs)]
        return row(f"growth, {what}, {figure}", unit, of(laws[0]), name, of(laws[1]))

    wikipedia = f"extrapolated to {WIKIPEDIA:,} passages"
    return [
        *rows,
        compared("fitted power of the passages", "exponent", lambda law: law.exponent),
        compared("largest residual of the fit", "%", _worst_residual),
        compared(wikipedia, unit, lambda law: law.at(WIKIPEDIA)),
        compared(f"{wikipedia} from the largest two sizes", unit, lambda law: law.at(WIKIPEDIA), last=2),
    ]


def _worst_residual(law: PowerLaw) -> float:
    return max(100 * max(map(abs, law.residuals)), _SMALLEST_RESIDUAL)


def draw(path: Path, found: Mapping[int, Mapping[str, Searched]]) -> None:
    """Points that were measured, and dashed the law through them up to 21 million; the file's suffix says its kind."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = list(found)
    figure, axes = pyplot.subplots(1, len(MEASURES), figsize=(5 * len(MEASURES), 4.2), layout="constrained")
    for axis, (what, (unit, value)) in zip(axes, MEASURES.items(), strict=True):
        for place, system in enumerate(found[sizes[0]]):
            values = [value(found[size][system]) for size in sizes]
            _draw_system(axis, f"C{place}", NAMES[system], sizes, values)
        axis.set(xscale="log", yscale="log", title=what, xlabel="passages", ylabel=unit)
        axis.axvline(WIKIPEDIA, color="0.8", linewidth=1, zorder=0)
        axis.grid(color="0.93", zorder=0)
        axis.legend(frameon=False, fontsize=8)
    figure.suptitle("Growth with the corpus: measured, and the fitted power law to 21 million passages", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _draw_system(axis: Any, color: str, name: str, sizes: list[int], values: list[float]) -> None:
    law = fit(sizes, values)
    label = f"{name}: power {law.exponent:.2f}, residuals within {_worst_residual(law):.0f}%"
    axis.plot(sizes, values, "o", color=color, label=label)
    reach = [sizes[0], WIKIPEDIA]
    axis.plot(reach, [law.at(size) for size in reach], "--", color=color, linewidth=1)
