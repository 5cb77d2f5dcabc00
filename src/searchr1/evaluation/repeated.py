"""Several samples a question: pass@k and the majority vote. A question is the unit of every interval.

Samples of one question are alike, so they are not so many independent values: each question gives one value, and the
interval is over questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from searchr1.evaluation.bootstrap import macro_interval
from searchr1.rewards.text import normalize

Row = Mapping[str, Any]
Figure = dict[str, float]
"""``value``, ``ci_low``, ``ci_high``."""


def pass_at(correct: Sequence[float], k: int) -> float:
    """How likely at least one of ``k`` samples is right, from the n >= k samples of one question: unbiased.

    1 - C(n - c, k) / C(n, k) with c right ones (M. Chen et al., arXiv 2107.03374, equation 1). Raises ValueError for a
    ``k`` outside 1..n and for samples that are neither right (1) nor wrong (0).

    >>> pass_at([1, 0, 0, 0], 1), pass_at([1, 0, 0, 0], 2), pass_at([1, 0, 0, 0], 4)
    (0.25, 0.5, 1.0)
    """
    n = len(correct)
    if not 1 <= k <= n:
        raise ValueError(f"expected k of 1 to {n} samples, got {k}")
    if any(value not in (0, 1) for value in correct):
        raise ValueError("expected samples that are right (1) or wrong (0)")
    wrong = sum(value == 0 for value in correct)
    return 1 - math.comb(wrong, k) / math.comb(n, k)


def majority_vote(predictions: Sequence[str | None], correct: Sequence[float]) -> float:
    """The expected exact match of the most frequent answer of one question, when ties are broken by chance.

    Answers are the same when their normal forms are; no answer (None, or blank) is no vote, and without a vote the
    question is wrong (X. Wang et al., arXiv 2203.11171). Raises ValueError where the lengths differ.

    >>> majority_vote(["Paris", "paris.", "Rome", None], [1, 1, 0, 0])
    1.0
    >>> majority_vote(["Paris", "Rome"], [1, 0]), majority_vote([None], [0])
    (0.5, 0.0)
    """
    if len(predictions) != len(correct):
        raise ValueError(f"expected as many answers as scores, got {len(predictions)} and {len(correct)}")
    votes: dict[str, int] = {}
    right: dict[str, float] = {}
    for prediction, value in zip(predictions, correct, strict=True):
        if prediction is not None and prediction.strip():
            answer = normalize(prediction)
            votes[answer] = votes.get(answer, 0) + 1
            right[answer] = value
    most = max(votes.values(), default=0)
    winners = [answer for answer, count in votes.items() if count == most]
    return math.fsum(right[answer] for answer in winners) / len(winners) if winners else 0.0


def repeated_figures(rows: Iterable[Row], seed: int = 0) -> dict[str, Any]:
    """pass@k and majority vote of ``predictions.jsonl`` rows, with 95% intervals over questions.

        {"pass_at": {"1": {"value": 0.41, "ci_low": 0.37, "ci_high": 0.45}, "2": {...}, "4": {...}},
         "majority": {"value": 0.44, "ci_low": 0.4, "ci_high": 0.48}}

    For k = 1, 2, 4, ... up to the most samples of a question. Failed samples are left out; a question with fewer than k
    others does not count for k. Rows of several datasets give the unweighted mean over the datasets. Without a single
    sample that did not fail, ``pass_at`` is empty and ``majority`` None.
    """
    questions: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if not row["failed"]:
            questions.setdefault((row["dataset"], row["id"]), []).append(row)
    if not questions:
        return {"pass_at": {}, "majority": None}
    most = max(map(len, questions.values()))
    ks = [2**power for power in range(most.bit_length())]
    right = {key: [row["exact_match"] for row in samples] for key, samples in questions.items()}
    votes = {
        key: majority_vote([row["prediction"] for row in samples], right[key]) for key, samples in questions.items()
    }
    passed = {k: {key: pass_at(values, k) for key, values in right.items() if len(values) >= k} for k in ks}
    return {"pass_at": {str(k): _figure(passed[k], seed) for k in ks}, "majority": _figure(votes, seed)}


def _figure(values: Mapping[tuple[str, str], float], seed: int) -> Figure:
    sets: dict[str, list[float]] = {}
    for (dataset, _), value in values.items():
        sets.setdefault(dataset, []).append(value)
    mean, low, high = macro_interval(list(sets.values()), seed)
    return {"value": mean, "ci_low": low, "ci_high": high}
