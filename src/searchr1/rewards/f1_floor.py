"""F1 with a floor under well-formed answers: the reward of ReSearch (arXiv 2503.19470)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.rewards.f1 import f1
from searchr1.rewards.format import FormatReward
from searchr1.types import Trajectory


@dataclass(frozen=True, slots=True)
class F1Floor:
    """0 for a malformed trajectory; else F1 where it is above 0; else ``floor``.

    A gate, not a sum: no weights of ``f1`` and ``format`` give it. Well formed is what `FormatReward` says.
    """

    decode: Callable[[Sequence[int]], str]
    floor: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.floor <= 1:
            raise ValueError(f"floor: expected a number from 0 to 1, got {self.floor!r}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        if not FormatReward(self.decode).score(trajectory, group):
            return 0.0
        return f1(trajectory.answer, trajectory.question.answers) or self.floor
