"""Loading a corpus into an index of an OpenSearch cluster: made, filled under back-pressure, counted, marked whole."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from searchr1.errors import SearchUnavailable, UserError
from searchr1.retrieval.clusters.common import (
    Mark,
    check_free,
    check_mine,
    finished,
    mark_as_json,
    started,
    upload,
)
from searchr1.retrieval.dense.encoders import Encoder
from searchr1.retrieval.host import Host, decode_json, one_line
from searchr1.retrieval.policy import Policy, TryAgainError
from searchr1.types import Passage

if TYPE_CHECKING:
    import httpx

ANALYZER = "searchr1_english"
_ANALYSIS = {
    "analyzer": {
        ANALYZER: {
            "type": "custom",
            "tokenizer": "standard",
            "filter": ["lowercase", "asciifolding", "stop", "searchr1_stemmer"],
        }
    },
    "filter": {"searchr1_stemmer": {"type": "stemmer", "language": "porter2"}},
}
"""Words without accents, without Lucene's English stop words, stemmed (Snowball English): as the ``bm25`` kind does."""
_META = "searchr1"
_BUSY = 429
_NDJSON = {"content-type": "application/x-ndjson"}
_VECTOR_DIGITS = 7  # what a 32-bit float holds; half the bytes of what Python would print
_REFUSALS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Layout:
    """Names of the fields, and settings of the index. ``row`` is the place in the corpus, which breaks ties."""

    id: str
    title: str
    text: str
    vector: str
    row: str
    analyzer: str
    k1: float
    b: float
    shards: int
    replicas: int

    def index(self, mark: Mark, dimension: int) -> dict[str, Any]:
        """The body that makes the index, without replicas and refreshes as long as it is loaded.

        Without vectors ``dimension`` is 0. Vectors are not kept in the stored document: the graph has them.
        """
        words = {"type": "text", "analyzer": self.analyzer}
        properties: dict[str, Any] = {
            self.id: {"type": "keyword", "index": False, "doc_values": False},
            self.title: words,
            self.text: words,
            self.row: {"type": "long"},
        }
        settings: dict[str, Any] = {
            "number_of_shards": self.shards,
            "number_of_replicas": 0,
            "refresh_interval": "-1",
            "similarity": {"default": {"type": "BM25", "k1": self.k1, "b": self.b}},
            "analysis": _ANALYSIS,
        }
        mappings: dict[str, Any] = {"dynamic": "strict", **meta(mark), "properties": properties}
        if dimension:
            settings["knn"] = True
            method = {"name": "hnsw", "engine": "faiss", "space_type": "innerproduct"}
            properties[self.vector] = {"type": "knn_vector", "dimension": dimension, "method": method}
            mappings["_source"] = {"excludes": [self.vector]}
        return {"settings": {"index": settings}, "mappings": mappings}


@dataclass(frozen=True, slots=True)
class _Item:
    """One passage on its way: its place in the corpus, its id, and its two lines of a bulk request."""

    row: int
    id: str
    lines: bytes


class _Outcome(msgspec.Struct):
    status: int
    error: Any = None


class _BulkReply(msgspec.Struct):
    items: list[dict[str, _Outcome]]


class _Count(msgspec.Struct):
    count: int


_bulk_decoder = msgspec.json.Decoder(_BulkReply)
_count_decoder = msgspec.json.Decoder(_Count)
_mapping_decoder = msgspec.json.Decoder(dict[str, dict[str, dict[str, Any]]])


