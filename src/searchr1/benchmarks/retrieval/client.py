"""A client in a process of its own: bare HTTP over asyncio streams, cheaper than any server here, or our own client.

``python -m searchr1.benchmarks.retrieval.client`` reads a job and writes its outcome, JSON on stdin and stdout.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from searchr1.errors import SearchUnavailable

_PATIENCE = 300.0  # seconds for one answer


@dataclass(frozen=True, slots=True)
class Job:
    """``load``: ``clients`` take turns until all requests are made. ``burst``: every request at once, a connection
    each. ``training``: every query at once through the client of the training loop, ``batch`` a request."""

    how: Literal["load", "burst", "training"]
    url: str
    queries: list[str]
    batch: int
    clients: int
    k: int = 3


@dataclass(frozen=True, slots=True)
class Outcome:
    """Seconds of the whole, of each request (or query) from the start of the burst or of itself, and what failed."""

    wall: float
    cpu: float
    latencies: list[float]
    errors: list[str]


class _Connection:
    """One keep-alive connection; `ask` returns the body of a 200 answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def ask(self, request: bytes) -> bytes:
        self._writer.write(request)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        body = await self._reader.readexactly(length)
        if not head.startswith(b"http/1.1 200"):
            raise OSError(f"{head.split(maxsplit=2)[1].decode()}: {body[:200].decode(errors='replace')}")
        return body

    async def close(self) -> None:
        self._writer.close()
        with suppress(OSError):  # the other side may have been faster
            await self._writer.wait_closed()


async def run(job: Job) -> Outcome:
    """Do it. A failure is one of ``errors`` and has no latency."""
    requests = [_request(job, start) for start in range(0, len(job.queries), job.batch)]
    sizes = [len(job.queries[start : start + job.batch]) for start in range(0, len(job.queries), job.batch)]
    wall, cpu = time.perf_counter(), time.process_time()
    latencies: list[float] = []
    errors: list[str] = []
    if job.how == "training":
        await _train(job, wall, latencies, errors)
        return Outcome(time.perf_counter() - wall, time.process_time() - cpu, latencies, errors)
    bodies: dict[int, bytes] = {}
    pending = iter(enumerate(requests))

    async def client() -> None:
        connection: _Connection | None = None
        for place, request in pending:
            started = wall if job.how == "burst" else time.perf_counter()
            try:
                async with asyncio.timeout(_PATIENCE):
                    connection = connection or await _connect(job.url)
                    bodies[place] = await connection.ask(request)
                latencies.append(time.perf_counter() - started)
            except (OSError, EOFError, IndexError) as error:
                errors.append(repr(error))
                if connection is not None:
                    await connection.close()
                connection = None
            if job.how == "burst":
                break
        if connection is not None:
            await connection.close()

    await asyncio.gather(*(client() for _ in range(len(requests) if job.how == "burst" else job.clients)))
    took = time.perf_counter() - wall, time.process_time() - cpu
    unread = [place for place, body in bodies.items() if len(msgspec.json.decode(body)["result"]) != sizes[place]]
    return Outcome(*took, latencies, [*errors, *(f"request {place}: wrong number of results" for place in unread)])


async def _connect(url: str) -> _Connection:
    parts = urlsplit(url)
    return _Connection(*await asyncio.open_connection(parts.hostname, parts.port))


def _request(job: Job, start: int) -> bytes:
    body = {"queries": job.queries[start : start + job.batch], "topk": job.k, "return_scores": True}
    encoded = json.dumps(body).encode()
    head = (
        f"POST /retrieve HTTP/1.1\r\nhost: {urlsplit(job.url).netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(encoded)}\r\n\r\n"
    )
    return head.encode() + encoded


async def _train(job: Job, started: float, latencies: list[float], errors: list[str]) -> None:
    from searchr1.retrieval.batching import CoalescingRetriever
    from searchr1.retrieval.client import HttpRetriever

    async with HttpRetriever(job.url, batch_size=job.batch) as server:
        retriever = CoalescingRetriever(server)

        async def search(query: str) -> None:
            try:
                [hits] = await retriever.search([query], job.k)
            except SearchUnavailable as error:
                errors.append(repr(error))
                return
            latencies.append(time.perf_counter() - started)
            if not hits:
                errors.append(f"nothing found for {query!r}")

        await asyncio.gather(*map(search, job.queries))


def more_files() -> None:
    """Every connection is a file: allow as many as the system lets this process and those that it starts have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` of them do not exceed.

    >>> percentile([3.0, 1.0, 2.0, 4.0], 0.5)
    2.0
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def main() -> None:
    more_files()
    job: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(asdict(asyncio.run(run(Job(**job))))))


if __name__ == "__main__":
    main()
