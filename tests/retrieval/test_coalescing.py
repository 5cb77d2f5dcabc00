import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchUnavailable
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.batching import CoalescingRetriever, deduplicate, search_distinct
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import Passage


def passage(name: str) -> Passage:
    return Passage(name, name, name)


def dictionary(*names: str) -> DictionaryRetriever:
    return DictionaryRetriever({name: [passage(name)] for name in names})


async def settle() -> None:
    """Let the event loop go round until nothing but a wait is left."""
    for _ in range(10):
        await asyncio.sleep(0)


class Slow:
    """Answers when it is let go; counts how many of its searches were cancelled."""

    def __init__(self) -> None:
        self.inner = dictionary("a", "b", "c")
        self.go = asyncio.Event()
        self.cancelled = 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await self.inner.search(queries, k)

    async def info(self) -> RetrieverInfo:
        return await self.inner.info()


class Broken:
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise SearchUnavailable("down")

    async def info(self) -> RetrieverInfo:
        raise SearchUnavailable("down")


class Short(DictionaryRetriever):
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return (await super().search(queries, k))[:-1]


@given(st.lists(st.sampled_from("abcd")))
def test_deduplicate_keeps_first_come_order_and_can_be_undone(queries: list[str]) -> None:
    distinct, positions = deduplicate(queries)
    assert distinct == sorted(set(queries), key=queries.index)
    assert [distinct[position] for position in positions] == queries


async def test_searches_of_one_moment_are_one_search_with_equal_queries_once() -> None:
    inner = dictionary("a", "b", "c")
    retriever = CoalescingRetriever(inner)
    found = await asyncio.gather(
        retriever.search(["b", "a"], 3), retriever.search(["b"], 3), retriever.search(["c", "b", "x"], 3)
    )
    assert inner.calls == [(("b", "a", "c", "x"), 3)]
    assert found == [[[passage("b")], [passage("a")]], [[passage("b")]], [[passage("c")], [passage("b")], []]]
    assert found[0][0] is not found[1][0]


async def test_searches_for_another_number_of_passages_or_of_another_moment_are_apart() -> None:
    inner = dictionary("a", "b")
    retriever = CoalescingRetriever(inner)
    await asyncio.gather(retriever.search(["a"], 1), retriever.search(["b"], 2), retriever.search(["b"], 1))
    await retriever.search(["a"], 1)
    assert inner.calls == [(("a", "b"), 1), (("b",), 2), (("a",), 1)]


async def test_a_later_moment_does_not_wait_for_a_slow_earlier_one() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    first = asyncio.create_task(retriever.search(["a"], 1))
    await settle()
    second = asyncio.create_task(retriever.search(["b"], 1))
    await settle()
    slow.go.set()
    assert await asyncio.gather(first, second) == [[[passage("a")]], [[passage("b")]]]
    assert slow.inner.calls == [(("a",), 1), (("b",), 1)]


async def test_an_error_reaches_everyone_and_the_next_search_starts_afresh() -> None:
    retriever = CoalescingRetriever(Broken())
    for _ in range(2):
        found = await asyncio.gather(*(retriever.search([q], 1) for q in "abc"), return_exceptions=True)
        assert [repr(error) for error in found] == ["SearchUnavailable('down')"] * 3
    with pytest.raises(SearchUnavailable, match="down"):
        await retriever.info()


async def test_a_wrong_number_of_results_is_an_error_for_everyone() -> None:
    retriever = CoalescingRetriever(Short({}))
    found = await asyncio.gather(retriever.search(["a"], 1), retriever.search(["b"], 1), return_exceptions=True)
    assert [str(error) for error in found] == ["expected results for 2 queries, the retriever returned 1"] * 2
    with pytest.raises(SearchUnavailable, match="expected results for 1 queries, the retriever returned 0"):
        await search_distinct(Short({}), ["a", "a"], 1)


async def test_cancelling_one_leaves_the_others_alone() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    tasks = [asyncio.create_task(retriever.search([q], 1)) for q in "abc"]
    await settle()
    tasks[1].cancel()
    await settle()
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert found[0] == [[passage("a")]]
    assert isinstance(found[1], asyncio.CancelledError)
    assert found[2] == [[passage("c")]]
    assert slow.inner.calls == [(("a", "b", "c"), 1)]
    assert slow.cancelled == 0


async def test_a_search_nobody_waits_for_is_cancelled() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    tasks = [asyncio.create_task(retriever.search([q], 1)) for q in "ab"]
    await settle()
    tasks[0].cancel()
    await settle()
    assert slow.cancelled == 0
    tasks[1].cancel()
    await settle()
    assert slow.cancelled == 1
    assert all(task.cancelled() for task in tasks)


def test_what_a_dead_event_loop_left_does_not_block_the_next() -> None:
    inner = dictionary("a")
    retriever = CoalescingRetriever(inner)

    async def abandon() -> None:
        search = retriever.search(["b"], 1)
        search.send(None)  # registered, and the loop ends before it is flushed
        search.close()

    asyncio.run(abandon())
    assert asyncio.run(retriever.search(["a"], 1)) == [[passage("a")]]
    assert inner.calls == [(("a",), 1)]


