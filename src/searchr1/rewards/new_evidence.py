"""Turn by turn: a search is paid for what it found that no earlier search had found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.evidence import holds_evidence, supporting_titles
from searchr1.types import Passage, Question, Trajectory


@dataclass(frozen=True, slots=True)
class NewEvidence:
    """Information gain minus redundancy of every search, after StepSearch (arXiv 2505.15107).

    Gain: the share of the question's ``supporting_titles`` that this turn found first; for a question without them, 1
    for the first passage that holds an accepted answer. So the gains of a trajectory add up to at most 1. Redundancy:
    ``redundancy`` times the share of the turn's passages that an earlier turn had found. A turn without passages earns
    0. StepSearch measures gain by TF-IDF similarity to gold paragraphs and weighs both alike; here the titles of the
    question file decide, and ``redundancy = 0`` pays without ever charging.

    The value stands at the turn (its last policy token), not at the end: an algorithm with a critic credits that very
    query. The sum is part of the reward, so algorithms that see one number a trajectory use it too.
    """

    redundancy: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.redundancy) and self.redundancy >= 0):
            raise ValueError(f"redundancy: expected a finite number of at least 0, got {self.redundancy!r}")

    def score_turns(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> Sequence[float]:
        """One value for every turn, in [-redundancy, 1]."""
        seen: list[Passage] = []
        values = []
        for turn in trajectory.turns:
            known = {passage.id for passage in seen}
            repeated = sum(passage.id in known for passage in turn.passages) / max(1, len(turn.passages))
            before = _found(seen, trajectory.question)
            seen += turn.passages
            values.append(_found(seen, trajectory.question) - before - self.redundancy * repeated)
        return values


def _found(passages: Sequence[Passage], question: Question) -> float:
    """The share of what is needed that these passages hold."""
    needed = supporting_titles(question)
    if not needed:
        return float(holds_evidence(passages, question))
    return len(needed & {passage.title for passage in passages}) / len(needed)
