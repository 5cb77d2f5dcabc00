"""Qdrant: a cluster of vectors. The passages are encoded here and live there; the folder holds only the manifest.

The official client speaks to the cluster; `Guard` says how often and how long, as for every engine on a network. An
API key comes from the environment alone: ``SEARCHR1_QDRANT_API_KEY``.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.clusters.common import (
    EncoderOptions,
    Mark,
    check_free,
    check_mine,
    check_same,
    finished,
    mark_as_json,
    started,
    upload,
)
from searchr1.retrieval.dense.encoders import Encoder
from searchr1.retrieval.host import Closing, check_url, one_line
from searchr1.retrieval.index import Estimate, Plan
from searchr1.retrieval.policy import Guard, Policy, TryAgainError
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage

try:
    from qdrant_client import AsyncQdrantClient, models
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ImportError as missing:
    raise UserError("a qdrant index needs the Qdrant client: pip install 'searchr1[qdrant]'") from missing

_T = TypeVar("_T")
API_KEY = "SEARCHR1_QDRANT_API_KEY"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_META = "searchr1"
_LOADER_MEMORY = 600e6  # Python with the client, and the requests under way; the encoder's comes on top


@dataclass(frozen=True, slots=True)
class QdrantIndex(EncoderOptions):
    """The ``qdrant`` backend and its options.

    >>> QdrantIndex("wiki", url="http://127.0.0.1:6333").quantization
    'none'
    """

    remote: ClassVar[bool] = True
    collection: str
    url: str = ""
    """Of the cluster's REST API; without a port, 6333 is meant."""
    path: str = ""
    """Instead of ``url``: a folder of the client's own small engine, to try things out without a cluster."""
    quantization: Literal["none", "scalar"] = "none"
    """``scalar``: the cluster searches 8-bit copies, a quarter of the memory, and scores the best again in full."""
    on_disk: bool = False
    """Whether the cluster reads the full vectors from its disk instead of keeping them in memory."""
    shards: int = 1
    replicas: int = 1
    """Copies in all, the first included."""
    bulk_size: int = 256
    """Passages of one request."""
    bulk_requests: int = 4
    """Requests under way at one moment."""
    batch_size: int = 64
    """Queries of one request."""
    replace: bool = False
    """Delete a whole collection of the same name first, if searchr1 made it."""
    policy: Policy = field(default_factory=Policy)
    encoder: str = field(default="sentence-transformers/all-MiniLM-L6-v2", kw_only=True)

    def __post_init__(self) -> None:
        if bool(self.url) == bool(self.path):
            raise UserError(f"expected either url or path, got url={self.url!r} and path={self.path!r}")
        if self.url:
            check_url(self.url, "http://127.0.0.1:6333")
        if re.match(r"https?://[^/]*@", self.url.strip()):
            raise UserError(f"url: holds a user or password; take them out, and set {API_KEY} instead")
        if not _NAME.fullmatch(self.collection):
            raise UserError(f"collection: expected a name such as wiki-18, got {self.collection!r}")
        if min(self.shards, self.replicas, self.bulk_size, self.bulk_requests, self.batch_size) < 1:
            raise UserError("shards, replicas, bulk_size, bulk_requests and batch_size: expected at least 1")

    @property
    def where(self) -> str:
        """Names the collection in messages."""
        return f"{self.url.rstrip('/') or self.path}/{self.collection}"

    def plan(self, corpus: Estimate) -> Plan:
        """On this machine, without the encoder; see ``docs/clusters.md`` for the cluster's side."""
        return Plan(memory_bytes=_LOADER_MEMORY, disk_bytes=0)

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Encode the stream into the cluster; nothing is written into ``folder``.

        Raises UserError when the collection exists already, and SearchUnavailable when the cluster fails for longer
        than the policy allows.
        """
        asyncio.run(_load(self, passages, self.load_encoder()))

    def open(self, folder: Path, info: RetrieverInfo) -> Retriever:
        """Whether the cluster still holds this index is found out by the first search."""
        return QdrantRetriever(self, info)


class QdrantRetriever(Closing):
    """Finds the passages nearest to the query; equal scores are ranked by the place in the corpus.

    The first search makes sure that the cluster still holds the index of the manifest, whole.
    """

    def __init__(self, options: QdrantIndex, info: RetrieverInfo) -> None:
        self._options = options
        self._info = info
        self._encoder = options.load_encoder()
        self._cluster = _Cluster(options)
        self._checked = False

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query. Raises SearchUnavailable, and UserError for another index."""
        check_k(k)
        if queries:
            await self._check()
        found: list[list[Passage]] = []
        for start in range(0, len(queries), self._options.batch_size):
            texts = [clean(query) for query in queries[start : start + self._options.batch_size]]
            found += await self._search(texts, k)
        return found

    async def info(self) -> RetrieverInfo:
        await self._check()
        return self._info

    def counts(self) -> dict[str, float]:
        return self._cluster.guard.counts()

    async def aclose(self) -> None:
        await self._cluster.aclose()

    async def _check(self) -> None:
        if self._checked:
            return
        there, mark = await self._cluster.read_mark()
        if not there:
            raise UserError(f"{self._options.where}: the cluster has no such collection; build it again")
        check_same(self._options.where, mark, self._info, self._encoder.fingerprint)
        self._checked = True

    async def _search(self, texts: list[str], k: int) -> list[list[Passage]]:
        found: list[list[Passage]] = [[] for _ in texts]
        asked = [place for place, text in enumerate(texts) if text.strip()]
        if not asked:
            return found
        vectors = await asyncio.to_thread(self._encoder.encode_queries, [texts[place] for place in asked])
        requests = [models.QueryRequest(query=vector.tolist(), limit=k, with_payload=True) for vector in vectors]

        async def ask(client: AsyncQdrantClient) -> list[list[Passage]]:
            answers = await client.query_batch_points(self._options.collection, requests=requests)
            if len(answers) != len(requests):
                raise TryAgainError(f"asked {len(requests)} queries, got results for {len(answers)}")
            return [[_passage(p) for p in sorted(answer.points, key=_rank)[:k]] for answer in answers]

        for place, passages in zip(asked, await self._cluster.call(ask), strict=True):
            found[place] = passages
        return found


