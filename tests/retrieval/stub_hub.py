"""A hub of data sets on this machine: real HTTP, with the faults of real networks on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


@dataclass
class StubHub:
    """``files`` by ``REPOSITORY/PATH``. What is set below is used up, or stays, as it says."""

    files: dict[str, bytes] = field(default_factory=dict)
    ranges: bool = True
    hashes: str = "sha256"
    """``sha256``, ``git`` or ``none``: what the hub says of a file."""
    cuts: list[int] = field(default_factory=list)
    """After so many bytes each of the next answers breaks off."""
    stall: int | None = None
    """After so many bytes the next answer says nothing more, for ten seconds or until ``awake`` is set."""
    awake: Event = field(default_factory=Event)
    statuses: list[int] = field(default_factory=list)
    """Of the next answers."""
    served: dict[str, bytes] = field(default_factory=dict)
    """Other content than was described."""
    renamed: dict[str, str] = field(default_factory=dict)
    storage: bool = False
    """The content is elsewhere, and the place does not answer to HEAD."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and range of every request."""
    tokens: set[str | None] = field(default_factory=set)
    url: str = ""

    def digest(self, content: bytes) -> str:
        if self.hashes == "git":
            return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        return hashlib.sha256(content).hexdigest() if self.hashes == "sha256" else "weak"


@contextmanager
def running_hub(**settings: object) -> Iterator[StubHub]:
    hub = StubHub(**settings)  # type: ignore[arg-type]

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    state: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        hub = self.state
        wanted = self.headers.get("Range")
        hub.asked.append((self.command, self.path, wanted))
        hub.tokens.add(self.headers.get("Authorization"))
        if hub.statuses and (status := hub.statuses.pop(0)) != 200:
            return self._head(status, 0)
        if self.path.startswith("/storage/"):
            if not body:
                return self._head(403, 0)
            return self._content(self.path.removeprefix("/storage/"), wanted)
        name = self.path.removeprefix("/datasets/").replace("/resolve/main/", "/")
        if name in hub.renamed:
            return self._head(307, 0, {"Location": self.path.replace(name.split("/")[1], hub.renamed[name])})
        if name not in hub.files:
            return self._head(404, 0)
        content = hub.files[name]
        if hub.storage:
            linked = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hub.digest(content)}"'}
            return self._head(302, 0, {**linked, "Location": f"/storage/{name}", "ETag": '"page"'})
        if not body:
            return self._head(200, len(content), {"ETag": f'W/"{hub.digest(content)}"'})
        return self._content(name, wanted)

    def _content(self, name: str, wanted: str | None) -> None:
        hub = self.state
        content = hub.served.get(name, hub.files[name])
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and hub.ranges else 0
        told = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if start else {}
        self._head(206 if start else 200, len(content) - start, told)
        rest = content[start:]
        if hub.cuts and (cut := hub.cuts.pop(0)) < len(rest):
            self.wfile.write(rest[:cut])
            self.wfile.flush()
            self.close_connection = True
            return
        if hub.stall is not None:
            self.wfile.write(rest[: hub.stall])
            self.wfile.flush()
            hub.stall, self.close_connection = None, True
            hub.awake.wait(10)
            return
        self.wfile.write(rest)

    def _head(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(length), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
