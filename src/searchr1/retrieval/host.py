"""One HTTP host, asked as a policy says: what every engine behind HTTP is built on."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from email.utils import parsedate_to_datetime
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec

from searchr1.errors import SearchUnavailable, UserError
from searchr1.retrieval.policy import Guard, TryAgainError

_T = TypeVar("_T")
_REASON_CHARACTERS = 200


class Closing:
    """What holds connections: closed by `aclose`, or as ``async with retriever:`` when the block ends."""

    async def aclose(self) -> None:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Host:
    """Connection errors, timeouts, 5xx, 429 and answers that cannot be read are tried again, as the policy says.

    Any other status than 200 is ``SearchUnavailable`` at once, with what the server says about it. ``headers`` go with
    every request. Proxies of the environment are not used, unless ``trust_env``. ``verify`` says which certificates are
    trusted: the system's, those of a context, or (False) any.
    """

    def __init__(
        self,
        url: str,
        guard: Guard,
        *,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        trust_env: bool = False,
        verify: ssl.SSLContext | bool = True,
    ) -> None:
        self.url = url.rstrip("/")
        self.guard = guard
        self._headers = dict(headers or {})
        self._transport = transport
        self._trust_env = trust_env
        self._verify = verify
        self._client: httpx.AsyncClient
        self._open: AsyncGenerator[httpx.AsyncClient, None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(
        self,
        method: str,
        path: str,
        read: Callable[[httpx.Response], _T],
        *,
        accept: Callable[[int], bool] = lambda status: status == 200,
        cost: float = 0.0,
        **request: Any,
    ) -> _T:
        """What ``read`` makes of the first good response; it raises `TryAgainError` for an answer it cannot read.

        ``request`` goes to httpx: ``content``, ``json``, ``params``, ``headers``. Raises SearchUnavailable.
        """

        async def attempt() -> _T:
            try:
                response = await (await self._connection()).request(method, self.url + path, **request)
            except httpx.RequestError as error:
                raise TryAgainError(one_line(f"{type(error).__name__}: {error}")) from error
            status = response.status_code
            if status == httpx.codes.TOO_MANY_REQUESTS or status >= 500:
                wait = retry_after(response.headers.get("retry-after", ""))
                raise TryAgainError(f"status {status}: {message(response)}", wait)
            if not accept(status):
                raise SearchUnavailable(f"{self.guard.name}: status {status}: {message(response)}")
            return read(response)

        return await self.guard.call(attempt, cost=cost)

    async def aclose(self) -> None:
        if self._open is not None and self._loop is asyncio.get_running_loop():
            await self._open.aclose()
        self._open = None

    async def _connection(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._open is None or self._loop is not loop:  # connections belong to the loop that opened them
            self._loop = loop
            self._open = self._connect()
            self._client = await anext(self._open)  # does not wait, so that nobody comes between
        return self._client

    async def _connect(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        """A generator, as an event loop that ends closes those that are still running: nobody has to close a host."""
        async with httpx.AsyncClient(
            transport=self._transport,
            timeout=None,  # the guard's
            trust_env=self._trust_env,
            verify=self._verify if self.url.startswith("https:") else False,  # reading certificates takes a while
            headers=self._headers,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=64),
        ) as client:
            yield client


def check_url(url: str, example: str = "http://127.0.0.1:8000") -> str:
    """The URL without query, fragment and closing slash. Raises UserError for what is none."""
    try:
        parsed = httpx.URL(url.strip())
    except httpx.InvalidURL as error:
        raise UserError(f"expected the URL of a search server such as {example}, got {url!r}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise UserError(f"expected the URL of a search server such as {example}, got {url!r}")
    return str(parsed.copy_with(query=None, fragment=None)).rstrip("/")


def decode_json(response: httpx.Response, decoder: msgspec.json.Decoder[_T], what: str) -> _T:
    """The body as the decoder's type. Raises TryAgainError where it is something else, as HTML or cut JSON."""
    try:
        return decoder.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TryAgainError(f"the answer is not {what} ({error}): {message(response)}") from error


def message(response: httpx.Response) -> str:
    """What the server says went wrong: the ``error`` or ``detail`` of its JSON, or the start of its body."""
    try:
        body = msgspec.json.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        body = None
    if isinstance(body, dict) and (body.get("error") or body.get("detail")):
        return one_line(str(body.get("error") or body.get("detail")))
    return one_line(response.content[: 4 * _REASON_CHARACTERS].decode("utf-8", "replace")) or "an empty body"


def one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _REASON_CHARACTERS else line[:_REASON_CHARACTERS] + "..."


def retry_after(header: str) -> float:
    """Seconds until the moment a Retry-After header names (RFC 9110, section 10.2.3); 0.0 where it cannot be read.

    >>> retry_after("2"), retry_after("soon")
    (2.0, 0.0)
    """
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0
