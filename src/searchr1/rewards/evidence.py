"""What the search engine really found: passages that were retrieved in executed searches, and nothing else.

A policy can write ``<information>`` and the answer into its own turn; that is text, not evidence. Here only
``Turn.passages`` counts, which the environment fills and the policy cannot touch. Passages count as the engine returned
them, also where the observation was cut to its budget.
"""

from __future__ import annotations

from collections.abc import Iterable

from searchr1.rewards.text import holds_answer, normalize
from searchr1.types import Passage, Question, Trajectory

_COMMON = frozenset({"yes", "no", ""})
"""Normalised answers that stand in any text by chance: a passage that holds one of them answers nothing."""


def retrieved(trajectory: Trajectory) -> list[Passage]:
    """All passages of all searches, in order; the same one as often as it was found."""
    return [passage for turn in trajectory.turns for passage in turn.passages]


def holds_evidence(passages: Iterable[Passage], question: Question) -> bool:
    """Whether a passage holds an accepted answer in whole words, answers of "yes" and "no" apart.

    The same rule as the answer recall of ``searchr1 index eval``, so that a reward and a recall mean the same thing.

    >>> question = Question("q", "Who wrote Dune?", ("Frank Herbert", "yes"))
    >>> holds_evidence([Passage("1", "Dune", "Yes. A novel by Frank Herbert.")], question)
    True
    >>> holds_evidence([Passage("1", "Dune", "Yes. A novel by Frank Herbertson.")], question)
    False
    """
    answers = [answer for answer in question.answers if normalize(answer) not in _COMMON]
    return any(holds_answer(passage, answers) for passage in passages)


def supporting_titles(question: Question) -> frozenset[str]:
    """The titles that the question file says the answer needs; empty where it says nothing."""
    return frozenset(question.metadata.get("supporting_titles") or ())
