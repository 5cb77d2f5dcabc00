"""The vectors of a corpus on disk: blocks of half-precision rows, each named after what it was computed from.

A block is written to a temporary name and renamed, so it is whole or not there: embedding goes on where a killed build
stopped, and an index that is built again, in another layout or with passages added at the end, encodes only what is
new. Half precision changes no similarity by more than about 1e-3.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from searchr1.types import Passage

Floats = npt.NDArray[np.float32]
BLOCK_PASSAGES = 1024
_SCORE_DIGITS = 5
_SUFFIX, _PART = ".vectors.npy", ".vectors.part"


class PassageEncoder(Protocol):
    """What `embed` needs of an encoder."""

    fingerprint: str
    dimension: int

    def encode_passages(self, passages: Sequence[Passage]) -> Floats: ...


@dataclass(frozen=True, slots=True)
class Vectors:
    """All vectors of a corpus, in its order, read from disk block by block."""

    blocks: tuple[Path, ...]
    rows: int
    dimension: int

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[Floats]:
        """The blocks, ``[passages, dimension]`` each; one is in memory at a time."""
        for path in self.blocks:
            yield np.load(path).astype(np.float32)

    def sample(self, count: int, seed: int = 0) -> Floats:
        """``count`` rows (or all, if fewer) drawn without replacement, in the order of the corpus."""
        chosen = np.arange(self.rows)
        if count < self.rows:
            chosen = np.sort(np.random.default_rng(seed).choice(self.rows, count, replace=False))
        found = np.empty((len(chosen), self.dimension), dtype=np.float32)
        begin = filled = 0
        for path in self.blocks:
            block = np.load(path, mmap_mode="r")
            rows = chosen[filled : np.searchsorted(chosen, begin + len(block))] - begin
            found[filled : filled + len(rows)] = block[rows]
            begin, filled = begin + len(block), filled + len(rows)
        return found

    def nearest(self, queries: Floats, k: int) -> npt.NDArray[np.int64]:
        """The rows of the ``k`` greatest inner products, exactly: ``[queries, min(k, rows)]``, best first."""
        scores = np.empty((len(queries), 0), dtype=np.float32)
        rows = np.empty((len(queries), 0), dtype=np.int64)
        begin = 0
        for block in self:
            # Rounded: the last bits of a product differ with the size of the block that it is computed in.
            scores = np.hstack([scores, np.round(queries @ block.T, _SCORE_DIGITS)])
            rows = np.hstack([rows, np.broadcast_to(np.arange(begin, begin + len(block)), (len(queries), len(block)))])
            best = np.argsort(-scores, axis=1, kind="stable")[:, :k]  # stable: ties keep the order of the rows
            scores, rows = np.take_along_axis(scores, best, axis=1), np.take_along_axis(rows, best, axis=1)
            begin += len(block)
        return rows

    def remove(self) -> None:
        for path in set(self.blocks):
            path.unlink()


def embed(folder: Path, passages: Iterable[Passage], encoder: PassageEncoder) -> Vectors:
    """The vectors of ``passages``: those that ``folder`` holds are taken, the others computed and kept there."""
    folder.mkdir(exist_ok=True)
    for leftover in folder.glob(f"*{_PART}"):
        leftover.unlink()
    blocks: list[Path] = []
    rows = 0
    stream = iter(passages)
    while block := list(islice(stream, BLOCK_PASSAGES)):
        path = folder / (_name(encoder.fingerprint, block) + _SUFFIX)
        if not _is_whole(path, len(block), encoder.dimension):
            _write(path, encoder.encode_passages(block))
        blocks.append(path)
        rows += len(block)
    return Vectors(tuple(blocks), rows, encoder.dimension)


def remove_others(folder: Path, kept: Vectors) -> None:
    """Drop the blocks of other corpora and encoders."""
    for path in set(folder.glob(f"*{_SUFFIX}")) - set(kept.blocks):
        path.unlink()


def _name(fingerprint: str, block: Sequence[Passage]) -> str:
    read = [(passage.title, passage.text) for passage in block]
    return hashlib.sha256(fingerprint.encode() + msgspec.json.encode(read)).hexdigest()


def _is_whole(path: Path, rows: int, dimension: int) -> bool:
    try:
        block = np.load(path, mmap_mode="r")
    except FileNotFoundError:
        return False
    except (ValueError, EOFError, OSError):  # cut off, as by a loss of power
        return False
    return bool(block.shape == (rows, dimension) and block.dtype == np.float16)


def _write(path: Path, vectors: Floats) -> None:
    part = path.with_suffix(_PART.removeprefix(".vectors"))
    with part.open("wb") as file:
        np.save(file, vectors.astype(np.float16))
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
