"""Exact match that pays a correct answer less for every search it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.exact_match import exact_match
from searchr1.types import Trajectory


@dataclass(frozen=True, slots=True)
class EconomicalExactMatch:
    """``exact match x max(0, 1 - cost x executed searches)``; ``0 <= cost < 1``.

    Only correct answers are asked to be economical. A cost on *every* trajectory kills searching: early in training
    nearly all answers are wrong, so within a group of wrong answers the only difference left is the number of
    searches, and the policy learns to stop before it ever learns what a search is good for. As a product, all wrong
    answers are equally worthless, and no correct one is worth less than a wrong one.
    """

    cost: float = 0.15

    def __post_init__(self) -> None:
        if not 0 <= self.cost < 1:
            raise ValueError(f"cost: expected a number of at least 0 and below 1, got {self.cost!r}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        correct = exact_match(trajectory.answer, trajectory.question.answers)
        return correct * max(0.0, 1.0 - self.cost * trajectory.searches)
