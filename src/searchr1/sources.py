"""What a run reads: questions, passages and the search engine over them; found, generated or built."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from searchr1.config import Data, Recipe
from searchr1.data.jsonl import require_file
from searchr1.data.questions import read_questions
from searchr1.errors import UserError, nearest
from searchr1.ports import Retriever
from searchr1.retrieval import BACKENDS
from searchr1.types import Question

ATLAS = "atlas"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Sources:
    """What one run plays with, and on."""

    train: Sequence[Question]
    test: Sequence[Question]
    retriever: Retriever


def open_sources(recipe: Recipe, folder: Path, say: Say) -> Sources:
    """Find, generate and index what ``recipe`` names; what is made goes to ``folder`` and is found there again.

    Cheap checks come first. ``say`` hears of everything that takes time. Raises ``UserError``.
    """
    data, spec = recipe.data, recipe.retriever
    names = [name for name in (*_names(data.train), *_names(data.test)) if name != ATLAS]
    corpus_needed = spec in BACKENDS or any(ATLAS in _names(name) for name in (data.train, data.test))
    if data.corpus not in ("", ATLAS):
        names.append(data.corpus)
    for name in names:
        require_file(name)
    if spec not in BACKENDS:
        check_reachable(spec)
    atlas = atlas_folder(folder, data, say) if corpus_needed else None
    train, test = load_questions(data.train, atlas, "train"), load_questions(data.test, atlas, "test")
    corpus = atlas / "corpus.jsonl" if data.corpus == ATLAS and atlas else None
    if data.corpus not in ("", ATLAS):
        corpus = Path(data.corpus)
    return Sources(train, test, build_retriever(spec, corpus, folder / "index", say))


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


def load_questions(
    source: str | Sequence[str], atlas: Path | None, split: str, limit: int | None = None
) -> list[Question]:
    """The (first ``limit``) questions of each of one or several files, in turn one from each, so that any beginning is
    a mixture. Raises ``UserError``."""
    parts = [
        read_questions(atlas / f"{split}.jsonl" if name == ATLAS and atlas else name, limit) for name in _names(source)
    ]
    return [question for question in chain.from_iterable(zip_longest(*parts)) if question is not None]


def build_retriever(spec: str, corpus: Path | None, folder: Path, say: Say) -> Retriever:
    """The search engine of a recipe, known to answer; a kind of index is built from ``corpus`` into ``folder``, once.

    Raises ``UserError``, also when it is known to search in another corpus than ``corpus``.
    """
    from searchr1.retrieval.batching import CoalescingRetriever
    from searchr1.retrieval.corpus import corpus_hash
    from searchr1.retrieval.index import build_index, open_index
    from searchr1.retrieval.spec import check_corpus, check_retriever, open_retriever

    if spec not in BACKENDS:
        retriever = open_retriever(spec)
        info = asyncio.run(check_retriever(retriever))
        if corpus is not None and info.corpus_hash:
            check_corpus(info, corpus_hash(corpus))
        return CoalescingRetriever(retriever)
    if corpus is None:
        raise UserError(f"retriever = {spec!r} builds an index of data.corpus, but data.corpus is empty; set it")
    if not (folder / "manifest.json").is_file():
        started = time.perf_counter()
        built = build_index(corpus, folder, kind=spec)
        say(f"index: {built.passages:,} passages, {spec} ({time.perf_counter() - started:.1f} s)")
    return CoalescingRetriever(open_index(folder))


def check_reachable(spec: str) -> None:
    """Refuse, within seconds, a server that does not answer, or answers garbage. Raises ``UserError``."""
    from searchr1.retrieval.client import HttpRetriever
    from searchr1.retrieval.spec import check_retriever, open_retriever

    async def probe(retriever: HttpRetriever) -> None:
        async with retriever:
            await check_retriever(retriever)

    if spec.startswith(("http://", "https://")):
        asyncio.run(probe(HttpRetriever(spec, timeout=10.0, retries=1)))
    elif not Path(spec).exists() and "/" not in spec:
        raise UserError(f"retriever: no index folder, URL or kind of index is called {spec!r}{nearest(spec, BACKENDS)}")
    else:
        open_retriever(spec)


def _names(source: str | Sequence[str]) -> tuple[str, ...]:
    return (source,) if isinstance(source, str) else tuple(source)
