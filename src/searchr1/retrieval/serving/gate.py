"""What every request passes before it is looked at: the token, the clock and the counters; and how bodies are read."""

from __future__ import annotations

import asyncio
import hmac
import time

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from searchr1.errors import UserError
from searchr1.retrieval.serving.monitoring import Monitor
from searchr1.retrieval.serving.wire import Failure, Limits

_GONE = 499  # the status that nginx writes where the client left without waiting for one
_LONGEST_LENGTH = 20  # digits of a Content-Length; Python takes long ones for an attack, and so do we
_CLOSE = {"connection": "close"}  # what is left of the body will not be read


class ClientGoneError(Exception):
    """The client closed the connection in the middle of its request."""


class Gate:
    """ASGI middleware: refuses requests without the token (but for ``open_paths``) and counts what is answered.

    With a ``token`` a request needs the header ``Authorization: Bearer TOKEN``.
    """

    def __init__(self, app: ASGIApp, monitor: Monitor, token: str, open_paths: frozenset[str]) -> None:
        self._app = app
        self._monitor = monitor
        self._token = check_token(token).encode()
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = _GONE

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        started = time.perf_counter()
        try:
            if self._token and scope["path"] not in self._open_paths and not self._allows(scope):
                await _refusal()(scope, receive, watched)
            else:
                await self._app(scope, receive, watched)
        except ClientGoneError:
            pass
        except Exception:  # a bug: counted here, answered and logged further out
            status = 500
            raise
        finally:
            if status == 500:
                self._monitor.errors.inc()
            self._monitor.answered(scope["path"], status, time.perf_counter() - started)

    def _allows(self, scope: Scope) -> bool:
        for name, value in scope["headers"]:
            if name == b"authorization":
                scheme, _, given = value.partition(b" ")
                return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)
        return False


def check_token(token: str) -> str:
    """The token (or "" for none). Raises UserError for what cannot stand in a header."""
    if not token.isascii() or any(not "!" <= character <= "~" for character in token):
        raise UserError("--token: expected printable ASCII characters without spaces; choose another token")
    return token


async def read_body(request: Request, limits: Limits) -> bytes:
    """The whole body. Raises HTTPException 413 when it is too large and 408 when it is too slow."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and (len(declared) > _LONGEST_LENGTH or int(declared) > limits.body_bytes):
        raise _too_large(limits, declared)
    receive = request.receive
    try:
        async with asyncio.timeout(limits.body_seconds):
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body", False):
                body: bytes = message.get("body", b"")
                if len(body) > limits.body_bytes:
                    raise _too_large(limits, str(len(body)))
                return body
            return await _rest(message, receive, limits)
    except TimeoutError as error:
        raise HTTPException(408, f"expected the whole body within {limits.body_seconds:g} s", _CLOSE) from error


async def _rest(message: Message, receive: Receive, limits: Limits) -> bytes:
    body = bytearray()
    while True:
        if message["type"] != "http.request":
            raise ClientGoneError
        body += message.get("body", b"")
        if len(body) > limits.body_bytes:
            raise _too_large(limits, "more")
        if not message.get("more_body", False):
            return bytes(body)
        message = await receive()


def _too_large(limits: Limits, came: str) -> HTTPException:
    return HTTPException(413, f"expected a body of at most {limits.body_bytes} bytes, got {came}")


def _refusal() -> Response:
    body = msgspec.json.encode(Failure("expected the header `Authorization: Bearer TOKEN` with this server's token"))
    return Response(body, 401, {"www-authenticate": "Bearer"}, media_type="application/json")
