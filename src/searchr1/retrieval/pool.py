"""Several search servers with the same corpus as one: they share the work, and stand in for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Protocol

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import counts_of
from searchr1.retrieval.host import Closing
from searchr1.retrieval.policy import Guard
from searchr1.retrieval.queries import check_k
from searchr1.types import Passage

_WORTH_SPLITTING = 32  # queries; fewer are not worth a second request


class Server(Retriever, Protocol):
    """A retriever behind a guard of its own, as `searchr1.retrieval.client.HttpRetriever`."""

    guard: Guard

    async def aclose(self) -> None: ...


@dataclass(eq=False, slots=True)
class _Member:
    server: Server
    busy: int = 0
    """Queries under way."""
    last: int = 0
    """Number of the pool's request that it got last."""
    known: RetrieverInfo | None = None


class PoolRetriever(Closing):
    """Sends each search to the server that has the fewest queries under way; in turn, among equals.

    A batch of 64 queries or more is split among the healthy servers. What fails for good on one server goes to the
    next; a server whose calls keep failing is left alone while its guard says so. A server is searched only after it
    said which corpus it has; UserError when two of them differ (one that cannot say is trusted).
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        names = [server.guard.name for server in servers]
        if not names or len(set(names)) != len(names):
            raise UserError(f"expected search servers at different URLs, got {', '.join(names) or 'none'}")
        self._members = [_Member(server) for server in servers]
        self._requests = 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query. Raises SearchUnavailable when every server failed."""
        check_k(k)
        if not queries:
            return []
        tasks = [asyncio.ensure_future(self._search(part, k)) for part in self._parts(queries)]
        try:
            parts = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return [found for part in parts for found in part]

    async def info(self) -> RetrieverInfo:
        """What they all search in, as the first that knows says. Servers that do not answer are asked later.

        Raises SearchUnavailable when none answers and UserError when two have different corpora or kinds of index.
        """
        answers = await asyncio.gather(*map(self._admit, self._members), return_exceptions=True)
        infos = []
        errors: list[SearchUnavailable] = []
        for answer in answers:
            if isinstance(answer, SearchUnavailable):
                errors.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                infos.append(answer)
        if not infos:
            raise _all_failed(errors)
        return next((info for info in infos if info.corpus_hash), infos[0])

    def counts(self) -> dict[str, float]:
        return counts_of([member.server for member in self._members])

    async def aclose(self) -> None:
        await asyncio.gather(*(member.server.aclose() for member in self._members))

    def _parts(self, queries: Sequence[str]) -> list[Sequence[str]]:
        """``queries`` cut into even runs, one for each healthy server, where they are many."""
        healthy = sum(member.server.guard.healthy for member in self._members)
        count = max(1, min(healthy, len(queries) // _WORTH_SPLITTING))
        sizes = (len(queries) // count + (number < len(queries) % count) for number in range(count))
        return [queries[start:end] for start, end in pairwise(accumulate(sizes, initial=0))]

    async def _search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        left = list(self._members)
        errors: list[SearchUnavailable] = []
        while left:
            member = min(left, key=lambda member: (not member.server.guard.healthy, member.busy, member.last))
            left.remove(member)
            self._requests += 1
            member.last = self._requests
            member.busy += len(queries)
            try:
                await self._admit(member)
                return await member.server.search(queries, k)
            except SearchUnavailable as error:
                errors.append(error)
            finally:
                member.busy -= len(queries)
        raise _all_failed(errors)

    async def _admit(self, member: _Member) -> RetrieverInfo:
        """What a server searches in, asked once. Raises UserError when it is not what another one searches in."""
        if member.known is None:
            info = await member.server.info()
            for other in self._members:
                if other.known is not None:
                    _check_same(other.server.guard.name, other.known, member.server.guard.name, info)
            member.known = info
        return member.known


def _check_same(name: str, info: RetrieverInfo, other_name: str, other: RetrieverInfo) -> None:
    if not (info.corpus_hash and other.corpus_hash):
        return
    if (info.kind, info.corpus_hash) != (other.kind, other.corpus_hash):
        raise UserError(
            f"expected servers of the same index, but {name} searches {_shown(info)} and {other_name} "
            f"{_shown(other)}; start them on the same index, or leave one out"
        )


def _shown(info: RetrieverInfo) -> str:
    return f"a {info.kind} index of {info.passages:,} passages ({info.corpus_hash[:12]})"


def _all_failed(errors: Sequence[SearchUnavailable]) -> SearchUnavailable:
    spent = all(isinstance(error, SearchBudgetSpent) for error in errors)
    text = "; ".join(map(str, errors))
    return SearchBudgetSpent(text) if spent else SearchUnavailable(text)