class _Cluster:
    """The official client, called through a guard."""

    def __init__(self, options: QdrantIndex) -> None:
        self.guard = Guard(options.url or options.path, options.policy)
        self._options = options
        self._client: AsyncQdrantClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(self, ask: Callable[[AsyncQdrantClient], Awaitable[_T]]) -> _T:
        """What ``ask`` makes of the first good answer. Raises SearchUnavailable."""
        client = self._connection()

        async def attempt() -> _T:
            try:
                return await ask(client)
            except ResourceExhaustedResponse as error:
                raise TryAgainError(one_line(f"status 429: {error}"), error.retry_after_s) from error
            except UnexpectedResponse as error:
                status = error.status_code or 500
                reason = one_line(f"status {status}: {error.content.decode('utf-8', 'replace')}")
                if status == 429 or status >= 500:
                    raise TryAgainError(reason) from error
                raise SearchUnavailable(f"{self.guard.name}: {reason}") from error
            except (ResponseHandlingException, QdrantException) as error:  # no connection, or an answer it cannot read
                raise TryAgainError(one_line(f"{type(error).__name__}: {error}")) from error
            except (json.JSONDecodeError, UnicodeDecodeError) as error:
                raise TryAgainError(f"the answer is no JSON: {error}") from error
            except AssertionError as error:  # so the client says that an answer holds no result
                raise TryAgainError("the answer holds no result") from error

        return await self.guard.call(attempt)

    async def read_mark(self) -> tuple[bool, Any]:
        """Whether the cluster has the collection, and what it keeps there for us (None: nothing)."""
        name = self._options.collection
        if not await self.call(lambda client: client.collection_exists(name)):
            return False, None
        config = (await self.call(lambda client: client.get_collection(name))).config
        return True, (config.metadata or {}).get(_META)

    async def aclose(self) -> None:
        if self._client is not None and self._loop is asyncio.get_running_loop():
            await self._client.close()
        self._client = None

    def _connection(self) -> AsyncQdrantClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop that opened them
            self._loop = loop
            if self._options.path:
                self._client = _local_client(self._options.path)
            else:
                self._client = AsyncQdrantClient(
                    url=self._options.url,
                    api_key=os.environ.get(API_KEY) or None,
                    timeout=math.ceil(self._options.policy.timeout) + 1,  # the guard's is the one that counts
                    check_compatibility=False,  # it would ask the cluster behind the guard's back
                    trust_env=False,
                )
        return self._client


