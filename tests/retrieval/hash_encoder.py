"""An encoder for tests: no model, exact and the same everywhere."""

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from searchr1.types import Passage


class HashEncoder:
    """Words thrown into places by their hash: texts that share words are near, and no text is far from all."""

    dimension = 64
    fingerprint = "hash-64"

    def encode_queries(self, queries: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = np.full((len(queries), self.dimension), 1e-3, dtype=np.float32)
        for row, query in enumerate(queries):
            plain = "".join(c for c in unicodedata.normalize("NFKD", query.lower()) if not unicodedata.combining(c))
            for word in set(re.findall(r"\w{4,}", plain)):
                vectors[row, hashlib.sha256(word.encode()).digest()[0] % self.dimension] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, passages: Sequence[Passage]) -> npt.NDArray[np.float32]:
        return self.encode_queries([f"{passage.title} {passage.text}" for passage in passages])
