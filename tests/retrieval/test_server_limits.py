"""What keeps a server answering: the token, the queue, the clock for bodies; and its figures."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever
from searchr1.retrieval.client import HttpRetriever
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.retrieval.serving.wire import Limits
from searchr1.types import Passage

DUNE = Passage("1", "Dune", "A novel.", 2.5)
URL = "http://searchr1.test"


class Gated(DictionaryRetriever):
    """Every search waits until the gate is opened."""

    def __init__(self) -> None:
        super().__init__({}, [DUNE])
        self.gate = asyncio.Event()

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        found = await super().search(queries, k)
        await self.gate.wait()
        return found

    async def until_asked(self, times: int = 1) -> None:
        while len(self.calls) < times:
            await asyncio.sleep(0)


def transport(retriever: Retriever, token: str = "", **limits: Any) -> httpx.ASGITransport:
    app = create_app(retriever, limits=Limits(**limits), token=token)
    return httpx.ASGITransport(app, raise_app_exceptions=False)


@contextlib.asynccontextmanager
async def running(retriever: Retriever, **limits: Any) -> AsyncIterator[tuple[Any, int]]:
    """A server on a real socket, in this event loop; it and its port."""
    with listen("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        server = server_of(create_app(retriever, limits=Limits(**limits)))
        task = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started:
            await asyncio.sleep(0.001)
        try:
            yield server, port
        finally:
            server.should_exit = True
            await task


def client_of(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False)


async def takes_connections(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def figures(http: httpx.AsyncClient) -> dict[str, float]:
    lines = (await http.get("/metrics")).text.splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


# The token


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ({}, 401),
        ({"authorization": "Bearer sesame"}, 200),
        ({"authorization": "bearer  sesame"}, 200),
        ({"authorization": "Bearer sesam"}, 401),
        ({"authorization": "Bearer sesame2"}, 401),
        ({"authorization": "Bearer Sesame"}, 401),
        ({"authorization": "Bearer "}, 401),
        ({"authorization": "Basic sesame"}, 401),
        ({"authorization": "sesame"}, 401),
        ({"authorization": b"Bearer \xff\xfe"}, 401),
    ],
)
async def test_the_token_is_wanted_of_every_request(header: dict[str, Any], status: int) -> None:
    retriever = DictionaryRetriever({}, [DUNE])
    async with httpx.AsyncClient(transport=transport(retriever, "sesame"), base_url=URL, headers=header) as http:
        answers = [
            await http.post("/retrieve", content=b'{"queries": ["dune"]}'),
            await http.post("/search", content=b'{"query": "dune"}'),
            await http.get("/metrics"),
            await http.get("/openapi.json"),
        ]
        assert [answer.status_code for answer in answers] == [status] * 4
        if status == 401:
            assert "Authorization: Bearer TOKEN" in answers[0].json()["error"]
            assert answers[0].headers["www-authenticate"] == "Bearer"
            assert (await http.get("/nowhere")).status_code == 401  # strangers learn nothing
            assert retriever.calls == []
        assert (await http.get("/health")).json()["ready"] is True
        assert (await http.get("/")).status_code == 200


async def test_our_client_brings_the_token() -> None:
    retriever = DictionaryRetriever({}, [DUNE])
    async with HttpRetriever(URL, token="sesame", transport=transport(retriever, "sesame")) as client:
        assert await client.search(["dune"], 1) == [[DUNE]]
    async with HttpRetriever(URL, token="simsalabim", transport=transport(retriever, "sesame")) as client:
        with pytest.raises(SearchUnavailable, match="status 401: expected the header `Authorization: Bearer TOKEN`"):
            await client.search(["dune"], 1)


@pytest.mark.parametrize("token", ["with space", "new\nline", "öffnen", "\x00"])
def test_a_token_that_no_header_can_hold_is_the_users_error(token: str) -> None:
    with pytest.raises(UserError, match="--token: expected printable ASCII characters without spaces"):
        create_app(DictionaryRetriever({}), token=token)


# The queue


async def test_more_searches_than_the_queue_holds_are_told_to_come_back() -> None:
    retriever = Gated()
    async with httpx.AsyncClient(transport=transport(retriever, under_way=2), base_url=URL) as http:
        held = [asyncio.create_task(http.post("/retrieve", content=b'{"queries": ["dune"]}')) for _ in range(2)]
        await retriever.until_asked(2)
        for path, body in (("/retrieve", b'{"queries": ["dune"]}'), ("/search", b'{"query": "dune"}')):
            refused = await http.post(path, content=body)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
            assert refused.json() == {"error": "busy: 2 searches are under way; try again in 1 s"}
        assert (await http.post("/retrieve", content=b"garbage")).status_code == 400  # which no queue need wait for
        assert (await http.get("/health")).status_code == 200
        seen = await figures(http)
        assert (seen["searchr1_searches_in_flight"], seen["searchr1_refused_total"]) == (2, 2)
        retriever.gate.set()
        assert [(await answer).status_code for answer in held] == [200, 200]
        assert (await http.post("/search", content=b'{"query": "dune"}')).status_code == 200
        seen = await figures(http)
        assert seen["searchr1_searches_in_flight"] == 0


async def test_a_burst_gets_through_because_the_client_comes_back_as_told() -> None:
    class Slow(DictionaryRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            await asyncio.sleep(0.002)
            return await super().search(queries, k)

    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(seconds / 200)

    policy = Policy(retries=20, backoff=0.001)
    over = transport(Slow({}, [DUNE]), under_way=2)
    async with HttpRetriever(URL, policy, transport=over, sleep=sleep) as client:
        found = await asyncio.gather(*(client.search([f"dune {turn}"], 1) for turn in range(30)))
    assert found == [[[DUNE]]] * 30
    assert len(waits) >= 28  # all but two were sent away at first
    assert min(waits) >= 1.0  # and none came back before the second it was told to wait


async def test_a_search_that_fails_gives_its_place_back() -> None:
    class Failing(DictionaryRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            raise SearchUnavailable("down")

    async with httpx.AsyncClient(transport=transport(Failing({}), under_way=1), base_url=URL) as http:
        for _ in range(3):
            answer = await http.post("/retrieve", content=b'{"queries": ["dune"]}')
            assert (answer.status_code, answer.json()) == (503, {"error": "down"})
            assert "retry-after" not in answer.headers
        seen = await figures(http)
        assert (seen["searchr1_errors_total"], seen["searchr1_searches_in_flight"]) == (3, 0)


# Slow and half-sent bodies, on real sockets

HEAD = b"POST /retrieve HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"


async def test_bodies_that_never_end_hold_up_nobody_and_are_ended() -> None:
    async with running(DictionaryRetriever({}, [DUNE]), under_way=2, body_seconds=0.4) as (_, port):
        halves = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in halves:
            writer.write(HEAD % 100 + b'{"queries"')
        async with client_of(port) as http:
            answer = await http.post("/retrieve", content=b'{"queries": ["dune"]}')
            assert answer.status_code == 200
        for reader, writer in halves:
            said = await reader.read()  # to the end of the connection
            assert said.startswith(b"HTTP/1.1 408 ")
            assert said.endswith(b'{"error":"expected the whole body within 0.4 s"}')
            writer.close()


async def test_a_client_that_leaves_in_the_middle_of_its_body_leaves_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(DictionaryRetriever({}, [DUNE])) as (_, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD % 100 + b'{"queries"')
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.close()
        await writer.wait_closed()
        async with client_of(port) as http:
            while 'path="/retrieve",status="499"' not in (await http.get("/metrics")).text:
                await asyncio.sleep(0.002)
            assert (await figures(http))["searchr1_errors_total"] == 0
    assert caplog.records == []


async def test_a_body_declared_too_large_is_refused_before_it_is_sent() -> None:
    async with running(DictionaryRetriever({}), body_bytes=1000) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD % 10_000_000)
        said = await reader.readuntil(b"}")
        assert said.startswith(b"HTTP/1.1 413 ")
        assert b"expected a body of at most 1000 bytes, got 10000000" in said
        writer.close()


async def test_a_client_that_sends_a_large_body_all_the_same_hears_why_it_is_refused() -> None:
    async with running(DictionaryRetriever({}), body_bytes=1000) as (_, port), client_of(port) as http:
        for _ in range(3):
            assert (await http.post("/retrieve", content=b" " * 3_000_000)).status_code == 413
        assert (await http.get("/health")).status_code == 200


# The end


async def test_a_server_that_stops_finishes_what_is_under_way_and_takes_nothing_new() -> None:
    retriever = Gated()
    async with running(retriever) as (server, port), client_of(port) as http:
        last = asyncio.create_task(http.post("/retrieve", content=b'{"queries": ["dune"], "topk": 1}'))
        await retriever.until_asked()
        server.should_exit = True
        while await takes_connections(port):
            await asyncio.sleep(0.005)
        retriever.gate.set()
        answer = await last
    assert (answer.status_code, len(answer.json()["result"])) == (200, 1)


# Side by side


async def test_searches_go_to_the_engine_side_by_side() -> None:
    retriever = Gated()
    async with httpx.AsyncClient(transport=transport(retriever), base_url=URL) as http:
        answers = [asyncio.create_task(http.post("/search", content=b'{"query": "dune"}')) for _ in range(3)]
        await retriever.until_asked(3)
        retriever.gate.set()
        assert [(await answer).status_code for answer in answers] == [200] * 3


# The figures


async def test_what_is_counted() -> None:
    async with httpx.AsyncClient(transport=transport(DictionaryRetriever({}, [DUNE])), base_url=URL) as http:
        for _ in range(3):
            await http.post("/retrieve", content=b'{"queries": ["a", "b", "a"]}')
        await http.post("/search", content=b'{"query": "a"}')
        await http.post("/retrieve", content=b"garbage")
        for path in ("/a", "/b", "/health"):
            await http.get(path)
        response = await http.get("/metrics")
        seen = await figures(http)
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert seen["searchr1_queries_total"] == 10
    assert seen['searchr1_requests_total{path="/retrieve",status="200"}'] == 3
    assert seen['searchr1_requests_total{path="/retrieve",status="400"}'] == 1
    assert seen['searchr1_requests_total{path="/search",status="200"}'] == 1
    assert seen['searchr1_requests_total{path="other",status="404"}'] == 2  # whatever strangers think up, one line
    assert seen['searchr1_request_seconds_count{path="/retrieve"}'] == 4
    assert seen['searchr1_request_seconds_bucket{le="+Inf",path="/retrieve"}'] == 4
    assert 0 < seen['searchr1_request_seconds_sum{path="/retrieve"}'] < 60
    assert seen["searchr1_errors_total"] == seen["searchr1_refused_total"] == 0
    assert not re.search(r'path="/[ab]"', response.text)


async def test_bugs_are_counted_as_errors() -> None:
    class Broken(DictionaryRetriever):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            raise RuntimeError("bug")

    async with httpx.AsyncClient(transport=transport(Broken({})), base_url=URL) as http:
        assert (await http.post("/retrieve", content=b'{"queries": ["a"]}')).status_code == 500
        seen = await figures(http)
    assert seen["searchr1_errors_total"] == 1
    assert seen['searchr1_requests_total{path="/retrieve",status="500"}'] == 1
