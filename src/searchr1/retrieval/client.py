"""The client of a ``POST /retrieve`` server: ours, Search-R1's, or any that answers like them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.corpus import split_contents
from searchr1.retrieval.host import Closing, Host, check_url, decode_json
from searchr1.retrieval.policy import Guard, Policy, TryAgainError
from searchr1.retrieval.pool import PoolRetriever
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage


@dataclass(frozen=True, slots=True)
class Http:
    """The ``http`` search engine: a ``/retrieve`` server, or several with the same corpus that share the work."""

    url: str
    """Several are separated by commas: ``http://a:8000,http://b:8000``."""
    token: str = ""
    """Sent as ``Authorization: Bearer TOKEN``."""
    batch_size: int = 512
    """Queries of one request."""
    policy: Policy = field(default_factory=Policy)
    """Of each server: two of them may get twice its requests."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UserError(f"batch_size: expected at least 1, got {self.batch_size}")

    def open(self) -> Retriever:
        servers = [
            HttpRetriever(url, self.policy, token=self.token, batch_size=self.batch_size) for url in self.url.split(",")
        ]
        return servers[0] if len(servers) == 1 else PoolRetriever(servers)


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


class HttpRetriever(Closing):
    """Searches over HTTP, and does not give up at the first failure: see `Host` and `Policy`.

    Answers with another number of results than queries, or with documents without text, are failures too. Close it, or
    use it as ``async with HttpRetriever(url) as retriever``. ``guarding`` goes to its `Guard`.
    """

    def __init__(
        self,
        url: str,
        policy: Policy | None = None,
        *,
        token: str = "",
        batch_size: int = 512,
        transport: httpx.AsyncBaseTransport | None = None,
        **guarding: Any,
    ) -> None:
        self.url = check_url(url).removesuffix("/retrieve")
        self.guard = Guard(self.url, policy or Policy(), **guarding)
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self._host = Host(self.url, self.guard, headers=headers, transport=transport)
        self._batch_size = batch_size

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query; ``batch_size`` queries a request. Raises SearchUnavailable."""
        check_k(k)
        found: list[list[Passage]] = []
        for start in range(0, len(queries), self._batch_size):
            found += await self._search([clean(query) for query in queries[start : start + self._batch_size]], k)
        return found

    async def info(self) -> RetrieverInfo:
        """What ``GET /health`` says; ``RetrieverInfo("http", 0, "")`` where the server has no such page."""
        return await self._host.ask("GET", "/health", _info, accept=lambda status: True)

    def counts(self) -> dict[str, float]:
        return self.guard.counts()

    async def aclose(self) -> None:
        await self._host.aclose()

    async def _search(self, queries: list[str], k: int) -> list[list[Passage]]:
        def read(response: httpx.Response) -> list[list[Passage]]:
            found = decode_json(response, _reply_decoder, "search results").result
            if len(found) != len(queries):
                raise TryAgainError(f"asked {len(queries)} queries, got results for {len(found)}")
            return [[_passage(hit) for hit in hits[:k]] for hits in found]

        # Scores are always asked for: Search-R1's own server fails without them.
        body = msgspec.json.encode({"queries": queries, "topk": k, "return_scores": True})
        return await self._host.ask(
            "POST", "/retrieve", read, content=body, headers={"content-type": "application/json"}
        )


def _info(response: httpx.Response) -> RetrieverInfo:
    if response.status_code != httpx.codes.OK:
        return RetrieverInfo("http", 0, "")
    try:
        health = _health_decoder.decode(response.content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return RetrieverInfo("http", 0, "")
    return RetrieverInfo(health.kind or "http", health.passages or 0, health.corpus_hash or "")


def _passage(hit: _Hit) -> Passage:
    document = hit if hit.document is None else hit.document
    score = 0.0 if hit.score is None else hit.score
    identifier = "" if document.id is None else str(document.id)
    if document.text is not None:
        return Passage(identifier, document.title or "", document.text, score)
    if document.contents is not None:
        return Passage(identifier, *split_contents(document.contents), score)
    raise TryAgainError('a document of the answer has neither "contents" nor "text"')
