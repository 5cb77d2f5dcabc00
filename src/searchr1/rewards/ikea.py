"""IKEA: search where you do not know, and do not where you do (arXiv 2505.07596)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.rewards.exact_match import exact_match
from searchr1.rewards.format import FormatReward
from searchr1.types import Trajectory


@dataclass(frozen=True, slots=True)
class IKEA:
    """Knowledge-boundary aware: -1 for a malformed trajectory; right: 1 + bonus; wrong: ``tried`` if it searched.

    The bonus of a right answer falls evenly from ``known`` without a search to 0 at ``max_searches`` of them: 1.6,
    1.4, 1.2, 1 with the paper's values. A wrong answer earns 0.05 for having searched and 0 for not having tried.
    Made for training sets with as many questions that the model knows as questions that it does not.
    """

    decode: Callable[[Sequence[int]], str]
    known: float = 0.6
    tried: float = 0.05
    max_searches: int = 3

    def __post_init__(self) -> None:
        if not 0 <= self.known < float("inf"):
            raise ValueError(f"known: expected a finite number of at least 0, got {self.known!r}")
        if not 0 <= self.tried <= 1:
            raise ValueError(f"tried: expected a number from 0 to 1, got {self.tried!r}")
        if self.max_searches < 1:
            raise ValueError(f"max_searches: expected at least 1, got {self.max_searches!r}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        if not FormatReward(self.decode).score(trajectory, group):
            return -1.0
        if not exact_match(trajectory.answer, trajectory.question.answers):
            return self.tried if trajectory.searches else 0.0
        left = max(0, self.max_searches - trajectory.searches)
        return 1.0 + self.known * left / self.max_searches
