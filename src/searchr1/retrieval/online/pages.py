"""Pages of the web as plain text: fetched with limits, read by trafilatura, cut to what fits a query.

The addresses come from strangers, so nothing but the public internet is ever asked: a host name is resolved first, and
the address that was checked is the one that is connected to, at every redirect anew.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import re
import socket
import urllib.request
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import httpx

from searchr1.errors import SearchUnavailable, UserError
from searchr1.retrieval.policy import Guard, Policy, TryAgainError

_REDIRECTS = 5
_TYPES = ("text/html", "text/plain")
_READERS = 2  # threads; reading a page is CPU work of some 10 ms
_READING_SECONDS = 10.0  # of one page
_AGENT = "Mozilla/5.0 (compatible; searchr1)"
_ACCEPT = {"accept": "text/html,text/plain;q=0.9", "accept-encoding": "gzip"}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NO_POOL = httpx.Limits(max_keepalive_connections=0)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class PageSettings:
    """How pages are downloaded."""

    timeout: float = 10.0
    """Seconds for one page, its redirects included."""
    retries: int = 0
    concurrency: int = 16
    """Downloads under way at one moment."""
    max_bytes: int = 5_000_000
    """Of a page, decompressed; a larger one is not read."""
    allow_private: bool = False
    """Whether pages of this machine and of private networks may be asked for: for tests and intranets."""

    def __post_init__(self) -> None:
        if self.concurrency < 1 or self.max_bytes < 1 or self.timeout <= 0 or self.retries < 0:
            raise UserError(
                "page: expected concurrency and max_bytes of at least 1, timeout above 0 and retries of at least 0"
            )

    def policy(self) -> Policy:
        """Pages lie on many hosts: the failure of some says nothing about the next, so there is no breaker."""
        return Policy(timeout=self.timeout, retries=self.retries, concurrency=self.concurrency, breaker_failures=0)


class Pages:
    """Reads pages; one that cannot be had is an empty text, and is counted. Raises UserError without trafilatura."""

    def __init__(self, settings: PageSettings, **guarding: Any) -> None:
        self._settings = settings
        self._extract = _extractor()
        self._tls = httpx.create_ssl_context()
        self._downloads = Guard("a page", settings.policy(), **guarding)
        self._readings = Guard(
            "a page", Policy(timeout=_READING_SECONDS, retries=0, concurrency=_READERS, breaker_failures=0)
        )
        self._threads = ThreadPoolExecutor(_READERS, "searchr1-page")
        self._asked = self._failed = 0

    async def text(self, url: str, wanted: str, limit: int) -> str:
        """The `excerpt` of the page; "" where it cannot be fetched, is no text, is too large or says nothing."""
        self._asked += 1
        try:
            kind, body = await self._downloads.call(lambda: self._download(url))
            text = await self._readings.call(lambda: self._read(kind, body, wanted, limit))
        except SearchUnavailable as error:
            logging.getLogger(__name__).info("kept the snippet of %s: %s", url, error)
            text = ""
        self._failed += not text
        return text

    def counts(self) -> dict[str, float]:
        return {"pages": self._asked, "pages_failed": self._failed}

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _download(self, url: str) -> tuple[str, bytes]:
        target = _parse(url)
        for _ in range(_REDIRECTS + 1):
            request, proxy = await self._request(target)
            # Nothing is kept alive: connections are pooled by address, and one address may stand for many hosts.
            client = httpx.AsyncClient(verify=self._tls, timeout=None, trust_env=False, proxy=proxy, limits=_NO_POOL)
            try:
                async with client, aclosing(await client.send(request, stream=True)) as response:
                    if not response.has_redirect_location:
                        return await self._body(response)
                    target = _parse(response.headers["location"], target)
            except httpx.RequestError as error:
                raise TryAgainError(f"{type(error).__name__}: {error}") from error
        raise SearchUnavailable(f"more than {_REDIRECTS} redirects")

    async def _request(self, target: httpx.URL) -> tuple[httpx.Request, str | None]:
        """The request to a checked address, and the proxy of the environment that carries it.

        A proxy resolves names itself, and is where such traffic is policed: it is given the name, provided that what
        can be known here of its address is public.
        """
        host = target.raw_host.decode("ascii")
        proxy = _proxy(target)
        try:
            addresses = await _resolve(host)
        except (OSError, UnicodeError) as error:  # the latter for names that cannot be one
            if not proxy:
                raise TryAgainError(f"{host} cannot be resolved: {error}") from error
            addresses = []
        if not self._settings.allow_private and not all(map(is_public, addresses)):
            raise SearchUnavailable(f"{host} is not on the public internet")
        headers = {"user-agent": _AGENT, **_ACCEPT, "host": target.netloc.decode("ascii")}
        if proxy:
            return httpx.Request("GET", target, headers=headers), proxy
        pinned = target.copy_with(host=addresses[0])
        return httpx.Request("GET", pinned, headers=headers, extensions={"sni_hostname": host}), None

    async def _body(self, response: httpx.Response) -> tuple[str, bytes]:
        if response.status_code != httpx.codes.OK:
            raise SearchUnavailable(f"status {response.status_code}")
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in _TYPES:
            raise SearchUnavailable(f"its type is {kind or 'not said'}, expected {' or '.join(_TYPES)}")
        unpack = _unpacker(response.headers.get("content-encoding", "identity").strip().lower())
        body, limit = bytearray(), self._settings.max_bytes
        async for chunk in response.aiter_raw():
            body += unpack(chunk, limit + 1 - len(body))
            if len(body) > limit:
                raise SearchUnavailable(f"more than {limit} bytes")
        if kind == "text/plain":
            return kind, _decode(bytes(body), response.charset_encoding or "utf-8").encode()
        return kind, bytes(body)

    async def _read(self, kind: str, body: bytes, wanted: str, limit: int) -> str:
        def read() -> str:
            try:
                text = body.decode() if kind == "text/plain" else self._extract(body)
            except Exception as error:  # whatever a parser makes of the HTML of strangers, the snippet stays
                raise SearchUnavailable(f"cannot be read: {type(error).__name__}: {error}") from error
            return excerpt(text, wanted, limit)

        return await asyncio.get_running_loop().run_in_executor(self._threads, read)


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, also the one within an IPv6 address that carries an IPv4 one.

    >>> is_public("93.184.215.14"), is_public("10.0.0.1"), is_public("::ffff:127.0.0.1")
    (True, False, False)
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner = None
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.is_global and not ip.is_multicast and (inner is None or is_public(str(inner)))


def excerpt(text: str, wanted: str, limit: int) -> str:
    """At most ``limit`` characters of ``text``: the lines from where they hold most of the words in ``wanted``.

    Within a window each word counts once, so a line that repeats one word gains nothing.

    >>> excerpt("Menu and cookies.\\nDune is by Frank Herbert.\\nMore to buy.", "who wrote Dune", 26)
    'Dune is by Frank Herbert.'
    """
    text = text.strip()
    if len(text) <= limit:
        return text
    lines = [line for line in text.splitlines() if line.strip()]
    words = set(_WORD.findall(wanted.lower()))
    held = [words & set(_WORD.findall(line[:limit].lower())) for line in lines]
    best, most = 0, -1
    for start in range(len(lines)):
        seen, length = set(held[start]), len(lines[start])
        for line, found in zip(lines[start + 1 :], held[start + 1 :], strict=True):
            length += 1 + len(line)
            if length > limit:
                break
            seen |= found
        if len(seen) > most:
            best, most = start, len(seen)
    return _cut("\n".join(lines[best:]), limit)


def _cut(text: str, limit: int) -> str:
    """The first characters, up to the end of a word where there is one in the last tenth."""
    if len(text) <= limit:
        return text
    end = max(text.rfind(" ", 0, limit + 1), text.rfind("\n", 0, limit + 1))
    return text[: end if end > 0.9 * limit else limit].rstrip()


def _parse(url: str, base: httpx.URL | None = None) -> httpx.URL:
    try:
        parsed = base.join(url) if base else httpx.URL(url)
    except httpx.InvalidURL as error:
        raise SearchUnavailable(f"not a URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or not 0 < (parsed.port or 80) < 65536:
        raise SearchUnavailable("expected the address of a page, as https://en.wikipedia.org/wiki/Dune")
    return parsed.copy_with(userinfo=b"", fragment=None)


def _proxy(target: httpx.URL) -> str | None:
    proxies = urllib.request.getproxies()
    proxy = proxies.get(target.scheme) or proxies.get("all")
    if not proxy or urllib.request.proxy_bypass(target.host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _unpacker(encoding: str) -> Callable[[bytes, int], bytes]:
    """Decompresses a chunk to no more bytes than told: a small page must not become a huge one in memory."""
    if encoding == "identity":
        return lambda chunk, room: chunk
    if encoding != "gzip":
        raise SearchUnavailable(f"packed as {encoding}, expected gzip")
    inflater = zlib.decompressobj(wbits=31)  # a gzip header and 32 KiB of window

    def inflate(chunk: bytes, room: int) -> bytes:
        try:
            return inflater.decompress(chunk, room)
        except zlib.error as error:
            raise SearchUnavailable(f"not gzip: {error}") from error

    return inflate


def _decode(body: bytes, charset: str) -> str:
    try:
        return body.decode(charset, "replace")
    except (LookupError, UnicodeError):  # a charset that there is not
        return body.decode("utf-8", "replace")


async def _resolve(host: str) -> list[str]:
    """Every address of the host, at least one. Raises OSError."""
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return [str(address[4][0]) for address in found]


def _extractor() -> Callable[[bytes], str]:
    try:
        import trafilatura
    except ImportError as error:
        raise UserError("pages=true needs trafilatura: pip install 'searchr1[web]'") from error

    def extract(body: bytes) -> str:
        return trafilatura.extract(body, include_comments=False) or ""

    return extract
