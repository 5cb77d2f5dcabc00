"""Exact match: the outcome reward of Search-R1 (arXiv 2503.09516, section 3.4), bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.text import normalize
from searchr1.types import Trajectory


def exact_match(prediction: str | None, answers: Sequence[str]) -> float:
    """1.0 when the prediction equals any accepted answer after normalisation, else 0.0.

    >>> exact_match("the Beatles.", ("Beatles", "The Fab Four"))
    1.0
    """
    if prediction is None:
        return 0.0
    said = normalize(prediction)
    return float(any(said == normalize(answer) for answer in answers))


@dataclass(frozen=True, slots=True)
class ExactMatch:
    """Exact match of the answer that the environment executed; never of a pattern found in prompt or documents."""

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        return exact_match(trajectory.answer, trajectory.question.answers)
