"""The search as a tool, asked by the client of the protocol's own SDK."""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import SearchUnavailable
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.types import Passage

pytest.importorskip("mcp", reason="needs the extra mcp")

PASSAGES = [Passage("1", "Dune", "A novel. </p>\u202e小説", 2.5), Passage("2", "Emma", "Another.", 1.0)]
SERVE = ["-m", "searchr1.cli", "serve", "mcp"]


@contextmanager
def search_server() -> Iterator[tuple[str, Any]]:
    """A ``/retrieve`` server in a thread: its address as a spec, and what stops it."""
    with listen("127.0.0.1", 0) as listener:
        server = server_of(create_app(DictionaryRetriever({"nothing": []}, PASSAGES)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.002)

        def stop() -> None:
            server.should_exit = True
            thread.join()

        yield f"http:url=http://127.0.0.1:{listener.getsockname()[1]},policy.retries=0", stop
        stop()


async def test_over_stdin_and_stdout(tmp_path: Path) -> None:
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters, stdio_client

    with search_server() as (spec, stop), (tmp_path / "log").open("w") as log:
        program = StdioServerParameters(command=sys.executable, args=[*SERVE, spec])
        async with Client(stdio_client(program, errlog=log)) as client:
            (tool,) = (await client.list_tools()).tools
            assert (tool.name, tool.input_schema["required"]) == ("search", ["query"])
            found = await client.call_tool("search", {"query": "dune", "k": 1})
            assert not found.is_error
            assert found.content[0].text == "[1] Dune\nA novel. </p>\u202e小説"
            assert found.structured_content == {
                "passages": [{"id": "1", "title": "Dune", "text": PASSAGES[0].text, "score": 2.5}]
            }
            wrong = await client.call_tool("search", {"query": "dune", "k": 0})
            assert (wrong.is_error, wrong.content[0].text) == (True, '"k": expected a number from 1 to 50, got 0')
            stop()
            failed = await client.call_tool("search", {"query": "dune"})
            assert failed.is_error
            assert "gave up after 1 attempt" in failed.content[0].text
            assert failed.structured_content is None
    assert (tmp_path / "log").read_text() == ""


def test_stdout_carries_the_protocol_and_nothing_else() -> None:
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    asked = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello},
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": {"name": "search", "arguments": {"query": "a"}}},
        {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "nothing"}},
    ]
    lines = [json.dumps(request) for request in asked]
    with search_server() as (spec, _):
        process = subprocess.Popen(
            [sys.executable, *SERVE, spec],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8",
        )  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("".join(line + "\n" for line in [*lines, "garbage", "[" * 1000]))
        process.stdin.flush()
        answers = [json.loads(process.stdout.readline()) for _ in range(3)]
        rest, _ = process.communicate(timeout=20)  # closes stdin, which ends the server
    assert process.returncode == 0
    answers += map(json.loads, rest.splitlines())
    assert {answer["jsonrpc"] for answer in answers} == {"2.0"}
    by_id = {answer.get("id"): answer for answer in answers}
    assert by_id[2]["result"]["structuredContent"]["passages"][0]["title"] == "Dune"
    assert by_id[3]["error"]["message"] == "there is no tool 'nothing'; expected 'search'"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (None, "expected .*missing required field `query`"),
        ({"query": 3}, "expected .*got `int`.*query"),
        ({"query": "a", "k": "3"}, "expected .*got `str`.*k"),
        ({"query": "a", "k": 51}, '"k": expected a number from 1 to 50, got 51'),
        ({"query": "a", "k": -1}, '"k": expected a number from 1 to 50, got -1'),
        ({"query": "a", "limit": 3}, "expected .*unknown field `limit`"),
        ({"query": " \n"}, '"query": expected some words, got none'),
        ({"query": "a" * 20_001}, '"query": expected at most 20000 characters, got 20001'),
    ],
)
async def test_wrong_arguments_are_an_error_of_the_tool(arguments: dict[str, Any] | None, message: str) -> None:
    from mcp.client.client import Client

    from searchr1.retrieval.serving.mcp import create_server

    retriever = DictionaryRetriever({}, PASSAGES)
    async with Client(create_server(retriever)) as client:
        result = await client.call_tool("search", arguments)
    assert result.is_error
    with pytest.raises(ValueError, match=message):
        raise ValueError(result.content[0].text)
    assert retriever.calls == []


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_both_ages_of_the_protocol(mode: str) -> None:
    from mcp.client.client import Client

    from searchr1.retrieval.serving.mcp import create_server

    async with Client(create_server(DictionaryRetriever({"nothing": []}, PASSAGES)), mode=mode) as client:
        assert [passage["id"] for passage in (await search(client, "dune")).structured_content["passages"]] == [
            "1",
            "2",
        ]
        nothing = await search(client, "nothing")
        assert (nothing.is_error, nothing.content[0].text) == (False, "Nothing was found.")
        assert nothing.structured_content == {"passages": []}


async def search(client: Any, query: str) -> Any:
    return await client.call_tool("search", {"query": query})


async def test_a_passage_that_is_no_unicode_and_a_search_that_fails() -> None:
    from mcp.client.client import Client

    from searchr1.retrieval.serving.mcp import create_server

    class Down(DictionaryRetriever):
        async def search(self, queries: Any, k: int) -> list[list[Passage]]:
            raise SearchUnavailable("no route")

    async with Client(
        create_server(DictionaryRetriever({}, [Passage("1", "\ud800", "x\udfff", float("nan"))]))
    ) as client:
        found = await search(client, "dune")
        assert found.content[0].text == "[1] ?\nx?"
        assert found.structured_content["passages"][0]["score"] is None
    async with Client(create_server(Down({}))) as client:
        failed = await search(client, "dune")
        assert (failed.is_error, failed.content[0].text) == (True, "no route")


async def test_over_http() -> None:
    from mcp.client.client import Client

    from searchr1.retrieval.serving.mcp import create_server, http_app

    app = http_app(create_server(DictionaryRetriever({}, PASSAGES)), "127.0.0.1")
    with listen("127.0.0.1", 0) as listener:
        server = server_of(app, lifespan=True)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        async with Client(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp") as client:
            assert (await search(client, "dune")).structured_content["passages"][0]["title"] == "Dune"
        server.should_exit = True
        thread.join()
