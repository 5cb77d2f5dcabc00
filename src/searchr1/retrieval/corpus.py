"""Corpus files: JSON lines, plain or gzipped, in our schema or in Search-R1's, read as a stream.

    {"id": "7", "title": "Dune", "text": "A novel."}
    {"id": "7", "contents": "\\"Dune\\"\\nA novel."}

Both lines are the same passage. Memory stays bounded: eight bytes a passage, to find ids that occur twice.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from array import array
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, TypeAlias, cast

import msgspec
import numpy as np

from searchr1.errors import UserError
from searchr1.types import Passage

Progress: TypeAlias = Callable[[int, int | None], None]
"""Called with the number done so far and the (estimated) total, None where it is unknown."""

_PROGRESS_EVERY = 1_000
_FIRST_DUPLICATE_CHECK = 65_536
_GZIP_MAGIC = b"\x1f\x8b"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class CorpusRow(msgspec.Struct, gc=False):
    """One stored row; its JSON is the normal form that a corpus is hashed in."""

    id: str
    title: str
    text: str


class _Line(msgspec.Struct, gc=False):
    id: str | int
    title: str | None = None
    text: str | None = None
    contents: str | None = None


_line_decoder = msgspec.json.Decoder(_Line)
_row_encoder = msgspec.json.Encoder()


def split_contents(contents: str) -> tuple[str, str]:
    """Title and text of Search-R1's ``contents``: the first line, unquoted, and the rest.

    One line without quotes is a text without a title:

    >>> split_contents('"Dune"\\nA novel.')
    ('Dune', 'A novel.')
    >>> split_contents("A novel.")
    ('', 'A novel.')
    """
    first, newline, rest = contents.partition("\n")
    if len(first) >= 2 and first[0] == first[-1] == '"':
        return first[1:-1], rest
    return (first, rest) if newline else ("", contents)


def encode_row(passage: Passage) -> bytes:
    """The passage in normal form, newline included.

    >>> encode_row(Passage("7", "Dune", "A novel."))
    b'{"id":"7","title":"Dune","text":"A novel."}\\n'
    """
    return _row_encoder.encode(CorpusRow(passage.id, passage.title, passage.text)) + b"\n"


def corpus_hash(path: str | Path) -> str:
    """SHA-256 (hex) over the rows in normal form: the same for both schemas, gzipped or not. Errors: `read_corpus`."""
    digest = hashlib.sha256()
    for passage in read_corpus(path):
        digest.update(encode_row(passage))
    return digest.hexdigest()


def read_corpus(path: str | Path, progress: Progress | None = None) -> Iterator[Passage]:
    """Every passage of the file, in order.

    ``progress`` counts passages; its total is estimated from the share of the file's bytes that was read and exact in
    the last call. Raises UserError, naming file and line, for a file that is missing, unreadable or empty, a blank
    line before the last row, a line that is not such an object, and an id used twice (found when the number of
    passages reads 65,536, doubles, or ends).
    """
    path = Path(path)
    hashes = array("q")
    next_check = _FIRST_DUPLICATE_CHECK
    for number, line, share_read in _lines(path):
        passage = _passage(line, path, number)
        hashes.append(hash(passage.id))
        if len(hashes) == next_check:
            _check_unique(path, hashes)
            next_check *= 2
        if progress is not None and len(hashes) % _PROGRESS_EVERY == 0:
            progress(len(hashes), max(len(hashes), round(len(hashes) / share_read)) if share_read else None)
        yield passage
    if not hashes:
        raise UserError(f"{path}: expected at least one passage, the corpus is empty")
    _check_unique(path, hashes)
    if progress is not None:
        progress(len(hashes), len(hashes))


def _lines(path: Path) -> Iterator[tuple[int, bytes, float]]:
    """Line number, line and the share of the file's bytes that was read, up to the last line that is not blank."""
    number = 0
    blank: int | None = None
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            for number, line in enumerate(_decompressed(raw), start=1):
                if not line.strip():
                    blank = blank or number
                    continue
                if blank is not None:
                    raise UserError(f"{path}:{blank}: expected a passage, the line is blank; remove it")
                yield number, line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line, raw.tell() / size
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip data after line {number}: {error}; copy or download it again") from error
    except OSError as error:
        raise UserError(f"{path}: expected a corpus in JSON lines: {error.strerror or error}") from error


def _decompressed(raw: IO[bytes]) -> IO[bytes]:
    magic = raw.read(len(_GZIP_MAGIC))
    raw.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=raw)) if magic == _GZIP_MAGIC else raw


def _passage(line: bytes, path: Path, number: int) -> Passage:
    try:
        row = _line_decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(
            f'{path}:{number}: expected one object with "id", "title" and "text", or "id" and "contents": {error}'
        ) from error
    if row.title is not None and row.text is not None:
        title, text = row.title, row.text
    elif row.contents is not None:
        title, text = split_contents(row.contents)
    else:
        missing = " and ".join(f'"{key}"' for key in ("title", "text") if getattr(row, key) is None)
        raise UserError(f'{path}:{number}: missing {missing}; expected "id", "title", "text", or "id", "contents"')
    if row.id == "":
        raise UserError(f'{path}:{number}: expected an "id", got an empty one')
    # A title is one line in every wire format, so that `contents` can be split again.
    return Passage(str(row.id), " ".join(title.splitlines()), text)


def _check_unique(path: Path, hashes: array[int]) -> None:
    ordered = np.sort(np.frombuffer(hashes, dtype=np.int64))
    suspects = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    if not suspects:
        return
    first_lines: dict[str, int] = {}  # only of suspects: equal hashes of different ids are no error
    for number, line, _ in _lines(path):
        identifier = _passage(line, path, number).id
        if hash(identifier) in suspects and first_lines.setdefault(identifier, number) != number:
            raise UserError(
                f"{path}:{number}: id {identifier!r} was used before in line {first_lines[identifier]}; "
                "ids must be unique"
            )
