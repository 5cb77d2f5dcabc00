"""Files of the public hub, fetched so that a kill or a broken line costs nothing and nothing wrong is ever kept.

`huggingface_hub` (2.4) begins again after a kill and does not compare what came with the hash that the hub gives, which
matters for an index of 65 GB. The protocol is the hub's: the answer to HEAD names the size and the hash of a file (the
SHA-256 of a large file, git's SHA-1 of a small one), the content is read by ranges. ``HF_ENDPOINT`` names another hub,
``HF_TOKEN`` is sent to it where it is set.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import httpx

from searchr1 import __version__
from searchr1.errors import DownloadError, UserError

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and that there will be."""
HUB = "https://huggingface.co"
_TRIES = 5
"""In a row without a single new byte."""
_TRIES_TO_ASK = 3  # without a network it is said within seconds
_PAUSE = 1.0  # seconds, doubled with every try
_CHUNK = 1 << 20
_TEMPORARY = (408, 425, 429, 500, 502, 503, 504)
_SPARE = 256 * 1024**2
"""Bytes of the disk that are left alone."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file as the server describes it. ``digest`` is hex, "" where the server gives none that can be computed."""

    url: str
    size: int
    digest: str

    def hasher(self) -> Any:
        """An object of `hashlib` that comes to ``digest`` when it has seen the whole file."""
        if len(self.digest) == 40:  # git's hash of a blob
            return hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        return hashlib.sha256()


@dataclass(frozen=True, slots=True)
class Plan:
    """Bytes to fetch, bytes that the disk must still take, and bytes that it has free."""

    fetch: int
    disk: int
    free: int


def hub_url(repository: str, path: str) -> str:
    """Where the newest version of a file of a data set repository is.

    >>> hub_url("me/sets", "nq/test.jsonl").removeprefix(os.environ.get("HF_ENDPOINT") or HUB)
    '/datasets/me/sets/resolve/main/nq/test.jsonl'
    """
    endpoint = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    return f"{endpoint}/datasets/{repository}/resolve/main/{path}"


def describe(urls: Sequence[str]) -> list[Remote]:
    """Ask for size and hash of every file. Raises UserError where there is none, DownloadError."""
    with _client() as client:
        return [_describe(client, url) for url in urls]


def plan(remotes: Sequence[Remote], target: Path, unpacked: int = 0) -> Plan:
    """What fetching the files into ``target`` takes, with ``unpacked`` bytes made of them beside it.

    Raises UserError when the disk is too small.
    """
    part = _part(target, remotes)
    size = sum(remote.size for remote in remotes)
    there = size if target.exists() else part.stat().st_size if part.exists() else 0
    fetch = max(0, size - there)
    target.parent.mkdir(parents=True, exist_ok=True)
    made = Plan(fetch, fetch + unpacked, shutil.disk_usage(target.parent).free)
    if made.disk + _SPARE > made.free:
        raise UserError(
            f"{target.parent}: expected {(made.disk + _SPARE) / 1e9:.1f} GB of free disk, it has "
            f"{made.free / 1e9:.1f}; make room or choose another --out"
        )
    return made


def fetch(remotes: Sequence[Remote], target: Path, progress: Progress | None = None) -> None:
    """The files, one after the other, as the one file ``target``, which appears whole and checked or not at all.

    What is fetched grows in ``.TARGET.HASH.part`` beside it, where the next call goes on, in another process too; when
    the files have changed on the server it begins again. A ``target`` that is there is checked and left as it is.
    Raises UserError for a file that is not there or not allowed, and for a ``target`` that is another file;
    DownloadError when the server fails for good, or what came has another hash than it said.
    """
    told = progress or (lambda done, total: None)
    total = sum(remote.size for remote in remotes)
    if target.exists():
        if not _is(target, remotes, told):
            raise UserError(f"{target}: is there, and is not what would be fetched; remove it or choose another --out")
        return
    part = _part(target, remotes)
    target.parent.mkdir(parents=True, exist_ok=True)
    for stale in set(target.parent.glob(f".{target.name}.*.part")) - {part}:
        stale.unlink()
    with _locked(part) as stream, _client() as client:
        start = 0
        for remote in remotes:
            _fetch_one(client, remote, stream, start, lambda done: told(done, total))
            start += remote.size
        stream.truncate(start)
        os.fsync(stream.fileno())
        part.replace(target)


