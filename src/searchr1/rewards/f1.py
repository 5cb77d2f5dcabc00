"""Token F1 as in SQuAD 2.0 (arXiv 1806.03822): the best over the accepted answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from searchr1.rewards.text import tokens
from searchr1.types import Trajectory


def f1(prediction: str | None, answers: Sequence[str]) -> float:
    """Harmonic mean of token precision and recall, repeated words counted, maximum over ``answers``; in [0, 1].

    Where prediction or answer has no tokens left after normalisation, 1.0 if neither has and 0.0 otherwise.

    >>> f1("Frank Herbert wrote it", ("Frank Herbert", "Brian Herbert"))
    0.6666666666666666
    """
    if prediction is None:
        return 0.0
    said = tokens(prediction)
    return max((_overlap(said, tokens(answer)) for answer in answers), default=0.0)


def _overlap(said: list[str], expected: list[str]) -> float:
    if not said or not expected:
        return float(said == expected)
    common = (Counter(said) & Counter(expected)).total()
    if common == 0:
        return 0.0
    precision, recall = common / len(said), common / len(expected)
    return 2 * precision * recall / (precision + recall)


@dataclass(frozen=True, slots=True)
class F1:
    """Token F1 of the executed answer."""

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        return f1(trajectory.answer, trajectory.question.answers)
