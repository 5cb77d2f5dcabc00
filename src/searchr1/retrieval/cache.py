"""A cache of searches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from searchr1.ports import Retriever, RetrieverInfo
from searchr1.types import Passage


class CachedRetriever:
    def __init__(self, inner: Retriever, path: Path, mode: str) -> None:
        raise NotImplementedError

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise NotImplementedError

    async def info(self) -> RetrieverInfo:
        raise NotImplementedError
