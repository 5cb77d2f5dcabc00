"""The table's numbers: a value with its interval in every cell, and which entries the best one is not known to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import macro_interval, mean_interval
from searchr1.evaluation.paired import holm
from searchr1.evaluation.pooled import pooled_interval
from searchr1.evaluation.results import Answered, QuestionKey, same_question
from searchr1.leaderboard.contests import Block, Field, against
from searchr1.leaderboard.entries import Entry

PAPER = ("nq", "triviaqa", "popqa", "hotpotqa", "2wikimultihopqa", "musique", "bamboogle")
"""The order of arXiv 2503.09516, table 2; other data sets follow in the order in which they occur."""
COSTS = ("searches", "policy_tokens", "retrieved_tokens", "seconds")
LEVEL = 0.05
MANY_FAILURES = 0.01
AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Cell:
    """One entry on one data set, or its unweighted mean over all of them."""

    value: float
    low: float
    high: float
    n: int
    """Questions that count: those that failed in no seed."""
    best: bool
    difference: float | None
    """To the best of the column, on the questions of both; None for the best."""
    p_value: float | None
    p_holm: float | None

    @property
    def tied(self) -> bool:
        """Not the best, but not known to be worse either."""
        return not self.best and self.p_holm is not None and self.p_holm > LEVEL


@dataclass(frozen=True, slots=True)
class Cost:
    """What one question took, and what one right answer (exact match) took; None where it is not known."""

    per_question: float
    per_correct: float | None


@dataclass(frozen=True, slots=True)
class Line:
    """One entry of the table. ``cells`` are None where it was not evaluated, or failed on every question."""

    entry: Entry
    cells: Mapping[str, Cell | None]
    """By data set; `AVERAGE` too, where there are several."""
    costs: Mapping[str, Cost | None]
    failed: int
    asked: int

    @property
    def overall(self) -> Cell | None:
        """The last column: the average, or the one data set there is."""
        return list(self.cells.values())[-1]

    @property
    def many_failures(self) -> bool:
        return self.failed > MANY_FAILURES * self.asked


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that is shown, whatever the format."""

    metric: str
    questions: Mapping[str, int]
    """By data set: those that all entries evaluated on it have."""
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    @property
    def columns(self) -> list[str]:
        return [*self.questions, *([AVERAGE] if len(self.questions) > 1 else [])]


def build_board(entries: Sequence[Entry], metric: str = "exact_match") -> Board:
    """Compare entries on the questions that they have in common, data set by data set.

    ``metric`` is one of exact_match, f1 and cover_match. Raises UserError for no entries, an id that stands for two
    questions, and a data set on which two entries have no question in common.
    """
    if not entries:
        raise UserError("leaderboard: expected at least one evaluation folder, got none")
    names = dict.fromkeys(name for entry in entries for seed in entry.seeds for name in seed.datasets)
    datasets = [*(name for name in PAPER if name in names), *(name for name in names if name not in PAPER)]
    if AVERAGE in names and len(names) > 1:
        raise UserError(f"leaderboard: a data set is called {AVERAGE!r}, as the column over all is; rename it")
    common = {name: _common(entries, name) for name in datasets}
    fields = [Field({name: _block(entry, keys) for name, keys in common.items()}, metric) for entry in entries]
    columns = {name: _column(fields, [name]) for name in datasets}
    if len(datasets) > 1:
        columns[AVERAGE] = _column(fields, datasets)
    lines = []
    for place, (entry, field) in enumerate(zip(entries, fields, strict=True)):
        cells = {name: column[place] for name, column in columns.items()}
        blocks = [block for block in field.blocks.values() if block is not None]
        failed, asked = (sum(getattr(block, name) for block in blocks) for name in ("failed", "asked"))
        lines.append(Line(entry, cells, {name: _cost(blocks, name) for name in COSTS}, failed, asked))
    counts = {name: len(keys) for name, keys in common.items()}
    return Board(metric, counts, tuple(lines), tuple(_notes(entries, common, lines)))


def _common(entries: Sequence[Entry], dataset: str) -> list[QuestionKey]:
    """Questions that every evaluation of ``dataset`` has."""
    holders = [seed for entry in entries for seed in entry.seeds if dataset in seed.datasets]
    first = holders[0]
    keys = [key for key in first.questions if key[0] == dataset and all(key in other.questions for other in holders)]
    if not keys:
        folders = ", ".join(str(holder.folder) for holder in holders)
        raise UserError(f"{folders}: have no question of {dataset} in common; evaluate them on the same data")
    for other in holders[1:]:
        for key in keys:
            same_question(first.questions[key], other.questions[key], key, f"{first.folder} and {other.folder}")
    return keys


def _block(entry: Entry, keys: Sequence[QuestionKey]) -> Block | None:
    """The entry on one data set; None where not every seed of it was evaluated there."""
    if any(keys[0] not in seed.questions for seed in entry.seeds):
        return None
    answered: list[list[Answered]] = [[seed.questions[key] for key in keys] for seed in entry.seeds]
    return Block(answered)


