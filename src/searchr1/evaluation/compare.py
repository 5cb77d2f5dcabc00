"""Are two evaluations different? The paired bootstrap on the questions that both answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import paired_difference
from searchr1.evaluation.evaluate import read_predictions

_Key = tuple[str, str]


def compare(dir_a: str | Path, dir_b: str | Path, *, seed: int = 0) -> dict[str, Any]:
    """``{"n", "difference", "ci_low", "ci_high", "p_value"}`` of two evaluation folders.

    ``difference`` is exact match of B minus exact match of A over the ``n`` common questions: above zero, B is better.
    Questions are common when dataset and id agree; those that failed in either are left out. Raises UserError for
    folders that are not evaluations, an id used twice, one id for two different questions, and nothing in common.
    """
    rows_a, rows_b = _by_question(dir_a), _by_question(dir_b)
    common = [key for key in rows_a if key in rows_b]
    if not common:
        raise UserError(f"{dir_a} and {dir_b}: expected common questions, found none; evaluate both on the same data")
    for key in common:
        if any(rows_a[key][part] != rows_b[key][part] for part in ("question", "answers")):
            raise UserError(
                f"{dir_a} and {dir_b}: {key[0]} {key[1]!r} is not the same question in both; "
                "evaluate both on the same data"
            )
    scored = [key for key in common if not rows_a[key]["failed"] and not rows_b[key]["failed"]]
    if not scored:
        raise UserError(
            f"{dir_a} and {dir_b}: each of the {len(common)} common questions failed in one; evaluate again"
        )
    difference, low, high, p_value = paired_difference(
        [rows_a[key]["exact_match"] for key in scored], [rows_b[key]["exact_match"] for key in scored], seed
    )
    return {"n": len(scored), "difference": difference, "ci_low": low, "ci_high": high, "p_value": p_value}


def _by_question(folder: str | Path) -> dict[_Key, dict[str, Any]]:
    rows: dict[_Key, dict[str, Any]] = {}
    for row in read_predictions(folder):
        key = (row["dataset"], row["id"])
        if key in rows:
            raise UserError(f"{folder}: {key[0]} {key[1]!r} occurs twice; a question may be evaluated once")
        rows[key] = row
    return rows
