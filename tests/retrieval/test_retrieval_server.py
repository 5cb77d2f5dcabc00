import asyncio
import json
import math
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.serving import server as server_module
from searchr1.retrieval.serving.server import create_app, listen, serve
from searchr1.retrieval.serving.wire import Limits
from searchr1.types import Passage

DUNE = Passage("1", "Dune", "A novel.", 2.5)
DOCUMENT = {"id": "1", "contents": '"Dune"\nA novel.', "title": "Dune", "text": "A novel."}


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise self.error

    async def info(self) -> RetrieverInfo:
        raise self.error


def dictionary() -> DictionaryRetriever:
    return DictionaryRetriever({"dune": [DUNE, Passage("2", "Dune II", "A game.", 1.0)]})


def client(retriever: Retriever, **limits: Any) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(create_app(retriever, limits=Limits(**limits)), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://searchr1.test")


async def ask(retriever: Retriever, body: Any, **limits: Any) -> tuple[int, Any]:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client(retriever, **limits) as http:
        response = await http.post("/retrieve", content=content)
    assert response.headers["content-type"] == "application/json"
    return response.status_code, response.json()


async def test_with_scores_and_without() -> None:
    body = {"queries": ["dune", "other"], "topk": 1, "return_scores": True}
    assert await ask(dictionary(), body) == (200, {"result": [[{"document": DOCUMENT, "score": 2.5}], []]})
    assert await ask(dictionary(), {**body, "return_scores": False}) == (200, {"result": [[DOCUMENT], []]})
    assert await ask(dictionary(), {"queries": ["dune"], "topk": 1}) == (200, {"result": [[DOCUMENT]]})


async def test_two_queries_without_scores_are_not_mistaken_for_results_and_scores() -> None:
    status, body = await ask(dictionary(), {"queries": ["dune", "dune"], "topk": 2, "return_scores": False})
    assert status == 200
    assert [[hit["id"] for hit in hits] for hits in body["result"]] == [["1", "2"], ["1", "2"]]


@pytest.mark.parametrize("topk", [{}, {"topk": None}])
async def test_without_topk_the_servers_default_is_used(topk: dict[str, None]) -> None:
    retriever = dictionary()
    await ask(retriever, {"queries": ["dune"], "unknown": 1, **topk})
    await ask(retriever, {"queries": ["dune"], **topk}, default_topk=7)
    assert retriever.calls == [(("dune",), 3), (("dune",), 7)]


async def test_equal_queries_are_searched_once() -> None:
    retriever = dictionary()
    status, body = await ask(retriever, {"queries": ["a", "dune", "a", "dune"], "topk": 1})
    assert (status, body) == (200, {"result": [[], [DOCUMENT], [], [DOCUMENT]]})
    assert retriever.calls == [(("a", "dune"), 1)]


async def test_no_query_is_no_error() -> None:
    assert await ask(dictionary(), {"queries": []}) == (200, {"result": []})


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "expected .*truncated"),
        (b"{", "expected .*truncated"),
        (b"\xff\xfe\x00", "expected .*"),
        (b'{"queries": ["\\ud800"]}', "expected .*"),
        ([], "expected .*got `array`"),
        ({}, "expected .*missing required field `queries`"),
        ({"queries": "dune"}, "expected .*got `str`.*queries"),
        ({"queries": [1]}, "expected .*got `int`.*queries"),
        ({"queries": [None]}, "expected .*got `null`.*queries"),
        ({"queries": ["a"], "topk": "3"}, "expected .*got `str`.*topk"),
        ({"queries": ["a"], "topk": True}, "expected .*got `bool`.*topk"),
        ({"queries": ["a"], "topk": 2.5}, "expected .*got `float`.*topk"),
        ({"queries": ["a"], "return_scores": 1}, "expected .*got `int`.*return_scores"),
        ({"queries": ["a"], "topk": 0}, '"topk": expected a number from 1 to 20, got 0'),
        ({"queries": ["a"], "topk": -1}, '"topk": expected a number from 1 to 20, got -1'),
        (b'{"queries": ["a"], "topk": NaN}', "expected .*malformed"),
        (b'{"queries": ["a"], "topk": 1e400}', "expected .*out of range.*topk"),
        (b'{"queries": ["a"], "topk": ' + b"9" * 5000 + b"}", "expected .*"),
        (b'{"queries": ["a"], "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "expected .*recursion"),
        (b'{"queries": ["\x00"]}', "expected .*malformed"),
        (b'\xef\xbb\xbf{"queries": ["a"]}', "expected .*malformed"),
        (b"queries=a&topk=3", "expected .*malformed"),
        (
            b'{"queries": ["' + b"b" * 10_000_000 + b'"]}',
            '"queries"\\[0\\]: expected at most 10 characters, got 10000000',
        ),
        ({"queries": ["a"], "topk": 21}, '"topk": expected a number from 1 to 20, got 21'),
        ({"queries": ["a"] * 4}, '"queries": expected at most 3, got 4'),
        ({"queries": ["a", "b" * 11]}, '"queries"\\[1\\]: expected at most 10 characters, got 11'),
    ],
)
async def test_a_bad_request_is_told_what_was_expected(body: Any, message: str) -> None:
    retriever = dictionary()
    status, answer = await ask(retriever, body, queries=3, query_characters=10, topk=20)
    assert status == 400
    assert list(answer) == ["error"]
    assert_matches(answer["error"], message)
    assert retriever.calls == []