def start(retriever: CoalescingRetriever, *queries: str, k: int = 1) -> asyncio.Task[list[list[Passage]]]:
    return asyncio.create_task(retriever.search(list(queries), k))


async def test_who_asks_what_is_being_searched_joins() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    tasks = [start(retriever, "a", "b")]
    await settle()
    tasks += [start(retriever, "b"), start(retriever, "a", "a"), start(retriever, "b", k=2)]
    await settle()
    slow.go.set()
    found = await asyncio.gather(*tasks)
    a, b = [passage("a")], [passage("b")]
    assert found == [[a, b], [b], [a, a], [b]]
    assert slow.inner.calls == [(("a", "b"), 1), (("b",), 2)]
    results = [result for results in found for result in results]
    assert len({id(result) for result in results}) == len(results)  # each caller's own
    await retriever.search(["b"], 1)
    assert len(slow.inner.calls) == 3  # what has landed is searched again


async def test_a_search_that_joins_one_and_starts_another_waits_for_both() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    first = start(retriever, "a")
    await settle()
    second = start(retriever, "c", "a")
    await settle()
    slow.go.set()
    assert await second == [[passage("c")], [passage("a")]]
    assert await first == [[passage("a")]]
    assert slow.inner.calls == [(("a",), 1), (("c",), 1)]


async def test_a_joined_search_that_fails_fails_for_all() -> None:
    slow = Slow()
    slow.inner = Broken()  # type: ignore[assignment]
    retriever = CoalescingRetriever(slow)
    tasks = [start(retriever, "a")]
    await settle()
    tasks += [start(retriever, "a"), start(retriever, "b", "a")]
    await settle()
    slow.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [repr(error) for error in found] == ["SearchUnavailable('down')"] * 3


async def test_cancelling_who_started_leaves_who_joined_and_an_abandoned_search_is_not_joined() -> None:
    slow = Slow()
    retriever = CoalescingRetriever(slow)
    first = start(retriever, "a")
    await settle()
    joined = start(retriever, "a")
    await settle()
    first.cancel()
    await settle()
    assert slow.cancelled == 0
    joined.cancel()
    later = asyncio.create_task(asyncio.sleep(0))
    await later
    third = start(retriever, "a")
    await settle()
    assert slow.cancelled == 1
    slow.go.set()
    assert await third == [[passage("a")]]
    assert slow.inner.calls == [(("a",), 1)]


async def test_what_nobody_waits_for_any_more_is_not_even_sent() -> None:
    inner = dictionary("a", "b")
    retriever = CoalescingRetriever(inner)

    def leave(query: str) -> None:
        search = retriever.search([query], 1)
        search.send(None)
        search.close()

    leave("a")
    await settle()
    assert inner.calls == []
    leave("a")
    assert await retriever.search(["b"], 1) == [[passage("b")]]
    assert inner.calls == [(("b",), 1)]


async def test_where_every_query_is_a_request_its_failure_is_its_own() -> None:
    class Single(DictionaryRetriever):
        one_query_a_request = True

        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            found = await super().search(queries, k)
            if "bad" in queries:
                raise SearchUnavailable("bad")
            return found

    single = Single({"a": [passage("a")]})
    retriever = CoalescingRetriever(single)
    searches = [retriever.search([query], 1) for query in ("a", "bad", "a")]
    first, bad, second = await asyncio.gather(*searches, return_exceptions=True)
    assert first == second == [[passage("a")]]
    assert isinstance(bad, SearchUnavailable)
    assert single.calls == [(("a",), 1), (("bad",), 1)]


@given(
    st.lists(st.tuples(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4), st.integers(0, 3)), max_size=12),
    st.sets(st.integers(0, 11)),
)
def test_whatever_joins_or_is_cancelled_everyone_gets_his_own(
    searches: list[tuple[list[str], int]], cancelled: set[int]
) -> None:
    class Turns(DictionaryRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            for _ in range(len(queries)):
                await asyncio.sleep(0)
            return await super().search(queries, k)

    async def play() -> None:
        retriever = CoalescingRetriever(Turns({name: [passage(name), passage("z")] for name in "abcdefgh"}))
        tasks = []
        for queries, pause in searches:
            tasks.append(asyncio.create_task(retriever.search(queries, 2)))
            for _ in range(pause):
                await asyncio.sleep(0)
        dropped = cancelled & set(range(len(tasks)))
        for number in dropped:
            tasks[number].cancel()
        found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        for number, (queries, _) in enumerate(searches):
            if number in dropped and isinstance(found[number], asyncio.CancelledError):
                continue
            assert found[number] == [[passage(query), passage("z")] for query in queries]
        assert await retriever.search(["a"], 1) == [[passage("a")]]

    asyncio.run(play())
