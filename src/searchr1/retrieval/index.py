"""Index folders: built whole or not at all, opened with every doubt checked.

manifest.json       {"format": "searchr1-index", "version": 1, "kind": "bm25", "passages": 61668, "corpus_hash": ...}
passages.jsonl      the passages (see `searchr1.retrieval.store`)
passages.offsets
deleted.rows        only after an update (see `searchr1.retrieval.update`)
tantivy/ ...        whatever the backend keeps
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import msgspec

from searchr1 import __version__
from searchr1.errors import UserError, nearest
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval import BACKENDS
from searchr1.retrieval.corpus import Progress, read_corpus
from searchr1.retrieval.options import build_options
from searchr1.retrieval.store import OFFSETS_FILE, CorpusStore, CorpusWriter
from searchr1.retrieval.swap import link_files, move_into_place, restore, scratch_folder, writing
from searchr1.types import Passage

FORMAT = "searchr1-index"
VERSION = 1
MANIFEST_FILE = "manifest.json"
KEPT = "kept"
"""The folder within an index of what a later build may use again."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a corpus before it is read: how many passages and bytes of text, and some of the passages."""

    passages: int
    text_bytes: int
    sample: tuple[Passage, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """What an index will take. ``choices`` is a table, header first, of what was weighed against what."""

    memory_bytes: float
    disk_bytes: float
    choices: tuple[tuple[str, ...], ...] = ()


class Backend(Protocol):
    """One kind of index: a frozen dataclass whose fields are its options."""

    remote: ClassVar[bool]
    """True where a server keeps the passages, so that the folder holds no text."""

    def plan(self, corpus: Estimate) -> Plan:
        """What building takes at its worst moment, and on disk."""

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        """Read ``passages`` to their end (once, or more often) and write what ``open`` needs into ``folder``.

        ``folder / KEPT`` outlives a build that is killed, and goes from an index to the one that replaces it: what is
        dear to compute goes there, under names that say what it was computed from.
        """

    def open(self, folder: Path, info: RetrieverInfo) -> Retriever:
        """Raises UserError when the index is damaged. Local kinds find the passages with `open_store`."""


class _Passages:
    """The corpus on its way into an index: hashed, and stored for a local kind, when it is read for the first time."""

    def __init__(self, path: Path, writer: CorpusWriter, progress: Progress | None) -> None:
        self._path, self._writer, self._progress = path, writer, progress

    def __iter__(self) -> Iterator[Passage]:
        first = self._writer.passages == 0
        for passage in read_corpus(self._path, self._progress):
            if first:
                self._writer.add(passage)
            yield passage


class Manifest(msgspec.Struct, frozen=True):
    """What ``manifest.json`` says. ``corpus`` is the name of the corpus file, ``searchr1`` the version that built."""

    format: str
    version: int
    kind: str
    passages: int
    corpus_hash: str
    corpus: str
    options: dict[str, Any]
    searchr1: str


def build_index(
    corpus_path: str | Path,
    out: str | Path,
    *,
    kind: str = "bm25",
    options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Index a corpus into the folder ``out``; memory does not grow with the corpus, but for 8 bytes a passage.

    The folder appears complete or not at all: everything is written to a sibling that is renamed at the end and
    removed if anything fails; what a killed build left there is removed by the next. Raises UserError for an unknown
    kind or option, a bad corpus (`read_corpus`), an ``out`` that is something else than an index, or that is an index
    while ``overwrite`` is False, and for a second build of the same folder at the same moment; SearchR1Error for a
    full disk.
    """
    corpus_path, out = Path(corpus_path), Path(out)
    out = out if out.name else out.resolve()
    chosen = dict(options or {})
    backend = load_backend(kind, chosen)
    _check_target(out, overwrite)
    with writing(out), scratch_folder(out, KEPT) as scratch:
        _check_target(out, overwrite)  # once more: it may have been built before the folder was ours
        if (out / KEPT).is_dir():
            link_files(out / KEPT, scratch / KEPT)
        with CorpusWriter(None if backend.remote else scratch) as writer:
            backend.build(scratch, _Passages(corpus_path, writer, progress))
        manifest = Manifest(
            format=FORMAT,
            version=VERSION,
            kind=kind,
            passages=writer.passages,
            corpus_hash=writer.corpus_hash(),
            corpus=corpus_path.name,
            options=asdict(cast(Any, backend)),
            searchr1=__version__,
        )
        write_manifest(scratch, manifest)
        move_into_place(scratch, out)
    return manifest


def open_index(path: str | Path) -> Retriever:
    """The retriever of an index folder, in milliseconds. Raises UserError when it cannot be used, saying why."""
    path = Path(path)
    manifest = read_manifest(path)
    backend = load_backend(manifest.kind, manifest.options)
    return backend.open(path, RetrieverInfo(manifest.kind, manifest.passages, manifest.corpus_hash))


def open_store(folder: Path, info: RetrieverInfo) -> CorpusStore:
    """The passages of a local index. Raises UserError when they are not those of its manifest."""
    store = CorpusStore(folder)
    if len(store) != info.passages:
        raise UserError(f"{folder}: expected {info.passages} passages, got {len(store)}; build the index again")
    return store


def read_manifest(path: str | Path) -> Manifest:
    """The checked manifest of an index folder. Raises UserError when it is not an index or of another version."""
    path = Path(path)
    hint = "make one with `searchr1 index build CORPUS --out DIR`"
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path}: expected an index folder, but it {what}; {hint}")
    try:
        raw = (path / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise UserError(f"{path}: not an index: no readable {MANIFEST_FILE} ({error.strerror}); {hint}") from error
    try:
        head = msgspec.json.decode(raw, type=dict[str, Any])
        if head.get("format") != FORMAT:
            raise UserError(f"{path}: not an index: its format is {head.get('format')!r}, not {FORMAT!r}; {hint}")
        if head.get("version") != VERSION:
            raise UserError(
                f"{path}: expected index version {VERSION}, got {head.get('version')!r}; "
                "build it again, or use the searchr1 that wrote it"
            )
        return msgspec.convert(head, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path / MANIFEST_FILE}: broken: {error}; build the index again") from error


def load_backend(kind: str, options: Mapping[str, Any]) -> Backend:
    """The backend of that kind with its options. Raises UserError."""
    if kind not in BACKENDS:
        raise UserError(f"index kind {kind!r} is unknown{nearest(kind, BACKENDS)}")
    module, _, name = BACKENDS[kind].partition(":")
    backend: Backend = build_options(getattr(importlib.import_module(module), name), options, f"a {kind} index")
    return backend


def write_manifest(folder: Path, manifest: Manifest) -> None:
    (folder / MANIFEST_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def _check_target(out: Path, overwrite: bool) -> None:
    restore(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not _is_index(out):
        raise UserError(f"{out}: expected a new folder or an index, and this is neither; choose another --out")
    if not overwrite:
        raise UserError(f"{out}: holds an index already; pass --overwrite to replace it, or choose another --out")


def _is_index(folder: Path) -> bool:
    """Also a damaged one; but no folder that has some ``manifest.json`` of its own."""
    if not (folder / MANIFEST_FILE).is_file():
        return False
    if (folder / OFFSETS_FILE).is_file():
        return True
    try:
        read_manifest(folder)  # all that a remote kind keeps in its folder
    except UserError:
        return False
    return True
