import asyncio
from collections.abc import Sequence

import pytest

from searchr1.errors import SearchBudgetSpent, SearchUnavailable
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.meter import Meter
from searchr1.types import Passage, Question


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Gated:
    """Answers when it is let go, or fails as it is told. Notes what was asked, and for which question."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.failure: Exception | None = None
        self.refused = ""
        self.asked: list[tuple[tuple[str, ...], int, str]] = []

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        question = ASKED.get()
        self.asked.append((tuple(queries), k, question.id if question else ""))
        await self.go.wait()
        if self.refused in queries:
            raise SearchUnavailable("refused")
        if self.failure is not None:
            raise self.failure
        return [[] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("gated", 0, "")

    def counts(self) -> dict[str, float]:
        return {"requests": len(self.asked)}


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_searches_of_one_moment_count_once() -> None:
    gated, clock = Gated(), Clock()
    meter = Meter(gated, clock)
    tasks = [asyncio.create_task(meter.search(["a"], 1)) for _ in range(20)]
    await settle()
    clock.now += 1
    tasks.append(asyncio.create_task(meter.search(["b"], 1)))
    await settle()
    clock.now += 2
    gated.go.set()
    await asyncio.gather(*tasks)
    assert meter.seconds == 3
    clock.now += 10
    await meter.search(["a"], 1)
    assert meter.seconds == 3
    assert meter.counts() == {"requests": 22}
    assert await meter.info() == RetrieverInfo("gated", 0, "")


@pytest.mark.parametrize("end", ["failure", "cancellation"])
async def test_a_search_that_comes_to_nothing_counts_too(end: str) -> None:
    gated, clock = Gated(), Clock()
    meter = Meter(gated, clock)
    task = asyncio.create_task(meter.search(["a"], 1))
    await settle()
    clock.now += 2
    if end == "failure":
        gated.failure = SearchUnavailable("down")
        gated.go.set()
        with pytest.raises(SearchUnavailable, match="down"):
            await task
    else:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert meter.seconds == 2


async def fail(meter: Meter, identifier: str) -> None:
    """A search that fails, for the question of that name."""

    async def ask() -> None:
        ASKED.set(Question(identifier, "?", ("a",)))
        with pytest.raises(SearchUnavailable):
            await meter.search([f"about {identifier}"], 2)

    await asyncio.create_task(ask())


async def test_retry_asks_what_failed_last_for_its_own_question() -> None:
    gated = Gated()
    gated.go.set()
    meter = Meter(gated)
    await meter.search(["fine"], 3)
    await meter.retry()
    assert len(gated.asked) == 1  # nothing had failed
    gated.failure = SearchUnavailable("down")
    for number in range(6):
        await fail(meter, f"q{number}")
    del gated.asked[:]
    last = [((f"about q{number}",), 2, f"q{number}") for number in (5, 4, 3)]
    for _ in range(2):  # they stay what failed last
        with pytest.raises(SearchUnavailable, match="down"):
            await meter.retry()
    gated.failure = None
    await meter.retry()
    assert gated.asked == [*last, *last, last[0]]
    assert ASKED.get() is None
    await meter.retry()
    assert len(gated.asked) == 7


async def test_retry_is_content_with_one_answer_but_not_with_a_spent_budget() -> None:
    gated = Gated()
    gated.go.set()
    meter = Meter(gated)
    gated.failure = SearchUnavailable("down")
    await fail(meter, "q1")
    await fail(meter, "q2")
    gated.refused = "about q2"
    gated.failure = None
    await meter.retry()
    assert [queries for queries, _, _ in gated.asked[2:]] == [("about q2",), ("about q1",)]
    gated.failure = SearchUnavailable("down")
    await fail(meter, "q1")
    await fail(meter, "q2")
    gated.failure = SearchBudgetSpent("spent")
    with pytest.raises(SearchBudgetSpent, match="spent"):
        await meter.retry()
    gated.failure = RuntimeError("a mistake")
    with pytest.raises(RuntimeError, match="a mistake"):
        await meter.retry()
