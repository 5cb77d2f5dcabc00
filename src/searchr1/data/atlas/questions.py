"""Questions about a world: one-hop, two-hop and comparison, for training and for test.

Every entity that a test question names has a held-out name (``is_held_out``); no training question names one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count as numbers
from itertools import islice

from searchr1.data.atlas import text
from searchr1.data.atlas.world import FACTS, KINDS, Kind, World, is_held_out, mix
from searchr1.types import Question

ONE_HOP, TWO_HOP, COMPARISON = "one-hop", "two-hop", "comparison"

_LINKS = {
    kind: tuple(fact for fact, values in facts.items() if isinstance(values, Kind)) for kind, facts in FACTS.items()
}


ASKED = {kind: (*links, "year") for kind, links in _LINKS.items()}
"""What is asked about each kind: names and years. Nobody can guess those, unlike one of forty professions."""


@dataclass(frozen=True, slots=True)
class Puzzle:
    """What a question asks, before it is put in words: ``fact`` of entity ``about``, after reading ``pages``.

    ``by`` is the link that leads from the first page to the second (two-hop) or the order asked for (comparison).
    """

    form: str
    pages: tuple[int, ...]
    about: int
    fact: str
    by: str = ""


_MOST_MISSES = 20_000
"""Draws in a row without a puzzle that end a stream: where a world has any, one draw in 1000 or more hits."""


def puzzles(world: World, form: str, *, test: bool, stream: int = 0) -> Iterator[Puzzle]:
    """An endless stream of puzzles of one form; ``stream`` selects an independent one.

    It ends, and holds nothing, only where the world has no such puzzle (no pair of entities with reserved names, say).
    """
    missed = 0
    for number in numbers():
        puzzle = _MAKERS[form](world, mix(world.seed, _NUMBERS[form], int(test), stream, number), test)
        missed = missed + 1 if puzzle is None else 0
        if puzzle is not None:
            yield puzzle
        elif missed == _MOST_MISSES:
            return


def question(world: World, puzzle: Puzzle, wording: int = 0) -> Question:
    """The puzzle in words. Metadata: ``form``, ``hops`` (pages to read) and ``supporting_titles`` in reading order."""
    first, *others = (world.name(page) for page in puzzle.pages)
    subject = first
    if puzzle.form == TWO_HOP:
        subject = text.refer(world.kind(puzzle.pages[0]), puzzle.by, first)
    elif puzzle.form == COMPARISON:
        subject = text.compare(puzzle.by, first, others[0])
    words = text.ask(world.kind(puzzle.about), puzzle.fact, subject, wording)
    metadata = {"form": puzzle.form, "hops": len(puzzle.pages), "supporting_titles": [first, *others]}
    identity = "-".join(map(str, ("atlas", world.seed, *puzzle.pages, puzzle.by or "is", puzzle.fact, wording)))
    return Question(identity, words, text.answers(world, puzzle.about, puzzle.fact), puzzle.form, metadata)


def distinct_questions(world: World, form: str, *, test: bool) -> Iterator[Question]:
    """Different questions of one form, until (nearly) all that the world has were given."""
    seen: set[str] = set()
    repeated = 0
    for tries, puzzle in enumerate(puzzles(world, form, test=test)):
        made = question(world, puzzle, mix(tries) % text.WORDINGS)
        if made.id not in seen:
            seen.add(made.id)
            repeated = 0
            yield made
        elif (repeated := repeated + 1) > 1000 + 5 * len(seen):
            return


def questions(world: World, form: str, count: int, *, test: bool) -> list[Question]:
    """``count`` different questions of one form. Raises ``ValueError`` when the world is too small for them."""
    found = list(islice(distinct_questions(world, form, test=test), count))
    if len(found) < count:
        raise ValueError(f"a world of {world.size} entities has no {count} different {form} questions; make it larger")
    return found


def _pick(world: World, chance: int, test: bool, kind: Kind | None = None) -> int | None:
    """An entity of the wanted split, or None when chance hits the other split."""
    kind = kind or KINDS[chance % len(KINDS)]
    entity = chance // len(KINDS) % world.count(kind) * len(KINDS) + KINDS.index(kind)
    return entity if is_held_out(world.name(entity)) is test else None


def _fact(kind: Kind, chance: int) -> str:
    return ASKED[kind][chance % len(ASKED[kind])]


def _one_hop(world: World, chance: int, test: bool) -> Puzzle | None:
    entity = _pick(world, mix(chance, 1), test)
    if entity is None:
        return None
    return Puzzle(ONE_HOP, (entity,), entity, _fact(world.kind(entity), mix(chance, 2)))


def _two_hop(world: World, chance: int, test: bool) -> Puzzle | None:
    entity = _pick(world, mix(chance, 1), test)
    if entity is None:
        return None
    links = _LINKS[world.kind(entity)]
    link = links[mix(chance, 2) % len(links)]
    bridge = world.target(entity, link)
    return Puzzle(TWO_HOP, (entity, bridge), bridge, _fact(world.kind(bridge), mix(chance, 3)), link)


def _comparison(world: World, chance: int, test: bool) -> Puzzle | None:
    """Asks for the year of the older (newer) of two entities: both pages must be read, and it cannot be guessed."""
    kind = KINDS[mix(chance, 1) % len(KINDS)]
    first = _pick(world, mix(chance, 2), test, kind)
    second = _pick(world, mix(chance, 3), test, kind)
    if first is None or second is None or world.value(first, "year") == world.value(second, "year"):
        return None
    order = (text.OLDER, text.NEWER)[mix(chance, 4) % 2]
    first_is_older = world.value(first, "year") < world.value(second, "year")
    about = first if first_is_older is (order == text.OLDER) else second
    return Puzzle(COMPARISON, (first, second), about, "year", order)


_MAKERS: dict[str, Callable[[World, int, bool], Puzzle | None]] = {
    ONE_HOP: _one_hop,
    TWO_HOP: _two_hop,
    COMPARISON: _comparison,
}
FORMS = tuple(_MAKERS)
_NUMBERS = {form: number for number, form in enumerate(FORMS)}
