"""The search server over any retriever.

    POST /retrieve      for programs: many queries at once, the wire format of Search-R1
    POST /search        for people: one query, in pages, with snippets; GET / is the page that asks it
    GET  /health        what is searched; GET /metrics counts for Prometheus; GET /openapi.json describes all this

    {"queries": ["who wrote dune"], "topk": 3, "return_scores": true}
    -> {"result": [[{"document": {"id", "contents", "title", "text"}, "score": 7.1}, ...]]}

Without scores the documents stand there bare. Errors are ``{"error": "..."}`` with a 4xx or 5xx status. Searching
happens in the retriever's worker thread, so ``/health`` always answers.
"""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from searchr1.errors import SearchR1Error, SearchUnavailable, UserError
from searchr1.ports import Retriever
from searchr1.retrieval.batching import search_distinct
from searchr1.retrieval.serving.front_page import load_page
from searchr1.retrieval.serving.gate import Gate, check_token, read_body
from searchr1.retrieval.serving.monitoring import CONTENT_TYPE, Monitor
from searchr1.retrieval.serving.openapi import OPEN_PATHS, describe
from searchr1.retrieval.serving.snippets import best_snippet, match_ranges, query_words
from searchr1.retrieval.serving.wire import (
    Document,
    Failure,
    Found,
    Health,
    Limits,
    RetrieveRequest,
    ScoredDocument,
    SearchRequest,
    SearchResults,
    cleaned,
    document,
)
from searchr1.types import Passage

GRACE_SECONDS = 20
"""How long a server that is told to stop waits for what is under way."""
_RETRY_AFTER = 1  # seconds
_COUNTED = frozenset({"/retrieve", "/search", "/health", "/metrics", "/openapi.json", "/"})
_BROKEN_BODY = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encoder = msgspec.json.Encoder()
_retrieve_decoder = msgspec.json.Decoder(RetrieveRequest)
_search_decoder = msgspec.json.Decoder(SearchRequest)
_Body = TypeVar("_Body")


