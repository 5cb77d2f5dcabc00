"""The documents that the base policy is trained on, as token ids."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from demonstrations import UNKNOWN, Noise, Turns, demonstrate, drill, final_turn, read

from searchr1.data.atlas.questions import COMPARISON, FORMS, ONE_HOP, TWO_HOP, Puzzle, puzzles, question
from searchr1.data.atlas.text import WORDINGS, passage
from searchr1.data.atlas.world import KINDS, World
from searchr1.ports import Dialogue, Retriever, Tokenizer
from searchr1.retrieval.index import build_index, open_index
from searchr1.types import Passage

BUDGET = 400


@dataclass(frozen=True)
class Mixture:
    """What each document is, in shares of all documents."""

    demonstration: float
    reading: float
    rag: float
    direct: float
    pages: float
    drill: float
    forms: tuple[float, float, float] = (0.34, 0.33, 0.33)
    noise: Noise = field(default_factory=Noise)


def documents(
    seed: int,
    count: int,
    size: int,
    mixture: Mixture,
    tokenizer: Tokenizer,
    dialogue: Dialogue,
    scratch: Path,
    passages: tuple[int, int] = (2, 2),
) -> list[Document]:
    """``count`` documents about one world of ``size`` entities, none of them with a held-out name.

    A search returns as many passages as are drawn by lot from the range ``passages``.
    """
    world = World(seed, size, exclude_held_out=True)
    retriever = _index(world, scratch)
    rng = random.Random(seed)
    streams = {form: puzzles(world, form, test=False, stream=1) for form in FORMS}
    drafts = [_draft(rng, world, streams, mixture) for _ in range(count)]
    asyncio.run(_play(drafts, Shelf(retriever, passages, rng), tokenizer, dialogue, rng))
    return [Document(draft.ids, draft.spoken) for draft in drafts]


@dataclass(frozen=True)
class Shelf:
    """A search engine that returns a varying number of passages."""

    retriever: Retriever
    passages: tuple[int, int]
    rng: random.Random

    async def search(self, queries: list[str]) -> list[list[Passage]]:
        fewest, most = self.passages
        found = await self.retriever.search(queries, most)
        if fewest == most:
            return found
        return [pages[: self.rng.randint(fewest, most)] for pages in found]


@dataclass(frozen=True)
class Document:
    """Token ids, and which of them are the policy's own words."""

    ids: list[int]
    spoken: list[bool]


@dataclass
class _Draft:
    """A document in the making."""

    kind: str
    world: World
    puzzle: Puzzle
    words: str
    turns: Turns | None
    last: str = ""
    ids: list[int] = field(default_factory=list)
    spoken: list[bool] = field(default_factory=list)

    def add(self, ids: Iterable[int], spoken: bool) -> None:
        self.ids += ids
        self.spoken += [spoken] * (len(self.ids) - len(self.spoken))


def _draft(rng: random.Random, world: World, streams: dict[str, Iterator[Puzzle]], mixture: Mixture) -> _Draft:
    kinds = ("demonstration", "reading", "rag", "direct", "pages", "drill")
    [kind] = rng.choices(kinds, [getattr(mixture, kind) for kind in kinds])
    [form] = rng.choices((ONE_HOP, TWO_HOP, COMPARISON), mixture.forms)
    puzzle = next(streams[form])
    words = question(world, puzzle, rng.randrange(WORDINGS)).text
    own = random.Random(rng.getrandbits(64))
    if kind == "demonstration":
        return _Draft(kind, world, puzzle, words, demonstrate(world, puzzle, own, mixture.noise))
    if kind == "reading":
        return _Draft(kind, world, puzzle, words, read(world, puzzle, own, mixture.noise))
    last = final_turn(world, puzzle, own, mixture.noise) if kind == "rag" and form != TWO_HOP else UNKNOWN
    return _Draft(kind, world, puzzle, words, None, last)


async def _play(
    drafts: Sequence[_Draft], shelf: Shelf, tokenizer: Tokenizer, dialogue: Dialogue, rng: random.Random
) -> None:
    """Run every dialogue to its end, one batch of searches a turn."""
    waiting: list[tuple[_Draft, str]] = []
    for draft in drafts:
        if draft.kind == "pages":
            pages = [passage(draft.world, rng.randrange(draft.world.size)) for _ in range(4)]
            draft.add(dialogue.observe(pages, BUDGET).token_ids, False)
        elif draft.kind == "drill":
            for said, answered in drill(rng):
                draft.add(tokenizer.encode(said), False)
                draft.add(tokenizer.encode(answered), True)
        elif draft.turns is None:
            shown = await _shown(draft, shelf, rng) if draft.kind == "rag" else []
            draft.add(dialogue.prompt(draft.words, search=False, passages=shown, budget=BUDGET), False)
            draft.add(tokenizer.encode(draft.last), True)
        else:
            draft.add(dialogue.prompt(draft.words), False)
            waiting.append((draft, next(draft.turns)))
    turn = 0
    while waiting:
        queries = [_query(draft, text, turn) for draft, text in waiting]
        results = await shelf.search(queries)
        following = []
        for (draft, text), found in zip(waiting, results, strict=True):
            if draft.kind == "reading" and rng.random() < 0.3:
                found = found[::-1]
            draft.add(tokenizer.encode(text), True)
            draft.add(dialogue.observe(found, BUDGET).token_ids, False)
            assert draft.turns is not None
            try:
                following.append((draft, draft.turns.send(found)))
            except StopIteration as end:
                draft.add(tokenizer.encode(end.value), True)
        waiting, turn = following, turn + 1


def _query(draft: _Draft, text: str, turn: int) -> str:
    """What is searched: in a reading exercise, the needed page whatever the text says."""
    if draft.kind == "reading":
        return draft.world.name(draft.puzzle.pages[turn])
    return text.rpartition("<search>")[2].removesuffix("</search>").strip()


async def _shown(draft: _Draft, shelf: Shelf, rng: random.Random) -> list[Passage]:
    """The context of a RAG document: the needed pages (two-hop: the first alone, which does not answer).

    Beside a one-hop page stands what the search engine finds beside it, or nothing, or a page of the same kind: then
    the question's subject is all that tells which of the two answers.
    """
    world, pages = draft.world, draft.puzzle.pages
    if draft.puzzle.form == COMPARISON:
        found = [passage(world, page) for page in pages]
    elif draft.puzzle.form == ONE_HOP and (chance := rng.random()) < 0.55:
        found = [passage(world, pages[0])]
        other = rng.randrange(world.count(world.kind(pages[0]))) * len(KINDS) + pages[0] % len(KINDS)
        if chance < 0.25 and other != pages[0]:
            found.append(passage(world, other))
    else:
        [found] = await shelf.search([world.name(pages[0])])
    return found if rng.random() < 0.5 else found[::-1]


def _index(world: World, scratch: Path) -> Retriever:
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    with (scratch / "corpus.jsonl").open("w", encoding="utf-8") as file:
        for entity in range(world.size):
            page = asdict(passage(world, entity))
            file.write(json.dumps({key: page[key] for key in ("id", "title", "text")}) + "\n")
    build_index(scratch / "corpus.jsonl", scratch / "index")
    return open_index(scratch / "index")