def _describe(client: httpx.Client, url: str) -> Remote:
    """The first answer has the hash; the storage that it redirects to does not, and may not even answer to HEAD."""
    response = _answer(client, url)
    while response.is_redirect and "x-linked-size" not in response.headers:  # a repository with a new name
        response = _answer(client, str(response.next_request.url) if response.next_request else url)
    headers = response.headers
    size = headers.get("x-linked-size") or headers.get("content-length", "")
    if not size.isdigit():
        raise DownloadError(f"{url}: the server does not say how large the file is; is HF_ENDPOINT a hub?")
    digest = (headers.get("x-linked-etag") or headers.get("etag") or "").removeprefix("W/").strip('"').lower()
    return Remote(url, int(size), digest if re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", digest) else "")


def _answer(client: httpx.Client, url: str) -> httpx.Response:
    for attempt in range(_TRIES_TO_ASK + 1):
        try:
            response = client.head(url, follow_redirects=False)
            _check(response, url)
            return response
        except (httpx.TransportError, _Again) as error:
            _wait(attempt, _TRIES_TO_ASK, url, error)
    raise AssertionError("unreachable: the last try raises")


def _fetch_one(
    client: httpx.Client, remote: Remote, stream: IO[bytes], start: int, told: Callable[[int], None]
) -> None:
    """Bring bytes ``start`` to ``start + size`` of the stream in order, and check them."""
    digest, have = remote.hasher(), 0
    stream.seek(start)
    while have < remote.size and (chunk := stream.read(min(_CHUNK, remote.size - have))):
        digest.update(chunk)
        have += len(chunk)
        told(start + have)
    best, attempt = have, 0
    while have < remote.size:
        try:
            for place, chunk in _chunks(client, remote, have):
                if not place:  # the server began anew
                    digest = remote.hasher()
                    stream.seek(start)
                    stream.truncate()
                stream.write(chunk)
                digest.update(chunk)
                have = place + len(chunk)
                told(start + have)
            problem: Exception = DownloadError(f"only {have:,} of {remote.size:,} bytes came")
        except (httpx.TransportError, _Again) as error:
            problem = error
        attempt = 0 if have > best else attempt + 1
        best = max(best, have)
        if have < remote.size:
            _wait(attempt, _TRIES, remote.url, problem)
    if remote.digest and digest.hexdigest() != remote.digest:
        stream.truncate(start)
        raise DownloadError(
            f"{remote.url}: expected the hash {remote.digest[:16]}..., what came has {digest.hexdigest()[:16]}...; "
            "it was thrown away, try again"
        )


def _chunks(client: httpx.Client, remote: Remote, have: int) -> Iterator[tuple[int, bytes]]:
    """Pieces of the file with their places, from ``have`` on or, where the server knows no ranges, from 0."""
    headers = {"Range": f"bytes={have}-"} if have else {}
    with client.stream("GET", remote.url, headers=headers, follow_redirects=True) as response:
        _check(response, remote.url)
        place = have if response.status_code == 206 else 0
        if place and not response.headers.get("content-range", "").startswith(f"bytes {have}-"):
            raise DownloadError(f"{remote.url}: expected bytes from {have:,} on, got others")
        for chunk in response.iter_raw():  # as it comes: a broken line costs nothing
            if place + len(chunk) > remote.size:
                raise DownloadError(f"{remote.url}: expected {remote.size:,} bytes, more came; try again")
            yield place, chunk
            place += len(chunk)


class _Again(Exception):
    """An answer that may be another one in a moment."""


def _check(response: httpx.Response, url: str) -> None:
    code = response.status_code
    if response.is_success or (response.is_redirect and response.request.method == "HEAD"):
        return
    if code in _TEMPORARY:
        raise _Again(f"the server answered {code}")
    if code in (401, 403):
        raise UserError(f"{url}: not allowed (HTTP {code}); set HF_TOKEN to a token that may read it")
    if code == 404:
        raise UserError(f"{url}: there is no such file (HTTP 404); give a local one with --source")
    raise DownloadError(f"{url}: the server answered {code}")


def _wait(attempt: int, tries: int, url: str, problem: Exception) -> None:
    if attempt >= tries:
        reason = " ".join(str(problem).split()) or type(problem).__name__
        raise DownloadError(
            f"{url}: {reason}; what came is kept, the same command goes on (or give a local file with --source)"
        ) from problem
    time.sleep(_PAUSE * 2**attempt)


def _is(target: Path, remotes: Sequence[Remote], told: Progress) -> bool:
    """True when the file is what the server describes; without a hash its size must do."""
    total, done = sum(remote.size for remote in remotes), 0
    if target.stat().st_size != total:
        return False
    with target.open("rb") as stream:
        for remote in remotes:
            digest, left = remote.hasher(), remote.size
            while left and (chunk := stream.read(min(_CHUNK, left))):
                digest.update(chunk)
                left -= len(chunk)
                done += len(chunk)
                told(done, total)
            if remote.digest and digest.hexdigest() != remote.digest:
                return False
    return True


def _part(target: Path, remotes: Sequence[Remote]) -> Path:
    version = hashlib.sha256(repr([(remote.size, remote.digest) for remote in remotes]).encode()).hexdigest()
    return target.with_name(f".{target.name}.{version[:12]}.part")


@contextmanager
def _locked(part: Path) -> Iterator[IO[bytes]]:
    part.touch()
    with part.open("r+b") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{part}: another process is fetching it; wait for its end") from None
        yield stream


def _client() -> httpx.Client:
    headers = {"User-Agent": f"searchr1/{__version__}", "Accept-Encoding": "identity"}
    if token := os.environ.get("HF_TOKEN"):  # httpx takes it away where it is redirected to another host
        headers["Authorization"] = f"Bearer {token}"
    return httpx.Client(headers=headers, timeout=httpx.Timeout(30.0, read=60.0))
