"""What the readers of all formats share: files, rows with their places, answers and evidence."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

import msgspec

from searchr1.data.jsonl import require_file
from searchr1.errors import UserError

Row: TypeAlias = dict[str, Any]
_GZIP_MAGIC = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class Source:
    """A local file with questions of one split of a set; ``aliases`` is a second file that some sets come with."""

    path: Path
    name: str
    split: str
    aliases: Path | None = None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """In place of a question that cannot be asked: why."""

    reason: str


NO_ANSWER = LeftOut("no answer")
Rows: TypeAlias = Iterator[tuple[str, Row | LeftOut]]
"""Every row of a file with its place, in the keys of a question file; without an ``id`` where the source has none."""


def open_bytes(path: Path) -> IO[bytes]:
    """The file, unpacked where it is gzipped, whatever its name says. Raises UserError where there is none."""
    with require_file(path).open("rb") as file:
        packed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    return cast(IO[bytes], gzip.open(path)) if packed else path.open("rb")


def open_text(path: Path) -> IO[str]:
    """The same as UTF-8 text, its line ends left alone, for `csv`."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline="")


def read_whole(path: Path) -> bytes:
    """All of the file. Raises UserError where it is missing or broken."""
    try:
        with open_bytes(path) as file:
            return file.read().removeprefix(b"\xef\xbb\xbf")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip data: {error}; copy or download it again") from error


def json_rows(path: Path, raws: Iterable[msgspec.Raw]) -> Iterator[tuple[str, Row]]:
    """Every object of a JSON list with its place ``FILE, row N`` (from 1); one at a time, for rows may be large."""
    for number, raw in enumerate(raws, start=1):
        place = f"{path}, row {number}"
        try:
            row = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UserError(f"{place}: expected a JSON object: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{place}: expected a JSON object, got {type(row).__name__}")
        yield place, row


def json_list(path: Path) -> Iterator[tuple[str, Row]]:
    """`json_rows` of a file that is one JSON list."""
    try:
        raws = msgspec.json.decode(read_whole(path), type=list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected one JSON list of questions: {error}") from error
    return json_rows(path, raws)


def text(row: Mapping[str, Any], key: str, place: str) -> str:
    """The non-blank string at ``key``, without white space around it. Raises UserError."""
    if key not in row:
        raise UserError(f"{place}: missing key {key!r}; it has {', '.join(map(repr, sorted(map(str, row)))) or 'none'}")
    value = row[key]
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {key!r}: expected a non-blank string, got {value!r:.200}")
    return value.strip()


def texts(value: object, key: str, place: str) -> list[str]:
    """A list of strings without blank ones and repetitions. Raises UserError.

    >>> texts(["Herbert", "", "Herbert", "F. H."], "answers", "f:1")
    ['Herbert', 'F. H.']
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{place}: {key!r}: expected a list of strings, got {value!r:.200}")
    return list(dict.fromkeys(item for item in value if item.strip()))


def evidence(row: Mapping[str, Any], place: str) -> Row:
    """``hops``, ``supporting_titles``, ``type`` and ``level``, wherever the sets keep them; absent where they do not.

    >>> evidence({"type": "bridge", "supporting_facts": [["Dune", 0], ["Dune", 2], ["Frank Herbert", 1]]}, "f:1")
    {'hops': 2, 'supporting_titles': ['Dune', 'Frank Herbert'], 'type': 'bridge'}
    """
    titles = list(dict.fromkeys(_titles(row, place)))
    hops = row.get("hops") or len(row.get("question_decomposition") or ()) or len(titles) or None
    found = {"hops": hops, "supporting_titles": titles, "type": row.get("type"), "level": row.get("level")}
    return {key: value for key, value in found.items() if value}


def _titles(row: Mapping[str, Any], place: str) -> list[str]:
    facts = row.get("supporting_facts") or []
    if isinstance(facts, Mapping):  # as the hub's viewer turns a list of pairs around
        return texts(facts.get("title"), "supporting_facts.title", place)
    if not isinstance(facts, list) or not all(isinstance(fact, list) and fact for fact in facts):
        raise UserError(f"{place}: 'supporting_facts': expected a list of [title, sentence], got {facts!r:.200}")
    if facts:
        return texts([fact[0] for fact in facts], "supporting_facts", place)
    if row.get("supporting_titles"):
        return texts(row["supporting_titles"], "supporting_titles", place)
    paragraphs = row.get("paragraphs") or []
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, Mapping) for paragraph in paragraphs):
        raise UserError(f"{place}: 'paragraphs': expected a list of objects, got {paragraphs!r:.200}")
    if paragraphs:
        return [text(paragraph, "title", place) for paragraph in paragraphs if paragraph.get("is_supporting")]
    return [text(row, "s_wiki_title", place)] if row.get("s_wiki_title") else []