def create_app(retriever: Retriever, *, limits: Limits | None = None, token: str = "") -> Starlette:
    """The ASGI application. Requests above a limit are refused; with a ``token``, so are those that do not bring it.

    Raises UserError for a token that cannot stand in a header.
    """
    check_token(token)
    limits = limits or Limits()
    monitor = Monitor(_COUNTED)
    server = _SearchServer(retriever, limits, monitor)
    described = _json(describe(limits, secured=bool(token)))
    page, page_headers = load_page()

    async def openapi(_: Request) -> Response:
        return described

    async def front_page(_: Request) -> Response:
        return Response(page, headers=page_headers, media_type="text/html")

    return Starlette(
        routes=[
            Route("/retrieve", server.retrieve, methods=["POST"]),
            Route("/search", server.search, methods=["POST"]),
            Route("/health", server.health, methods=["GET"]),
            Route("/metrics", server.metrics, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route("/", front_page, methods=["GET"]),
        ],
        middleware=[Middleware(Gate, monitor=monitor, token=token, open_paths=OPEN_PATHS)],
        exception_handlers={
            HTTPException: _http_error,
            SearchR1Error: server.search_error,
            Exception: _unexpected_error,
        },
    )


class _SearchServer:
    """The pages that search."""

    def __init__(self, retriever: Retriever, limits: Limits, monitor: Monitor) -> None:
        self._retriever = retriever
        self._limits = limits
        self._monitor = monitor
        self._under_way = 0

    async def retrieve(self, request: Request) -> Response:
        # The raw body decoded by msgspec costs a third of what a validated model does; the checks are the same.
        asked = _decoded(
            _retrieve_decoder,
            await read_body(request, self._limits),
            '{"queries": [text, ...], "topk": number, "return_scores": true or false}',
        )
        topk = self._limits.default_topk if asked.topk is None else asked.topk
        if refusal := self._limits.refusal(asked.queries, topk):
            raise HTTPException(400, refusal)
        found = await self._find(asked.queries, topk)
        try:
            return _json(_results(found, asked.return_scores))
        except UnicodeEncodeError:  # lone surrogates in a passage: rare, so nobody else pays for looking
            return _json(_results([list(map(cleaned, hits)) for hits in found], asked.return_scores))

    async def search(self, request: Request) -> Response:
        asked = _decoded(
            _search_decoder,
            await read_body(request, self._limits),
            '{"query": text, "offset": number, "limit": number}',
        )
        if refusal := self._limits.search_refusal(asked):
            raise HTTPException(400, refusal)
        end = asked.offset + asked.limit
        (found,) = await self._find([asked.query], min(end + 1, self._limits.topk))
        words = query_words(asked.query)
        results = [
            _found(rank, cleaned(passage), words)
            for rank, passage in enumerate(found[asked.offset : end], start=asked.offset + 1)
        ]
        return _json(SearchResults(asked.query, asked.offset, asked.limit, len(found) > end, results))

    async def health(self, _: Request) -> Response:
        try:
            info = await self._retriever.info()
        except SearchUnavailable as error:
            return _json(Health("", "", 0, False, str(error)), 503)
        return _json(Health(info.kind, info.corpus_hash, info.passages, True))

    async def metrics(self, _: Request) -> Response:
        return Response(self._monitor.text(), headers={"content-type": CONTENT_TYPE})

    async def search_error(self, _: Request, error: Exception) -> Response:
        if isinstance(error, SearchUnavailable):
            self._monitor.errors.inc()
            return _json(Failure(str(error)), 503)
        return _json(Failure(str(error)), 400)

    async def _find(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        if self._under_way >= self._limits.under_way:
            self._monitor.refused.inc()
            raise HTTPException(
                503,
                f"busy: {self._under_way} searches are under way; try again in {_RETRY_AFTER} s",
                {"retry-after": str(_RETRY_AFTER)},
            )
        self._under_way += 1
        self._monitor.in_flight.inc()
        self._monitor.queries.inc(len(queries))
        try:
            return await search_distinct(self._retriever, queries, k)
        finally:
            self._under_way -= 1
            self._monitor.in_flight.dec()


def serve(
    app: ASGIApp,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    ready: Callable[[str], None] | None = None,
    lifespan: bool = False,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish what is under way (`GRACE_SECONDS` at most) and return.

    ``ready`` is called with the URL once the port is ours (``port=0`` takes a free one). Raises UserError when the
    address cannot be had.
    """
    with listen(host, port) as listener:
        if ready is not None:
            ready(url_of(listener, host))
        server = server_of(app, lifespan=lifespan)
        with _signals_end(server):
            server.run(sockets=[listener])


def server_of(app: ASGIApp, *, lifespan: bool = False) -> uvicorn.Server:
    """A uvicorn server for the app, to be run on a socket of `listen`."""
    return uvicorn.Server(uvicorn.Config(app, lifespan="on" if lifespan else "off", **SERVER_OPTIONS))


SERVER_OPTIONS: dict[str, Any] = {
    "log_level": "warning", "access_log": False, "ws": "none", "timeout_graceful_shutdown": GRACE_SECONDS,
}  # fmt: skip
"""Of every uvicorn server of ours."""


def listen(host: str, port: int) -> socket.socket:
    """A listening TCP socket. Raises UserError when the port is taken or the address is not ours."""
    if not 0 <= port <= 65535:  # the system would take it modulo 65536
        raise UserError(f"--port: expected a number from 0 (any free port) to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise UserError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error
    return listener


def url_of(listener: socket.socket, host: str) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


@contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Being told to stop is no failure: uvicorn raises the signal again when it has stopped, and here it ends."""

    def stop(*_: object) -> None:
        server.should_exit = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _decoded(decoder: msgspec.json.Decoder[_Body], body: bytes, expected: str) -> _Body:
    try:
        return decoder.decode(body)
    except _BROKEN_BODY as error:
        raise HTTPException(400, f"expected {expected}: {error}") from error


def _results(found: Sequence[Sequence[Passage]], with_scores: bool) -> dict[str, Any]:
    def shown(passage: Passage) -> Document | ScoredDocument:
        return ScoredDocument(document(passage), passage.score) if with_scores else document(passage)

    return {"result": [[shown(passage) for passage in hits] for hits in found]}


def _found(rank: int, passage: Passage, words: frozenset[str]) -> Found:
    return Found(
        rank=rank,
        id=passage.id,
        title=passage.title,
        title_matches=match_ranges(passage.title, words),
        score=passage.score,
        snippet=best_snippet(passage.text, words),
        text=passage.text,
    )


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(_encoder.encode(value), status, headers, media_type="application/json")


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message, headers = error.detail, dict(error.headers or {})
    if error.status_code == 404:
        message = f"there is no such page; expected one of {', '.join(sorted(_COUNTED))}"
    elif error.status_code == 405:
        allowed = sorted(headers["Allow"].split(", "))
        message, headers = f"expected {' or '.join(allowed)}, got {request.method}", {"Allow": ", ".join(allowed)}
    return _json(Failure(message), error.status_code, headers)


async def _unexpected_error(_: Request, error: Exception) -> Response:
    return _json(Failure(f"internal error: {type(error).__name__}"), 500)
