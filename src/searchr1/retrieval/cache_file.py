"""The file of `searchr1.retrieval.cache`: SQLite, safe for many processes and for their sudden death.

    engine     one row: whose results these are
    searches   (k, question, query) -> 24 bytes a hit: the passage's hash and its score as a 64-bit float; the cost
    passages   hash -> id, title and text as JSON, compressed where that is smaller

A passage that a thousand queries find is stored once.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.types import Passage

_T = TypeVar("_T")
VERSION = 1
_APPLICATION = 0x53523143  # "SR1C"
_HIT = struct.Struct("<16sd")
_BUSY_SECONDS = 60.0
_LEAST_BYTES = 512  # of a database that is not empty
_PARAMETERS = 900  # of one statement, which older builds of SQLite limit to 999
_SCHEMA = (
    "CREATE TABLE engine (one INTEGER PRIMARY KEY CHECK (one = 1), options TEXT NOT NULL, kind TEXT NOT NULL, "
    "passages INTEGER NOT NULL, corpus_hash TEXT NOT NULL)",
    "CREATE TABLE searches (k INTEGER, question TEXT, query TEXT, hits BLOB NOT NULL, cost REAL NOT NULL, "
    "PRIMARY KEY (k, question, query)) WITHOUT ROWID",
    "CREATE TABLE passages (hash BLOB PRIMARY KEY, body BLOB NOT NULL)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)


@dataclass(frozen=True, slots=True)
class Engine:
    """Whose results a file keeps: the options that the engine was opened with, and what it searches in."""

    options: str
    info: RetrieverInfo


class CacheFile:
    """One connection to a cache file. One thread at a time; every method raises UserError for a file that is broken."""

    def __init__(self, path: Path, *, create: bool) -> None:
        self.path = path
        if not create and not path.exists():
            raise UserError(f"{path}: no such search cache; run once with search.cache = record, or correct the name")
        if path.is_file() and 0 < path.stat().st_size < _LEAST_BYTES:  # SQLite would write over it
            raise UserError(f"{path}: not a search cache; choose another search.cache_file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Autocommit, so that transactions begin where they are written down; threads take turns.
            self._database = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise UserError(f"{path}: cannot open this search cache: {error}; choose another file") from error
        try:
            with self._reported():
                self._prepare(create)
        except UserError:
            self._database.close()
            raise

    def close(self) -> None:
        self._database.close()

    def engine(self) -> Engine | None:
        """Whose results these are; None before the first."""
        with self._reported():
            row = self._database.execute("SELECT options, kind, passages, corpus_hash FROM engine").fetchone()
        return None if row is None else Engine(row[0], RetrieverInfo(*row[1:]))

    def claim(self, engine: Engine) -> Engine:
        """Write down whose results these are, unless that is known; whose they are."""
        with self._reported(), self._transaction():
            self._database.execute(
                "INSERT OR IGNORE INTO engine VALUES (1, ?, ?, ?, ?)",
                (engine.options, engine.info.kind, engine.info.passages, engine.info.corpus_hash),
            )
        return self.engine() or engine

    def read(self, queries: Sequence[str], k: int, question: str) -> dict[str, tuple[list[Passage], float]]:
        """What is kept of ``queries``: the passages that each found and what that had cost."""
        hits: dict[str, list[tuple[bytes, float]]] = {}
        costs: dict[str, float] = {}
        with self._reported():
            for part in _chunks(queries):
                select = "SELECT query, hits, cost FROM searches WHERE k = ? AND question = ? AND query IN "
                for query, packed, cost in self._database.execute(select + _marks(part), (k, question, *part)):
                    hits[query], costs[query] = list(_HIT.iter_unpack(packed)), cost
            passages = self._passages(list({name for found in hits.values() for name, _ in found}))
            return {
                query: ([Passage(*passages[name], score) for name, score in found], costs[query])
                for query, found in hits.items()
            }

    def write(self, found: Mapping[str, Sequence[Passage]], k: int, question: str, cost: float) -> None:
        """Keep what each query found, at that cost; in place of what was kept of it."""
        bodies: dict[bytes, bytes] = {}
        rows = []
        for query, passages in found.items():
            packed = b""
            for passage in passages:
                body = _body(passage)
                name = hashlib.blake2b(body, digest_size=16).digest()
                bodies[name] = body
                packed += _HIT.pack(name, passage.score)
            rows.append((k, question, query, packed, cost))
        with self._reported(), self._transaction():
            self._database.executemany(
                "INSERT OR IGNORE INTO passages VALUES (?, ?)",
                ((name, _compressed(body)) for name, body in bodies.items()),
            )
            self._database.executemany("INSERT OR REPLACE INTO searches VALUES (?, ?, ?, ?, ?)", rows)

    def _passages(self, names: Sequence[bytes]) -> dict[bytes, tuple[str, str, str]]:
        found: dict[bytes, tuple[str, str, str]] = {}
        for part in _chunks(names):
            rows = self._database.execute(f"SELECT hash, body FROM passages WHERE hash IN {_marks(part)}", part)
            for name, body in rows:
                identifier, title, text = json.loads(_whole(body).decode("utf-8", _EXACT))
                found[name] = identifier, title, text
        return found

    def _prepare(self, create: bool) -> None:
        """Check the format; make the tables of a new file; let readers and a writer work at the same time."""
        if create and not self._pragma("application_id"):
            with self._transaction():  # another process may be at it
                if not self._pragma("application_id") and not self._pragma("schema_version"):
                    for statement in _SCHEMA:
                        self._database.execute(statement)
        if self._pragma("application_id") != _APPLICATION:
            raise UserError(f"{self.path}: not a search cache, but another database; choose another search.cache_file")
        if (version := self._pragma("user_version")) != VERSION:
            raise UserError(
                f"{self.path}: expected a search cache of version {VERSION}, got {version}; record it again, or use "
                "the searchr1 that wrote it"
            )
        with suppress(sqlite3.OperationalError):  # locked just now: the mode that it is in works too, but slower
            self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = NORMAL")  # of a power cut, WAL loses the end and breaks nothing

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:  # nothing of it may stay, whatever happened
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """What SQLite says, as a UserError."""
        try:
            yield
        except sqlite3.OperationalError as error:  # a full disk, no permission, a lock that is never released
            raise UserError(f"{self.path}: cannot use this search cache: {error}") from error
        except (sqlite3.DatabaseError, struct.error, zlib.error, ValueError, KeyError) as error:
            raise UserError(
                f"{self.path}: this search cache is broken ({error}); delete it and record again"
            ) from error


_EXACT = "surrogatepass"  # what is half a character comes back as it was


def _body(passage: Passage) -> bytes:
    texts = [passage.id, passage.title, passage.text]
    return json.dumps(texts, ensure_ascii=False, separators=(",", ":")).encode("utf-8", _EXACT)


def _compressed(body: bytes) -> bytes:
    """What is smaller; a zlib stream begins with "x", a JSON list does not."""
    small = zlib.compress(body)
    return small if len(small) < len(body) else body


def _whole(body: bytes) -> bytes:
    return zlib.decompress(body) if body[:1] == b"x" else body


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for start in range(0, len(values), _PARAMETERS):
        yield values[start : start + _PARAMETERS]


def _marks(values: Sequence[object]) -> str:
    return f"({','.join('?' * len(values))})"
