"""``table.md``: what a study found, to be read and to be pasted."""

from __future__ import annotations

from collections.abc import Sequence

from searchr1.studies.collect import Results
from searchr1.studies.definition import BEFORE, MEASURES
from searchr1.studies.intervals import Interval
from searchr1.studies.measures import LEAST_BEST, Measured

PLOT = "plot.svg"
SHARES = ("exact_match", "sampled", "greedy", "area")


def markdown(results: Results, *, plot: bool = False) -> str:
    """The page; with ``plot``, the picture that lies beside it is shown."""
    study = results.study
    parts = [f"# {study.title}", f"{study.finding.strip()} ({study.source})"]
    if study.reading:
        parts.append(study.reading.strip())
    parts.append(_lines(_values(results)))
    if study.evaluations:
        parts.append(_lines(_matrix(results)))
    if study.expectations:
        parts.append(_lines(_verdicts(results)))
    if plot:
        parts.append(f"![{study.title}]({PLOT})")
    parts.append(_notes(results))
    return "\n\n".join(parts) + "\n"


def shown(of: str, value: Interval | None, *, sign: bool = False) -> str:
    """A measure with its 95% interval: shares as percentage points, all else with two decimals.

    >>> shown("area", Interval(0.5, 0.4, 0.6, 3)), shown("exact_match", Interval(0.5, None, None, 1), sign=True)
    ('50.0 [40.0, 60.0]', '+50.0')
    >>> shown("searches", Interval(1.5, 1.25, 1.75, 3)), shown("searches", None)
    ('1.50 [1.25, 1.75]', '-')
    """
    if value is None:
        return "-"
    factor, form = (100.0, ".1f") if of in SHARES else (1.0, ".2f")
    mean = f"{factor * value.mean:{'+' if sign else ''}{form}}"
    if value.low is None or value.high is None:
        return mean
    return f"{mean} [{factor * value.low:{form}}, {factor * value.high:{form}}]"


def _values(results: Results) -> list[list[str]]:
    study = results.study
    other = "greedy" if study.decoding == "sampled" else "sampled"
    head = [
        "variant",
        "seeds",
        f"exact match, {study.decoding}, %",
        f"{other}, %",
        "before, %",
        "searches",
        "mean in training, %",
    ]
    rows = [[*head, "step of 50%", "collapse", "seconds"]]
    for name in results.runs:
        runs = results.finished(name)
        seconds = results.interval(name, "seconds")
        rows.append(
            [
                name,
                _seeds(results.runs[name], runs),
                shown("exact_match", results.interval(name, "exact_match")),
                shown(other, results.interval(name, other)),
                shown("exact_match", results.interval(f"{name}@{BEFORE}", "exact_match")),
                shown("searches", results.interval(name, "searches")),
                shown("area", results.interval(name, "area")),
                _steps(runs, "half"),
                _steps(runs, "collapsed"),
                f"{seconds.mean:.0f}" if seconds else "-",
            ]
        )
    return rows


def _seeds(runs: Sequence[Measured], finished: Sequence[Measured]) -> str:
    return str(len(finished)) if len(runs) == len(finished) else f"{len(finished)} of {len(runs)}"


def _steps(runs: Sequence[Measured], of: str) -> str:
    """A step of every seed, in their order; ``never`` for all stands alone."""
    steps = [run.values.get(of) for run in runs]
    if not steps:
        return "-"
    return (
        "never" if all(step is None for step in steps) else ", ".join("-" if s is None else f"{s:.0f}" for s in steps)
    )


def _matrix(results: Results) -> list[list[str]]:
    names = list(results.study.evaluations)
    head = [f"trained (down), evaluated (across): exact match, {results.study.decoding}, %", *names]
    rows = [
        [name, *(shown("exact_match", results.interval(f"{name}@{at}", "exact_match")) for at in names)]
        for name in results.runs
    ]
    searches = [
        [f"{name}, searches", *(shown("searches", results.interval(f"{name}@{at}", "searches")) for at in names)]
        for name in results.runs
    ]
    return [head, *rows, *searches]


def _verdicts(results: Results) -> list[list[str]]:
    rows = [["the finding implies", "difference [95%]", "seeds", "verdict"]]
    for one in results.judged():
        expected = one.expectation
        claim = f"{MEASURES[expected.of]}: {expected.higher} above {expected.lower}"
        seeds = str(one.difference.n) if one.difference else "0"
        rows.append([claim, shown(expected.of, one.difference, sign=True), seeds, f"**{one.verdict}**"])
    return rows


def _notes(results: Results) -> str:
    steps = max((run.steps for runs in results.runs.values() for run in runs), default=0)
    seeds = ", ".join(map(str, results.seeds)) or "none yet"
    return (
        f"{steps} steps; seeds {seeds}. Brackets: 95% intervals over seeds (Student's t); differences are paired by "
        "seed. `agrees`: the interval of the difference lies above 0; `disagrees`: below; else `cannot tell`. Exact "
        "match and searches: test questions after training. Step of 50%: the first training step whose exact match "
        "reaches it, seed by seed. Collapse: the first step below half of the best before it, once that was at least "
        f"{100 * LEAST_BEST:.0f}%. Seconds: of training, evaluations apart."
    )


def _lines(rows: Sequence[Sequence[str]]) -> str:
    """A markdown table; the first row is its head, the first column holds names."""
    head, *body = rows
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in [head, rule, *body]
    )
