"""Passages drawn by lot: the search engine that knows nothing, for studies of what searching is worth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.index import open_store, read_manifest
from searchr1.retrieval.queries import check_k, clean
from searchr1.retrieval.store import TEXT_FILE, CorpusStore
from searchr1.seeds import derive_seed
from searchr1.types import Passage


@dataclass(frozen=True, slots=True)
class Random:
    """The ``random`` search engine: ``random:index=wiki.bm25,seed=1``."""

    index: str
    """An index folder, of which only the passages are used."""
    seed: int = 0

    def open(self) -> Retriever:
        return RandomRetriever(*open_passages(self.index, "random"), self.seed)


class RandomRetriever:
    """Draws ``k`` different passages for each query, all equally likely and all with score 0.

    What is drawn follows from the seed and the query alone, and the first of many are those of few:

        search(["Dune"], 5)[0][:3] == search(["Dune"], 3)[0]
    """

    def __init__(self, store: CorpusStore, info: RetrieverInfo, seed: int = 0) -> None:
        self._store = store
        self._info = info
        self._seed = seed

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """``k`` (1 to 1000, else UserError) passages for each query, or the whole corpus where it is smaller."""
        check_k(k)
        return await asyncio.to_thread(lambda: [list(map(self._store.passage, self._rows(q, k))) for q in queries])

    async def info(self) -> RetrieverInfo:
        return self._info

    def _rows(self, query: str, k: int) -> list[int]:
        draw = random.Random(derive_seed("random passages", self._seed, clean(query)))
        rows: dict[int, None] = {}
        while len(rows) < min(k, len(self._store)):
            rows.setdefault(draw.randrange(len(self._store)))
        return list(rows)


def open_passages(index: str, kind: str) -> tuple[CorpusStore, RetrieverInfo]:
    """The passages of an index folder of any local kind, without its search engine, and what ``kind`` is to say of it.

    Raises UserError.
    """
    folder = Path(index)
    manifest = read_manifest(folder)
    if not (folder / TEXT_FILE).is_file():
        raise UserError(f"{folder}: expected an index that keeps its passages; a {manifest.kind} index holds none")
    info = RetrieverInfo(kind, manifest.passages, manifest.corpus_hash)
    return open_store(folder, info), info
