import asyncio
import json
import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx
import pytest

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.client import HttpRetriever
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.pool import PoolRetriever
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.retrieval.spec import check_retriever, is_server, open_retriever
from searchr1.types import Passage


class Servers:
    """Scripted ``/retrieve`` servers on one clock: each answers a query with its own name, unless it is down."""

    def __init__(self, *names: str, **options: Any) -> None:
        self.now = 1000.0
        self.down: set[str] = set()
        self.asked: list[tuple[str, list[str]]] = []
        self.health: dict[str, dict[str, Any]] = {name: {} for name in names}
        self.hold: dict[str, asyncio.Event] = {}
        self.policy = Policy(**{"retries": 0, "breaker_failures": 2, "breaker_seconds": 10.0, **options})
        self.pool = PoolRetriever([self.client(name) for name in names])

    def client(self, name: str) -> HttpRetriever:
        async def answer(request: httpx.Request) -> httpx.Response:
            if name in self.down:
                raise httpx.ConnectError(f"{name} is down")
            if request.url.path == "/health":
                return httpx.Response(200, json=self.health[name])
            queries = json.loads(request.content)["queries"]
            self.asked.append((name, queries))
            if name in self.hold:
                await self.hold[name].wait()
            return httpx.Response(200, json={"result": [[{"id": query, "text": name}] for query in queries]})

        transport = httpx.MockTransport(answer)
        return HttpRetriever(f"http://{name}", self.policy, transport=transport, clock=lambda: self.now)

    async def who(self, *queries: str) -> str:
        """The server that answers."""
        (found, *_) = await self.pool.search(list(queries) or ["q"], 3)
        return found[0].text


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_in_turn_where_none_is_busier() -> None:
    servers = Servers("a", "b", "c")
    assert [await servers.who() for _ in range(7)] == list("abcabca")


async def test_the_least_busy_is_asked() -> None:
    servers = Servers("a", "b")
    servers.hold["a"] = asyncio.Event()
    slow = asyncio.create_task(servers.pool.search(["q1", "q2", "q3"], 3))
    await settle()
    assert [await servers.who() for _ in range(4)] == list("bbbb")
    servers.hold["b"] = asyncio.Event()
    busier = [asyncio.create_task(servers.pool.search([q], 3)) for q in "wxyz"]
    await settle()
    assert [name for name, _ in servers.asked] == list("abbbbbbba")  # b is as busy with three queries
    servers.hold["a"].set()
    servers.hold["b"].set()
    await asyncio.gather(slow, *busier)


async def test_what_fails_on_one_goes_to_the_next_and_a_broken_one_is_asked_again_later() -> None:
    servers = Servers("a", "b")
    await servers.pool.info()
    servers.down = {"a"}
    assert [await servers.who() for _ in range(6)] == list("bbbbbb")
    requests = servers.pool.counts()["requests"]
    assert requests == 2 + 6 + 2  # two /health, and a failed twice before it was left alone
    servers.now += 10.0
    assert [await servers.who() for _ in range(3)] == list("bbb")
    assert servers.pool.counts()["requests"] == requests + 4  # once more, to see
    servers.down = set()
    servers.now += 10.0
    assert sorted({await servers.who() for _ in range(4)}) == ["a", "b"]
    assert servers.pool.counts()["failures"] == 3


async def test_only_when_all_fail_the_search_is_unavailable() -> None:
    servers = Servers("a", "b", breaker_failures=0)
    servers.down = {"a", "b"}
    reason = "gave up after 1 attempt: ConnectError: {0} is down"
    with pytest.raises(SearchUnavailable, match=f"^http://a: {reason.format('a')}; http://b: {reason.format('b')}$"):
        await servers.pool.search(["q"], 3)
    with pytest.raises(SearchUnavailable, match=r"http://a: .*; http://b: "):
        await servers.pool.info()
    with pytest.raises(UserError, match="the search engine does not work: http://"):
        await check_retriever(servers.pool)
    servers.down = set()
    assert await servers.who() == "a"


async def test_while_all_breakers_are_open_nothing_is_asked() -> None:
    servers = Servers("a", "b", breaker_failures=1)
    servers.down = {"a", "b"}
    for expected in ("gave up", "not asked"):
        with pytest.raises(SearchUnavailable, match=f"http://a: {expected}.*; http://b: {expected}"):
            await servers.pool.search(["q"], 3)
    assert servers.pool.counts()["requests"] == 2


async def test_a_spent_budget_stops_only_when_it_is_spent_everywhere() -> None:
    servers = Servers("a", "b", max_requests=3)
    assert [await servers.who() for _ in range(4)] == list("abab")  # each: one /health and two searches
    with pytest.raises(SearchBudgetSpent, match=r"http://a: all 3 requests .*; http://b: all 3 requests"):
        await servers.who()
    servers = Servers("a", "b", max_requests=2)
    await servers.who()
    servers.down = {"b"}
    with pytest.raises(SearchUnavailable) as caught:
        await servers.pool.search(["q"], 3)
    assert not isinstance(caught.value, SearchBudgetSpent)  # b may come back


