"""Passages go into an index that is there, and out of it, without building it again.

An update is written beside the index and takes its place at the end, as a build does (`searchr1.retrieval.swap`): what
never changes in place, the engine's files and the text, is linked and not copied, so that a small change of a large
index is quick. New passages get the next rows; a passage that is replaced moves to the end. Deleted ones keep their
row, their text and their weight in what the engine counts over the corpus, until they are more than a tenth of all
rows: then the engine's files and the text are made anew from the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from shutil import copy2
from typing import Any, Protocol, runtime_checkable

import msgspec
import numpy as np

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.corpus import Progress, read_corpus
from searchr1.retrieval.index import (
    KEPT,
    MANIFEST_FILE,
    Backend,
    Manifest,
    load_backend,
    open_store,
    read_manifest,
    write_manifest,
)
from searchr1.retrieval.store import DELETED_FILE, OFFSETS_FILE, TEXT_FILE, CorpusStore, CorpusWriter
from searchr1.retrieval.swap import link, link_files, move_into_place, restore, scratch_folder, writing
from searchr1.types import Passage

_MOST_DELETED = 0.1
"""Of all rows, before an index is made anew."""


@runtime_checkable
class Updatable(Backend, Protocol):
    """A kind of index that can be changed after it was built."""

    def update(self, folder: Path, deleted: Sequence[int], added: Iterable[tuple[int, Passage]]) -> None:
        """Forget the rows ``deleted`` and index the passages ``added`` under their rows, the next ones in order.

        The files in ``folder`` are links to those of the index that others are searching in: replace and add files,
        change none. Raises OSError or SearchR1Error where they cannot be written.
        """


@dataclass(frozen=True, slots=True)
class Updated:
    """What an update did: ids that were new, ids whose passage was replaced, ids deleted, and ids not found."""

    manifest: Manifest
    added: int = 0
    replaced: int = 0
    deleted: int = 0
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """Rows of the ids that were looked for, those ids, and the hash of what remains without them."""

    rows: list[int]
    ids: set[str]
    digest: Any


class _Id(msgspec.Struct, gc=False):
    id: str


def add_passages(folder: str | Path, corpus: str | Path, progress: Progress | None = None) -> Updated:
    """Add the passages of a corpus file; those with an id that is in the index already replace what is there.

    The index is then what a build from its passages in their order would be. Memory grows with the passages added.
    Raises UserError for what is no index, a kind that cannot be changed, a bad corpus (`read_corpus`), and while
    another process builds or changes the index; SearchR1Error for a full disk. The index is then as it was.
    """
    ids = {passage.id for passage in read_corpus(corpus)}
    updated = _update(folder, ids, read_corpus(corpus, progress), len(ids))
    return Updated(updated.manifest, added=len(ids) - updated.deleted, replaced=updated.deleted)


def delete_passages(folder: str | Path, ids: Iterable[str]) -> Updated:
    """Delete the passages with these ids. Raises as `add_passages`, and UserError where none or all would go."""
    return _update(folder, dict.fromkeys(ids), (), 0)


def _update(folder: str | Path, ids: Collection[str], new: Iterable[Passage], count: int) -> Updated:
    """Puts the ``count`` passages of ``new`` in the place of those with ``ids``."""
    out = Path(folder).resolve()
    restore(out)
    _updatable(out, read_manifest(out))
    with writing(out), scratch_folder(out, KEPT) as scratch:
        manifest = read_manifest(out)  # once more: it may have been replaced before the folder was ours
        backend = _updatable(out, manifest)
        store = open_store(out, RetrieverInfo(manifest.kind, manifest.passages, manifest.corpus_hash))
        found = _find(store, ids)
        passages = len(store) - len(found.rows) + count
        unknown = tuple(identifier for identifier in ids if identifier not in found.ids)
        _check_worthwhile(out, passages, count, unknown, len(ids))
        if len(store.deleted) + len(found.rows) > _MOST_DELETED * (store.rows + count):
            with CorpusWriter(scratch) as writer:
                backend.build(scratch, _passing(writer, chain(_others(store, found), new)))
        else:
            _link(out, scratch)
            with CorpusWriter(scratch, end=store.end, digest=found.digest) as writer:
                backend.update(scratch, found.rows, enumerate(_passing(writer, new), start=store.rows))
            if len(deleted := np.union1d(store.deleted, np.array(found.rows, dtype=np.uint64))):
                (scratch / DELETED_FILE).write_bytes(deleted.astype("<u8").tobytes())
        if len(CorpusStore(scratch)) != passages:
            raise UserError(f"{out}: the corpus changed while it was read; the index is as it was; try again")
        changed = msgspec.structs.replace(manifest, passages=passages, corpus_hash=writer.corpus_hash())
        write_manifest(scratch, changed)
        move_into_place(scratch, out)
    return Updated(changed, deleted=len(found.rows), unknown=unknown)


def _updatable(out: Path, manifest: Manifest) -> Updatable:
    backend = load_backend(manifest.kind, manifest.options)
    if not isinstance(backend, Updatable):
        raise UserError(
            f"{out}: a {manifest.kind} index cannot be changed; build it again from the changed corpus, "
            "with `searchr1 index build --overwrite`"
        )
    return backend


def _find(store: CorpusStore, ids: Collection[str]) -> _Found:
    """One pass over all passages."""
    decoder = msgspec.json.Decoder(_Id)
    wanted, found = frozenset(ids), _Found([], set(), hashlib.sha256())
    for row, line in store.lines():
        identifier = decoder.decode(line).id
        if identifier in wanted:
            found.rows.append(row)
            found.ids.add(identifier)
        else:
            found.digest.update(line)
    return found


def _check_worthwhile(out: Path, passages: int, count: int, unknown: Sequence[str], asked: int) -> None:
    if count:
        return
    if len(unknown) == asked:
        first = f", as {unknown[0]!r}" if unknown else ""
        raise UserError(f"{out}: expected ids of passages in this index, but none of the {asked} is in it{first}")
    if passages == 0:
        raise UserError(
            f"{out}: these are all of its passages, and an index cannot be empty; delete the folder instead"
        )


def _passing(writer: CorpusWriter, passages: Iterable[Passage]) -> Iterator[Passage]:
    for passage in passages:
        writer.add(passage)
        yield passage


def _others(store: CorpusStore, found: _Found) -> Iterator[Passage]:
    return (passage for passage in store.passages() if passage.id not in found.ids)


def _link(out: Path, scratch: Path) -> None:
    """All that stays; the text too, though it grows: who reads the former index knows where his part of it ends."""
    link_files(out, scratch, without={MANIFEST_FILE, TEXT_FILE, OFFSETS_FILE, DELETED_FILE})
    copy2(out / OFFSETS_FILE, scratch / OFFSETS_FILE)
    # Somebody else's copy of the index may be made of links as well, and must not find our lines in its text.
    (link if (out / TEXT_FILE).stat().st_nlink == 1 else copy2)(out / TEXT_FILE, scratch / TEXT_FILE)