def assert_matches(text: str, pattern: str) -> None:
    with pytest.raises(ValueError, match=pattern):
        raise ValueError(text)


@settings(max_examples=100, deadline=None)
@given(body=st.binary(max_size=40))
def test_garbage_is_a_client_error_and_the_server_lives(body: bytes) -> None:
    status, answer = asyncio.run(ask(dictionary(), body))
    assert (status, list(answer)) == (400, ["error"])


async def test_unusual_requests_are_answered() -> None:
    retriever = DictionaryRetriever({}, [DUNE])
    queries = ["'; DROP TABLE passages; --", 'title:[a TO z]^2~ AND ("', "\x00\x1b[2J", "😀" * 100, "\u202e", ""]
    status, body = await ask(retriever, {"queries": queries, "topk": 1000})
    assert (status, body) == (200, {"result": [[DOCUMENT]] * len(queries)})
    assert retriever.calls == [(tuple(queries), 1000)]
    assert await ask(dictionary(), b'{"queries": ["a"], "queries": ["dune"], "topk": 2, "topk": 1}') == (
        200, {"result": [[DOCUMENT]]}
    )  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1", ""]
)
async def test_the_content_type_is_not_looked_at(kind: str) -> None:
    async with client(dictionary()) as http:
        response = await http.post("/retrieve", content=b'{"queries": ["dune"]}', headers={"content-type": kind})
    assert response.status_code == 200


async def test_a_body_in_chunks_is_read_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in b'{"queries": ["dune"], "topk": 1}':
            yield bytes([byte])

    async with client(dictionary()) as http:
        response = await http.post("/retrieve", content=chunks())
    assert response.json() == {"result": [[DOCUMENT]]}


async def test_a_passage_that_is_no_unicode_is_shown_with_question_marks() -> None:
    broken = DictionaryRetriever({"dune": [Passage("1\udc80", "Du\ud800ne", "\udfff", 1.0)]})
    status, body = await ask(broken, {"queries": ["dune"]})
    assert (status, body["result"][0][0]) == (
        200, {"id": "1?", "contents": '"Du?ne"\n?', "title": "Du?ne", "text": "?"}
    )  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(text=st.text(), score=st.floats())
def test_any_passage_is_answered(text: str, score: float) -> None:
    found = DictionaryRetriever({}, [Passage("1", text, text, score)])
    status, body = asyncio.run(ask(found, {"queries": ["a"], "return_scores": True}))
    (hit,) = body["result"][0]
    assert (status, hit["document"]["text"]) == (200, text)
    assert hit["score"] == (score if math.isfinite(score) else None)