def _local_client(path: str) -> AsyncQdrantClient:
    try:
        return AsyncQdrantClient(path=path)
    except RuntimeError as error:
        raise UserError(f"path: {one_line(str(error))}") from error


async def _load(options: QdrantIndex, passages: Iterable[Passage], encoder: Encoder) -> None:
    """Make the collection, fill it, count it, and mark it as whole."""
    cluster, name, mark = _Cluster(options), options.collection, started(encoder.fingerprint)

    def prepare(row: int, batch: list[Passage]) -> models.Batch:
        return models.Batch(
            ids=list(range(row, row + len(batch))),
            vectors=encoder.encode_passages(batch).tolist(),
            payloads=[{"id": passage.id, "title": passage.title, "text": passage.text} for passage in batch],
        )

    async def send(points: models.Batch) -> None:  # the same row is the same point, so a repeated request does no harm
        await cluster.call(lambda client: client.upsert(name, points=points, wait=True))

    try:
        await _make(options, cluster, encoder.dimension, mark)
        loaded, corpus_hash = await upload(
            passages, prepare, send, batch=options.bulk_size, in_flight=options.bulk_requests
        )
        there = (await cluster.call(lambda client: client.count(name, exact=True))).count
        check_mine(options.where, (await cluster.read_mark())[1], mark)
        if there != loaded:
            raise UserError(f"{options.where}: loaded {loaded} passages, the cluster counts {there}; build it again")
        whole = {_META: mark_as_json(finished(mark, loaded, corpus_hash))}
        await cluster.call(lambda client: client.update_collection(name, metadata=whole))
    finally:
        await cluster.aclose()


async def _make(options: QdrantIndex, cluster: _Cluster, dimension: int, mark: Mark) -> None:
    name = options.collection
    there, raw = await cluster.read_mark()
    if there:
        check_free(options.where, raw, options.replace)
        await cluster.call(lambda client: client.delete_collection(name))
    config = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, quantile=0.99, always_ram=True)
    quantization = models.ScalarQuantization(scalar=config) if options.quantization == "scalar" else None

    async def make(client: AsyncQdrantClient) -> None:
        if await client.collection_exists(name):  # by an attempt that timed out; whose it is, is found out below
            return
        await client.create_collection(
            name,
            vectors_config=models.VectorParams(
                size=dimension, distance=models.Distance.DOT, on_disk=options.on_disk or None
            ),
            quantization_config=quantization,
            shard_number=options.shards,
            replication_factor=options.replicas,
            metadata={_META: mark_as_json(mark)},
        )

    await cluster.call(make)
    _, raw = await cluster.read_mark()
    if raw is None:
        raise UserError(f"{options.where}: expected a Qdrant that keeps metadata of collections; use 1.16 or newer")
    check_mine(options.where, raw, mark)


def _rank(point: models.ScoredPoint) -> tuple[float, int]:
    return -point.score, point.id if isinstance(point.id, int) else 0


def _passage(point: models.ScoredPoint) -> Passage:
    payload = point.payload or {}
    if not isinstance(payload.get("text"), str):
        raise TryAgainError(f"point {point.id} of the answer has no text")
    return Passage(str(payload.get("id", "")), str(payload.get("title", "")), payload["text"], point.score)
