"""The search engine that always finds what answers the question: how far a policy gets with perfect search."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import Any

import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import search_distinct
from searchr1.retrieval.chance import open_passages
from searchr1.retrieval.counting import ASKED, counts_of
from searchr1.retrieval.fusion import fuse
from searchr1.retrieval.queries import MAX_K, check_k
from searchr1.retrieval.spec import open_retriever
from searchr1.retrieval.store import CorpusStore
from searchr1.rewards.text import holds_answer, normalize
from searchr1.types import Passage, Question

_ANSWERS_TRIED = 4  # accepted answers are mostly spellings of the first
_DEPTH = 100  # passages of the fill that may hold an answer
_SAYS_NOTHING = frozenset({"yes", "no", ""})
"""Normalised answers that stand in too many passages to show that one of them is gold."""


@dataclass(frozen=True, slots=True)
class Oracle:
    """The ``oracle`` search engine: ``oracle:index=wiki.bm25,fill=wiki.bm25``."""

    index: str
    """An index folder, of which only the passages are used."""
    fill: str | dict[str, Any] = ""
    """The spec of the search engine that adds what it finds for the query, up to ``k``; empty: nothing is added."""

    def open(self) -> Retriever:
        store, info = open_passages(self.index, "oracle")
        return OracleRetriever(store, info, open_retriever(self.fill) if self.fill else None)


class OracleRetriever:
    """Finds the gold passages of the question that is being answered (`ASKED`), whatever the query.

    Gold are the pages named by the question's ``supporting_titles``: one passage of each in turn, those that hold an
    accepted answer before the others of their page. Without titles it is what holds an accepted answer among the
    passages that ``fill`` finds for the question and its answers; yes and no are no such answers. Gold passages have
    score 1. After them comes what ``fill`` finds for the query, with score 0.
    """

    per_question = True

    def __init__(self, store: CorpusStore, info: RetrieverInfo, fill: Retriever | None = None) -> None:
        self._store = store
        self._info = info
        self._fill = fill
        self._titles = _Titles(store)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query; nothing where no gold is known and nothing fills.

        Raises UserError when no question is being answered, SearchUnavailable when the fill is.
        """
        check_k(k)
        question = ASKED.get()
        if question is None:
            raise UserError(
                "the oracle finds what belongs to the question that is being answered, and there is none here; "
                "use it for training, evaluation and `ask`"
            )
        if not queries:
            return []
        gold = await self._gold(question)
        if self._fill is None or len(gold) >= k:
            return [gold[:k] for _ in queries]
        return [_joined(gold, found)[:k] for found in await search_distinct(self._fill, queries, k)]

    async def info(self) -> RetrieverInfo:
        return self._info

    def counts(self) -> dict[str, float]:
        return counts_of([] if self._fill is None else [self._fill])

    async def _gold(self, question: Question) -> list[Passage]:
        answers = [answer for answer in question.answers if normalize(answer) not in _SAYS_NOTHING]
        if titles := question.metadata.get("supporting_titles"):
            return await asyncio.to_thread(self._of_titles, titles, answers)
        if self._fill is None or not answers:
            return []
        tried = question.answers[:_ANSWERS_TRIED]
        found = await search_distinct(self._fill, [f"{question.text} {answer}" for answer in tried], _DEPTH)
        return [_scored(passage, 1.0) for passage in fuse(found) if holds_answer(passage, answers)]

    def _of_titles(self, titles: Iterable[str], answers: Sequence[str]) -> list[Passage]:
        pages = [
            sorted(self._titles.passages(title), key=lambda passage: not holds_answer(passage, answers))
            for title in dict.fromkeys(titles)
        ]
        in_turn = chain.from_iterable(zip_longest(*pages))
        return [_scored(passage, 1.0) for passage in in_turn if passage is not None]


class _Titles:
    """Passages by title. Of a corpus only 12 bytes a passage are kept, made when the first title is looked up."""

    def __init__(self, store: CorpusStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._made: tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]] | None = None

    def passages(self, title: str) -> list[Passage]:
        """In the order of the corpus; at most 1000."""
        hashes, rows = self._table()
        first, last = np.searchsorted(hashes, hash(title), "left"), np.searchsorted(hashes, hash(title), "right")
        found = (self._store.passage(int(row)) for row in rows[first : min(last, first + MAX_K)])
        return [passage for passage in found if passage.title == title]

    def _table(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
        with self._lock:
            if self._made is None:
                titles = (hash(self._store.passage(row).title) for row in range(len(self._store)))
                hashes = np.fromiter(titles, dtype=np.int64, count=len(self._store))
                order = np.argsort(hashes, kind="stable").astype(np.uint32)
                self._made = hashes[order], order
            return self._made


def _joined(gold: Sequence[Passage], found: Iterable[Passage]) -> list[Passage]:
    known = {passage.id for passage in gold}
    return [*gold, *(_scored(passage, 0.0) for passage in found if passage.id not in known)]


def _scored(passage: Passage, score: float) -> Passage:
    return Passage(passage.id, passage.title, passage.text, score)
