"""An encoder for tests: every word has a vector of its own; a text is the sum of its words'."""

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from searchr1.types import Passage


class FakeEncoder:
    def __init__(self, fingerprint: str = "fake", dimension: int = 32) -> None:
        self.fingerprint, self.dimension = fingerprint, dimension
        self.encoded: list[int] = []
        """Passages in each call of `encode_passages`."""

    def encode_queries(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.stack([self._vector(query) for query in queries]) if queries else np.empty((0, self.dimension))
        return vectors.astype(np.float32)

    def encode_passages(self, passages: Sequence[Passage]) -> npt.NDArray[np.float32]:
        self.encoded.append(len(passages))
        return self.encode_queries([f"{passage.title}\n{passage.text}" for passage in passages])

    def load(self, name: str, **options: Any) -> "FakeEncoder":
        """In the place of ``load_encoder``."""
        return self

    def _vector(self, text: str) -> npt.NDArray[np.float64]:
        words = re.findall(r"\w+", text.lower()) or ["nothing"]
        seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "little") for word in words]
        total: npt.NDArray[np.float64] = sum(np.random.default_rng(s).standard_normal(self.dimension) for s in seeds)
        return total / np.linalg.norm(total)
