"""Scores of predictions alone, without a model: ``searchr1 score FILE.jsonl``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from searchr1.data.jsonl import read_rows
from searchr1.errors import UserError
from searchr1.rewards.cover_match import cover_match
from searchr1.rewards.exact_match import exact_match
from searchr1.rewards.f1 import f1

METRICS = {"exact_match": exact_match, "cover_match": cover_match, "f1": f1}


def score_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Means and per-row scores of rows ``{"answers": [...], "prediction": "..."}``; a null prediction scores 0.

    Raises ValueError when there are no rows.

    >>> score_rows([{"answers": ["Herbert"], "prediction": "herbert."}])["rows"]
    [{'exact_match': 1.0, 'cover_match': 1.0, 'f1': 1.0}]
    """
    scores = [{name: metric(row["prediction"], row["answers"]) for name, metric in METRICS.items()} for row in rows]
    if not scores:
        raise ValueError("no rows to score")
    return {"n": len(scores), **{name: fmean(row[name] for row in scores) for name in METRICS}, "rows": scores}


def read_score_rows(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a JSONL(.gz) file for `score_rows`. Raises UserError with file and line; other keys are ignored."""
    rows = [_checked(row, place) for place, row in read_rows(path)]
    if not rows:
        raise UserError(f"{path}: expected at least one row, the file holds none")
    return rows


def _checked(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    for key in ("answers", "prediction"):
        if key not in row:
            raise UserError(f"{place}: missing key {key!r}; a row needs answers and prediction")
    answers, prediction = row["answers"], row["prediction"]
    if not isinstance(answers, list) or not answers or not all(isinstance(answer, str) for answer in answers):
        raise UserError(f"{place}: 'answers': expected a non-empty list of strings, got {answers!r}")
    if prediction is not None and not isinstance(prediction, str):
        raise UserError(f"{place}: 'prediction': expected a string (or null for no answer), got {prediction!r}")
    return {"answers": answers, "prediction": prediction}
