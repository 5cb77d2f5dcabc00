"""The atlas as a folder: its passages, its questions, and a manifest that says what they were made from.

::

    corpus.jsonl   {"id", "title", "text"}, one passage an entity
    train.jsonl    questions that name no entity with a reserved name
    test.jsonl     questions that name only such entities
    atlas.json     format, version, what was asked for, sizes and SHA-256 of the files

The same request gives the same bytes, so a folder that holds it already is kept as it is.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from searchr1.data.atlas.questions import FORMS, distinct_questions
from searchr1.data.atlas.text import passage
from searchr1.data.atlas.world import World
from searchr1.data.jsonl import encode, replacing, write_rows
from searchr1.data.questions import write_questions
from searchr1.errors import UserError
from searchr1.types import Question

FORMAT = {"format": "searchr1-atlas", "version": 1}
"""Raise the version whenever the same request would give other bytes."""
EVEN = (1 / 3, 1 / 3, 1 / 3)
MANIFEST = "atlas.json"
_FILES = ("corpus.jsonl", "train.jsonl", "test.jsonl")
_PROGRESS_EVERY = 1000


def write_atlas(
    out: str | Path,
    *,
    seed: int = 0,
    entities: int = 3000,
    train: int = 4000,
    test: int = 600,
    shares: Sequence[float] = EVEN,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the atlas of ``entities`` pages to the folder ``out``, whole or not at all; returns its manifest.

    ``train`` and ``test`` are the most questions wanted: a small world has fewer, and ``manifest["sizes"]`` says how
    many there are. ``shares`` are those of one-hop, two-hop and comparison questions in training; a test has a third of
    each. Any beginning of a question file has (but for rounding) the shares of the whole. Memory grows with the
    questions, not with the passages. ``progress(done, total)`` counts passages.

    Raises ``UserError`` for a request that cannot be served, and when ``out`` holds anything but this same atlas.
    """
    out = Path(out).resolve()
    request = _request(seed, entities, train, test, shares)
    if (manifest := _already_there(out, request)) is not None:
        return manifest
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        manifest = _write_files(temporary, request, progress)
        temporary.rename(out)  # takes the place of an empty folder, never of one with something in it
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return manifest


def mixed_questions(world: World, shares: Sequence[float], limit: int, *, test: bool) -> Iterator[Question]:
    """At most ``limit`` different questions, the forms in turn: always the one that is furthest behind its share.

    Ends early where a form's questions are used up. Raises ``UserError`` where the world has none of that form.
    """
    streams = [distinct_questions(world, form, test=test) for form in FORMS]
    given = [0] * len(FORMS)
    for position in range(1, limit + 1):
        behind = [share * position - count for share, count in zip(shares, given, strict=True)]
        form = behind.index(max(behind))
        made = next(streams[form], None)
        if made is None and given[form] == 0:
            split = "test" if test else "training"
            raise UserError(
                f"entities: a world of {world.size} has no {FORMS[form]} question for {split}; raise it (100 is enough)"
            )
        if made is None:
            return
        given[form] += 1
        yield made


def _request(seed: int, entities: int, train: int, test: int, shares: Sequence[float]) -> dict[str, Any]:
    """The checked request, as the manifest keeps it."""
    try:
        World(seed, entities)
    except ValueError as error:
        raise UserError(f"entities: {error}") from error
    for name, limit in (("train", train), ("test", test)):
        if limit < 1:
            raise UserError(f"{name}: expected at least 1 question, got {limit}")
    valid = len(shares) == len(FORMS) and all(math.isfinite(share) and share >= 0 for share in shares)
    if not valid or sum(shares) == 0:
        raise UserError(f"shares: expected {len(FORMS)} numbers of at least 0 ({', '.join(FORMS)}), got {shares!r}")
    parts = [share / sum(shares) for share in shares]
    return {"seed": seed, "entities": entities, "train": train, "test": test, "shares": parts}


def _already_there(out: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The manifest where ``out`` holds what is asked for; None where it is free."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    advice = "remove it or choose another folder"
    if not out.is_dir() or not (out / MANIFEST).is_file():
        raise UserError(f"{out}: expected an empty folder or an atlas, got something else; {advice}")
    try:
        manifest = json.loads((out / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{out / MANIFEST}: expected the manifest of an atlas: {error}; {advice}") from error
    for key, wanted in {**FORMAT, **request}.items():
        found = manifest.get(key) if isinstance(manifest, dict) else None
        if found != wanted:
            raise UserError(f"{out}: expected an empty folder or an atlas with {key} {wanted}, got {found}; {advice}")
    digests = manifest.get("sha256", {})
    for name in _FILES:
        if not (out / name).is_file() or digests.get(name) != _sha256(out / name):
            raise UserError(f"{out / name}: expected the file as it was written, but it was changed; {advice}")
    checked: dict[str, Any] = manifest
    return checked


def _write_files(
    folder: Path, request: Mapping[str, Any], progress: Callable[[int, int], None] | None
) -> dict[str, Any]:
    world = World(request["seed"], request["entities"])
    sizes = {"corpus": world.size}
    write_rows(folder / "corpus.jsonl", _corpus_rows(world, progress))
    for split, shares in (("train", request["shares"]), ("test", EVEN)):
        made = list(mixed_questions(world, shares, request[split], test=split == "test"))
        write_questions(folder / f"{split}.jsonl", made)
        sizes[split] = len(made)
    digests = {name: _sha256(folder / name) for name in _FILES}
    manifest = {**FORMAT, **request, "sizes": sizes, "sha256": digests}
    with replacing(folder / MANIFEST) as stream:
        stream.write(encode(manifest, indent=2) + b"\n")
    return manifest


def _corpus_rows(world: World, progress: Callable[[int, int], None] | None) -> Iterator[dict[str, str]]:
    for entity in range(world.size):
        page = passage(world, entity)
        yield {"id": page.id, "title": page.title, "text": page.text}
        if progress is not None and ((entity + 1) % _PROGRESS_EVERY == 0 or entity + 1 == world.size):
            progress(entity + 1, world.size)


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
