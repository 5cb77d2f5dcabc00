"""Can the questions be answered from the corpus at all? Whether an accepted answer stands in it, and the pages do.

Wikipedia of 2018 lacks many pages that the multi-hop sets were made from (arXiv 2605.27881); no policy and no search
engine gets past that. A short answer may stand in the corpus by chance, so coverage is an upper bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.rewards.text import normalize, tokens
from searchr1.types import Passage, Question

_END = ""  # no word is empty


@dataclass(frozen=True, slots=True)
class Coverage:
    """What the corpus holds of one question; None where the question has nothing to look for."""

    question: Question
    answer: bool | None
    titles: bool | None

    @property
    def covered(self) -> bool:
        """True when something was looked for, and all of it was found."""
        return {self.answer, self.titles} in ({True}, {True, None})


def cover(questions: Sequence[Question], passages: Iterable[Passage]) -> list[Coverage]:
    """One result for every question, in their order, in one pass over the passages.

    An answer is found as `searchr1.rewards.text.holds_answer` finds it: in whole words after the metric's
    normalisation, in title or text. Questions whose only answers are yes or no have no answer to look for. Titles must
    be equal to the letter.

    >>> dune = Question("1", "Who wrote Dune?", ("Frank Herbert",), metadata={"supporting_titles": ["Dune", "Emma"]})
    >>> [(c.answer, c.titles) for c in cover([dune], [Passage("7", "Dune", "By Frank Herbert.")])]
    [(True, False)]
    """
    wanted = [{normalize(answer) for answer in question.answers} - {""} for question in questions]
    wanted = [set() if answers <= {"yes", "no"} else answers for answers in wanted]
    titles = [set(question.metadata.get("supporting_titles") or ()) for question in questions]
    trie, sought = _trie(set().union(*wanted)), set().union(*titles)
    found: set[str] = set()
    pages: set[str] = set()
    for passage in passages:
        _find(tokens(f"{passage.title} {passage.text}"), trie, found)
        if passage.title in sought:
            pages.add(passage.title)
    return [
        Coverage(question, bool(answers & found) if answers else None, gold <= pages if gold else None)
        for question, answers, gold in zip(questions, wanted, titles, strict=True)
    ]


def _trie(texts: Iterable[str]) -> dict[str, Any]:
    """Word by word: ``{"frank": {"herbert": {"": "frank herbert"}}}``."""
    root: dict[str, Any] = {}
    for text in texts:
        node = root
        for word in text.split():
            node = node.setdefault(word, {})
        node[_END] = text
    return root


def _find(words: Sequence[str], trie: dict[str, Any], found: set[str]) -> None:
    """Add every text of the trie that stands in ``words``."""
    for place, word in enumerate(words):
        node, end = trie.get(word), place + 1
        while node is not None:
            if _END in node:
                found.add(node[_END])
            node = node.get(words[end]) if end < len(words) else None
            end += 1
