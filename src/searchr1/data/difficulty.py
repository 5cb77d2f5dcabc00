"""How hard questions are for a policy, from answers that it sampled: what is always right or never teaches nothing.

With group-relative advantages a group of equal rewards has no gradient; see DAPO's dynamic sampling (arXiv 2503.14476,
section 3.2), which throws such groups away as they come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from searchr1.errors import UserError
from searchr1.types import Question

Key: TypeAlias = tuple[str, str]
"""Data set and id of a question."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """``times`` equal answers to a question, right or wrong; ``place`` is where it was read, for messages."""

    key: Key
    text: str
    right: bool
    times: int
    place: str


@dataclass(frozen=True, slots=True)
class Chosen:
    """``kept`` are within the range, with ``success_rate`` in their metadata; the numbers count the others.

    ``foreign`` counts attempts at questions that are not among those asked about.
    """

    kept: tuple[Question, ...]
    too_easy: int
    too_hard: int
    unseen: int
    attempts: int
    foreign: int


def choose(questions: Sequence[Question], attempts: Iterable[Attempt], low: float, high: float) -> Chosen:
    """The questions whose share of right attempts is at least ``low`` and at most ``high``, in their order.

    Raises UserError for an impossible range, and for an attempt at another question under the same data set and id.
    """
    if not 0 <= low <= high <= 1:
        raise UserError(f"expected 0 <= --min <= --max <= 1, got --min {low:g} --max {high:g}")
    by_key = {(question.dataset, question.id): question for question in questions}
    right, seen = dict.fromkeys(by_key, 0), dict.fromkeys(by_key, 0)
    foreign = 0
    for attempt in attempts:
        question = by_key.get(attempt.key)
        if question is None:
            foreign += attempt.times
            continue
        if question.text != attempt.text:
            raise UserError(
                f"{attempt.place}: question {question.id!r} of {question.dataset!r} reads {attempt.text!r:.100}, "
                f"in --data it reads {question.text!r:.100}; give the file that was sampled from"
            )
        seen[attempt.key] += attempt.times
        right[attempt.key] += attempt.times * attempt.right
    rates = {key: right[key] / seen[key] for key in by_key if seen[key]}
    kept = [
        replace(question, metadata={**question.metadata, "success_rate": rates[key]})
        for key, question in by_key.items()
        if key in rates and low <= rates[key] <= high
    ]
    return Chosen(
        kept=tuple(kept),
        too_easy=sum(rate > high for rate in rates.values()),
        too_hard=sum(rate < low for rate in rates.values()),
        unseen=len(by_key) - len(rates),
        attempts=sum(seen.values()),
        foreign=foreign,
    )
