"""A published corpus file becomes JSON lines: unpacked from gzip, and from a tar archive in it."""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import IO

from searchr1.data.jsonl import replacing
from searchr1.data.sets.rows import open_bytes
from searchr1.errors import UserError

Progress = Callable[[int, int | None], None]
_TAR_MAGIC = slice(257, 262)
_PROGRESS_EVERY = 50_000
_CHUNK = 1 << 20


def unpack_corpus(
    source: Path, out: Path, *, limit: int | None = None, total: int | None = None, progress: Progress | None = None
) -> int:
    """Write the (first ``limit``) passages of ``source`` to ``out``, line by line as they are; how many there were.

    ``source`` is JSON lines, plain, gzipped, or alone in a gzipped tar archive, as ``wiki-18.jsonl.gz`` is. ``out`` is
    gzipped when its name ends in ``.gz``; it appears whole or not at all. ``progress`` counts passages of ``total``.
    Raises UserError.
    """
    count = 0
    try:
        with replacing(out) as raw, _packed(raw, out) as stream, _lines(source, whole=limit is None) as lines:
            for line in lines:
                if not line.strip():
                    continue
                if not count:
                    _check(line, source)
                stream.write(line if line.endswith(b"\n") else line + b"\n")
                count += 1
                if progress is not None and count % _PROGRESS_EVERY == 0:
                    progress(count, limit or total)
                if count == limit:
                    break
            if not count:
                raise UserError(f"{source}: expected at least one passage, the corpus is empty")
    except (gzip.BadGzipFile, EOFError, zlib.error, tarfile.TarError) as error:
        raise UserError(f"{source}: broken after passage {count:,}: {error}; download it again") from error
    if progress is not None:
        progress(count, count)
    return count


@contextmanager
def _lines(source: Path, whole: bool) -> Iterator[IO[bytes]]:
    """The lines of the corpus; ``whole`` reads what follows them, too, for the check sum of gzip is at the very end."""
    with open_bytes(source) as file:
        packed = file.read(512)[_TAR_MAGIC] == b"ustar"
    with open_bytes(source) as file:
        if not packed:
            yield file
            return
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                inside = archive.extractfile(member) if member.name.endswith(".jsonl") else None
                if inside is not None:
                    yield inside
                    while whole and file.read(_CHUNK):
                        pass
                    return
        raise UserError(f"{source}: expected a JSONL file in this archive, found none")


def _packed(raw: IO[bytes], out: Path) -> AbstractContextManager[IO[bytes] | gzip.GzipFile]:
    if out.suffix == ".gz":
        return gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0)
    return nullcontext(raw)


def _check(line: bytes, source: Path) -> None:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(f"{source}: expected passages in JSON lines: {error}") from error
    if not isinstance(row, dict) or "id" not in row or not ("contents" in row or {"title", "text"} <= set(row)):
        raise UserError(f'{source}: expected objects with "id" and "contents", got {line!r:.200}')
