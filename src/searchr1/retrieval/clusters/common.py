"""What indexes on a cluster have in common: how passages get there, and how half-built ones are told from whole ones.

An index on a cluster carries a `Mark`. It says ``complete`` only when everything else was written, so an index whose
build was killed is never taken for a whole one; and it names the corpus, so an index folder finds out when somebody
has replaced the index that it stands for.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.dense.encoders import Encoder, load_encoder
from searchr1.retrieval.dense.runtimes import Device, RuntimeName
from searchr1.retrieval.store import CorpusWriter
from searchr1.types import Passage

_T = TypeVar("_T")
_BATCH_CHARACTERS = 4_000_000  # of text in one request, whatever its number of passages


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderOptions:
    """What makes the vectors of an index on a cluster; the same options as those of the ``dense`` kind."""

    encoder: str = ""
    """A name on the Hugging Face hub, or the folder of a model."""
    runtime: RuntimeName = "auto"
    device: Device = "auto"
    encoder_batch_size: int = 32
    """Texts that the encoder reads at once."""
    max_length: int = 256
    """Tokens of a text that are read."""
    query_prefix: str | None = None
    passage_prefix: str | None = None
    """Put before every text; None: as the encoder's family was trained."""

    def load_encoder(self) -> Encoder:
        """Raises UserError for a model that cannot be had or run."""
        return load_encoder(
            self.encoder,
            runtime=self.runtime,
            device=self.device,
            batch_size=self.encoder_batch_size,
            max_length=self.max_length,
            query_prefix=self.query_prefix,
            passage_prefix=self.passage_prefix,
        )


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an index on a cluster says about itself.

    >>> mark = started("minilm")
    >>> mark.complete, finished(mark, 5, "c0ffee").complete
    (False, True)
    """

    build: str
    """Differs from build to build: two that write to the same index notice each other."""
    complete: bool = False
    passages: int = 0
    corpus_hash: str = ""
    encoder: str = ""
    """The fingerprint of what made the vectors; empty without vectors."""


def started(encoder: str = "") -> Mark:
    """The mark of an index before its first passage."""
    return Mark(secrets.token_hex(8), encoder=encoder)


def finished(mark: Mark, passages: int, corpus_hash: str) -> Mark:
    """The mark of the same index when all of it is there."""
    return msgspec.structs.replace(mark, complete=True, passages=passages, corpus_hash=corpus_hash)


def read_mark(raw: object) -> Mark | None:
    """The mark in what a cluster keeps for us; None where that is no mark."""
    try:
        return msgspec.convert(raw, Mark)
    except msgspec.ValidationError:
        return None


def check_free(where: str, raw: object, replace: bool) -> None:
    """Raises UserError when ``where`` holds what a build must not replace; ``raw`` is the mark of what it holds."""
    mark = read_mark(raw)
    if mark is None:
        raise UserError(
            f"{where}: expected a new name, but there is something that searchr1 has not made; choose another"
        )
    if mark.complete and not replace:
        raise UserError(
            f"{where}: holds a whole index of {mark.passages} passages; build under another name, "
            "or pass --set replace=true to delete it first"
        )


def check_same(where: str, raw: object, info: RetrieverInfo, encoder: str = "") -> None:
    """Raises UserError when ``where`` does not hold the whole of the index that the folder's manifest describes."""
    mark = read_mark(raw)
    if mark is None:
        raise UserError(f"{where}: not made by searchr1; build the index again, under another name")
    if not mark.complete:
        raise UserError(f"{where}: half built: its build was cut off or still runs; wait for it, or build it again")
    if (mark.passages, mark.corpus_hash) != (info.passages, info.corpus_hash):
        raise UserError(
            f"{where}: expected {info.passages} passages of the corpus {info.corpus_hash[:12]}..., it holds "
            f"{mark.passages} of {mark.corpus_hash[:12]}...: it was replaced; build it again"
        )
    if mark.encoder != encoder:
        raise UserError(
            f"{where}: its vectors were made by {mark.encoder or 'nothing'}, queries would be encoded by "
            f"{encoder or 'nothing'}; correct `encoder`, or build it again"
        )


def check_mine(where: str, raw: object, mine: Mark) -> None:
    """Raises UserError when the mark is no longer the one that this build has made."""
    mark = read_mark(raw)
    if mark is None or mark.build != mine.build:
        raise UserError(f"{where}: another build took this index meanwhile; wait for it to end, or choose another name")


async def upload(
    passages: Iterable[Passage],
    prepare: Callable[[int, list[Passage]], _T],
    send: Callable[[_T], Awaitable[None]],
    *,
    batch: int,
    in_flight: int,
) -> tuple[int, str]:
    """Send the whole stream, at most ``in_flight`` batches at a time; number of passages and corpus hash.

    ``prepare(row, batch)`` runs in a worker thread, one batch after the other, while earlier batches are under way;
    ``row`` is the place of the batch's first passage in the corpus. The first failure cancels what is under way.
    """
    running: set[asyncio.Future[None]] = set()
    with CorpusWriter(None) as seen:
        prepared = (prepare(row, group) for row, group in _batches(passages, seen, batch))
        try:
            while (request := await asyncio.to_thread(next, prepared, None)) is not None:
                running.add(asyncio.ensure_future(send(request)))
                if len(running) >= in_flight:
                    running = await _finish_some(running)
            while running:
                running = await _finish_some(running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
    return seen.passages, seen.corpus_hash()


async def _finish_some(running: set[asyncio.Future[None]]) -> set[asyncio.Future[None]]:
    done, pending = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    failures = [failure for task in done if (failure := task.exception()) is not None]
    if failures:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        raise failures[0]
    return pending


def _batches(passages: Iterable[Passage], seen: CorpusWriter, size: int) -> Iterator[tuple[int, list[Passage]]]:
    group: list[Passage] = []
    characters = row = 0
    for passage in passages:
        seen.add(passage)
        group.append(passage)
        characters += len(passage.title) + len(passage.text)
        if len(group) == size or characters >= _BATCH_CHARACTERS:
            yield row, group
            row, group, characters = row + len(group), [], 0
    if group:
        yield row, group


def mark_as_json(mark: Mark) -> dict[str, Any]:
    """The mark as a cluster keeps it."""
    return dict(msgspec.structs.asdict(mark))
