"""An OpenAI-compatible server in a thread that answers as it is told, in every way that servers fail."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "maker/model-7b"


@dataclass(frozen=True)
class Raw:
    """An answer that is not made from a choice: its status, body and headers; ``seconds`` pass before it."""

    status: int = 200
    body: bytes | dict[str, Any] = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    hang_up: bool = False


Answer = Raw | dict[str, Any] | str
"""A whole answer, a choice, or the text of a choice that ended by itself."""


@dataclass
class FakeServer:
    """``answers`` are given in order, the last one for ever; a function is asked with the request instead."""

    answers: list[Answer] | Callable[[dict[str, Any]], Answer] = field(default_factory=lambda: ["Paris"])
    models: Answer = field(
        default_factory=lambda: Raw(body={"data": [{"id": MODEL, "max_model_len": 900}, {"id": "other"}]})
    )
    url: str = ""
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, path: str, request: dict[str, Any] | None) -> Raw:
        if request is None:
            found = self.models
        elif callable(self.answers):
            found = self.answers(request)
        else:
            found = self.answers[min(len(self.requests), len(self.answers)) - 1]
        if isinstance(found, Raw):
            return found
        chat = path.endswith("/chat/completions")
        text = {"message": {"role": "assistant", "content": found}} if chat else {"text": found}
        choice = found if isinstance(found, dict) else {"finish_reason": "stop", **text}
        usage = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 5}}
        return Raw(body={"choices": [choice], "usage": usage})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def do_GET(self) -> None:
        self._respond(None)

    def do_POST(self) -> None:
        self._respond(json.loads(self.rfile.read(int(self.headers["content-length"]))))

    def _respond(self, request: dict[str, Any] | None) -> None:
        fake = self.fake
        with fake.lock:
            fake.paths.append(self.path)
            fake.headers.append({key.lower(): value for key, value in self.headers.items()})
            if request is not None:
                fake.requests.append(request)
            fake.busy += 1
            fake.busiest = max(fake.busiest, fake.busy)
            raw = fake.answer(self.path, request)
        if raw.seconds:
            time.sleep(raw.seconds)
        with fake.lock:
            fake.busy -= 1
        body = raw.body if isinstance(raw.body, bytes) else json.dumps(raw.body).encode()
        try:
            if raw.hang_up:
                self.close_connection = True
                return
            self.send_response(raw.status)
            for key, value in ({"content-length": str(len(body))} | raw.headers).items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up: that is what some tests are about

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Threads(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # a client that hung up


@contextmanager
def serving(answers: list[Answer] | Callable[[dict[str, Any]], Answer] | None = None) -> Iterator[FakeServer]:
    """A fake at ``http://127.0.0.1:PORT/v1``, gone when the block ends."""
    fake = FakeServer() if answers is None else FakeServer(answers)
    server = _Threads(("127.0.0.1", 0), type("Handler", (_Handler,), {"fake": fake}))
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
