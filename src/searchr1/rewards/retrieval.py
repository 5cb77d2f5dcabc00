"""Retrieval correctness by itself: did the searches find what it takes to answer?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.evidence import holds_evidence, retrieved, supporting_titles
from searchr1.types import Trajectory


@dataclass(frozen=True, slots=True)
class Retrieval:
    """1.0 when any retrieved passage holds an accepted answer, else 0.0; whatever the policy then answered.

    Whether the answer itself is used stays with the other rewards: arXiv 2505.15117 found no lasting gain
    from paying for retrieval, and harm from paying much: keep its weight small, or let it fade.
    A question whose only answers are yes and no is never found this way.

    ``titles``: the share of the question's ``supporting_titles`` among the retrieved passages instead, for questions
    that name them; the others are scored as without it.
    """

    titles: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.titles, bool):
            raise ValueError(f"titles: expected true or false, got {self.titles!r}")

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        passages = retrieved(trajectory)
        needed = supporting_titles(trajectory.question)
        if self.titles and needed:
            return len(needed & {passage.title for passage in passages}) / len(needed)
        return float(holds_evidence(passages, trajectory.question))