@pytest.mark.parametrize(
    ("count", "down", "expected"),
    [
        (63, "", [63]),
        (64, "", [32, 32]),
        (97, "", [33, 32, 32]),
        (500, "", [167, 167, 166]),
        (500, "b", [250, 250]),
    ],
)
async def test_large_batches_are_split_and_keep_their_order(count: int, down: str, expected: list[int]) -> None:
    servers = Servers("a", "b", "c", breaker_failures=1)
    for name in down:
        servers.down.add(name)
        with pytest.raises(SearchUnavailable):
            await servers.pool._members["abc".index(name)].server.search(["q"], 1)
    queries = [f"q{number}" for number in range(count)]
    found = await servers.pool.search(queries, 1)
    assert [passage.id for (passage,) in found] == queries
    assert [len(part) for _, part in servers.asked] == expected
    assert len({name for name, _ in servers.asked}) == len(expected)


async def test_a_part_whose_server_fails_goes_to_another() -> None:
    servers = Servers("a", "b")
    await servers.pool.info()
    servers.down = {"b"}
    queries = [f"q{number}" for number in range(80)]
    found = await servers.pool.search(queries, 1)
    assert [(passage.id, passage.text) for (passage,) in found] == [(query, "a") for query in queries]
    assert [len(part) for _, part in servers.asked] == [40, 40]


async def test_the_parts_are_searched_side_by_side_and_cancelled_together() -> None:
    servers = Servers("a", "b")
    servers.hold = {"a": asyncio.Event(), "b": asyncio.Event()}
    task = asyncio.create_task(servers.pool.search(["q"] * 64, 1))
    await settle()
    assert sorted(name for name, _ in servers.asked) == ["a", "b"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert [member.busy for member in servers.pool._members] == [0, 0]
    assert servers.pool.counts()["failures"] == 0


ONE = {"kind": "bm25", "passages": 5, "corpus_hash": "ab" * 32}


async def test_the_same_corpus_is_the_pools() -> None:
    servers = Servers("a", "b", "c")
    servers.health |= {"b": ONE, "c": ONE}  # a does not say
    assert await servers.pool.info() == RetrieverInfo("bm25", 5, "ab" * 32)
    assert await check_retriever(servers.pool) == RetrieverInfo("bm25", 5, "ab" * 32)


@pytest.mark.parametrize("other", [{**ONE, "corpus_hash": "cd" * 32}, {**ONE, "kind": "dense"}])
async def test_another_corpus_or_kind_of_index_is_the_users_error(other: dict[str, Any]) -> None:
    servers = Servers("a", "b", "c")
    servers.health |= {"a": ONE, "b": ONE, "c": other}
    message = r"expected servers of the same index, but http://a searches a bm25 index of 5 passages \(abababababab\)"
    with pytest.raises(UserError, match=f"^{message} and http://c a {other['kind']} index of 5 passages"):
        await check_retriever(servers.pool)


async def test_a_server_that_starts_late_is_checked_before_it_is_searched() -> None:
    servers = Servers("a", "b", breaker_failures=0)
    servers.health |= {"a": ONE, "b": {**ONE, "corpus_hash": "cd" * 32}}
    servers.down = {"b"}
    assert (await check_retriever(servers.pool)).corpus_hash == "ab" * 32
    assert [await servers.who() for _ in range(3)] == list("aaa")
    servers.down = set()
    with pytest.raises(UserError, match="expected servers of the same index"):
        await asyncio.gather(servers.who(), servers.who())  # at one moment: one on each
    assert {name for name, _ in servers.asked} == {"a"}


def test_a_spec_of_several_urls_is_a_pool() -> None:
    table = {"kind": "http", "url": "http://a:1,http://b:2/retrieve", "batch_size": 7, "policy": {"retries": 2}}
    for spec in ("http://a:1,http://b:2", "http:url=http://a:1,http://b:2", table):
        pool = open_retriever(spec)
        assert isinstance(pool, PoolRetriever)
        assert is_server(spec)
        assert [member.server.guard.name for member in pool._members] == ["http://a:1", "http://b:2"]
    assert {member.server.guard.policy.retries for member in pool._members} == {2}
    assert isinstance(open_retriever("http://a:1"), HttpRetriever)
    with pytest.raises(UserError, match="expected the URL of a search server such as"):
        open_retriever("http://a:1,")
    with pytest.raises(UserError, match="expected search servers at different URLs, got http://a:1, http://a:1"):
        open_retriever("http://a:1,http://a:1/")


class Named:
    """A retriever that finds its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        return [[Passage("1", "", self.name)] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("named", 1, "")


def serve(name: str) -> tuple[str, Callable[[], None]]:
    """A real server in a thread: its URL, and what stops it."""
    listener = listen("127.0.0.1", 0)
    server = server_of(create_app(Named(name)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listener.close()

    return f"http://127.0.0.1:{listener.getsockname()[1]}", stop


async def test_real_servers_of_which_one_dies() -> None:
    (one, stop_one), (two, stop_two) = serve("one"), serve("two")
    try:
        policy = {"retries": 1, "backoff": 0.001, "breaker_failures": 1, "breaker_seconds": 60}
        async with open_retriever({"kind": "http", "url": f"{one},{two}", "policy": policy}) as pool:  # type: ignore[attr-defined]
            found = [(await pool.search(["q"], 1))[0][0].text for _ in range(4)]
            assert found == ["one", "two", "one", "two"]
            await asyncio.to_thread(stop_one)
            found = [(await pool.search(["q"], 1))[0][0].text for _ in range(4)]
            assert found == ["two"] * 4
            assert pool.counts()["failures"] == 1
    finally:
        stop_one()
        stop_two()
