"""The outcome reward with a format reward inside: Search-R1 v0.3, and arXiv 2505.15117.

====== ====== ========= =========================
right  format retrieval reward
====== ====== ========= =========================
yes    valid            1
yes    broken           1 - structure
no     valid  yes       structure + retrieval
no     valid  no        structure
no     broken           final
none   broken           0
====== ====== ========= =========================

"right" is exact match of the executed answer, "none" a trajectory that never answered. The paper's equation, with
lambda_f and lambda_r, is the same table with ``structure = lambda_f``, ``retrieval = lambda_r`` and ``final = 0``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.rewards.evidence import holds_evidence, retrieved
from searchr1.rewards.exact_match import exact_match
from searchr1.rewards.format import FormatReward
from searchr1.types import Trajectory


@dataclass(frozen=True, slots=True)
class SearchR1Format:
    """The table above, with the values of the original's v0.3 scripts as defaults.

    What is the original's: every value and every branch. What is ours, on purpose:

    - Valid is what `FormatReward` says, of the policy's own turns. The original reads the whole dialogue and insists
      on the chat markers of Qwen, so other models were never valid; and an observation that was cut lost its closing
      tag and made a valid dialogue broken. Its row "no answer, but valid" (structure) cannot occur here: a trajectory
      without an executed answer is not valid.
    - The answer is the one that the environment executed, not the last pattern in the text, of which the prompt's
      example had to be one.
    - Retrieval is right when a passage that the search engine returned holds an accepted answer in whole words (see
      `holds_evidence`). The original looks for sub-strings in everything between information tags: it pays a policy
      that writes such a block itself, finds "art" in "startled", and finds "no" nearly everywhere.

    With the defaults a right answer is never worth less than a wrong one (0.8 against 0.3 with a retrieval of 0.1).
    Raises ValueError for values under which, the format being equal, it would be.
    """

    decode: Callable[[Sequence[int]], str]
    structure: float = 0.2
    final: float = 0.1
    retrieval: float = 0.0

    def __post_init__(self) -> None:
        for name in ("structure", "final", "retrieval"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: expected a number from 0 to 1, got {getattr(self, name)!r}")
        for name in ("retrieval", "final"):
            if self.structure + getattr(self, name) > 1:
                raise ValueError(
                    f"structure + {name}: expected at most 1, so that a right answer is never worth less than a wrong "
                    f"one of the same format, got {self.structure} + {getattr(self, name)}"
                )

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        if trajectory.answer is None:
            return 0.0
        valid = FormatReward(self.decode).score(trajectory, group) == 1.0
        if exact_match(trajectory.answer, trajectory.question.answers):
            return 1.0 if valid else 1.0 - self.structure
        if not valid:
            return self.final
        found = self.retrieval > 0 and holds_evidence(retrieved(trajectory), trajectory.question)
        return self.structure + (self.retrieval if found else 0.0)
