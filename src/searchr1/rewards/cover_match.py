"""Cover match, Search-R1's sub-string exact match (``compute_score_subem``)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.text import normalize
from searchr1.types import Trajectory


def cover_match(prediction: str | None, answers: Sequence[str]) -> float:
    """1.0 when the normalised prediction holds any normalised accepted answer as a sub-string, else 0.0.

    Characters are compared, not words, and an accepted answer that normalises to nothing (``"---"``) is held by every
    prediction: both as in the original, so that figures compare.

    >>> cover_match("It was Frank Herbert, in 1965", ("Frank Herbert",)), cover_match("startled", ("art",))
    (1.0, 1.0)
    """
    if prediction is None:
        return 0.0
    said = normalize(prediction)
    return float(any(normalize(answer) in said for answer in answers))


@dataclass(frozen=True, slots=True)
class CoverMatch:
    """Cover match of the executed answer. A diagnostic first: as a reward it pays for long lists of guesses."""

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        return cover_match(trajectory.answer, trajectory.question.answers)
