"""Searching a dense index."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from searchr1.ports import RetrieverInfo
from searchr1.retrieval.batching import deduplicate
from searchr1.retrieval.dense.encoders import Encoder
from searchr1.retrieval.dense.layouts import search
from searchr1.retrieval.queries import check_k, clean
from searchr1.retrieval.store import CorpusStore
from searchr1.types import Passage


@dataclass(frozen=True, slots=True)
class _Search:
    """One call that waits."""

    queries: tuple[str, ...]
    k: int
    found: Future[list[list[Passage]]]


class DenseRetriever:
    """Finds the passages that are nearest in meaning; there is always a nearest one.

    Only a query without a letter or a digit (nothing, blanks, signs, emoji) finds nothing: it says nothing to compare.
    One thread encodes and searches, so that searches at the same moment do not fight for the cores; those that come
    while it is busy are its next batch. Equal scores are in the order of the passages.
    """

    def __init__(self, index: Any, encoder: Encoder, store: CorpusStore, info: RetrieverInfo) -> None:
        self._index = index
        self._encoder = encoder
        self._store = store
        self._info = info
        self._waiting: deque[_Search] = deque()
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="dense")

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` (1 to 1000, else UserError) passages for each query, best first; scores are inner products."""
        check_k(k)
        if not queries:
            return []
        asked = _Search(tuple(map(clean, queries)), k, Future())
        self._waiting.append(asked)
        self._worker.submit(self._serve)
        return await asyncio.wrap_future(asked.found)

    async def info(self) -> RetrieverInfo:
        return self._info

    def _serve(self) -> None:
        """Answer all that waits; the earlier of two calls may have answered what the later came for."""
        batch = []
        while self._waiting:
            waiting = self._waiting.popleft()
            if waiting.found.set_running_or_notify_cancel():
                batch.append(waiting)
        for k in sorted({one.k for one in batch}):  # together: an approximate search for more finds others
            together = [one for one in batch if one.k == k]
            try:
                found = self._search([query for one in together for query in one.queries], k)
            except Exception as error:  # whatever it is, those who wait hear of it
                for one in together:
                    one.found.set_exception(error)
                continue
            start = 0
            for one in together:
                one.found.set_result(found[start : start + len(one.queries)])
                start += len(one.queries)

    def _search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        distinct, positions = deduplicate(queries)
        meant = [query for query in distinct if any(map(str.isalnum, query))]
        hits = dict(zip(meant, search(self._index, self._encoder.encode_queries(meant), k), strict=True))
        ranked = [hits.get(query, []) for query in distinct]
        return [[self._store.passage(row, score) for score, row in ranked[position]] for position in positions]
