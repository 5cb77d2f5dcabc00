"""A client of OpenAI-compatible servers: vLLM, SGLang, llama.cpp, OpenAI and others that answer like them."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx
import msgspec

from searchr1.engines.chat_reply import Reply, Served, Usage, read_error, read_models, read_reply
from searchr1.errors import EngineError, UserError

_T = TypeVar("_T")
log = logging.getLogger(__name__)

LARGEST_ANSWER = 16 * 2**20
"""Bytes of an answer; more is no answer to a question about a sentence or two."""
_LONGEST_BACKOFF = 60.0
_REASON_CHARACTERS = 500
_NAMES = 8
"""Served models that a message names."""
_WARNINGS = 10
"""Failures of different kinds that are logged."""
_REFUSED = {401, 403, 404}
_PASSING = {408, 409, 425, 429}


class _TryAgainError(Exception):
    """An attempt failed in a way that the next may not; ``wait`` is the least delay the server asked for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class ChatServer:
    """One model of an OpenAI-compatible server.

    ``url`` is the base of its API, such as ``http://127.0.0.1:8000/v1``. The key is read from the environment variable
    ``key_variable`` (none: no key is sent) and appears in no message. Each attempt may take ``timeout`` seconds; what
    may pass (no connection, a timeout, 429, 5xx) is tried ``retries`` more times, after a growing pause that is never
    shorter than what the server asks for. At most ``concurrency`` requests are under way at once. Its connections are
    closed when the event loop ends: keep it until then. Messages call the URL ``setting``. Raises ``UserError`` for a
    URL or key that cannot be used.

    >>> server = ChatServer("http://127.0.0.1:8000/v1/", "Qwen/Qwen2.5-7B-Instruct", retries=2)
    >>> server.url
    'http://127.0.0.1:8000/v1'
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str = "OPENAI_API_KEY",
        *,
        timeout: float = 600.0,
        retries: int = 4,
        concurrency: int = 64,
        backoff: float = 1.0,
        setting: str = "engine.url",
    ) -> None:
        self._setting = setting
        self.url = _checked_url(url, setting)
        self.model = model
        self.key_variable = key_variable
        self.timeout = timeout
        self.retries = retries
        self._concurrency = concurrency
        self._backoff = backoff
        self._key = _key(key_variable)
        self._totals: dict[str, float] = dict.fromkeys(("requests", "retries", "failures", *Usage().totals()), 0)
        self._warned: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._open: AsyncGenerator[httpx.AsyncClient, None]
        self._client: httpx.AsyncClient
        self._slots: asyncio.Semaphore

    async def chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> Reply:
        """The reply to a conversation; ``options`` are fields of the request (``temperature``, ``tools`` ...).

        Raises ``EngineError`` where there is none that can be read, ``UserError`` where key or model are refused.
        """
        return await self._reply("/chat/completions", {"messages": list(messages), **options})

    async def complete(self, prompt: str | Sequence[int], **options: Any) -> Reply:
        """The continuation of a text, or of token ids of the model's own tokenizer. Raises as `chat` does."""
        return await self._reply("/completions", {"prompt": prompt, **options})

    async def check(self) -> Served:
        """What the server says about the model, asked once, without generating.

        Raises ``UserError`` where it cannot be used.
        """
        try:
            models = await self._ask("GET", "/models", None, read_models, retries=0)
        except EngineError as error:
            raise UserError(f"{error}; start the server, or mend {self._setting}") from error
        found = next((model for model in models if model.name == self.model), None)
        if found is None:
            names = ", ".join(model.name for model in models[:_NAMES]) or "no model"
            names += f" and {len(models) - _NAMES} more" if len(models) > _NAMES else ""
            raise UserError(f"{self.url} serves {names}, not {self.model!r}; name a model that it serves")
        return found

    def counts(self) -> dict[str, float]:
        """Totals since it was made: attempts, retries, calls that failed, and the tokens that the server counted."""
        return dict(self._totals)

    async def _reply(self, path: str, fields: Mapping[str, Any]) -> Reply:
        try:
            reply = await self._ask("POST", path, {"model": self.model, **fields}, read_reply, self.retries)
        except EngineError as error:
            self._totals["failures"] += 1
            self._warn(str(error))
            raise
        for name, value in reply.usage.totals().items():
            self._totals[name] += value
        return reply

    async def _ask(
        self, method: str, path: str, fields: Mapping[str, Any] | None, read: Callable[[bytes], _T], retries: int
    ) -> _T:
        """What ``read`` makes of the body of a good answer; it raises ``ValueError`` for garbage."""
        client = await self._connection()
        try:
            content = None if fields is None else msgspec.json.encode(fields)
        except UnicodeEncodeError as error:
            raise EngineError(f"{self.url}{path}: a request that is no Unicode text: {error.reason}") from error
        async with self._slots:
            for failures in range(retries + 1):
                self._totals["requests"] += 1
                try:
                    async with asyncio.timeout(self.timeout):
                        return read(await self._attempt(client, method, path, content))
                except ValueError as error:
                    raise EngineError(f"{self.url}{path}: {self._said(str(error))}") from error
                except TimeoutError:
                    failure = _TryAgainError(f"no answer within {self.timeout:g} s (engine.timeout)")
                except _TryAgainError as error:
                    failure = error
                if failures == retries or failure.wait > self.timeout:
                    tries = "1 attempt" if failures == 0 else f"{failures + 1} attempts"
                    asked = f"; it asks to wait for {failure.wait:.0f} s" if failure.wait else ""
                    raise EngineError(f"{self.url}{path}: gave up after {tries}: {failure}{asked}") from failure
                self._totals["retries"] += 1
                delay = min(self._backoff * 2**failures, _LONGEST_BACKOFF) * (0.5 + random.random())
                await asyncio.sleep(max(delay, failure.wait))
        raise AssertionError("unreachable: the last failure raises")

    async def _attempt(self, client: httpx.AsyncClient, method: str, path: str, content: bytes | None) -> bytes:
        headers = {"content-type": "application/json"} if content else {}
        try:
            async with client.stream(method, self.url + path, content=content, headers=headers) as response:
                body = bytearray()
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > LARGEST_ANSWER:
                        raise ValueError(f"an answer of more than {LARGEST_ANSWER:,} bytes")
        except httpx.DecodingError as error:
            raise ValueError(f"an answer that cannot be read: {error}") from error
        except httpx.RequestError as error:
            raise _TryAgainError(self._said(f"{type(error).__name__}: {error}")) from error
        status = response.status_code
        if status == httpx.codes.OK:
            return bytes(body)
        reason = f"status {status}: {self._said(read_error(bytes(body)))}"
        if status in _PASSING or status >= 500:
            raise _TryAgainError(reason, retry_after(response.headers.get("retry-after", "")))
        if status in _REFUSED:
            raise UserError(f"{self.url}{path}: {reason}{self._advice(status)}")
        raise EngineError(f"{self.url}{path}: {reason}")

    def _advice(self, status: int) -> str:
        if status == httpx.codes.NOT_FOUND:
            return f"; check the model's name, {self.model!r}, and {self._setting}, which mostly ends in /v1"
        found = "set" if self._key else "empty"
        return (
            f"; expected a good key in the environment variable {self.key_variable or '(none named)'}, which is {found}"
        )

    def _said(self, text: str) -> str:
        """What a server said, on one line, cut, and without the key, which some repeat."""
        line = "".join(c if c.isprintable() else "\ufffd" for c in " ".join(text.split()))  # it goes to terminals
        line = line.replace(self._key, "(the key)") if self._key else line
        return line if len(line) <= _REASON_CHARACTERS else line[:_REASON_CHARACTERS] + "..."

    def _warn(self, message: str) -> None:
        """Say once what goes wrong: trajectories record that the engine failed, not why."""
        kind = re.sub(r"\d+", "", message)
        if kind not in self._warned and len(self._warned) < _WARNINGS:
            self._warned.add(kind)
            log.warning("%s", message)

    async def _connection(self) -> httpx.AsyncClient:
        """Connections, and the places for requests, belong to the event loop that runs."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._loop = loop
            self._slots = asyncio.Semaphore(self._concurrency)
            self._open = self._clients()
            self._client = await anext(self._open)  # does not wait, so that nobody comes between
        return self._client

    async def _clients(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        """A generator, as an event loop that ends closes those that are still running."""
        secure = self.url.startswith("https:")
        async with httpx.AsyncClient(
            headers={"authorization": f"Bearer {self._key}"} if self._key else {},
            timeout=None,  # ours, over the whole attempt
            limits=httpx.Limits(max_connections=self._concurrency, max_keepalive_connections=self._concurrency),
            trust_env=secure,  # a proxy may stand between here and the internet, not between here and this machine
            verify=secure,  # reading certificates takes a while
        ) as client:
            yield client


def retry_after(header: str) -> float:
    """Seconds until the moment that a Retry-After header names (RFC 9110, section 10.2.3); 0.0 where it cannot be read.

    >>> retry_after("2"), retry_after("1.5"), retry_after("soon")
    (2.0, 1.5, 0.0)
    """
    if re.fullmatch(r"\d{1,9}(\.\d*)?", header.strip(), re.ASCII):
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except (ValueError, OverflowError):
        return 0.0


def _checked_url(url: str, setting: str) -> str:
    """The URL without closing slashes. Raises ``UserError`` for what is none, and for one with a password in it."""
    expected = f"{setting}: expected the base URL of an OpenAI-compatible server such as http://127.0.0.1:8000/v1"
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise UserError(f"{expected}, got {url!r}") from error
    if parsed.userinfo:
        raise UserError(f"{expected}, got one with a user or a password; put the key into the environment variable")
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise UserError(f"{expected}, got {url!r}")
    return str(parsed).rstrip("/")


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip() if variable else ""
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the environment variable {variable} holds characters that no key has; set it anew")
    return key
