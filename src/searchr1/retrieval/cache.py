"""A cache of searches: what a run has found is kept, and found again without the search engine.

A file belongs to one engine. Which one it is (its options as the user wrote them, and what ``info()`` says) is kept
with the results, so a run that replays them needs no network from its first call on, and a run over another engine is
refused. What neither tells apart, such as two servers that search the same corpus in different ways, needs two files.

    record   every query is searched, and what it finds is kept, in place of what was kept before
    replay   only what is not kept is searched, and kept; whatever is asked twice finds the same
    strict   nothing is searched

Failures are never kept; a query that finds nothing is.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from searchr1.errors import SearchBudgetSpent, UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.batching import deduplicate, search_distinct
from searchr1.retrieval.cache_file import CacheFile, Engine
from searchr1.retrieval.counting import ASKED, counts_of, one_query_a_request, per_question
from searchr1.retrieval.queries import check_k, clean
from searchr1.types import Passage

_T = TypeVar("_T")


class CachedRetriever:
    """``inner`` behind the cache file ``path``; ``mode`` is ``record``, ``replay`` or ``strict``.

    ``options`` describes ``inner``: whatever changes what it finds and is not told by its ``info()``. Queries of one
    call that are not kept go to ``inner`` in one call. Where ``inner`` is ``per_question``, a result is kept for the
    question that was asked. Any number of threads, event loops and processes may use one file at a time.

    Raises UserError when the file is none of ours, broken, of another version or of another engine; in mode
    ``strict`` also when there is none.
    """

    def __init__(self, inner: Retriever, path: Path, mode: str, options: str = "") -> None:
        self.per_question = per_question(inner)
        self.one_query_a_request = one_query_a_request(inner)
        self._inner = inner
        self._path = path
        self._mode = mode
        self._options = options
        self._file = CacheFile(path, create=mode != "strict")
        kept = self._file.engine()
        if kept is not None:
            self._check_options(kept)
        elif mode == "strict":
            raise UserError(f"{path}: nothing is recorded here; run once with search.cache = record")
        self._engine = None if mode == "record" else kept
        self._checked = False  # whether inner was asked what it is
        self._hits = self._misses = 0
        self._saved = 0.0
        self._paid = counts_of([inner]).get("cost", 0.0)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="search-cache")
        weakref.finalize(self, _close, self._worker, self._file)

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query.

        Raises SearchUnavailable, in mode ``strict`` for every query that is not kept: the search that is missing will
        not come by waiting, so this is a SearchBudgetSpent.
        """
        check_k(k)
        distinct, positions = deduplicate([clean(query) for query in queries])
        if not distinct:
            return []
        asked = ASKED.get() if self.per_question else None
        about = f"{asked.dataset}/{asked.id}" if asked else ""
        kept = {} if self._mode == "record" else await self._do(lambda: self._file.read(distinct, k, about))
        missing = [query for query in distinct if query not in kept]
        if missing and self._mode == "strict":
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise SearchBudgetSpent(
                f"{self._path}: not recorded, for {k} passages: {missing[0]!r}{more}; search.cache = replay searches "
                "and records what is missing"
            )
        self._hits += len(distinct) - len(missing)
        self._saved += sum(cost for _, cost in kept.values())
        found = {query: passages for query, (passages, _) in kept.items()}
        if missing:
            self._misses += len(missing)
            found.update(await self._ask(missing, k, about))
        return [list(found[distinct[position]]) for position in positions]

    async def info(self) -> RetrieverInfo:
        """What ``inner`` searches in; what was recorded of it, where results may be."""
        return (await self._known()).info

    def counts(self) -> dict[str, float]:
        """Those of ``inner``, queries that the file answered and did not, and the money that their search had cost."""
        own = {"cache_hits": self._hits, "cache_misses": self._misses, "saved": self._saved}
        return counts_of([self._inner]) | own

    async def _ask(self, queries: Sequence[str], k: int, about: str) -> dict[str, list[Passage]]:
        await self._known(check=True)
        try:
            found = dict(zip(queries, await search_distinct(self._inner, queries, k), strict=True))
        finally:
            # Of searches side by side it is not known which one paid; what is recorded adds up to what was paid.
            paid = counts_of([self._inner]).get("cost", 0.0)
            cost, self._paid = (paid - self._paid) / len(queries), paid
        await self._do(lambda: self._file.write(found, k, about, cost))
        return found

    async def _known(self, check: bool = False) -> Engine:
        """What the file was recorded from. ``check`` asks ``inner`` as well, once, and refuses another one."""
        if self._engine is None or (check and not self._checked):
            engine = Engine(self._options, await self._inner.info())
            kept = await self._do(lambda: self._file.claim(engine))
            if kept.info != engine.info:
                raise UserError(
                    f"{self._path}: recorded from {_shown(kept.info)}, but this engine is {_shown(engine.info)}; "
                    "choose another search.cache_file"
                )
            self._check_options(kept)
            self._engine, self._checked = engine, True
        return self._engine

    def _check_options(self, kept: Engine) -> None:
        if kept.options != self._options:
            raise UserError(
                f"{self._path}: recorded from another search engine: expected {self._options or 'no options'}, got "
                f"{kept.options or 'no options'}; choose another search.cache_file"
            )

    async def _do(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, work)


def _close(worker: ThreadPoolExecutor, file: CacheFile) -> None:
    worker.shutdown(wait=False)  # it is idle: its work would hold on to the retriever
    file.close()


def _shown(info: RetrieverInfo) -> str:
    return f"{info.kind} over {info.passages:,} passages" + (f" ({info.corpus_hash[:12]})" if info.corpus_hash else "")