async def test_a_body_too_large_is_refused_while_it_is_read() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 10
            yield b" " * 10

    assert await ask(dictionary(), b" " * 101, body_bytes=100) == (
        413, {"error": "expected a body of at most 100 bytes, got 101"}
    )  # fmt: skip
    sent = 0
    async with client(dictionary(), body_bytes=100) as http:
        response = await http.post("/retrieve", content=chunks())
    assert (response.status_code, response.json()) == (
        413, {"error": "expected a body of at most 100 bytes, got more"}
    )  # fmt: skip
    assert sent <= 120


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (SearchUnavailable("the backend is down"), 503, "the backend is down"),
        (UserError("k: out of range"), 400, "k: out of range"),
        (RuntimeError("secret path"), 500, "internal error: RuntimeError"),
    ],
)
async def test_what_the_retriever_raises_becomes_a_json_error(error: Exception, status: int, message: str) -> None:
    assert await ask(Failing(error), {"queries": ["a"]}) == (status, {"error": message})


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        (
            "GET",
            "/nowhere",
            404,
            "there is no such page; expected one of /, /health, /metrics, /openapi.json, /retrieve",
        ),
        ("GET", "/%00/../etc", 404, "there is no such page"),
        ("GET", "/retrieve", 405, "expected POST, got GET"),
        ("PUT", "/retrieve", 405, "expected POST, got PUT"),
        ("DELETE", "/search", 405, "expected POST, got DELETE"),
        ("POST", "/health", 405, "expected GET or HEAD, got POST"),
    ],
)
async def test_another_path_or_method_is_a_json_error(method: str, path: str, status: int, message: str) -> None:
    async with client(dictionary()) as http:
        response = await http.request(method, path)
    assert response.status_code == status
    assert list(response.json()) == ["error"]
    assert message in response.json()["error"]
    assert ("allow" in response.headers) == (status == 405)


async def test_head_is_get_without_a_body() -> None:
    async with client(dictionary()) as http:
        assert (await http.head("/health")).status_code == 200
        assert (await http.head("/retrieve")).status_code == 405


async def test_health() -> None:
    async with client(dictionary()) as http:
        response = await http.get("/health")
    expected = {"kind": "dictionary", "corpus_hash": "", "passages": 2, "ready": True}
    assert (response.status_code, response.json()) == (200, expected)
    async with client(Failing(SearchUnavailable("down"))) as http:
        response = await http.get("/health")
    assert response.status_code == 503
    assert response.json() == {"kind": "", "corpus_hash": "", "passages": 0, "ready": False, "error": "down"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_real_server_answers_on_the_url_it_says_and_stops(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if host == "::1" and not _has_ipv6():
        pytest.skip("this machine has no IPv6 loopback")
    started: list[uvicorn.Server] = []
    real = server_module.server_of
    monkeypatch.setattr(
        server_module, "server_of", lambda app, **options: started.append(real(app, **options)) or started[0]
    )
    urls: list[str] = []
    thread = threading.Thread(
        target=serve, args=(create_app(dictionary()),), kwargs={"host": host, "port": 0, "ready": urls.append}
    )
    thread.start()
    while not (started and started[0].started):
        time.sleep(0.002)
    request = urllib.request.Request(urls[0] + "/retrieve", b'{"queries": ["dune"], "topk": 1}')
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as response:
        assert json.load(response) == {"result": [[DOCUMENT]]}
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        opener.open(urllib.request.Request(urls[0] + "/retrieve", b"garbage"))
    refused.value.close()
    # Bytes that are no HTTP do no harm either.
    port = int(urls[0].rsplit(":", 1)[1])
    with socket.create_connection((host, port)) as raw:
        raw.sendall(b"\x16\x03\x01garbage\r\n\r\n")
        assert b"400" in raw.recv(1000)
    with opener.open(urls[0] + "/health") as response:
        assert json.load(response)["ready"] is True
    with pytest.raises(
        UserError, match=rf"cannot listen on {host}:{port}: .*in use.*; choose another --host or --port"
    ):
        serve(create_app(dictionary()), host=host, port=port)
    started[0].should_exit = True
    thread.join(5)
    assert not thread.is_alive()


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_the_users_error(host: str) -> None:
    with pytest.raises(UserError, match=f"cannot listen on {host}:0: .*; choose another --host or --port"):
        listen(host, 0)


@pytest.mark.parametrize("port", [-1, 65536, 70000])
def test_a_port_that_is_none_is_the_users_error(port: int) -> None:
    with pytest.raises(UserError, match=rf"expected a number from 0 \(any free port\) to 65535, got {port}"):
        listen("127.0.0.1", port)
