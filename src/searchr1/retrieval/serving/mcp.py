"""The search engine as a tool of the Model Context Protocol (modelcontextprotocol.io), by its official SDK.

One tool, ``search``: a query and how many passages; the result is text for the model, and the same as structured
content. What goes wrong is told as the result of the tool, so that the model that called it can mend its call.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import anyio
import msgspec
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from starlette.applications import Starlette

from searchr1 import __version__
from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever
from searchr1.retrieval.batching import search_distinct
from searchr1.retrieval.serving.wire import Limits, cleaned
from searchr1.types import Passage

MAX_PASSAGES = 50
"""Of one call: more would only fill the context of the model that asks."""
_DEFAULT_K = 5


class _Arguments(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    k: int = _DEFAULT_K


_INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {
        "query": {"type": "string", "description": "What to look for, in words.", "minLength": 1},
        "k": {
            "type": "integer",
            "minimum": 1,
            "maximum": MAX_PASSAGES,
            "default": _DEFAULT_K,
            "description": "How many passages.",
        },
    },
    "required": ["query"],
    "additionalProperties": False,
}
_TEXT, _SCORE = {"type": "string"}, {"type": ["number", "null"]}
_PASSAGE: dict[str, Any] = {
    "type": "object",
    "properties": {"id": _TEXT, "title": _TEXT, "text": _TEXT, "score": _SCORE},
    "required": ["id", "title", "text", "score"],
}
_OUTPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"passages": {"type": "array", "items": _PASSAGE}},
    "required": ["passages"],
}


def create_server(retriever: Retriever, *, limits: Limits | None = None) -> Server[Any]:
    """The MCP server of one retriever: for `run_stdio`, `http_app` or the SDK's own client in a test."""
    limits = limits or Limits()
    tool = Tool(
        name="search",
        title="Search",
        description="Search the indexed corpus; returns the passages that match the query best, best first.",
        input_schema=_INPUT,
        output_schema=_OUTPUT,
        annotations=ToolAnnotations(read_only_hint=True, idempotent_hint=True, open_world_hint=False),
    )

    async def list_tools(_: object, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=[tool])

    async def call_tool(_: object, call: CallToolRequestParams) -> CallToolResult:
        if call.name != tool.name:
            raise MCPError(code=INVALID_PARAMS, message=f"there is no tool {call.name!r}; expected 'search'")
        try:
            asked = _arguments(call.arguments or {}, limits)
            (found,) = await search_distinct(retriever, [asked.query], asked.k)
        except (UserError, SearchUnavailable) as error:
            return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
        found = list(map(cleaned, found))
        return CallToolResult(content=[TextContent(text=_text(found))], structured_content=_structured(found))

    return Server("searchr1", version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


def run_stdio(server: Server[Any]) -> None:
    """Serve one client over stdin and stdout until it closes them; logs go to stderr."""
    logging.basicConfig(level=logging.WARNING)

    async def run() -> None:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())

    anyio.run(run)


def http_app(server: Server[Any], host: str) -> Starlette:
    """The ASGI application of the streamable HTTP transport, at ``/mcp``; it needs its lifespan.

    On a local ``host`` the SDK refuses requests with another Host or Origin header (DNS rebinding).
    """
    return server.streamable_http_app(host=host, stateless_http=True, json_response=True)


def _arguments(given: dict[str, Any], limits: Limits) -> _Arguments:
    """Raises UserError."""
    try:
        asked = msgspec.convert(given, _Arguments)
    except msgspec.ValidationError as error:
        raise UserError(f'expected {{"query": text, "k": number}}: {error}') from error
    if not asked.query.strip():
        raise UserError('"query": expected some words, got none')
    if len(asked.query) > limits.query_characters:
        raise UserError(f'"query": expected at most {limits.query_characters} characters, got {len(asked.query)}')
    if not 1 <= asked.k <= MAX_PASSAGES:
        raise UserError(f'"k": expected a number from 1 to {MAX_PASSAGES}, got {asked.k}')
    return asked


def _text(found: list[Passage]) -> str:
    """
    >>> print(_text([Passage("1", "Dune", "A novel."), Passage("2", "Emma", "Another.")]))
    [1] Dune
    A novel.
    <BLANKLINE>
    [2] Emma
    Another.
    """
    if not found:
        return "Nothing was found."
    return "\n\n".join(f"[{rank}] {passage.title}\n{passage.text}" for rank, passage in enumerate(found, start=1))


def _structured(found: list[Passage]) -> dict[str, Any]:
    def shown(passage: Passage) -> dict[str, Any]:
        score = passage.score if math.isfinite(passage.score) else None  # JSON has no word for the others
        return {"id": passage.id, "title": passage.title, "text": passage.text, "score": score}

    return {"passages": [shown(passage) for passage in found]}
