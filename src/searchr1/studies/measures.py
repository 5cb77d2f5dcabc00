"""What one run of a study came to, read from its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from searchr1.run import RunFolder
from searchr1.run_files import Row
from searchr1.studies.definition import BEFORE, EVALUATED, Study

Curve = tuple[tuple[int, float], ...]
"""(step, value), ascending."""

TRAINING = "train/exact_match"
REACHED = 0.5
LEAST_BEST = 0.2
"""Below this exact match a step's figure is mostly noise, and its halving no collapse."""


@dataclass(frozen=True)
class Measured:
    """One run. What an unfinished run cannot have yet is missing from ``values``."""

    seed: int
    steps: int
    """Training steps that are done."""
    finished: bool
    values: Mapping[str, float | None]
    """`MEASURES` and, in both decodings, ``sampled`` and ``greedy``; None: it did not happen."""
    evaluations: Mapping[str, Mapping[str, float]]
    """The one before training and further ones: name -> measure -> value."""
    training: Curve
    """Exact match of every training step."""
    test: Curve
    """Exact match on test questions, from before training on."""
    alarms: Curve = ()
    """Exact match of the training steps at which a critical alarm began, taken back or not."""
    taken_back: tuple[Curve, ...] = ()
    """Exact match of the training steps that a rollback took back, a curve for every rollback."""


def measure(study: Study, folder: Path, evaluations: Path) -> Measured:
    """Read a run folder and the folder of its further evaluations. Raises UserError for what is not readable."""
    run = RunFolder.open(folder)
    steps, agent = run.config["steps"], run.config["rollout"]["agent"]
    rows = run.read_metrics()
    training = curve(rows, TRAINING)
    tests = [row for row in run.read_eval() if row["agent"] == agent and "exact_match" in row]
    # With several data sets the row of all questions is the last of its step.
    last = {(row["decoding"], row["step"]): row for row in tests}
    final = {decoding: row for (decoding, step), row in last.items() if step == steps}
    values: dict[str, float | None] = {}
    if final and study.decoding in final:
        chosen = final[study.decoding]
        values = {"exact_match": chosen["exact_match"], "searches": chosen["searches"]}
        values |= {decoding: row["exact_match"] for decoding, row in final.items()}
        values |= {"area": fmean(value for _, value in training), "seconds": sum(row["time/step"] for row in rows)}
        values |= {"half": first_at(training, REACHED), "collapsed": collapse(training)}
    others = {name: found for name in study.evaluations if (found := _evaluation(evaluations / name))}
    if first := last.get((study.decoding, 0)):
        others[BEFORE] = {of: first[of] for of in EVALUATED}
    return Measured(
        seed=int(folder.name.removeprefix("seed-")),
        steps=len(rows),
        finished=bool(values),
        values=values,
        evaluations=others,
        training=training,
        test=curve([row for (decoding, _), row in last.items() if decoding == study.decoding], "exact_match"),
        alarms=_alarmed(run, rows),
        taken_back=tuple(curve(lost, TRAINING) for _, lost in sorted(_lost(run).items())),
    )


def _lost(run: RunFolder) -> dict[int, list[Row]]:
    """Rows of training steps that were taken back, by attempt."""
    attempts: dict[int, list[Row]] = {}
    for row in run.read_rolled_back():
        if row["file"] == "metrics.jsonl":
            attempts.setdefault(row["attempt"], []).append(row)
    return attempts


def _alarmed(run: RunFolder, rows: Sequence[Row]) -> Curve:
    critical = [row for row in run.read_alarms() if row["level"] == "critical"]
    held = {(row["attempt"], row["name"], row["step"]) for row in critical}
    began = sorted({(at, step) for at, name, step in held if (at, name, step - 1) not in held})
    lost = {(attempt, row["step"]): row for attempt, given_up in _lost(run).items() for row in given_up}
    kept = {row["step"]: row for row in rows}
    return curve([lost.get((attempt, step)) or kept.get(step, {"step": step}) for attempt, step in began], TRAINING)


def curve(rows: Sequence[Mapping[str, Any]], key: str) -> Curve:
    """
    >>> curve([{"step": 1, "em": 0.5}, {"step": 2}], "em")
    ((1, 0.5),)
    """
    return tuple((row["step"], row[key]) for row in rows if row.get(key) is not None)


def first_at(values: Curve, level: float) -> int | None:
    """The first step that reaches ``level``.

    >>> first_at(((1, 0.2), (2, 0.6), (3, 0.4)), 0.5)
    2
    """
    return next((step for step, value in values if value >= level), None)


def collapse(values: Curve) -> int | None:
    """The first step whose value is below half of the best before it, once that is at least `LEAST_BEST`.

    >>> collapse(((1, 0.1), (2, 0.02), (3, 0.6), (4, 0.31), (5, 0.29)))
    5
    """
    best = 0.0
    for step, value in values:
        if best >= LEAST_BEST and value < best / 2:
            return step
        best = max(best, value)
    return None


def _evaluation(folder: Path) -> dict[str, float]:
    """All questions of an evaluation folder together; empty where it is not done."""
    path = folder / "summary.json"
    if not path.is_file():
        return {}
    sets = [row for row in json.loads(path.read_text(encoding="utf-8"))["datasets"].values() if row["n"]]
    total = sum(row["n"] for row in sets)
    return {key: sum(row["n"] * row[key] for row in sets) / total for key in ("exact_match", "searches") if total}
