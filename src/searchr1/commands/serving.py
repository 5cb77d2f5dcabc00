"""``serve retriever``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from searchr1.console import say


def retriever(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An index folder.")],
    host: Annotated[str, typer.Option("--host")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8000,
) -> None:
    """Serve an index: POST /retrieve, as Search-R1 asks it, and GET /health."""
    from searchr1.retrieval.index import open_index, read_manifest
    from searchr1.retrieval.server import create_app, serve

    app = create_app(open_index(folder))
    passages = read_manifest(folder).passages
    try:
        serve(app, host=host, port=port, ready=lambda url: say(f"{passages:,} passages at {url} (Ctrl-C stops)"))
    except KeyboardInterrupt:
        say("stopped")
