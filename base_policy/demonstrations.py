"""Noisy demonstrations: they read well and search badly.

A demonstration is a dialogue with the real search engine over a world without held-out names. What is wrong in it, and
how often, is in ``Noise``; what is right in it is reading: when the page is there, the answer (or the next name) is
usually taken from it.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass

from searchr1.data.atlas import lexicon
from searchr1.data.atlas.questions import ASKED, COMPARISON, ONE_HOP, TWO_HOP, Puzzle
from searchr1.data.atlas.text import refer
from searchr1.data.atlas.world import Kind, World
from searchr1.types import Passage


@dataclass(frozen=True)
class Noise:
    """How often a demonstration does the right thing (probabilities)."""

    first_right: float = 0.13  # searches an entity that the question names
    bridge_right: float = 0.75  # having read the first page, searches the name it leads to
    second_right: float = 0.55  # having read one page of a comparison, searches the other entity
    give_up: float = 0.35  # after a search that did not find the page
    answer_right: float = 0.92  # with every needed page in view
    comparison_right: float = 0.92  # likewise, names the right one of two
    max_searches: int = 3


Turns = Generator[str, list[Passage], str]
"""Yields the text of each turn that searches, receives the passages, returns the text of the last turn."""

PLAN = {ONE_HOP: "one step", TWO_HOP: "two steps", COMPARISON: "compare two"}
NOT_FOUND = "not found"
UNKNOWN = f"<think> {NOT_FOUND}</think><answer> unknown</answer>"


def searching(think: str, query: str) -> str:
    return f"<think> {think}</think><search> {query}</search>"


def demonstrate(world: World, puzzle: Puzzle, rng: random.Random, noise: Noise) -> Turns:
    """One noisy attempt."""
    needed = [world.name(page) for page in puzzle.pages]
    missing, think = list(needed), PLAN[puzzle.form]
    for _ in range(noise.max_searches):
        if not missing:
            break
        if think == NOT_FOUND and rng.random() < noise.give_up:
            return UNKNOWN
        found = yield searching(think, _query(world, puzzle, needed, missing, rng, noise))
        titles = {passage.title for passage in found}
        think = progress(world, puzzle, missing, titles)
        missing = [title for title in missing if title not in titles]
    return UNKNOWN if missing else final_turn(world, puzzle, rng, noise)


def read(world: World, puzzle: Puzzle, rng: random.Random, noise: Noise) -> Turns:
    """A reading exercise: the first query is wrong, but the caller shows the page; what follows is mostly right.

    So reading is practised in the place where the policy will need it, without a lesson in searching.
    """
    needed = [world.name(page) for page in puzzle.pages]
    yield searching(PLAN[puzzle.form], _wrong_query(world.kind(puzzle.pages[0]), needed[0], rng))
    if puzzle.form != ONE_HOP:
        yield searching(progress(world, puzzle, needed, {needed[0]}), needed[1])
    return final_turn(world, puzzle, rng, noise)


def progress(world: World, puzzle: Puzzle, missing: Sequence[str], titles: set[str]) -> str:
    """The thought after a search: what it found."""
    new = [page for page in puzzle.pages if world.name(page) in titles and world.name(page) in missing]
    if not new:
        return NOT_FOUND
    if puzzle.form == TWO_HOP and new[0] == puzzle.pages[0]:
        return "now " + refer(world.kind(new[0]), puzzle.by, "").removesuffix(" of ")
    return f"found {world.value(new[0], 'year')}" if puzzle.form == COMPARISON else "found"


def _query(
    world: World, puzzle: Puzzle, needed: Sequence[str], missing: Sequence[str], rng: random.Random, noise: Noise
) -> str:
    if len(missing) == len(needed):
        right, target = noise.first_right, rng.choice(missing) if puzzle.form == COMPARISON else missing[0]
    else:
        right, target = (noise.bridge_right if puzzle.form == TWO_HOP else noise.second_right), missing[0]
    if rng.random() < right:
        return target
    page = puzzle.pages[needed.index(target)]
    return _wrong_query(world.kind(page), target, rng)


def _wrong_query(kind: Kind, target: str, rng: random.Random) -> str:
    """Half of the time what kind of thing is looked for, which finds nothing; else a name that is wrong."""
    first, *_, last = target.split()
    choice = rng.random()
    if choice < 0.5:
        return kind.value
    if choice < 0.7:
        return f"{rng.choice(lexicon.FIRST_WORDS)} {rng.choice(lexicon.SECOND_WORDS)}"
    if choice < 0.85:
        return f"{first} {rng.choice(lexicon.SECOND_WORDS)}"
    return f"{rng.choice(lexicon.FIRST_WORDS)} {last}"


def final_turn(world: World, puzzle: Puzzle, rng: random.Random, noise: Noise) -> str:
    """The answering turn, every needed page in view."""
    think, about, fact = "found", puzzle.about, puzzle.fact
    if puzzle.form == COMPARISON:
        if rng.random() >= noise.comparison_right:
            about = puzzle.pages[1 - puzzle.pages.index(about)]
        think = in_order(*(world.value(page, "year") for page in puzzle.pages))
    elif rng.random() >= noise.answer_right:
        fact = rng.choice(ASKED[world.kind(about)])
    return f"<think> {think}</think><answer> {world.value(about, fact)}</answer>"


def in_order(one: str, other: str) -> str:
    return " then ".join(sorted((one, other)))


def drill(rng: random.Random) -> list[tuple[str, str]]:
    """Pairs of years, each with the thought that puts them in order: what is said, what is answered."""
    pairs = (rng.sample(lexicon.YEARS, 2) for _ in range(16))
    return [(f" {one} {other}\n", f"<think> {in_order(one, other)}</think>") for one, other in pairs]
