"""The client of a ``POST /retrieve`` server: ours, Search-R1's, or any that answers like them."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from email.utils import parsedate_to_datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

import httpx
import msgspec

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.corpus import split_contents
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage

_T = TypeVar("_T")
_LONGEST_WAIT = 60.0  # seconds, whatever a Retry-After header says
_REASON_CHARACTERS = 200


class _Hit(msgspec.Struct):
    """One result in either shape: ``{"document": {...}, "score": x}`` or the document itself."""

    document: _Hit | None = None
    score: float | None = None
    id: str | int | None = None
    title: str | None = None
    text: str | None = None
    contents: str | None = None


class _Reply(msgspec.Struct):
    result: list[list[_Hit]]


class _Health(msgspec.Struct):
    kind: str | None = None
    passages: int | None = None
    corpus_hash: str | None = None


_reply_decoder = msgspec.json.Decoder(_Reply)
_health_decoder = msgspec.json.Decoder(_Health)


class _TryAgainError(Exception):
    """An attempt failed in a way that the next may not; ``wait`` is the least delay the server asked for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class HttpRetriever:
    """Searches over HTTP, and does not give up at the first failure.

    Connection errors, timeouts, 5xx, 429 and answers that are not what was asked for (HTML, cut JSON, another number
    of results) are retried ``retries`` times. Before retry ``i`` (from 0) it waits ``backoff * 2**i`` seconds times a
    random factor from 0.5 to 1.5, and at least as long as a Retry-After header says; 60 s at most. Then, and at once
    for any other status, SearchUnavailable says why in one line. ``timeout`` (seconds) bounds a whole attempt.

    Proxies of the environment are not used. Close it, or use it as ``async with HttpRetriever(url) as retriever``.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        retries: int = 5,
        backoff: float = 0.5,
        batch_size: int = 512,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.url = _base_url(url)
        self._timeout = timeout
        self._retries = retries
        self._backoff = backoff
        self._batch_size = batch_size
        self._transport = transport
        self._sleep = sleep
        self._uniform = uniform
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query; ``batch_size`` queries a request. Raises SearchUnavailable."""
        check_k(k)
        found: list[list[Passage]] = []
        for start in range(0, len(queries), self._batch_size):
            batch = [clean(query) for query in queries[start : start + self._batch_size]]
            found += await self._persist(partial(self._search_once, batch, k))
        return found

    async def info(self) -> RetrieverInfo:
        """What ``GET /health`` says; ``RetrieverInfo("http", 0, "")`` where the server has no such page."""
        response = await self._persist(partial(self._send, "GET", "/health"))
        if response.status_code != httpx.codes.OK:
            return RetrieverInfo("http", 0, "")
        try:
            health = _health_decoder.decode(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return RetrieverInfo("http", 0, "")
        return RetrieverInfo(health.kind or "http", health.passages or 0, health.corpus_hash or "")

    async def aclose(self) -> None:
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.aclose()
        self._client = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _search_once(self, queries: list[str], k: int) -> list[list[Passage]]:
        # Scores are always asked for: Search-R1's own server fails without them.
        body = msgspec.json.encode({"queries": queries, "topk": k, "return_scores": True})
        response = await self._send("POST", "/retrieve", body)
        if response.status_code != httpx.codes.OK:
            raise SearchUnavailable(f"{self.url}: status {response.status_code}: {_message(response)}")
        try:
            reply = _reply_decoder.decode(response.content)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise _TryAgainError(f"the answer is not search results ({error}): {_message(response)}") from error
        if len(reply.result) != len(queries):
            raise _TryAgainError(f"asked {len(queries)} queries, got results for {len(reply.result)}")
        return [[_passage(hit) for hit in hits[:k]] for hits in reply.result]

    async def _send(self, method: str, path: str, body: bytes = b"") -> httpx.Response:
        """One attempt: any response that is neither 5xx nor 429, else _TryAgainError."""
        try:
            async with asyncio.timeout(self._timeout):
                headers = {"content-type": "application/json"} if body else {}
                response = await self._connection().request(method, self.url + path, content=body, headers=headers)
        except TimeoutError as error:
            raise _TryAgainError(f"no answer within {self._timeout:g} s") from error
        except httpx.RequestError as error:
            raise _TryAgainError(_one_line(f"{type(error).__name__}: {error}")) from error
        if response.status_code == httpx.codes.TOO_MANY_REQUESTS or response.status_code >= 500:
            reason = f"status {response.status_code}: {_message(response)}"
            raise _TryAgainError(reason, wait=_retry_after(response.headers.get("retry-after", "")))
        return response

    async def _persist(self, attempt: Callable[[], Awaitable[_T]]) -> _T:
        for failures in range(self._retries + 1):
            try:
                return await attempt()
            except _TryAgainError as error:
                if failures == self._retries:
                    tries = "1 attempt" if failures == 0 else f"{failures + 1} attempts"
                    raise SearchUnavailable(f"{self.url}: gave up after {tries}: {error}") from error
                delay = self._backoff * 2**failures * (0.5 + self._uniform())
                await self._sleep(min(max(delay, error.wait), _LONGEST_WAIT))
        raise AssertionError("unreachable: the last failure raises")

    def _connection(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop that opened them
            self._loop = loop
            self._client = httpx.AsyncClient(transport=self._transport, timeout=None, trust_env=False)
        return self._client


def _base_url(url: str) -> str:
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise UserError(f"expected the URL of a search server such as http://127.0.0.1:8000, got {url!r}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"expected the URL of a search server such as http://127.0.0.1:8000, got {url!r}")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/").removesuffix("/retrieve")


def _passage(hit: _Hit) -> Passage:
    document = hit if hit.document is None else hit.document
    score = 0.0 if hit.score is None else hit.score
    identifier = "" if document.id is None else str(document.id)
    if document.text is not None:
        return Passage(identifier, document.title or "", document.text, score)
    if document.contents is not None:
        return Passage(identifier, *split_contents(document.contents), score)
    raise _TryAgainError('a document of the answer has neither "contents" nor "text"')


def _message(response: httpx.Response) -> str:
    """What the server says went wrong: the ``error`` or ``detail`` of its JSON, or the start of its body."""
    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict) and (body.get("error") or body.get("detail")):
        return _one_line(str(body.get("error") or body.get("detail")))
    return _one_line(response.content[: 4 * _REASON_CHARACTERS].decode("utf-8", "replace")) or "an empty body"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else line[:_REASON_CHARACTERS] + "..."


def _retry_after(header: str) -> float:
    """Seconds until the moment a Retry-After header names (RFC 9110, section 10.2.3); 0.0 where it cannot be read.

    >>> _retry_after("2"), _retry_after("soon")
    (2.0, 0.0)
    """
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
