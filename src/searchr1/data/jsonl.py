"""JSON lines, plain or gzipped: read with the place of every error, written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from searchr1.errors import UserError


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object of a JSONL(.gz) file with its place ``FILE:LINE`` for error messages; blank lines are skipped.

    Raises UserError when the file is missing or not readable as UTF-8 (gzip for ``.gz``), and for a line that is not
    a JSON object.
    """
    path = require_file(path)
    number = 0
    try:
        with _open_for_reading(path) as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    place = f"{path}:{number}"
                    yield place, _parse(line, place)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: expected gzipped JSON lines, after line {number}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text, after line {number}: {error}") from error


def write_rows(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object a line; gzipped when the name ends in ``.gz``. Nothing appears if anything fails."""
    path = Path(path)
    with replacing(path) as raw, _open_for_writing(raw, path) as stream:
        for row in rows:
            stream.write(encode(row) + b"\n")


def encode(value: object, indent: int | None = None) -> bytes:
    """JSON as UTF-8, readable in every script. A lone surrogate, which UTF-8 cannot hold, stays a JSON escape.

    >>> encode({"title": "Zürich"}).decode()
    '{"title": "Zürich"}'
    """
    return json.dumps(value, ensure_ascii=False, indent=indent).encode(errors="backslashreplace")


@contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A binary file under a temporary name that takes the place of ``path`` when the block ends without an error."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def require_file(path: str | Path) -> Path:
    """``path`` if it is a file; UserError otherwise."""
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"{path}: expected a file, but it {what}; check the path")
    return path


def _open_for_reading(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def _open_for_writing(raw: IO[bytes], path: Path) -> AbstractContextManager[IO[bytes] | gzip.GzipFile]:
    if path.suffix == ".gz":  # the header carries no name and no time: equal rows make equal files
        return gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0)
    return nullcontext(raw)


def _parse(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: expected one JSON object a line: {error}") from error
    if not isinstance(row, dict):
        raise UserError(f"{place}: expected a JSON object, got {type(row).__name__}")
    return row
