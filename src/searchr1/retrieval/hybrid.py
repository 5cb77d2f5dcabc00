"""Two indexes of one corpus in one folder, fused by rank: words (BM25) and meaning (dense vectors).

Both parts keep their files in the folder of the whole, under their own names, and share its passages.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.fusion import FusionRetriever, check_fusion
from searchr1.retrieval.index import Backend, Estimate, Plan, load_backend
from searchr1.types import Passage


@dataclass(frozen=True, slots=True)
class Hybrid:
    """The ``hybrid`` backend and its options.

    >>> Hybrid(first_options={"title_weight": 0.2}).second
    'dense'
    """

    remote: ClassVar[bool] = False
    first: str = "bm25"
    second: str = "dense"
    """Two different kinds of index; equal scores keep the order of the first."""
    first_options: dict[str, Any] = field(default_factory=dict)
    second_options: dict[str, Any] = field(default_factory=dict)
    depth: int = 50
    """Passages that each part is asked for; never fewer than are wanted of the whole."""
    constant: int = 60
    """Of reciprocal rank fusion: see `searchr1.retrieval.fusion.fuse`."""

    def __post_init__(self) -> None:
        if self.first == self.second or "hybrid" in (self.first, self.second):
            raise UserError(
                f"first, second: expected two different kinds of index, as bm25 and dense, got {self.first} and "
                f"{self.second}"
            )
        check_fusion(self.depth, self.constant)

    def plan(self, corpus: Estimate) -> Plan:
        """The parts are built one after the other, and the passages are stored once."""
        backends = [backend for _, backend in self._parts()]
        plans = [backend.plan(corpus) for backend in backends]
        stores = sum(not backend.remote for backend in backends)  # each local part plans for passages of its own
        return Plan(
            memory_bytes=max(plan.memory_bytes for plan in plans),
            disk_bytes=sum(plan.disk_bytes for plan in plans) + (1 - stores) * corpus.text_bytes,
            choices=tuple(row for plan in plans for row in plan.choices),
        )

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Read the stream once for each part."""
        for _, backend in self._parts():
            backend.build(folder, passages)

    def open(self, folder: Path, info: RetrieverInfo) -> Retriever:
        """Raises UserError when one of the two is damaged."""
        opened = [backend.open(folder, replace(info, kind=kind)) for kind, backend in self._parts()]
        return FusionRetriever(opened, self.depth, self.constant, kind=info.kind)

    def _parts(self) -> list[tuple[str, Backend]]:
        """Both are loaded before either is used: a wrong option of the second must not cost the first's build."""
        return [
            (self.first, load_backend(self.first, self.first_options)),
            (self.second, load_backend(self.second, self.second_options)),
        ]
