"""``plot.svg``: learning curves with intervals over seeds, and where they end. Needs matplotlib (extra ``studies``)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from searchr1.studies.collect import Results, mean_curve
from searchr1.studies.intervals import Interval
from searchr1.studies.measures import Curve, Measured

HOW_TO_GET = "no plot: the library matplotlib is missing; run: pip install 'searchr1[studies]'"
INCIDENTS = "cross: a critical alarm; dotted: steps that a rollback took back"
_COLORS = ("#4269d0", "#ff725c", "#3ca951", "#efb118", "#6cc5b0", "#a463f2", "#9c6b4e", "#ff8ab7", "#9498a0")
"""Told apart also by most people who do not see all colours: the categorical scheme of Observable Plot."""


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(results: Results, path: Path) -> bool:
    """Write the picture (the suffix of ``path`` says its kind); False where there is nothing to draw yet."""
    names = [name for name in results.runs if results.finished(name)]
    if not names:
        return False
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    colors = {name: _COLORS[place % len(_COLORS)] for place, name in enumerate(results.runs)}
    matrix = bool(results.study.evaluations)
    tall = max(4.2, 0.42 * len(names) + 1.6)
    # The same picture for the same results: no date, and ids that do not depend on chance.
    with pyplot.rc_context({"svg.hashsalt": "searchr1", "font.size": 9, "axes.titlesize": 10}):
        figure, axes = pyplot.subplots(
            1, 4 if matrix else 3, figsize=(17 if matrix else 13, tall), layout="constrained"
        )
        for axis, title, curve_of in ((axes[0], "training", "training"), (axes[1], "test questions", "test")):
            for name in names:
                curves = [getattr(run, curve_of) for run in results.finished(name)]
                _draw_curve(axis, curves, colors[name], name, dots=curve_of == "test")
                if curve_of == "training":
                    _draw_incidents(axis, results.finished(name), colors[name])
            axis.set(title=f"exact match, {title}", xlabel="step", ylim=(-2, 102), ylabel="%")
            axis.grid(color="0.92", zorder=0)
        _draw_finals(axes[2], results, names, colors)
        if matrix:
            _draw_matrix(axes[3], results, names)
        if len(names) > 1:
            figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=6, frameon=False)
        incidents = any(run.alarms or run.taken_back for name in names for run in results.finished(name))
        notes = [*([INCIDENTS] if incidents else []), "bands, bars: 95% over seeds, Student's t"]
        figure.suptitle(f"{results.study.title} ({'; '.join(notes)})", fontsize=11)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
        pyplot.close(figure)
    return True


def _draw_curve(axis: Any, curves: Sequence[Curve], color: str, name: str, *, dots: bool) -> None:
    mean = mean_curve(curves)
    steps = [step for step, _ in mean]
    axis.plot(
        steps, [100 * at.mean for _, at in mean], color=color, label=name, linewidth=1.6,
        marker="o" if dots else "", markersize=3.5, zorder=3,
    )  # fmt: skip
    if len(curves) > 1:
        low, high = zip(*(_bounds(at) for _, at in mean), strict=True)
        axis.fill_between(steps, low, high, color=color, alpha=0.13, linewidth=0, zorder=2)


def _draw_incidents(axis: Any, runs: Sequence[Measured], color: str) -> None:
    """Dotted, what a rollback took back; a cross, where a critical alarm began."""
    for run in runs:
        for lost in run.taken_back:
            steps, values = zip(*lost, strict=True)
            axis.plot(steps, [100 * value for value in values], ":", color=color, linewidth=1.2, zorder=3)
        if run.alarms:
            steps, values = zip(*run.alarms, strict=True)
            axis.plot(
                steps, [100 * value for value in values], "x", color=color, markersize=8, markeredgewidth=2, zorder=4
            )


def _bounds(at: Interval) -> tuple[float, float]:
    """In percent; a share is never outside 0 to 1, whatever Student's t says."""
    low, high = (at.mean if bound is None else bound for bound in (at.low, at.high))
    return 100 * max(0.0, low), 100 * min(1.0, high)


def _draw_finals(axis: Any, results: Results, names: Sequence[str], colors: dict[str, str]) -> None:
    """Every seed a dot, the mean a tick, the interval a bar; the first variant on top."""
    for row, name in enumerate(reversed(names)):
        values = results.values(name, "exact_match")
        found = results.interval(name, "exact_match")
        assert found is not None
        axis.plot(_bounds(found), [row, row], color=colors[name], linewidth=5, alpha=0.25, solid_capstyle="butt")
        axis.plot(
            [100 * value for value in values.values()], [row] * len(values), "o", color=colors[name], markersize=4
        )
        axis.plot([100 * found.mean], [row], "|", color=colors[name], markersize=15, markeredgewidth=2)
        above = (100 * found.mean, row)
        axis.annotate(
            f"{100 * found.mean:.1f}", above, xytext=(0, 8), textcoords="offset points", ha="center", fontsize=8
        )
    axis.set(title=f"after training, test, {results.study.decoding}", xlabel="exact match, %", xlim=(-2, 102))
    axis.set_yticks(range(len(names)), list(reversed(names)))
    axis.set_ylim(-0.6, len(names) - 0.25)
    axis.grid(axis="x", color="0.92", zorder=0)


def _draw_matrix(axis: Any, results: Results, names: Sequence[str]) -> None:
    """Trained (down) by evaluated (across)."""
    across = list(results.study.evaluations)
    found = [[results.interval(f"{name}@{at}", "exact_match") for at in across] for name in names]
    shares = [[cell.mean if cell else float("nan") for cell in row] for row in found]
    axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for y, row in enumerate(shares):
        for x, value in enumerate(row):
            text = "-" if value != value else f"{100 * value:.1f}"
            axis.text(x, y, text, ha="center", va="center", color="white" if value > 0.6 else "black")
    axis.set_xticks(range(len(across)), across)
    axis.set_yticks(range(len(names)), names)
    axis.set(title="exact match, %", xlabel="evaluated with", ylabel="trained with")
