"""OpenSearch: a cluster that holds the index, asked over its REST API.

Two ways in. `OpenSearchIndex` is a kind of index: ``index build`` loads a corpus into the cluster, and the folder it
makes holds no text, only the manifest. `OpenSearch` is a search engine: it searches an index that somebody else
made, and is told the names of its fields.

Only documented, long-stable calls are made (bulk, multi-search, count, refresh, mapping and settings of an index), so
`Host` and `Policy` govern this engine like every other, and no client library is needed. User and password come from
the environment alone: ``SEARCHR1_OPENSEARCH_USER`` and ``SEARCHR1_OPENSEARCH_PASSWORD``.
"""

from __future__ import annotations

import asyncio
import base64
import os
import re
import ssl
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.clusters.common import EncoderOptions, check_same
from searchr1.retrieval.clusters.opensearch_load import ANALYZER, Layout, Loader, describe, read_meta
from searchr1.retrieval.dense.encoders import Encoder
from searchr1.retrieval.fusion import fuse
from searchr1.retrieval.host import Closing, Host, check_url, decode_json
from searchr1.retrieval.index import Estimate, Plan
from searchr1.retrieval.policy import Guard, Policy, TryAgainError
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage

if TYPE_CHECKING:
    import httpx

USER, PASSWORD = "SEARCHR1_OPENSEARCH_USER", "SEARCHR1_OPENSEARCH_PASSWORD"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
# A cluster refuses queries of more than 1024 clauses. There is one for each word and field, and a word takes at least
# one character (in Chinese, say), so this many characters in two fields never make more.
_LONGEST_QUERY = 512
_FUSED_DEPTH = 50  # passages of each list that a hybrid search fuses
_LOADER_MEMORY = 400e6  # Python, and the requests under way
_PLACE_IN_CORPUS = "row"


@dataclass(frozen=True, slots=True)
class _Options(EncoderOptions):
    """What building and searching have in common."""

    url: str
    """Of the cluster, as ``https://search.lab:9200``."""
    index: str
    mode: Literal["bm25", "knn", "hybrid"] = "bm25"
    """``bm25``: words; ``knn``: nearest vectors; ``hybrid``: both, fused by rank (see `fusion.fuse`)."""
    title_boost: float = 1.0
    """How much a match in the title counts, against 1 in the text."""
    id_field: str = "id"
    """Where documents have no such field, the cluster's own ``_id`` is taken."""
    title_field: str = "title"
    text_field: str = "text"
    vector_field: str = "vector"
    certificates: str = ""
    """A file of certificate authorities to trust instead of the system's."""
    verify: bool = True
    """False: talk to a cluster whose certificate nobody vouches for."""
    batch_size: int = 64
    """Queries of one request."""
    policy: Policy = field(default_factory=Policy)

    def __post_init__(self) -> None:
        check_cluster_url(self.url)
        if not _NAME.fullmatch(self.index):
            raise UserError(f"index: expected the name of one index, as wiki-18, got {self.index!r}")
        if not 0 <= self.title_boost <= 100:
            raise UserError(f"title_boost: expected a number from 0 to 100, got {self.title_boost}")
        if self.batch_size < 1:
            raise UserError(f"batch_size: expected at least 1, got {self.batch_size}")
        if (self.mode == "bm25") == bool(self.encoder):
            raise UserError(
                f"encoder: mode {self.mode} needs {'none' if self.encoder else 'one'}, got {self.encoder!r}"
            )

    def host(self) -> Host:
        """Raises UserError for certificates that cannot be read, and half of the credentials."""
        url = check_cluster_url(self.url)
        verify: ssl.SSLContext | bool = self.verify
        if self.certificates:
            try:
                verify = ssl.create_default_context(cafile=self.certificates)
            except OSError as error:
                raise UserError(f"certificates: cannot read {self.certificates!r}: {error}") from error
        return Host(url, Guard(url, self.policy), headers=_credentials(), verify=verify)

    def own_encoder(self) -> Encoder | None:
        """None where only words are searched."""
        return self.load_encoder() if self.encoder else None


@dataclass(frozen=True, slots=True)
class OpenSearch(_Options):
    """The ``opensearch`` search engine: an index of your own.

    >>> OpenSearch("http://127.0.0.1:9200", "wiki", text_field="body").mode
    'bm25'
    """

    def open(self) -> Retriever:
        return OpenSearchRetriever(self, None)