def _column(fields: Sequence[Field], datasets: Sequence[str]) -> list[Cell | None]:
    """One column: values, the best of it, and everybody else against the best."""
    complete = [field.covers(datasets) for field in fields]
    found = [
        _interval(field.tables(datasets)) if whole else None for field, whole in zip(fields, complete, strict=True)
    ]
    present = [place for place, value in enumerate(found) if value is not None]
    if not present:
        return [None] * len(fields)
    best = max(present, key=lambda place: (found[place] or (0.0,))[0])
    highest = (found[best] or (0.0,))[0]
    others = [place for place in present if place != best]
    tests = [against(fields[place], fields[best], datasets) for place in others]
    tested = dict(zip(others, zip(tests, holm([p for _, p in tests]), strict=True), strict=True))
    cells: list[Cell | None] = []
    for place, value in enumerate(found):
        if value is None:
            cells.append(None)
            continue
        n = sum(len(fields[place].kept(name)) for name in datasets)
        (difference, p_value), p_holm = tested.get(place, ((None, None), None))
        cells.append(Cell(*value, n, value[0] == highest, difference, p_value, p_holm))
    return cells


def _interval(tables: Sequence[npt.NDArray[np.float64]]) -> tuple[float, float, float]:
    """Of the mean over sets: questions alone for one seed, both for several. A share stays within 0 and 1.

    Seeds that agree on everything (all right, say) leave no variance to pool: it is never narrower than that of the
    questions alone.
    """
    values = [table.mean(axis=0) for table in tables]
    mean, low, high = mean_interval(list(values[0])) if len(values) == 1 else macro_interval([list(v) for v in values])
    if tables[0].shape[0] == 1 or min(table.shape[1] for table in tables) < 2:
        return mean, low, high
    mean, below, above = pooled_interval([table.tolist() for table in tables])
    return mean, max(0.0, min(low, below)), min(1.0, max(high, above))


def _cost(blocks: Sequence[Block], name: str) -> Cost | None:
    """Unweighted over the data sets, as the average is."""
    means = [block.mean(name) for block in blocks]
    right = [block.mean("exact_match") for block in blocks]
    known = [value for value in means if value is not None]
    if not known or len(known) < len(means):
        return None
    share = sum(value for value in right if value is not None) / len(means)
    each = sum(known) / len(known)
    return Cost(each, each / share if share > 0 else None)


def _notes(entries: Sequence[Entry], common: Mapping[str, Sequence[QuestionKey]], lines: Sequence[Line]) -> list[str]:
    notes = []
    for name, keys in common.items():
        for entry in entries:
            most = max(sum(key[0] == name for key in seed.questions) for seed in entry.seeds)
            if most > len(keys):
                notes.append(
                    f"{name}: {entry.name} has {most:,} questions; compared on the {len(keys):,} that all have"
                )
    for line in lines:
        missing = [name for name, cell in line.cells.items() if cell is None and name != AVERAGE]
        if missing:
            notes.append(f"{line.entry.name}: not evaluated, or failed throughout, on {', '.join(missing)}")
        if line.many_failures:
            share = 100 * line.failed / line.asked
            notes.append(
                f"{line.entry.name}: {line.failed:,} of {line.asked:,} answers ({share:.1f}%) failed through no fault "
                "of the policy and are left out; evaluate again before you trust the figures"
            )
        if len(line.entry.seeds) > 1:
            folders = ", ".join(str(seed.folder) for seed in line.entry.seeds)
            notes.append(f"{line.entry.name}: {len(line.entry.seeds)} seeds, pooled: {folders}")
    return notes


def as_json(board: Board) -> dict[str, Any]:
    """The table for programs; docs/statistics.md shows its shape."""
    return {
        "format": "searchr1-leaderboard",
        "version": 1,
        "metric": board.metric,
        "questions": dict(board.questions),
        "entries": [_line_json(line) for line in board.lines],
        "notes": list(board.notes),
    }


def _line_json(line: Line) -> dict[str, Any]:
    def cell_json(cell: Cell | None) -> dict[str, Any] | None:
        if cell is None:
            return None
        return {
            "value": cell.value, "ci_low": cell.low, "ci_high": cell.high, "n": cell.n, "best": cell.best,
            "tied": cell.tied, "difference": cell.difference, "p_value": cell.p_value, "p_holm": cell.p_holm,
        }  # fmt: skip

    return {
        "name": line.entry.name,
        "settings": dict(line.entry.settings),
        "folders": [str(seed.folder) for seed in line.entry.seeds],
        "cells": {name: cell_json(cell) for name, cell in line.cells.items()},
        "cost": {
            name: cost and {"per_question": cost.per_question, "per_correct": cost.per_correct}
            for name, cost in line.costs.items()
        },
        "failed": line.failed,
        "asked": line.asked,
    }
