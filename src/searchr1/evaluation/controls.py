"""Controls: does a policy rely on what it finds? The same search engine, with nothing in it, or with another's pages.

With ``empty`` results a policy can only answer from what it knows, in the very dialogue that it was trained in. With
``shuffled`` ones it reads pages that were found, but for another question of the same set.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import ASKED, counts_of
from searchr1.seeds import derive_seed
from searchr1.types import Passage, Question

CONTROLS = ("none", "empty", "shuffled")


class EmptyRetriever:
    """Finds nothing, honestly."""

    def __init__(self, inner: Retriever) -> None:
        self._inner = inner

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [[] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return await self._inner.info()


class ShuffledRetriever:
    """Finds what ``inner`` finds for the text of another question of the same data set.

    Which one follows from the seed and the question that is answered (`ASKED`), and every search of a trajectory finds
    the same. An ``inner`` that is itself per question is told that the other one is answered. A data set of one
    question has no other, so nothing is found.
    """

    per_question = True

    def __init__(self, inner: Retriever, questions: Sequence[Question], seed: int) -> None:
        self._inner = inner
        self._others = _others(questions, seed)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        asked = ASKED.get()
        other = self._others.get((asked.dataset, asked.id)) if asked else None
        if other is None:
            return [[] for _ in queries]
        before = ASKED.set(other)
        try:
            [found] = await self._inner.search([other.text], k)
        finally:
            ASKED.reset(before)
        return [list(found) for _ in queries]

    async def info(self) -> RetrieverInfo:
        return await self._inner.info()

    def counts(self) -> Mapping[str, float]:
        return counts_of([self._inner])


def controlled(inner: Retriever, control: str, questions: Sequence[Question], seed: int) -> Retriever:
    """``inner`` as it is (``none``), or under one of the other `CONTROLS`."""
    if control == "empty":
        return EmptyRetriever(inner)
    return ShuffledRetriever(inner, questions, seed) if control == "shuffled" else inner


def _others(questions: Sequence[Question], seed: int) -> dict[tuple[str, str], Question]:
    """For every question the next one, in an order drawn by lot within its data set."""
    others: dict[tuple[str, str], Question] = {}
    for dataset in dict.fromkeys(question.dataset for question in questions):
        mine = [question for question in questions if question.dataset == dataset]
        mine.sort(key=lambda question: derive_seed(seed, "shuffled", question.id))
        for place, question in enumerate(mine):
            if len(mine) > 1:
                others[(dataset, question.id)] = mine[(place + 1) % len(mine)]
    return others
