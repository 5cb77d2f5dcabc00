"""The file of kept trajectories: written in blocks that a kill cannot break, read with the place of every error.

    kept.jsonl.gz            appears when all is sampled: a line that says how, then one trajectory a line
    kept.jsonl.gz.part       the same while it grows: one gzip member a block
    kept.jsonl.gz.progress   how far it is: questions, bytes, counts

The format is that of a run's ``trajectories/step-N.jsonl.gz``, so those can be learned from, too.
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from searchr1.changes import refuse_changes
from searchr1.data.jsonl import require_file
from searchr1.errors import UserError
from searchr1.run import TRAJECTORIES
from searchr1.run_files import (
    VERSION,
    Row,
    check_format,
    encode_header,
    encode_line,
    parse_object,
    replacing,
    unpacked,
)

PROGRESS = "searchr1-sampling"


class KeptFile:
    """``begin`` or ``resume`` it, ``append`` blocks of rows, ``finish``; one process at a time.

    ``done`` counts the questions whose rows are in it, and ``counts`` is what the writer wants to be told again.
    """

    def __init__(self, path: Path, order: Mapping[str, Any], stream: IO[bytes], saved: Row) -> None:
        self.path = path
        self.order = order
        self.done: int = saved["done"]
        self.counts: dict[str, int] = saved["counts"]
        self._stream = stream
        stream.truncate(saved["bytes"])
        stream.seek(saved["bytes"])
        if not saved["bytes"]:
            header = {"format": TRAJECTORIES, "version": VERSION, "sampling": order}
            self._write([header])
            self._save()

    @classmethod
    def begin(cls, path: Path, order: Mapping[str, Any]) -> KeptFile:
        """A new file. ``order`` (plain JSON) says how its rows are made. Raises ``UserError`` where there is one."""
        if path.exists():
            raise UserError(f"{path}: expected a new file, it is there already; use another --out")
        if _part(path).exists():
            raise UserError(f"{path}: an unfinished one is there; --resume goes on with it, or remove {_part(path)}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls(path, order, _locked(_part(path)), _nothing())

    @classmethod
    def resume(cls, path: Path, order: Mapping[str, Any]) -> KeptFile | None:
        """Go on with an unfinished file after its last whole block; None when it is finished.

        Raises ``UserError`` where there is none, and where it was begun with another ``order``.
        """
        if path.exists():
            refuse_changes(path, read_header(path).get("sampling", {}), order, frozenset())
            return None
        if not _part(path).exists():
            raise UserError(f"{path}: expected a file that was begun before, found none; start without --resume")
        stream = _locked(_part(path))
        try:
            saved = _read_progress(path)
            if saved["bytes"]:
                refuse_changes(path, saved["order"], order, frozenset())
            if os.fstat(stream.fileno()).st_size < saved["bytes"]:
                raise UserError(f"{_part(path)} is shorter than it was written; remove it and start again")
        except BaseException:  # whatever it was: the file must not stay locked
            stream.close()
            raise
        return cls(path, order, stream, saved)

    def append(self, rows: Sequence[Mapping[str, Any]], *, done: int, counts: Mapping[str, int]) -> None:
        """Add the rows of a block, on disk when this returns; ``done`` questions are in the file now."""
        if rows:
            self._write(rows)
        self.done, self.counts = done, dict(counts)
        self._save()

    def finish(self) -> None:
        """Give the file its name."""
        os.replace(_part(self.path), self.path)
        _progress(self.path).unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        block = b"".join(map(encode_line, rows))
        packed = self.path.suffix == ".gz"  # without the time: equal rows make equal bytes
        self._stream.write(gzip.compress(block, 6, mtime=0) if packed else block)
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def _save(self) -> None:
        saved = {"order": self.order, "done": self.done, "bytes": self._stream.tell(), "counts": self.counts}
        with replacing(_progress(self.path)) as file:
            file.write(encode_header(PROGRESS) + encode_line(saved))


def read_kept(path: str | Path) -> Iterator[tuple[str, Row]]:
    """Every trajectory row of a file with its place ``FILE, line N``, whatever made the file.

    Raises ``UserError`` for a missing, unfinished, damaged or foreign file.
    """
    path = Path(path)
    if not path.exists() and _part(path).exists():
        raise UserError(f"{path} is not finished: searchr1 sample ... --resume goes on with it")
    for number, line in enumerate(_lines(require_file(path)), start=1):
        where = f"{path}, line {number}"
        row = parse_object(line, where)
        if number == 1:
            check_format(row, TRAJECTORIES, where)
        else:
            yield where, row


def read_header(path: Path) -> Row:
    """The first line of a file: its format and, where `KeptFile` wrote it, ``sampling``: how its rows were made."""
    lines = _lines(require_file(path))
    header = parse_object(next(lines, b""), f"{path}, line 1")
    check_format(header, TRAJECTORIES, f"{path}, line 1")
    return header


def _lines(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
        yield from unpacked(stream, path)


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _progress(path: Path) -> Path:
    return path.with_name(path.name + ".progress")


def _nothing() -> Row:
    return {"order": {}, "done": 0, "bytes": 0, "counts": {}}


def _read_progress(path: Path) -> Row:
    """What `KeptFile` saved last; nothing when it was killed before it saved at all."""
    saved = _progress(path)
    if not saved.is_file():
        return _nothing()
    header, line = saved.read_bytes().splitlines()
    check_format(json.loads(header), PROGRESS, str(saved))
    row: Row = json.loads(line)
    return row


def _locked(part: Path) -> IO[bytes]:
    stream = part.open("ab")  # not "wb": what is there may be another process's
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        stream.close()
        raise UserError(f"{part}: another process is writing it; wait for its end or use another --out") from None
    return stream
