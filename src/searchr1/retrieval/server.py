"""The search server: ``POST /retrieve`` and ``GET /health`` over any retriever.

    {"queries": ["who wrote dune"], "topk": 3, "return_scores": true}
    -> {"result": [[{"document": {"id", "contents", "title", "text"}, "score": 7.1}, ...]]}

Without scores the documents stand there bare. This is the wire format of Search-R1. Errors are ``{"error": "..."}``
with a 4xx or 5xx status, and searching happens in the retriever's worker thread, so ``/health`` always answers.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException

from searchr1.errors import SearchR1Error, SearchUnavailable, UserError
from searchr1.ports import Retriever
from searchr1.retrieval.batching import search_distinct
from searchr1.retrieval.queries import MAX_K
from searchr1.types import Passage

_MAX_BODY_BYTES = 64 * 1024 * 1024


class _Query(msgspec.Struct):
    """The body of a request; keys that we do not know are left to the clients that send them."""

    queries: list[str]
    topk: int | None = None
    return_scores: bool = False


_query_decoder = msgspec.json.Decoder(_Query)


def create_app(
    retriever: Retriever,
    *,
    max_queries: int = 4096,
    max_query_characters: int = 20_000,
    max_topk: int = MAX_K,
    default_topk: int = 3,
) -> FastAPI:
    """The ASGI application. A request above a limit is refused with 400 (413 for a body above 64 MB)."""
    app = FastAPI(title="searchr1 retriever", docs_url=None, redoc_url=None, openapi_url=None)

    @app.post("/retrieve")
    async def retrieve(request: Request) -> Response:
        # The raw body decoded by msgspec costs a third of what a validated model does; the checks are the same.
        try:
            query = _query_decoder.decode(await _body(request))
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise HTTPException(
                400, f'expected {{"queries": [text, ...], "topk": number, "return_scores": true or false}}: {error}'
            ) from error
        topk = default_topk if query.topk is None else query.topk
        _check(query.queries, topk, max_queries, max_query_characters, max_topk)
        found = await search_distinct(retriever, query.queries, topk)
        return _json({"result": [[_result(passage, query.return_scores) for passage in hits] for hits in found]})

    @app.get("/health")
    async def health() -> Response:
        try:
            info = await retriever.info()
        except SearchUnavailable as error:
            return _json({"kind": "", "corpus_hash": "", "passages": 0, "ready": False, "error": str(error)}, 503)
        return _json({"kind": info.kind, "corpus_hash": info.corpus_hash, "passages": info.passages, "ready": True})

    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(SearchR1Error, _search_error)
    app.add_exception_handler(Exception, _unexpected_error)
    return app


def serve(
    app: FastAPI, *, host: str = "127.0.0.1", port: int = 8000, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until interrupted. ``ready`` is called with the URL once the port is ours (``port=0`` takes a free one).

    Raises UserError when the address cannot be had.
    """
    with listen(host, port) as listener:
        if ready is not None:
            shown = f"[{host}]" if ":" in host else host
            ready(f"http://{shown}:{listener.getsockname()[1]}")
        server_of(app).run(sockets=[listener])


def server_of(app: FastAPI) -> uvicorn.Server:
    """A uvicorn server for the app, to be run on a socket of `listen`."""
    return uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off", ws="none"))


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


def _check(queries: Sequence[str], topk: int, max_queries: int, max_characters: int, max_topk: int) -> None:
    if len(queries) > max_queries:
        raise HTTPException(400, f'"queries": expected at most {max_queries}, got {len(queries)}')
    for place, query in enumerate(queries):
        if len(query) > max_characters:
            raise HTTPException(
                400, f'"queries"[{place}]: expected at most {max_characters} characters, got {len(query)}'
            )
    if not 1 <= topk <= max_topk:
        raise HTTPException(400, f'"topk": expected a number from 1 to {max_topk}, got {topk}')


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY_BYTES:
            raise HTTPException(413, f"expected a body of at most {_MAX_BODY_BYTES} bytes")
    return bytes(body)


def _result(passage: Passage, with_score: bool) -> dict[str, Any]:
    document = {"id": passage.id, "contents": passage.contents, "title": passage.title, "text": passage.text}
    return {"document": document, "score": passage.score} if with_score else document


def _json(value: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _json({"error": error.detail}, error.status_code)


async def _search_error(_: Request, error: Exception) -> Response:
    return _json({"error": str(error)}, 503 if isinstance(error, SearchUnavailable) else 400)


async def _unexpected_error(_: Request, error: Exception) -> Response:
    return _json({"error": f"internal error: {type(error).__name__}"}, 500)
