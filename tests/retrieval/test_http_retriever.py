import asyncio
import gc
import json
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Any

import httpx
import pytest

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.client import HttpRetriever
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.policy import Policy
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.types import Passage

HIT = {"document": {"id": "1", "contents": '"Dune"\nA novel.'}, "score": 2.5}
DUNE = Passage("1", "Dune", "A novel.", 2.5)
Answer = Callable[[httpx.Request], httpx.Response]


class Script:
    """A transport that plays answers in turn and remembers requests and waits; the last answer stays."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[Any] = []
        self.waits: list[float] = []

    def retriever(self, **settings: Any) -> HttpRetriever:
        async def sleep(seconds: float) -> None:
            self.waits.append(seconds)

        transport = httpx.MockTransport(self._answer)
        settings = {"retries": 3, "backoff": 1.0, "uniform": lambda: 0.5, **settings}
        own = {key: settings.pop(key) for key in ("uniform", "batch_size", "clock") if key in settings}
        return HttpRetriever("http://searchr1.test", Policy(**settings), transport=transport, sleep=sleep, **own)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(json.loads(request.content) if request.content else request.url.path)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


def ok(*results: list[Any]) -> httpx.Response:
    return httpx.Response(200, json={"result": list(results)})


async def test_the_request_is_search_r1s_and_scores_are_always_asked_for() -> None:
    script = Script(ok([HIT], []))
    assert await script.retriever().search(["who", "\ud800 what"], 3) == [[DUNE], []]
    assert script.requests == [{"queries": ["who", "? what"], "topk": 3, "return_scores": True}]


@pytest.mark.parametrize(
    ("hit", "expected"),
    [
        (HIT, DUNE),
        ({"id": "1", "contents": '"Dune"\nA novel.'}, Passage("1", "Dune", "A novel.")),
        ({"id": 1, "contents": "x", "title": "Dune", "text": "A novel.", "url": 5}, Passage("1", "Dune", "A novel.")),
        ({"document": {"title": "Dune", "text": "A novel."}, "score": 2}, Passage("", "Dune", "A novel.", 2.0)),
        ({"document": {"id": "1", "text": "A novel."}}, Passage("1", "", "A novel.")),
        ({"document": {"id": None, "contents": "A novel."}, "score": None}, Passage("", "", "A novel.")),
        ({"document": {"id": "1", "title": "Dune", "contents": '"Dune"\nx'}}, Passage("1", "Dune", "x")),
    ],
)
async def test_every_shape_of_a_document_is_read(hit: Any, expected: Passage) -> None:
    assert await Script(ok([hit])).retriever().search(["q"], 3) == [[expected]]


async def test_more_than_k_are_cut_and_fewer_are_honest() -> None:
    hits = [{"id": str(i), "text": "x"} for i in range(5)]
    found = await Script(ok(hits, hits[:1])).retriever().search(["q", "r"], 2)
    assert [[passage.id for passage in passages] for passages in found] == [["0", "1"], ["0"]]


async def test_no_query_makes_no_request_and_many_make_several() -> None:
    script = Script(ok([HIT], []), ok([]))
    assert await script.retriever(batch_size=2).search([], 3) == []
    assert await script.retriever(batch_size=2).search(["a", "b", "c"], 3) == [[DUNE], [], []]
    assert [request["queries"] for request in script.requests] == [["a", "b"], ["c"]]


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError(""),
        httpx.RemoteProtocolError("closed"),
        httpx.Response(500, json={"error": "oops"}),
        httpx.Response(503),
        httpx.Response(429),
        httpx.Response(200, html="<html>please log in</html>"),
        httpx.Response(200, content=b'{"result": [[{"docu'),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"\xff\xfe"),
        httpx.Response(200, json={"results": []}),
        httpx.Response(200, json={"result": None}),
        ok(),
        ok([], []),
        ok([None]),
        ok([{"id": "1"}]),
        ok([{"document": {"contents": 5}}]),
        ok([{"document": None, "score": -3.4e38}]),
        ok([{"document": {"id": -1, "contents": None}, "score": -3.4e38}]),
        ok([HIT, None]),
        httpx.Response(200, json={"result": [None]}),
        ok([{"document": {"contents": "x"}, "score": "high"}]),
        httpx.Response(200, content=b'{"result": [[{"text": "x", "score": NaN}]]}'),
    ],
    ids=str,
)
async def test_a_passing_failure_is_retried(failure: httpx.Response | Exception) -> None:
    script = Script(failure, failure, ok([HIT]))
    assert await script.retriever().search(["q"], 3) == [[DUNE]]
    assert script.waits == [1.0, 2.0]
    assert len(script.requests) == 3


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (httpx.ConnectError("refused"), "ConnectError: refused"),
        (httpx.Response(500, json={"error": "no\nindex"}), "status 500: no index"),
        (httpx.Response(502, text="<html>\n" + "x" * 500), "status 502: <html> xxxx.*xxx\\.\\.\\.$"),
        (httpx.Response(200, html="<html>"), "the answer is not search results \\(JSON is malformed.*\\): <html>"),
        (httpx.Response(200), "the answer is not search results .*: an empty body"),
        (ok([], []), "asked 1 queries, got results for 2"),
        (ok([{"id": "1"}]), 'a document of the answer has neither "contents" nor "text"'),
    ],
)
async def test_a_lasting_failure_is_search_unavailable_in_one_line(failure: Any, reason: str) -> None:
    script = Script(failure)
    with pytest.raises(SearchUnavailable, match=f"^http://searchr1.test: gave up after 4 attempts: {reason}") as caught:
        await script.retriever().search(["q"], 3)
    assert "\n" not in str(caught.value)
    assert script.waits == [1.0, 2.0, 4.0]
    with pytest.raises(SearchUnavailable, match="gave up after 1 attempt: "):
        await Script(failure).retriever(retries=0).search(["q"], 3)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (httpx.Response(400, json={"error": "too many"}), "status 400: too many"),
        (httpx.Response(422, json={"detail": [{"loc": "topk"}]}), "status 422: .*topk"),
        (httpx.Response(401, json={"detail": "no token"}), "status 401: no token"),
        (httpx.Response(403, html="<h1>Forbidden</h1>"), "status 403: <h1>Forbidden</h1>"),
        (httpx.Response(404, text="not\nhere"), "status 404: not here"),
        (httpx.Response(302, headers={"location": "/login"}), "status 302: an empty body"),
    ],
)
async def test_another_status_is_not_retried(answer: httpx.Response, reason: str) -> None:
    script = Script(answer)
    with pytest.raises(SearchUnavailable, match=f"^http://searchr1.test: {reason}"):
        await script.retriever().search(["q"], 3)
    assert (len(script.requests), script.waits) == (1, [])


@pytest.mark.parametrize("uniform", [0.0, 0.999])
async def test_waits_grow_with_jitter(uniform: float) -> None:
    script = Script(httpx.Response(500))
    with pytest.raises(SearchUnavailable):
        await script.retriever(retries=8, uniform=lambda: uniform).search(["q"], 3)
    assert script.waits == [min(2**i * (0.5 + uniform), 60.0) for i in range(8)]


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 1, 1),
        ("86400", 60, 60),
        ("soon", 1, 1),
        (30, 10, 31),
        (-30, 1, 1),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
async def test_retry_after_is_honoured(header: str | int, low: float, high: float, status: int) -> None:
    if isinstance(header, int):  # seconds from now, sent as a date
        header = formatdate(time.time() + header, usegmt=True)
    script = Script(httpx.Response(status, headers={"retry-after": header}), ok([HIT]))
    await script.retriever().search(["q"], 3)
    assert low <= script.waits[0] <= high


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (httpx.Response(200, json={"kind": "bm25", "passages": 5, "corpus_hash": "ab"}), ("bm25", 5, "ab")),
        (httpx.Response(200, json={"status": "ok", "kind": None}), ("http", 0, "")),
        (httpx.Response(200, json=["ok"]), ("http", 0, "")),
        (httpx.Response(200, text="ok"), ("http", 0, "")),
        (httpx.Response(404), ("http", 0, "")),
    ],
)
async def test_info_of_any_server(answer: httpx.Response, expected: tuple[str, int, str]) -> None:
    script = Script(answer)
    assert await script.retriever().info() == RetrieverInfo(*expected)
    assert script.requests == ["/health"]


async def test_info_of_no_server() -> None:
    with pytest.raises(SearchUnavailable, match="gave up after 4 attempts: ConnectError"):
        await Script(httpx.ConnectError("refused")).retriever().info()


@pytest.mark.parametrize("url", ["", "host:8000", "ftp://host", "http://", "index", "http://[::1", "http://a:b"])
def test_what_is_no_url_is_the_users_error(url: str) -> None:
    with pytest.raises(UserError, match="expected the URL of a search server such as"):
        HttpRetriever(url)


@pytest.mark.parametrize("suffix", ["", "/", "/retrieve", "/retrieve/", "/retrieve?x=1#y"])
async def test_the_path_may_be_given_or_not(suffix: str) -> None:
    assert HttpRetriever("http://h:1/api" + suffix).url == "http://h:1/api"


@asynccontextmanager
async def socket_server(handle: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[str]:
    """A TCP server that reads a request and lets ``handle`` answer it as it likes."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(length[0].split(b":")[1]))
        try:
            await handle(writer)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


