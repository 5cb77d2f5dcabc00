"""How the files of a run folder are written and read: versioned JSON lines, atomic replacement.

A file of JSON lines starts with ``{"format": ..., "version": ...}``; every following line is an object with a ``step``.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from searchr1.errors import UserError

VERSION = 1
"""Version of every file format of a run; raise it when an old reader would misunderstand a new file."""

Row = dict[str, Any]


def encode_line(row: Mapping[str, Any]) -> bytes:
    """One JSON line. Raises ``ValueError`` for NaN or infinity."""
    # ASCII: a lone surrogate or U+2028 in a model's text can neither fail to encode nor end the line early
    return json.dumps(row, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"


def encode_header(kind: str) -> bytes:
    return encode_line({"format": kind, "version": VERSION})


def finite(row: Mapping[str, Any]) -> Row:
    """JSON has no NaN and no infinity: null takes their place.

    >>> finite({"step": 1, "train/kl": float("nan")})
    {'step': 1, 'train/kl': None}
    """
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def complete_lines(path: Path) -> list[bytes]:
    """The lines that end in a newline: what follows the last one was torn by a kill, or is being written now."""
    return path.read_bytes().split(b"\n")[:-1]


def unpacked(packed: Iterable[bytes], path: Path) -> Iterator[bytes]:
    """The lines of an open gzip file. Raises ``UserError`` at the line where the file is damaged or cut short."""
    number = 0
    try:
        for line in packed:
            number += 1
            yield line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError(
            f"{path}, line {number + 1}: damaged gzip data ({error}); restore or delete the file"
        ) from error


def parse_rows(lines: Iterable[bytes], path: Path, kind: str) -> Iterator[Row]:
    """Parse a file of ``kind``: check its header, then yield its rows."""
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        row = parse_object(line, where)
        if number == 1:
            check_format(row, kind, where)
        elif type(row.get("step")) is int:
            yield row
        else:
            raise UserError(f"{where}: expected a row with a whole number 'step', got {row.get('step')!r}")


def parse_object(text: bytes, where: str) -> Row:
    try:
        value = json.loads(text)
    except ValueError as error:  # JSONDecodeError and UnicodeDecodeError
        raise UserError(f"{where}: not valid JSON ({error}); restore the file or remove the line") from error
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def check_format(header: Row, kind: str, where: str) -> None:
    """Raises ``UserError`` where ``header`` does not announce a version of ``kind`` that this code can read."""
    if header.get("format") != kind:
        raise UserError(f"{where}: expected the format {kind!r}, got {header.get('format')!r}; is it another file?")
    version = header.get("version")
    if type(version) is not int or version < 1:
        raise UserError(f"{where}: expected a format version, got {version!r}")
    if version > VERSION:
        raise UserError(
            f"{where}: format version {version} is newer than {VERSION}, the newest known; upgrade searchr1"
        )


def keep_rows(path: Path, kind: str, wanted: Callable[[Row], bool]) -> None:
    """Drop the rows that are not ``wanted``, and a torn last line; the kept bytes stay as they were written.

    A file that would keep no row is removed.
    """
    lines = complete_lines(path)
    rows = list(parse_rows(lines, path, kind))
    kept = [line for line, row in zip(lines[1:], rows, strict=True) if wanted(row)] if lines else []
    if kept:
        with replacing(path) as file:
            file.write(b"".join(line + b"\n" for line in [lines[0], *kept]))
    else:
        path.unlink()


def add_rows(path: Path, kind: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add ``rows``: after a kill, all of them are there or none."""
    lines = complete_lines(path) if path.is_file() else []
    with replacing(path) as file:
        file.write(b"".join(line + b"\n" for line in lines) or encode_header(kind))
        file.write(b"".join(map(encode_line, rows)))


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` at the end, on disk as a whole, or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    with temporary.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
