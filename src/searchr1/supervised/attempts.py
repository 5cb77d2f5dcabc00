"""Answers that were sampled, right or wrong by exact match, from the files that sampling and evaluating leave."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from searchr1.data.difficulty import Attempt
from searchr1.data.jsonl import read_rows
from searchr1.errors import UserError
from searchr1.rewards.exact_match import exact_match
from searchr1.supervised.file import read_header, read_kept
from searchr1.types import FAILURES


def sampled(path: Path) -> Iterator[Attempt]:
    """The trajectories of a file of ``searchr1 sample --keep all``, or of a run's ``trajectories/step-N.jsonl.gz``.

    Those that failed through no fault of the policy do not count. Raises UserError, also when something was filtered
    out of the file, for then it does not tell how often the policy was wrong.
    """
    order = read_header(path).get("sampling")
    if order is not None and (order.get("keep") != "all" or order.get("per_question") is not None):
        raise UserError(
            f"{path}: expected every trajectory, but it was made with --keep {order.get('keep')}"
            f"{'' if order.get('per_question') is None else ' and --per-question'}; sample again with --keep all alone"
        )
    for place, row in read_kept(path):
        question = _at(row, "question", dict, place)
        answers, stop = _at(question, "answers", list, place), _at(row, "stop", str, place)
        if stop not in FAILURES:
            right = exact_match(row.get("answer"), answers) == 1.0
            key = (_at(question, "dataset", str, place), _at(question, "id", str, place))
            yield Attempt(key, _at(question, "question", str, place), right, row.get("copies", 1), place)


def predicted(path: Path) -> Iterator[Attempt]:
    """The rows of an evaluation's ``predictions.jsonl``, one a sample; failed ones do not count. Raises UserError."""
    for place, row in read_rows(path):
        if row.get("failed") or row.get("exact_match") is None:
            continue
        key = (_at(row, "dataset", str, place), _at(row, "id", str, place))
        right = _at(row, "exact_match", (int, float), place) == 1.0
        yield Attempt(key, _at(row, "question", str, place), right, 1, place)


def _at(row: Mapping[str, Any], key: str, kind: type | tuple[type, ...], place: str) -> Any:
    if not isinstance(row.get(key), kind):
        raise UserError(f"{place}: expected a trajectory or a prediction, its {key!r} is {row.get(key)!r:.100}")
    return row[key]
