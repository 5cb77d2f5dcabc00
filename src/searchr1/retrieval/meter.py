"""How long a run waited for its search engine, and whether that engine is back."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context, copy_context

from searchr1.errors import SearchBudgetSpent, SearchUnavailable
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import counts_of
from searchr1.types import Passage

_REMEMBERED = 3  # searches that failed: more than one, as one may be refused for what it asks


class Meter:
    """A retriever that counts the seconds in which at least one of its searches was under way.

    Searches of one moment overlap, so their own durations add up to more than the time that passed; this does not.
    """

    def __init__(self, inner: Retriever, clock: Callable[[], float] = time.perf_counter) -> None:
        self.inner = inner
        self.seconds = 0.0
        self._clock = clock
        self._under_way = 0
        self._since = 0.0
        self._failed: deque[tuple[Sequence[str], int, Context]] = deque(maxlen=_REMEMBERED)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        if self._under_way == 0:
            self._since = self._clock()
        self._under_way += 1
        try:
            return await self.inner.search(queries, k)
        except SearchUnavailable:
            self._failed.append((queries, k, copy_context()))
            raise
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self.seconds += self._clock() - self._since

    async def retry(self) -> None:
        """Ask again what failed last, one after the other and for the same questions, until one is answered.

        Other queries would not do to find out whether the engine is back: a cache may know their answers. Nothing is
        asked where nothing has failed. Raises SearchUnavailable when none is answered.
        """
        error: SearchUnavailable | None = None
        for queries, k, context in reversed(self._failed):
            try:
                await asyncio.create_task(self.inner.search(queries, k), context=context)
            except SearchBudgetSpent:
                raise
            except SearchUnavailable as failure:
                error = error or failure
            else:
                error = None
                break
        if error is not None:
            raise error
        self._failed.clear()

    def counts(self) -> dict[str, float]:
        return counts_of([self.inner])

    async def info(self) -> RetrieverInfo:
        return await self.inner.info()
