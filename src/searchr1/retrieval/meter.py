"""How long a run waited for its search engine."""

from __future__ import annotations

import time
from collections.abc import Sequence

from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import counts_of
from searchr1.types import Passage


class Meter:
    """A retriever that counts the seconds in which at least one of its searches was under way.

    Searches of one moment overlap, so their own durations add up to more than the time that passed; this does not.
    """

    def __init__(self, inner: Retriever) -> None:
        self.inner = inner
        self.seconds = 0.0
        self._under_way = 0
        self._since = 0.0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        if self._under_way == 0:
            self._since = time.perf_counter()
        self._under_way += 1
        try:
            return await self.inner.search(queries, k)
        finally:
            self._under_way -= 1
            if self._under_way == 0:
                self.seconds += time.perf_counter() - self._since

    def counts(self) -> dict[str, float]:
        return counts_of([self.inner])

    async def info(self) -> RetrieverInfo:
        return await self.inner.info()
