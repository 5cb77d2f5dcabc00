"""Searching less often: equal queries once, and the searches of one moment together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from searchr1.errors import SearchUnavailable
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.counting import counts_of, one_query_a_request
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


@dataclass(eq=False, slots=True)
class _Flight:
    """One query on its way, and how many searches want it."""

    query: str
    answer: asyncio.Future[list[Passage]]
    wanted: int = 0
    batch: _Batch | None = None
    """What it is searched in; None while it waits."""


@dataclass(eq=False, slots=True)
class _Batch:
    """The queries that go to the retriever together."""

    flights: tuple[_Flight, ...]
    task: asyncio.Task[list[list[Passage]]]


@dataclass(eq=False, slots=True)
class _Lane:
    """What is on its way for one number of passages."""

    flights: dict[str, _Flight] = field(default_factory=dict)
    """Waiting or under way, by query."""
    waiting: dict[str, _Flight] = field(default_factory=dict)
    under_way: set[_Batch] = field(default_factory=set)  # the loop itself holds tasks weakly
    scheduled: bool = False


class CoalescingRetriever:
    """Merges the ``search`` calls of one pass of the event loop into one call of ``inner`` for each ``k``.

    A thousand rollouts that search at the same moment make one request. A query that is already being searched is not
    searched again: whoever asks it joins. Queries keep the order in which they came. An error of ``inner`` reaches
    every caller of the merged search; a caller that is cancelled leaves the others alone, and the search itself is
    cancelled when nobody waits for it any more. Where ``inner`` asks for every query on its own, nothing is merged, so
    that one query's failure is its own.
    """

    def __init__(self, inner: Retriever) -> None:
        self._inner = inner
        self._singly = one_query_a_request(inner)
        self._lanes: dict[int, _Lane] = {}  # by k
        self._loop: asyncio.AbstractEventLoop | None = None

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        check_k(k)
        if not queries:
            return []
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # what an earlier loop left behind will never be answered
            self._loop, self._lanes = loop, {}
        lane = self._lanes.setdefault(k, _Lane())
        flights = [self._join(lane, query, loop) for query in queries]
        if lane.waiting and not lane.scheduled:
            lane.scheduled = True
            loop.call_soon(self._flush, lane, k)
        try:
            # Unlike gather, wait leaves the futures alone when it is cancelled.
            await asyncio.wait({flight.answer for flight in flights}, return_when=asyncio.FIRST_EXCEPTION)
            for flight in flights:
                if flight.answer.done():
                    flight.answer.result()  # raises what the search has raised
            return [list(flight.answer.result()) for flight in flights]
        finally:
            for flight in flights:
                self._leave(lane, flight)

    async def info(self) -> RetrieverInfo:
        return await self._inner.info()

    def counts(self) -> dict[str, float]:
        return counts_of([self._inner])

    def _join(self, lane: _Lane, query: str, loop: asyncio.AbstractEventLoop) -> _Flight:
        flight = lane.flights.get(query)
        if flight is None:
            flight = _Flight(query, loop.create_future())
            lane.flights[query] = lane.waiting[query] = flight
        flight.wanted += 1
        return flight

    def _leave(self, lane: _Lane, flight: _Flight) -> None:
        flight.wanted -= 1
        if flight.wanted or flight.answer.done():
            return
        if flight.batch is None:
            del lane.flights[flight.query], lane.waiting[flight.query]
        elif not any(other.wanted for other in flight.batch.flights):
            self._forget(lane, flight.batch)  # before it ends: nobody may join what is cancelled
            flight.batch.task.cancel()

    def _flush(self, lane: _Lane, k: int) -> None:
        lane.scheduled = False
        if not lane.waiting:  # all who asked have left
            return
        flights, lane.waiting = tuple(lane.waiting.values()), {}
        for together in ((flight,) for flight in flights) if self._singly else (flights,):
            self._start(lane, together, k)

    def _start(self, lane: _Lane, flights: tuple[_Flight, ...], k: int) -> None:
        task = asyncio.ensure_future(search_distinct(self._inner, [flight.query for flight in flights], k))
        batch = _Batch(flights, task)
        for flight in flights:
            flight.batch = batch
        lane.under_way.add(batch)
        task.add_done_callback(lambda _: self._land(lane, batch))

    def _land(self, lane: _Lane, batch: _Batch) -> None:
        lane.under_way.discard(batch)
        self._forget(lane, batch)
        task = batch.task
        for place, flight in enumerate(batch.flights):
            if task.cancelled():
                flight.answer.cancel()
            elif (error := task.exception()) is not None:
                flight.answer.set_exception(error)
                flight.answer.exception()  # retrieved, also when nobody is left to hear of it
            else:
                flight.answer.set_result(task.result()[place])

    @staticmethod
    def _forget(lane: _Lane, batch: _Batch) -> None:
        """The next search for one of its queries is a search of its own."""
        for flight in batch.flights:
            if lane.flights.get(flight.query) is flight:
                del lane.flights[flight.query]
