"""The passages inside an index folder: fetched by row number, never loaded as a whole.

``passages.jsonl`` holds one passage a line in normal form (so its SHA-256 is the corpus hash), ``passages.offsets``
where each line begins and the last one ends, as little-endian unsigned 64-bit numbers. Both are memory-mapped.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.retrieval.corpus import CorpusRow, encode_row
from searchr1.types import Passage

TEXT_FILE = "passages.jsonl"
OFFSETS_FILE = "passages.offsets"
_FLUSH_EVERY = 65_536


class CorpusWriter:
    """Writes the two files row by row; ``passages`` and ``corpus_hash()`` are final when the block is left.

    Without a folder it only counts and hashes.
    """

    def __init__(self, folder: Path | None) -> None:
        nowhere = Path(os.devnull)
        self._text = (nowhere if folder is None else folder / TEXT_FILE).open("wb")
        self._offsets = (nowhere if folder is None else folder / OFFSETS_FILE).open("wb")
        self._pending = array("Q", [0])
        self._end = 0
        self._digest = hashlib.sha256()
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
        return self._digest.hexdigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._text, self._offsets:
            self._flush()

    def _flush(self) -> None:
        self._offsets.write(np.frombuffer(self._pending, dtype=np.uint64).astype("<u8").tobytes())
        self._pending = array("Q")


class CorpusStore:
    """Passages by row number. Raises UserError when the files are missing or do not fit together."""

    def __init__(self, folder: Path) -> None:
        try:
            self._offsets: npt.NDArray[np.uint64] = np.memmap(folder / OFFSETS_FILE, dtype="<u8", mode="r")
            with (folder / TEXT_FILE).open("rb") as text:
                self._text = mmap.mmap(text.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise UserError(f"{folder}: cannot open the passages of this index: {error}; build it again") from error
        if int(self._offsets[-1]) != len(self._text):
            raise UserError(
                f"{folder / TEXT_FILE}: expected {int(self._offsets[-1])} bytes, got {len(self._text)}; "
                "build the index again"
            )
        self._decoder = msgspec.json.Decoder(CorpusRow)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def passage(self, row: int, score: float = 0.0) -> Passage:
        """The passage in ``row`` (0-based). Raises IndexError outside the corpus, also below zero."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of a corpus of {len(self)} passages")
        stored = self._decoder.decode(self._text[int(self._offsets[row]) : int(self._offsets[row + 1])])
        return Passage(stored.id, stored.title, stored.text, score)
