"""What a run reads: questions, passages and the search engine over them; found, generated or built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from searchr1.config import Data, Recipe, Search
from searchr1.data.jsonl import require_file
from searchr1.data.questions import read_questions
from searchr1.errors import UserError
from searchr1.ports import Retriever
from searchr1.retrieval.spec import Spec, built_kind, check_corpus, check_retriever, identity, is_server, open_retriever
from searchr1.types import Question

ATLAS = "atlas"
"""In place of a file's name: the generated encyclopedia."""
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """What one run plays with, and on."""

    train: Sequence[Question]
    test: Sequence[Question]
    retriever: Retriever


def check_sources(recipe: Recipe) -> None:
    """The cheap checks, before anything is made: files are there, the search engine answers. Raises ``UserError``."""
    data = recipe.data
    for name in (*_names(data.train), *_names(data.test), data.corpus):
        if name not in ("", ATLAS):
            require_file(name)
    if built_kind(recipe.retriever) is None:
        check_reachable(recipe.retriever, recipe.search)
    elif not data.corpus:
        raise UserError(f"retriever = {recipe.retriever!r} builds an index of data.corpus, but that is empty; set it")


def open_sources(recipe: Recipe, folder: Path, say: Say) -> Sources:
    """Read, generate and index what ``recipe`` names; what is made goes to ``folder`` and is found there again.

    ``say`` hears of everything that takes time. Raises ``UserError``.
    """
    data, spec = recipe.data, recipe.retriever
    given = {name: read_questions(name) for name in {*_names(data.train), *_names(data.test)} - {ATLAS}}
    # A corpus is only needed to build an index of it, or to check that a given index is of it.
    played = ATLAS in (*_names(data.train), *_names(data.test))
    atlas = atlas_folder(folder, data, say) if played or built_kind(spec) else None
    sets = []
    for source, split in ((data.train, "train"), (data.test, "test")):
        parts = [
            read_questions(atlas / f"{split}.jsonl") if name == ATLAS and atlas else given[name]
            for name in _names(source)
        ]
        sets.append(_in_turn(parts))
    corpus = Path(data.corpus) if data.corpus not in ("", ATLAS) else None
    if data.corpus == ATLAS and atlas is not None:
        corpus = atlas / "corpus.jsonl"
    return Sources(sets[0], sets[1], build_retriever(recipe, corpus, folder / "index", say))


def atlas_folder(parent: Path, data: Data, say: Say) -> Path | None:
    """The encyclopedia that ``data`` asks for, generated in ``parent``; None when it asks for none."""
    if not any(ATLAS in _names(name) for name in (data.train, data.test, data.corpus)):
        return None
    from searchr1.data.atlas.write import write_atlas

    started = time.perf_counter()
    made = write_atlas(parent / ATLAS, seed=data.atlas_seed, entities=data.atlas_entities, shares=data.atlas_shares)[
        "sizes"
    ]
    say(
        f"encyclopedia: {made['corpus']:,} pages, {made['train']:,} training and {made['test']:,} test questions "
        f"({time.perf_counter() - started:.1f} s)"
    )
    return parent / ATLAS


def load_questions(names: Sequence[str], limit: int | None = None) -> list[Question]:
    """The (first ``limit``) questions of each of several files, mixed. Raises ``UserError``."""
    return _in_turn([read_questions(name, limit) for name in names])


def build_retriever(recipe: Recipe, corpus: Path | None, folder: Path, say: Say, spec: Spec | None = None) -> Retriever:
    """The search engine of a recipe (or of ``spec``), known to answer, behind the cache that the recipe asks for.

    A kind of index is built from ``corpus`` into ``folder``, once. Raises ``UserError``, also when it is known to
    search in another corpus than ``corpus``.
    """
    from searchr1.retrieval.corpus import corpus_hash
    from searchr1.retrieval.index import build_index, open_index

    spec = recipe.retriever if spec is None else spec
    made = built_kind(spec)
    if made is None:
        retriever = _wrapped(open_retriever(spec), recipe.search, spec)
        info = asyncio.run(check_retriever(retriever))
        if corpus is not None and info.corpus_hash:
            check_corpus(info, corpus_hash(corpus))
        return retriever
    if corpus is None:
        raise UserError(f"retriever: {made[0]} is a kind of index and has to be built first; give an index folder")
    if not (folder / "manifest.json").is_file():
        started = time.perf_counter()
        built = build_index(corpus, folder, kind=made[0], options=made[1])
        say(f"index: {built.passages:,} passages, {made[0]} ({time.perf_counter() - started:.1f} s)")
    return _wrapped(open_index(folder), recipe.search, str(folder))


def check_reachable(spec: Spec, search: Search | None = None) -> None:
    """Refuse, within seconds, a server that does not answer, or answers garbage. Raises ``UserError``.

    Where the cache may answer in its place, only the spec itself is checked.
    """
    retriever = open_retriever(spec, hasty=True)
    if is_server(spec) and (search is None or search.cache in ("off", "record")):
        asyncio.run(check_retriever(retriever))


def _wrapped(retriever: Retriever, search: Search, spec: Spec) -> Retriever:
    """``retriever``, which ``spec`` describes, behind the cache; the searches of one moment reach both as one."""
    from searchr1.retrieval.batching import CoalescingRetriever
    from searchr1.retrieval.counting import per_question

    if search.cache != "off":
        from searchr1.retrieval.cache import CachedRetriever

        retriever = CachedRetriever(retriever, Path(search.cache_file), search.cache, identity(spec))
    return retriever if per_question(retriever) else CoalescingRetriever(retriever)


def _names(source: str | Sequence[str]) -> tuple[str, ...]:
    return (source,) if isinstance(source, str) else tuple(source)


def _in_turn(parts: Sequence[Sequence[Question]]) -> list[Question]:
    """One question of each part in turn, so that any beginning is a mixture."""
    return [question for question in chain.from_iterable(zip_longest(*parts)) if question is not None]
