"""The passages inside an index folder: fetched by number, never loaded as a whole.

``passages.jsonl`` holds one passage a line in normal form (so its SHA-256 is the corpus hash), ``passages.offsets``
where each line begins and the last one ends, as little-endian unsigned 64-bit numbers. Both are memory-mapped.

Lines are never changed in place. An update appends lines, and lists the rows that no longer count in ``deleted.rows``
(sorted, the same kind of numbers). What ``passages.jsonl`` holds beyond the last offset belongs to an update that goes
on or was killed, and is not read.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec
import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.retrieval.corpus import CorpusRow, encode_row
from searchr1.types import Passage

TEXT_FILE = "passages.jsonl"
OFFSETS_FILE = "passages.offsets"
DELETED_FILE = "deleted.rows"
_FLUSH_EVERY = 65_536
_Numbers = npt.NDArray[np.uint64]


class CorpusWriter:
    """Writes the two files row by row; ``passages`` and ``corpus_hash()`` are final when the block is left.

    Without a folder it only counts and hashes. With ``end`` it appends to files that are there, at that byte of the
    text; ``digest`` (``hashlib.sha256``) has then seen what the corpus begins with.
    """

    def __init__(self, folder: Path | None, *, end: int = 0, digest: Any = None) -> None:
        text, offsets = (Path(os.devnull) if folder is None else folder / name for name in (TEXT_FILE, OFFSETS_FILE))
        self._text = text.open("r+b" if end else "wb")
        self._offsets = offsets.open("ab" if end else "wb")
        if end:
            self._text.truncate(end)  # drops what a killed update left
            self._text.seek(end)
        self._pending = array("Q", [] if end else [0])
        self._end = end
        self._digest = digest or hashlib.sha256()
        self.passages = 0

    def add(self, passage: Passage) -> None:
        row = encode_row(passage)
        self._text.write(row)
        self._digest.update(row)
        self._end += len(row)
        self._pending.append(self._end)
        self.passages += 1
        if len(self._pending) >= _FLUSH_EVERY:
            self._flush()

    def corpus_hash(self) -> str:
        return str(self._digest.hexdigest())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            with self._text, self._offsets:
                self._flush()
            return
        for file in (self._text, self._offsets):
            with suppress(OSError):  # a full disk is told by the error that is under way
                file.close()

    def _flush(self) -> None:
        self._offsets.write(np.frombuffer(self._pending, dtype=np.uint64).astype("<u8").tobytes())
        self._pending = array("Q")


class CorpusStore:
    """Passages by place: ``passage(i)`` is the i-th of ``len(store)``, in the order of the corpus.

    An index that was updated has gaps: its ``row`` numbers (``stored(row)``, of ``rows``) count deleted passages too.
    Raises UserError when the files are missing or do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            self._offsets = _numbers(folder / OFFSETS_FILE)
            self._deleted = _numbers(folder / DELETED_FILE) if (folder / DELETED_FILE).exists() else _none()
            with (folder / TEXT_FILE).open("rb") as text:
                self._text = mmap.mmap(text.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: cannot open the passages of this index: {error}; build it again") from error
        self.rows = len(self._offsets) - 1
        """Rows that were ever stored, deleted ones included."""
        self.end = int(self._offsets[-1])
        """Bytes of text that belong to them."""
        if not 0 < self.end <= len(self._text) or self._text[self.end - 1 : self.end] != b"\n":
            raise UserError(
                f"{folder / TEXT_FILE}: expected at least {self.end} bytes of whole lines, got {len(self._text)}; "
                "build the index again"
            )
        if len(self._deleted) and (
            int(self._deleted[-1]) >= self.rows or (np.diff(self._deleted.view("<i8")) < 1).any()
        ):
            raise UserError(f"{folder / DELETED_FILE}: does not fit the passages; build the index again")
        # How many living rows come before each deleted one: places below it are found before it.
        self._living = self._deleted - np.arange(len(self._deleted), dtype=np.uint64)
        self._decoder = msgspec.json.Decoder(CorpusRow)

    def __len__(self) -> int:
        return self.rows - len(self._deleted)

    @property
    def deleted(self) -> npt.NDArray[np.uint64]:
        """The rows that no longer count, sorted."""
        return self._deleted

    def passage(self, place: int, score: float = 0.0) -> Passage:
        """The passage at ``place`` (0-based). Raises IndexError outside the corpus, also below zero."""
        if not 0 <= place < len(self):
            raise IndexError(f"row {place} of a corpus of {len(self)} passages")
        return self.stored(place + int(np.searchsorted(self._living, np.uint64(place), "right")), score)

    def stored(self, row: int, score: float = 0.0) -> Passage:
        """The passage in ``row``, which has to be one of ``rows``; fast. Raises UserError where it is damaged."""
        start, end = self._offsets[row : row + 2].tolist()
        try:
            stored = self._decoder.decode(self._text[start:end])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(
                f"{self._folder / TEXT_FILE}: row {row} is damaged: {error}; build the index again"
            ) from error
        return Passage(stored.id, stored.title, stored.text, score)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Row and stored line of every passage, in order; memory stays bounded."""
        deleted = iter([*self._deleted.tolist(), self.rows])
        gap = next(deleted)
        for first in range(0, self.rows, _FLUSH_EVERY):
            bounds = self._offsets[first : first + _FLUSH_EVERY + 1].tolist()
            for row, (start, end) in enumerate(pairwise(bounds), start=first):
                if row == gap:
                    gap = next(deleted)
                else:
                    yield row, self._text[start:end]

    def passages(self) -> Iterator[Passage]:
        """Every passage, in order; memory stays bounded."""
        for _, line in self.lines():
            stored = self._decoder.decode(line)
            yield Passage(stored.id, stored.title, stored.text)


def _numbers(path: Path) -> _Numbers:
    # A plain view: indexing a memmap itself costs several times as much.
    return np.asarray(np.memmap(path, dtype="<u8", mode="r"))


def _none() -> _Numbers:
    return np.empty(0, dtype=np.uint64)
