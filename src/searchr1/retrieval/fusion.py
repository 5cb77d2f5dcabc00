"""Several search engines over one corpus as one: reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR 2009)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import search_distinct
from searchr1.retrieval.counting import counts_of, per_question
from searchr1.retrieval.queries import MAX_K, check_k
from searchr1.retrieval.spec import open_retriever
from searchr1.types import Passage

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Fusion:
    """The ``fusion`` search engine: ``fusion:parts=["wiki.bm25","http://127.0.0.1:8000"]``."""

    parts: tuple[str | dict[str, Any], ...]
    """Two or more specs of search engines over the same corpus."""
    depth: int = 50
    """Passages that each part is asked for; never fewer than are wanted of the whole."""
    constant: int = 60
    """How little the first ranks stand out: 60 in the paper."""

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise UserError(f"parts: expected at least two search engines to fuse, got {len(self.parts)}")
        check_fusion(self.depth, self.constant)

    def open(self) -> Retriever:
        return FusionRetriever([open_retriever(part) for part in self.parts], self.depth, self.constant)


class FusionRetriever:
    """Asks all its parts at once, and ranks what they find by `fuse`.

    A part that is unavailable makes the whole unavailable: half an answer would pass for a whole one. Before the first
    search the parts are asked what they search in. ``kind`` is what its `info` says.
    """

    def __init__(self, parts: Sequence[Retriever], depth: int = 50, constant: int = 60, kind: str = "fusion") -> None:
        self._parts = list(parts)
        self._depth = depth
        self._constant = constant
        self._kind = kind
        self._checked = False
        self.per_question = any(map(per_question, self._parts))

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query; their score is the fused one.

        Raises SearchUnavailable when any part is, and UserError when the parts search in different corpora.
        """
        check_k(k)
        if not queries:
            return []
        if not self._checked:
            await self.info()
        found = await _all(search_distinct(part, queries, max(k, self._depth)) for part in self._parts)
        return [fuse(rankings, self._constant)[:k] for rankings in zip(*found, strict=True)]

    async def info(self) -> RetrieverInfo:
        """The corpus hash is known where every part knows it. Raises UserError when two of them differ."""
        infos = await _all(part.info() for part in self._parts)
        hashes = {info.corpus_hash: info.kind for info in infos}
        known = sorted(hashes.keys() - {""})
        if len(known) > 1:
            which = " and ".join(f"{hashes[one]} ({one[:12]}...)" for one in known)
            raise UserError(f"{self._kind}: the parts search in different corpora: {which}; build them from the same")
        self._checked = True
        return RetrieverInfo(self._kind, max(info.passages for info in infos), "" if "" in hashes else known[0])

    def counts(self) -> dict[str, float]:
        return counts_of(self._parts)


def fuse(rankings: Iterable[Sequence[Passage]], constant: int = 60) -> list[Passage]:
    """One ranking of several; a passage's score is the sum over the rankings of ``1 / (constant + rank)``, rank from 1.

    Passages are the same when their ids are, or, without ids, their contents. Equal scores keep the order of the
    rankings, and within them of the ranks.

    >>> a, b, c = (Passage(name, name, "") for name in "abc")
    >>> [(p.id, round(p.score, 4)) for p in fuse([[a, b], [b, c]])]
    [('b', 0.0325), ('a', 0.0164), ('c', 0.0161)]
    """
    passages: dict[str, Passage] = {}
    shares: dict[str, list[float]] = {}
    for ranking in rankings:
        distinct: dict[str, Passage] = {}  # a part that finds a passage twice has ranked it once
        for passage in ranking:
            distinct.setdefault(passage.id or passage.contents, passage)
        for rank, (key, passage) in enumerate(distinct.items(), start=1):
            passages.setdefault(key, passage)
            shares.setdefault(key, []).append(1 / (constant + rank))  # Cormack et al., section 2
    # fsum: the same ranks make the same score, in whatever order the parts are listed
    fused = [Passage(p.id, p.title, p.text, math.fsum(shares[key])) for key, p in passages.items()]
    return sorted(fused, key=lambda passage: -passage.score)


def check_fusion(depth: int, constant: int) -> None:
    """Raises UserError for options that nothing can be fused with."""
    if not 1 <= depth <= MAX_K:
        raise UserError(f"depth: expected a number of passages from 1 to {MAX_K}, got {depth}")
    if constant < 0:
        raise UserError(f"constant: expected 0 or more, got {constant}")


async def _all(waits: Iterable[Awaitable[_T]]) -> list[_T]:
    """The results of all; the first failure cancels the others, which may have minutes of retries before them."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
