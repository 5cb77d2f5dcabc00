"""``serve retriever`` and ``serve mcp``."""

from __future__ import annotations

import asyncio
import ipaddress
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.console import say
from searchr1.errors import SearchR1Error, SearchUnavailable, UserError

if TYPE_CHECKING:
    from searchr1.ports import Retriever, RetrieverInfo

Spec = Annotated[
    str,
    typer.Argument(metavar="SPEC", help="An index folder, a URL, KIND:key=value or a .toml file."),
]
Host = Annotated[str, typer.Option("--host")]
Port = Annotated[int, typer.Option("--port", help="0 takes a free one.")]


def retriever(
    spec: Spec,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    workers: Annotated[int, typer.Option("--workers", help="Processes; each opens the search engine itself.")] = 1,
    token: Annotated[
        str,
        typer.Option("--token", envvar="SEARCHR1_TOKEN", help="Wanted of every request, as Authorization: Bearer."),
    ] = "",
    max_queue: Annotated[
        int, typer.Option("--max-queue", help="Searches under way in one process; more are answered 503, come back.")
    ] = 4096,
) -> None:
    """Serve a search engine: POST /retrieve, as Search-R1 asks it; a search page at /; /health, /metrics."""
    from searchr1.retrieval.serving.gate import check_token
    from searchr1.retrieval.serving.server import create_app, serve
    from searchr1.retrieval.serving.wire import Limits
    from searchr1.retrieval.serving.workers import Service, elsewhere, serve_workers

    if workers < 1:
        raise UserError(f"--workers: expected at least 1, got {workers}")
    service = Service(spec, Limits(under_way=max_queue), check_token(token))
    if not token:
        _warn_of_strangers(host)
    if workers == 1:
        engine, info = _opened(spec)
        app = create_app(engine, limits=service.limits, token=token)
        serve(app, host=host, port=port, ready=partial(_announce, info, ""))
    else:
        # What a worker needs, the supervisor must not keep: it may be gigabytes, or a GPU.
        info = elsewhere(partial(_checked, spec))
        ready = partial(_announce, info, f" in {workers} processes")
        if not serve_workers(service, workers, host=host, port=port, ready=ready):
            raise SearchR1Error("a worker could not start; its message is above")
    say("stopped")


def mcp(
    spec: Spec,
    http: Annotated[
        bool, typer.Option("--http", help="Serve over HTTP, at /mcp, instead of stdin and stdout.")
    ] = False,
    host: Host = "127.0.0.1",
    port: Port = 8001,
) -> None:
    """Offer the search to language models as a tool of the Model Context Protocol (needs the extra `mcp`)."""
    try:
        from searchr1.retrieval.serving.mcp import create_server, http_app, run_stdio
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("mcp", "mcp_types"):
            raise
        raise UserError("serve mcp: the library mcp is missing; run: pip install 'searchr1[mcp]'") from error
    from searchr1.retrieval.serving.server import serve

    engine, info = _opened(spec)
    server = create_server(engine)
    if not http:
        run_stdio(server)
        return
    _warn_of_strangers(host)
    announce = partial(_announce, info, " as a tool of the Model Context Protocol, at /mcp")
    serve(http_app(server, host), host=host, port=port, ready=announce, lifespan=True)
    say("stopped")


def _opened(spec: str) -> tuple[Retriever, RetrieverInfo]:
    """The search engine, known to answer where asking it costs nothing. Raises UserError."""
    from pathlib import Path

    from searchr1.retrieval.spec import check_retriever, is_server, open_retriever
    from searchr1.sources import check_reachable

    check_reachable(spec)
    engine = open_retriever(spec)
    if Path(spec).is_dir() or is_server(spec):
        return engine, asyncio.run(check_retriever(engine))
    try:
        return engine, asyncio.run(engine.info())
    except SearchUnavailable as error:
        raise UserError(f"the search engine does not work: {error}; start it, or correct SPEC") from error


def _checked(spec: str) -> RetrieverInfo:
    return _opened(spec)[1]


def _announce(info: RetrieverInfo, how: str, url: str) -> None:
    say(f"{info.passages:,} passages at {url}{how} (Ctrl-C stops)")


def _warn_of_strangers(host: str) -> None:
    try:
        local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        local = host == "localhost"
    if not local:
        say(f"warning: everybody who reaches {host} can search; --token TOKEN keeps strangers out", "yellow")
