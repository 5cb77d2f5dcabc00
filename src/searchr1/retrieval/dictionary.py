"""The retriever for tests and examples: a dictionary of what each query finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from searchr1.ports import RetrieverInfo
from searchr1.retrieval.queries import check_k
from searchr1.types import Passage


class DictionaryRetriever:
    """Finds exactly what it was told, in that order; an unknown query finds ``default``.

    ``calls`` records every search as ``(queries, k)``:

    >>> import asyncio
    >>> retriever = DictionaryRetriever({"who wrote dune": [Passage("1", "Dune", "By Frank Herbert.")]})
    >>> [[p.title for p in found] for found in asyncio.run(retriever.search(["who wrote dune", "?"], 3))]
    [['Dune'], []]
    >>> retriever.calls
    [(('who wrote dune', '?'), 3)]
    """

    def __init__(self, passages: Mapping[str, Sequence[Passage]], default: Sequence[Passage] = ()) -> None:
        self._passages = {query: tuple(found) for query, found in passages.items()}
        self._default = tuple(default)
        self.calls: list[tuple[tuple[str, ...], int]] = []

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        check_k(k)
        self.calls.append((tuple(queries), k))
        return [list(self._passages.get(query, self._default)[:k]) for query in queries]

    async def info(self) -> RetrieverInfo:
        distinct = {passage.id for found in (*self._passages.values(), self._default) for passage in found}
        return RetrieverInfo("dictionary", len(distinct), "")