@dataclass(frozen=True, slots=True)
class OpenSearchIndex(_Options):
    """The ``opensearch`` backend and its options."""

    remote: ClassVar[bool] = True
    analyzer: str = ANALYZER
    """Of title and text: the default folds accents, drops stop words and stems, as the ``bm25`` kind does; or the name
    of an analyzer that the cluster has, as ``english`` or ``cjk``."""
    k1: float = 1.2
    b: float = 0.75
    shards: int = 1
    replicas: int = 0
    """Copies beside the first; made after loading."""
    bulk_size: int = 1000
    """Passages of one request."""
    bulk_requests: int = 4
    """Requests under way at one moment."""
    replace: bool = False
    """Delete a whole index of the same name first, if searchr1 made it."""

    def __post_init__(self) -> None:
        _Options.__post_init__(self)
        if min(self.shards, self.bulk_size, self.bulk_requests) < 1 or self.replicas < 0:
            raise UserError("shards, bulk_size and bulk_requests: expected at least 1; replicas: at least 0")
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise UserError(f"expected k1 of at least 0 and b from 0 to 1, got k1={self.k1}, b={self.b}")
        names = [self.id_field, self.title_field, self.text_field, self.vector_field, _PLACE_IN_CORPUS]
        if len(set(names)) < len(names):
            raise UserError(f"expected different names of the fields, got {', '.join(names)}")

    def plan(self, corpus: Estimate) -> Plan:
        """On this machine; see ``docs/clusters.md`` for the cluster's side."""
        return Plan(memory_bytes=_LOADER_MEMORY, disk_bytes=0)

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Load the stream into the cluster; nothing is written into ``folder``.

        Raises UserError when the index exists already or the cluster refuses a passage, and SearchUnavailable when
        the cluster stays down or busy for longer than the policy allows.
        """
        layout = Layout(
            id=self.id_field, title=self.title_field, text=self.text_field, vector=self.vector_field,
            row=_PLACE_IN_CORPUS, analyzer=self.analyzer, k1=self.k1, b=self.b, shards=self.shards,
            replicas=self.replicas,
        )  # fmt: skip
        loader = Loader(self.host(), self.index, layout, self.own_encoder(), self.policy)
        asyncio.run(loader.load(passages, self.bulk_size, self.bulk_requests, replace=self.replace))

    def open(self, folder: Path, info: RetrieverInfo) -> Retriever:
        """Whether the cluster still holds this index is found out by the first search."""
        return OpenSearchRetriever(self, info)


class _Hit(msgspec.Struct):
    id: str = msgspec.field(name="_id")
    source: dict[str, Any] = msgspec.field(name="_source")
    score: float | None = msgspec.field(name="_score", default=None)


class _Hits(msgspec.Struct):
    hits: list[_Hit]


class _Shards(msgspec.Struct):
    failed: int = 0


class _Result(msgspec.Struct):
    hits: _Hits | None = None
    error: Any = None
    status: int = 200
    timed_out: bool = False
    shards: _Shards = msgspec.field(name="_shards", default_factory=_Shards)


class _Reply(msgspec.Struct):
    responses: list[_Result]


class _Count(msgspec.Struct):
    count: int


_reply_decoder = msgspec.json.Decoder(_Reply)
_count_decoder = msgspec.json.Decoder(_Count)


class OpenSearchRetriever(Closing):
    """Finds passages in an index on a cluster.

    Any text is a query: it is a value to match, never parsed. With ``info`` the index is one that `OpenSearchIndex`
    built, and the first search makes sure that the cluster still holds it, whole. Equal scores are then ranked by the
    place in the corpus. An answer without some of the shards is a failure, not an answer.
    """

    def __init__(self, options: _Options, info: RetrieverInfo | None) -> None:
        self._options = options
        self._info = info
        self._host = options.host()
        self._where = f"{self._host.url}/{options.index}"
        self._encoder = options.own_encoder()
        self._checked = info is None

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query. Raises SearchUnavailable, and UserError for another index."""
        check_k(k)
        if queries:
            await self._check()
        found: list[list[Passage]] = []
        for start in range(0, len(queries), self._options.batch_size):
            texts = [clean(query)[:_LONGEST_QUERY] for query in queries[start : start + self._options.batch_size]]
            found += await self._search(texts, k)
        return found

    async def info(self) -> RetrieverInfo:
        """What the manifest says; of an index of your own, the number of its documents."""
        if self._info is not None:
            await self._check()
            return self._info
        decode = _count_decoder
        path = f"/{self._options.index}/_count"
        counted = await self._host.ask("GET", path, lambda response: decode_json(response, decode, "a count"))
        return RetrieverInfo("opensearch", counted.count, "")

    def counts(self) -> dict[str, float]:
        return self._host.guard.counts()

    async def aclose(self) -> None:
        await self._host.aclose()

    async def _check(self) -> None:
        if self._checked or self._info is None:
            return
        there, mark = await read_meta(self._host, self._options.index)
        if not there:
            raise UserError(f"{self._where}: the cluster has no such index; build it again")
        check_same(self._where, mark, self._info, self._encoder.fingerprint if self._encoder else "")
        self._checked = True

    async def _search(self, texts: list[str], k: int) -> list[list[Passage]]:
        asked = [place for place, text in enumerate(texts) if text.strip()]
        found: list[list[Passage]] = [[] for _ in texts]
        if not asked:
            return found
        bodies = await self._bodies([texts[place] for place in asked], k)
        lists = await self._ask(bodies)
        each = len(lists) // len(asked)  # two lists a query when words and vectors are searched
        for number, place in enumerate(asked):
            own = lists[each * number : each * (number + 1)]
            found[place] = (own[0] if each == 1 else fuse(own))[:k]
        return found

    async def _bodies(self, texts: list[str], k: int) -> list[dict[str, Any]]:
        """The searches to make, those of one query side by side."""
        options = self._options
        vectors: npt.NDArray[np.float32] | None = None
        if self._encoder is not None:
            vectors = await asyncio.to_thread(self._encoder.encode_queries, texts)
        depth = k if options.mode != "hybrid" else max(k, _FUSED_DEPTH)
        bodies = []
        for row, text in enumerate(texts):
            if options.mode != "knn":
                bodies.append(self._body(self._words(text), depth))
            if vectors is not None:
                near = {"knn": {options.vector_field: {"vector": vectors[row].tolist(), "k": depth}}}
                bodies.append(self._body(near, depth))
        return bodies

    def _words(self, text: str) -> dict[str, Any]:
        """The scores of both fields added (``most_fields``): a title that repeats the words is a better match."""
        fields = [self._options.text_field, f"{self._options.title_field}^{self._options.title_boost:g}"]
        if not self._options.title_boost:
            fields.pop()
        return {"multi_match": {"query": text, "type": "most_fields", "fields": fields}}

    def _body(self, query: dict[str, Any], size: int) -> dict[str, Any]:
        options = self._options
        body: dict[str, Any] = {
            "query": query,
            "size": size,
            "_source": [options.id_field, options.title_field, options.text_field],
            "track_total_hits": False,
        }
        if self._info is not None:
            order = [{"_score": {"order": "desc"}}, {_PLACE_IN_CORPUS: {"order": "asc"}}]
            body |= {"sort": order, "track_scores": True}
        return body

    async def _ask(self, bodies: list[dict[str, Any]]) -> list[list[Passage]]:
        def read(response: httpx.Response) -> list[list[Passage]]:
            results = decode_json(response, _reply_decoder, "the results of a multi-search").responses
            if len(results) != len(bodies):
                raise TryAgainError(f"asked {len(bodies)} searches, got the results of {len(results)}")
            return [self._passages(result) for result in results]

        lines = b"".join(b"{}\n" + msgspec.json.encode(body) + b"\n" for body in bodies)
        return await self._host.ask(
            "POST",
            f"/{self._options.index}/_msearch",
            read,
            content=lines,
            headers={"content-type": "application/x-ndjson"},
        )

    def _passages(self, result: _Result) -> list[Passage]:
        if result.error is not None or result.hits is None:
            reason = describe(result.error)
            if result.status == 429 or result.status >= 500:
                raise TryAgainError(f"status {result.status} of one search: {reason}")
            raise SearchUnavailable(f"{self._where}: status {result.status} of one search: {reason}")
        if result.timed_out or result.shards.failed:
            raise TryAgainError(f"an incomplete answer: {result.shards.failed} shards failed")
        return [self._passage(hit) for hit in result.hits.hits]

    def _passage(self, hit: _Hit) -> Passage:
        options, source = self._options, hit.source
        text = source.get(options.text_field)
        if not isinstance(text, str):
            raise SearchUnavailable(
                f"{self._where}: document {hit.id} has no text in its field {options.text_field!r}; set text_field"
            )
        identifier, title = source.get(options.id_field, hit.id), source.get(options.title_field) or ""
        return Passage(str(identifier), str(title), text, hit.score or 0.0)


def check_cluster_url(url: str) -> str:
    """The URL in normal form. Raises UserError for what is none, and for one that holds a password."""
    if re.match(r"https?://[^/]*@", url.strip()):
        raise UserError(f"url: holds a user or password; take them out, and set {USER} and {PASSWORD} instead")
    return check_url(url, "https://search.lab:9200")


def _credentials() -> dict[str, str]:
    user, password = os.environ.get(USER, ""), os.environ.get(PASSWORD, "")
    if bool(user) != bool(password):
        raise UserError(f"expected both {USER} and {PASSWORD} in the environment, or neither, got one")
    if not user:
        return {}
    return {"authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode("ascii")}
