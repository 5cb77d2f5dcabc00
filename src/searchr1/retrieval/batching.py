"""Searching less often: equal queries once, and the searches of one moment together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from searchr1.errors import SearchUnavailable
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import counts_of
from searchr1.retrieval.queries import check_k
from searchr1.types import Passage


def deduplicate(queries: Sequence[str]) -> tuple[list[str], list[int]]:
    """The distinct queries, first come first, and for each query its place among them.

    >>> deduplicate(["b", "a", "b"])
    (['b', 'a'], [0, 1, 0])
    """
    places: dict[str, int] = {}
    positions = [places.setdefault(query, len(places)) for query in queries]
    return list(places), positions


async def search_distinct(retriever: Retriever, queries: Sequence[str], k: int) -> list[list[Passage]]:
    """``retriever.search`` with equal queries searched once; every result list is the caller's own.

    Raises SearchUnavailable, also when the retriever returns another number of results than it was asked for.
    """
    distinct, positions = deduplicate(queries)
    found = await retriever.search(distinct, k)
    if len(found) != len(distinct):
        raise SearchUnavailable(f"expected results for {len(distinct)} queries, the retriever returned {len(found)}")
    return [list(found[position]) for position in positions]


@dataclass(eq=False)
class _Batch:
    """The searches of one moment that want the same number of passages."""

    k: int
    waiters: list[tuple[tuple[str, ...], asyncio.Future[list[list[Passage]]]]] = field(default_factory=list)
    task: asyncio.Task[list[list[Passage]]] | None = None

    @property
    def abandoned(self) -> bool:
        return all(future.done() for _, future in self.waiters)


class CoalescingRetriever:
    """Merges the ``search`` calls of one pass of the event loop into one call of ``inner`` for each ``k``.

    A thousand rollouts that search at the same moment make one request. Queries keep the order in which they came. An
    error of ``inner`` reaches every caller of the merged search; a caller that is cancelled leaves the others alone,
    and the search itself is cancelled when nobody waits for it any more.
    """

    def __init__(self, inner: Retriever) -> None:
        self._inner = inner
        self._batches: dict[int, _Batch] = {}  # by k: the searches since the last flush
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: set[asyncio.Task[list[list[Passage]]]] = set()  # the loop itself holds tasks weakly

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        check_k(k)
        if not queries:
            return []
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what an earlier loop left behind will never be flushed
            self._loop, self._batches = loop, {}
        if not self._batches:
            loop.call_soon(self._flush)
        batch = self._batches.setdefault(k, _Batch(k))
        future: asyncio.Future[list[list[Passage]]] = loop.create_future()
        batch.waiters.append((tuple(queries), future))
        try:
            return await future
        finally:
            if batch.task is not None and batch.abandoned:
                batch.task.cancel()

    async def info(self) -> RetrieverInfo:
        return await self._inner.info()

    def counts(self) -> dict[str, float]:
        return counts_of([self._inner])

    def _flush(self) -> None:
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            batch.waiters = [(queries, future) for queries, future in batch.waiters if not future.done()]
            if batch.waiters:
                self._start(batch)

    def _start(self, batch: _Batch) -> None:
        merged = [query for queries, _ in batch.waiters for query in queries]
        task = asyncio.ensure_future(search_distinct(self._inner, merged, batch.k))
        batch.task = task
        self._running.add(task)
        task.add_done_callback(lambda _: self._distribute(batch, task))

    def _distribute(self, batch: _Batch, task: asyncio.Task[list[list[Passage]]]) -> None:
        self._running.discard(task)
        start = 0
        for queries, future in batch.waiters:
            end = start + len(queries)
            if not future.done():
                if task.cancelled():
                    future.cancel()
                elif (error := task.exception()) is not None:
                    future.set_exception(error)
                else:
                    future.set_result(task.result()[start:end])
            start = end
        if not task.cancelled():
            task.exception()  # retrieved, also when nobody was left to hear of it