class Loader:
    """Fills one index, once."""

    def __init__(self, host: Host, index: str, layout: Layout, encoder: Encoder | None, policy: Policy) -> None:
        self._host = host
        self._index = index
        self._where = f"{host.url}/{index}"
        self._layout = layout
        self._encoder = encoder
        self._policy = policy

    async def load(self, passages: Iterable[Passage], bulk_size: int, bulk_requests: int, *, replace: bool) -> None:
        """Raises UserError for an index that must not be replaced and for refused passages; SearchUnavailable."""
        try:
            mark = started(self._encoder.fingerprint if self._encoder else "")
            await self._make(mark, replace)
            loaded, corpus_hash = await upload(
                passages, self._items, self._send, batch=bulk_size, in_flight=bulk_requests
            )
            await self._finish(mark, loaded, corpus_hash)
        finally:
            await self._host.aclose()

    async def _make(self, mark: Mark, replace: bool) -> None:
        path = f"/{self._index}"
        there, raw = await read_meta(self._host, self._index)
        if there:
            check_free(self._where, raw, replace)
            await self._host.ask("DELETE", path, ignore, accept=lambda status: status in (200, 404))
        body = self._layout.index(mark, self._encoder.dimension if self._encoder else 0)
        refusal = await self._host.ask("PUT", path, _refusal, accept=lambda status: status in (200, 400), json=body)
        # A first attempt that timed out may have made it: then it exists, and it is ours.
        if refusal and "resource_already_exists_exception" not in refusal:
            raise UserError(f"{self._where}: the cluster refused to make this index: {refusal}")
        await self._check_ours(mark)

    def _items(self, row: int, batch: list[Passage]) -> list[_Item]:
        layout = self._layout
        vectors: list[list[float]] | None = None
        if self._encoder is not None:
            encoded = self._encoder.encode_passages(batch).astype(np.float64)
            vectors = np.round(encoded, _VECTOR_DIGITS).tolist()
        items = []
        for place, passage in enumerate(batch):
            document: dict[str, Any] = {
                layout.id: passage.id,
                layout.title: passage.title,
                layout.text: passage.text,
                layout.row: row + place,
            }
            if vectors is not None:
                document[layout.vector] = vectors[place]
            # The row as the cluster's id: a request that is repeated writes the same documents again.
            action = msgspec.json.encode({"index": {"_id": str(row + place)}})
            items.append(_Item(row + place, passage.id, action + b"\n" + msgspec.json.encode(document) + b"\n"))
        return items

    async def _send(self, items: list[_Item]) -> None:
        """Until the cluster has taken every item; those it was too busy for are sent again, alone, after a while."""
        policy = self._policy
        for failures in range(policy.retries + 1):
            items, reason = await self._bulk(items)
            if not items:
                return
            if failures < policy.retries:
                await asyncio.sleep(min(policy.backoff * 2**failures * (0.5 + random.random()), 60))
        raise SearchUnavailable(
            f"{self._where}: gave up on {len(items)} passages, the first is {items[0].id!r}: {reason}; load with fewer "
            "or smaller requests (bulk_requests, bulk_size), or raise policy.retries"
        )

    async def _bulk(self, items: list[_Item]) -> tuple[list[_Item], str]:
        """Send the items; those to send again, and why. Raises UserError for items the cluster will never take."""

        def read(response: httpx.Response) -> list[_Outcome]:
            outcomes = [next(iter(item.values()), _Outcome(500)) for item in _decode_bulk(response)]
            if len(outcomes) != len(items):
                raise TryAgainError(f"sent {len(items)} passages, got the outcome of {len(outcomes)}")
            return outcomes

        content = b"".join(item.lines for item in items)
        outcomes = await self._host.ask("POST", f"/{self._index}/_bulk", read, content=content, headers=_NDJSON)
        failed = [(item, outcome) for item, outcome in zip(items, outcomes, strict=True) if outcome.status >= 300]
        refused = [(item, outcome) for item, outcome in failed if not _passing(outcome)]
        if refused:
            shown = "; ".join(f"{item.id!r}: {describe(outcome.error)}" for item, outcome in refused[:_REFUSALS_SHOWN])
            raise UserError(f"{self._where}: the cluster refused {len(refused)} passages: {shown}")
        return [item for item, _ in failed], describe(failed[0][1].error) if failed else ""

    async def _finish(self, mark: Mark, loaded: int, corpus_hash: str) -> None:
        path = f"/{self._index}"
        usual = {"index": {"refresh_interval": None, "number_of_replicas": self._layout.replicas}}
        await self._host.ask("PUT", f"{path}/_settings", ignore, json=usual)
        await self._host.ask("POST", f"{path}/_refresh", ignore)
        there = await self._host.ask("GET", f"{path}/_count", _count)
        await self._check_ours(mark)
        if there != loaded:
            raise UserError(f"{self._where}: loaded {loaded} passages, the cluster counts {there}; build it again")
        await self._host.ask("PUT", f"{path}/_mapping", ignore, json=meta(finished(mark, loaded, corpus_hash)))

    async def _check_ours(self, mark: Mark) -> None:
        _, raw = await read_meta(self._host, self._index)
        check_mine(self._where, raw, mark)


async def read_meta(host: Host, index: str) -> tuple[bool, Any]:
    """Whether the cluster has the index, and what it keeps there for us (None: nothing)."""

    def read(response: httpx.Response) -> tuple[bool, Any]:
        if response.status_code == 404:
            return False, None
        mappings = [
            entry.get("mappings", {}) for entry in decode_json(response, _mapping_decoder, "a mapping").values()
        ]
        if len(mappings) != 1:
            raise TryAgainError(f"asked for the mapping of one index, got {len(mappings)}")
        return True, (mappings[0].get("_meta") or {}).get(_META)

    return await host.ask("GET", f"/{index}/_mapping", read, accept=lambda status: status in (200, 404))


def meta(mark: Mark) -> dict[str, Any]:
    """The part of a mapping that keeps the mark."""
    return {"_meta": {_META: mark_as_json(mark)}}


def describe(error: object) -> str:
    """Type and reason of what the cluster says went wrong, in one line.

    >>> describe({"type": "index_not_found_exception", "reason": "no such index [wiki]"})
    'index_not_found_exception: no such index [wiki]'
    """
    if isinstance(error, dict) and error.get("type"):
        cause = error.get("caused_by")
        reason = f"{error['type']}: {error.get('reason')}"
        return one_line(f"{reason} ({describe(cause)})" if cause else reason)
    return one_line(str(error)) if error else "no reason given"


def ignore(response: httpx.Response) -> None:
    """Read nothing: the status says it all."""


def _passing(outcome: _Outcome) -> bool:
    """Whether the cluster may take the same passage a moment later: it is busy, or a shard is moving."""
    kind = str(outcome.error.get("type")) if isinstance(outcome.error, dict) else ""
    return outcome.status == _BUSY or outcome.status >= 500 or "rejected_execution" in kind


def _decode_bulk(response: httpx.Response) -> list[dict[str, _Outcome]]:
    return decode_json(response, _bulk_decoder, "the outcome of a bulk request").items


def _count(response: httpx.Response) -> int:
    return decode_json(response, _count_decoder, "a count").count


def _refusal(response: httpx.Response) -> str:
    if response.status_code == 200:
        return ""
    body = decode_json(response, msgspec.json.Decoder(dict[str, Any]), "an answer")
    return describe(body.get("error"))
