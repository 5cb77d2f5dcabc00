"""``serve retriever`` and ``serve mcp``: what is refused at once, what is said, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from searchr1.retrieval.serving import server

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture
def never_serving(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """In place of serving: the apps that would be served."""
    apps: list[Any] = []

    def serve(app: Any, *, host: str, port: int, ready: Any, lifespan: bool = False) -> None:
        apps.append(app)
        ready(f"http://{host}:{port}")

    monkeypatch.setattr(server, "serve", serve)
    return apps


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("command", ["retriever", "mcp"])
def test_help_says_what_a_spec_is(searchr1: Any, command: str) -> None:
    result = searchr1("serve", command, "--help")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "An index folder, a URL, KIND:key=value" in " ".join(result.stdout.split())


@pytest.mark.parametrize("command", ["retriever", "mcp"])
def test_what_cannot_be_served_is_refused_at_once(
    searchr1: Any, tmp_path: Path, command: str, never_serving: list[Any]
) -> None:
    def refused(spec: object, *options: object) -> str:
        result = searchr1("serve", command, spec, *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        return str(result.stderr)

    pytest.importorskip("mcp", reason="needs the extra mcp")
    assert "expected an index folder, a URL" in refused(tmp_path / "missing")
    assert "not an index: no readable manifest.json" in refused(tmp_path)
    assert "a bm25 index is built from a corpus first" in refused("bm25")
    assert "the search engine does not work: http://127.0.0.1:" in refused(
        f"http:url=http://127.0.0.1:{free_port()},policy.retries=0"
    )
    assert never_serving == []


def test_options_that_cannot_be(searchr1: Any, index: Path) -> None:
    for options, message in (
        (("--workers", 0), "--workers: expected at least 1, got 0"),
        (("--max-queue", 0), "--max-queue: expected at least 1, got 0"),
        (("--token", "two words"), "--token: expected printable ASCII characters without spaces"),
        (("--port", 65536), "--port: expected a number from 0 (any free port) to 65535, got 65536"),
        (("--port", 65536, "--workers", 2), "--port: expected a number from 0 (any free port) to 65535, got 65536"),
    ):
        result = searchr1("serve", "retriever", index, *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ((), False),
        (("--host", "127.0.0.9"), False),
        (("--host", "::1"), False),
        (("--host", "localhost"), False),
        (("--host", "0.0.0.0"), True),
        (("--host", "some.name"), True),
        (("--host", "0.0.0.0", "--token", "sesame"), False),
    ],
)
def test_an_open_door_is_pointed_out(
    searchr1: Any, index: Path, never_serving: list[Any], options: tuple[str, ...], warned: bool
) -> None:
    result = searchr1("serve", "retriever", index, *options)
    assert (result.exit_code, len(never_serving)) == (0, 1)
    lines = result.stderr.splitlines()
    assert lines[-2].startswith("3 passages at http://")
    assert lines[-1] == "stopped"
    assert ["warning: everybody who reaches" in line for line in lines] == [warned] * (len(lines) - 2) + [False, False]
    assert len(lines) == 2 + warned


def test_mcp_over_http_says_where(searchr1: Any, index: Path, never_serving: list[Any]) -> None:
    pytest.importorskip("mcp", reason="needs the extra mcp")
    result = searchr1("serve", "mcp", index, "--http", "--port", 8123)
    assert result.exit_code == 0
    assert "at http://127.0.0.1:8123 as a tool of the Model Context Protocol, at /mcp" in result.stderr


def test_mcp_without_its_library_names_the_extra(searchr1: Any, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "searchr1.retrieval.serving.mcp", raising=False)
    for name in ("mcp", "mcp.server.lowlevel"):
        monkeypatch.setitem(sys.modules, name, None)
    result = searchr1("serve", "mcp", index)
    assert result.exit_code == 2
    assert result.stderr == "error: serve mcp: the library mcp is missing; run: pip install 'searchr1[mcp]'\n"


def test_a_server_with_a_token_ends_well_when_it_is_told_to(index: Path) -> None:
    command = [sys.executable, "-m", "searchr1.cli", "serve", "retriever", f"{index}", "--port", "0"]
    environment = {**os.environ, "SEARCHR1_TOKEN": "sesame"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stderr is not None
    url = process.stderr.readline().split()[3]
    request = urllib.request.Request(f"{url}/retrieve", b'{"queries": ["Dune"]}')
    with pytest.raises(urllib.error.HTTPError, match="401") as refused:
        OPENER.open(request, timeout=20)
    refused.value.close()
    request.add_header("Authorization", "Bearer sesame")
    with OPENER.open(request, timeout=20) as answer:
        assert json.load(answer)["result"][0][0]["title"] == "Dune"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "stopped\n")