def reply(body: bytes, length: int | None = None, status: str = "200 OK") -> Callable[[asyncio.StreamWriter], Any]:
    async def handle(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body) if length is None else length}\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return handle


async def hang(writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.5)


async def trickle(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
    for _ in range(50):  # never silent for long: only a limit on the whole attempt ends it
        writer.write(b" ")
        await asyncio.sleep(0.01)


async def hang_up(writer: asyncio.StreamWriter) -> None:
    return


GOOD = json.dumps({"result": [[HIT]]}).encode()


@pytest.mark.parametrize(
    ("handle", "reason"),
    [
        (hang, "no answer within 0.05 s"),
        (trickle, "no answer within 0.05 s"),
        (hang_up, "RemoteProtocolError: Server disconnected"),
        (reply(b"Internal Server Error", status="500 Internal Server Error"), "status 500: Internal Server Error"),
        (reply(b"<html>"), "the answer is not search results"),
        (reply(GOOD[:30]), "the answer is not search results"),
        (reply(GOOD[:30], length=len(GOOD)), "RemoteProtocolError: peer closed connection"),
        (reply(b'{"result": []}'), "asked 1 queries, got results for 0"),
        (reply(b'{"result": [[], []]}'), "asked 1 queries, got results for 2"),
    ],
)
async def test_real_servers_that_fail(handle: Any, reason: str) -> None:
    timeout = 0.05 if handle in (hang, trickle) else 10.0
    async with (
        socket_server(handle) as url,
        HttpRetriever(url, Policy(timeout=timeout, retries=1, backoff=0.001)) as retriever,
    ):
        with pytest.raises(SearchUnavailable, match=f"^{url}: gave up after 2 attempts: {reason}"):
            await retriever.search(["q"], 3)


async def test_a_real_server_that_finds_too_few_documents_and_one_that_recovers() -> None:
    answers = [reply(b"<html>"), reply(b'{"result": [[]]}'), reply(GOOD)]

    async def handle(writer: asyncio.StreamWriter) -> None:
        await answers.pop(0)(writer)

    async with socket_server(handle) as url, HttpRetriever(url, Policy(retries=1, backoff=0.001)) as retriever:
        assert await retriever.search(["q"], 3) == [[]]
        assert await retriever.search(["q"], 3) == [[DUNE]]


async def test_nobody_listens() -> None:
    async with socket_server(hang) as url:
        pass
    async with HttpRetriever(url, Policy(retries=1, backoff=0.001)) as retriever:
        with pytest.raises(SearchUnavailable, match="gave up after 2 attempts: ConnectError"):
            await retriever.search(["q"], 3)


async def test_proxies_of_the_environment_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with socket_server(reply(GOOD)) as url, HttpRetriever(url, Policy(retries=0)) as retriever:
        assert await retriever.search(["q"], 3) == [[DUNE]]


def test_one_retriever_serves_several_event_loops() -> None:
    retriever = Script(ok([HIT])).retriever()

    async def ask() -> list[list[Passage]]:
        async with retriever:
            return await retriever.search(["q"], 3)

    assert asyncio.run(ask()) == asyncio.run(ask()) == [[DUNE]]
    assert asyncio.run(retriever.search(["q"], 3)) == asyncio.run(retriever.search(["q"], 3)) == [[DUNE]]


def test_connections_end_with_the_event_loop_that_opened_them() -> None:
    """Nobody has to close a retriever: an unclosed socket would be a warning, and warnings are errors here."""
    with listen("127.0.0.1", 0) as listener:
        server = server_of(create_app(DictionaryRetriever({"q": [DUNE]})))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        retriever = HttpRetriever(f"http://127.0.0.1:{listener.getsockname()[1]}", Policy(retries=3, backoff=0.05))

        async def ask_twice() -> None:
            for _ in range(2):
                assert await retriever.search(["q"], 3) == [[DUNE]]

        for _ in range(3):
            asyncio.run(ask_twice())
        server.should_exit = True
        thread.join()
    gc.collect()


async def test_the_token_goes_with_every_request() -> None:
    seen: list[str | None] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization"))
        return ok([HIT]) if request.content else httpx.Response(200, json={})

    for token in ("secret", ""):
        retriever = HttpRetriever("http://searchr1.test", token=token, transport=httpx.MockTransport(answer))
        await retriever.search(["q"], 3)
        await retriever.info()
    assert seen == ["Bearer secret", "Bearer secret", None, None]


async def test_cancelling_a_search_is_not_a_failure_to_retry() -> None:
    async with socket_server(hang) as url, HttpRetriever(url, Policy(timeout=5)) as retriever:
        task = asyncio.create_task(retriever.search(["q"], 3))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
