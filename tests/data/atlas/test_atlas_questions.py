"""Questions: what they name, that their answers can be read where they say, and that the two splits are apart."""

import re
from itertools import islice

import pytest

from searchr1.data.atlas import lexicon
from searchr1.data.atlas.questions import (
    ASKED,
    COMPARISON,
    FORMS,
    ONE_HOP,
    TWO_HOP,
    Puzzle,
    distinct_questions,
    puzzles,
    question,
    questions,
)
from searchr1.data.atlas.text import WORDINGS, passage
from searchr1.data.atlas.world import Kind, World, is_held_out
from searchr1.types import Question

WORLDS = [World(0, 3000), World(4, 20_000)]
ALL = [(world, form, test) for world in WORLDS for form in FORMS for test in (False, True)]
EVERY = pytest.mark.parametrize(
    ("world", "form", "test"), ALL, ids=[f"{w.size}-{form}-{'test' if test else 'train'}" for w, form, test in ALL]
)
_NAME = re.compile(rf"(?:(?:{'|'.join(lexicon.FIRST_WORDS)}) ){{1,2}}(?:{'|'.join(lexicon.SECOND_WORDS)})\b")


def named(asked: Question) -> list[str]:
    """The entities that a question's words name."""
    return _NAME.findall(asked.text)


def says(world: World, entity: int, words: str) -> bool:
    return re.search(rf"\b{re.escape(words)}\b", passage(world, entity).text) is not None


def test_known_questions() -> None:
    world = World(0, 3000)
    first = [questions(world, form, 1, test=True)[0] for form in FORMS]
    assert first == [
        Question(
            "atlas-0-443-is-year-0",
            "When was Broba Zurdak published?",
            ("1850", "the year 1850"),
            "one-hop",
            {"form": "one-hop", "hops": 1, "supporting_titles": ["Broba Zurdak"]},
        ),
        Question(
            "atlas-0-1425-1737-employer-year-0",
            "When was the employer of Dovor Manlok founded?",
            ("1934", "the year 1934"),
            "two-hop",
            {"form": "two-hop", "hops": 2, "supporting_titles": ["Dovor Manlok", "Remo Zilzol"]},
        ),
        Question(
            "atlas-0-882-1977-older-year-0",
            "When was the older of Taran Drilgar and Tino Krorbran founded?",
            ("1924", "the year 1924"),
            "comparison",
            {"form": "comparison", "hops": 2, "supporting_titles": ["Taran Drilgar", "Tino Krorbran"]},
        ),
    ]


@EVERY
def test_questions_name_entities_of_their_split_alone(world: World, form: str, test: bool) -> None:
    made = questions(world, form, 300, test=test)
    for asked in made:
        titles = asked.metadata["supporting_titles"]
        assert named(asked) == (titles if form == COMPARISON else titles[:1]), asked
        assert [is_held_out(name) for name in named(asked)] == [test] * len(named(asked))


@EVERY
def test_questions_are_different_and_say_what_they_are(world: World, form: str, test: bool) -> None:
    made = questions(world, form, 300, test=test)
    assert len({asked.id for asked in made}) == len({asked.text for asked in made}) == 300
    hops = 1 if form == ONE_HOP else 2
    assert {(q.dataset, q.metadata["form"], q.hops, len(q.metadata["supporting_titles"])) for q in made} == {
        (form, form, hops, hops)
    }
    assert all(len(set(q.metadata["supporting_titles"])) == hops for q in made)


@pytest.mark.parametrize("form", FORMS)
def test_no_question_entity_is_in_both_splits(form: str) -> None:
    world = WORLDS[0]
    splits = [
        {
            name
            for other in FORMS
            for asked in questions(world, other if test else form, 400, test=test)
            for name in named(asked)
        }
        for test in (False, True)
    ]
    assert len(splits[0]) > 100
    assert len(splits[1]) > 100
    assert not splits[0] & splits[1]


@EVERY
def test_answers_can_be_read_on_the_supporting_pages(world: World, form: str, test: bool) -> None:
    for puzzle in islice(puzzles(world, form, test=test), 200):
        made = question(world, puzzle)
        value = world.value(puzzle.about, puzzle.fact)
        assert made.answers[0] == value
        assert made.metadata["supporting_titles"] == [passage(world, page).title for page in puzzle.pages]
        assert puzzle.about in puzzle.pages
        assert says(world, puzzle.about, value)
        if form == TWO_HOP:
            first, second = puzzle.pages
            assert puzzle.about == second
            assert says(world, first, world.name(second))
            assert world.value(first, puzzle.by) == world.name(second)


@pytest.mark.parametrize("world", WORLDS, ids=["3000", "20000"])
@pytest.mark.parametrize("test", [False, True])
def test_a_comparison_is_won_by_the_page_that_answers_and_not_by_the_other(world: World, test: bool) -> None:
    for puzzle in islice(puzzles(world, COMPARISON, test=test), 400):
        [loser] = set(puzzle.pages) - {puzzle.about}
        assert world.kind(loser) is world.kind(puzzle.about)
        years = int(world.value(puzzle.about, "year")), int(world.value(loser, "year"))
        assert years[0] < years[1] if puzzle.by == "older" else years[0] > years[1]
        assert puzzle.fact == "year"
        answers = question(world, puzzle).answers
        assert says(world, puzzle.about, answers[0])
        assert not [answer for answer in answers if says(world, loser, answer)]


def test_the_place_of_the_winner_and_the_order_tell_nothing() -> None:
    drawn = list(islice(puzzles(World(0, 3000), COMPARISON, test=False), 2000))
    for share in (
        sum(puzzle.pages[0] == puzzle.about for puzzle in drawn) / 2000,
        sum(puzzle.by == "older" for puzzle in drawn) / 2000,
    ):
        assert 0.46 < share < 0.54


def test_every_kind_fact_link_and_wording_is_asked_for() -> None:
    world = World(0, 3000)
    for form in FORMS:
        drawn = list(islice(puzzles(world, form, test=False), 1500))
        facts = {(world.kind(puzzle.about), puzzle.fact) for puzzle in drawn}
        every = {(kind, fact) for kind, known in ASKED.items() for fact in known}
        if form == TWO_HOP:  # nothing links to a book or an institute
            every = {(kind, fact) for kind, fact in every if kind not in (Kind.BOOK, Kind.INSTITUTE)}
        if form == COMPARISON:
            every = {(kind, fact) for kind, fact in every if fact == "year"}
        assert facts == every
        assert {q.id.rpartition("-")[2] for q in questions(world, form, 100, test=False)} == set(
            map(str, range(WORDINGS))
        )


def test_streams_are_independent_and_repeatable() -> None:
    world = World(0, 3000)

    def take(stream: int) -> list[Puzzle]:
        return list(islice(puzzles(world, TWO_HOP, test=False, stream=stream), 50))

    assert take(1) == take(1)
    assert not set(take(0)) & set(take(1))


def test_a_world_without_reserved_names_has_no_test_questions() -> None:
    world = World(0, 1000, exclude_held_out=True)
    for form in FORMS:
        assert next(puzzles(world, form, test=True), None) is None
        with pytest.raises(ValueError, match=f"^a world of 1000 entities has no 1 different {form} questions; make it"):
            questions(world, form, 1, test=True)
        assert len(questions(world, form, 50, test=False)) == 50


def test_a_small_world_gives_nearly_all_it_has_and_ends() -> None:
    world = World(0, 10)
    free = [entity for entity in range(10) if not is_held_out(world.name(entity))]
    most = sum(len(ASKED[world.kind(entity)]) for entity in free) * WORDINGS
    given = list(distinct_questions(world, ONE_HOP, test=False))
    assert len({asked.id for asked in given}) == len(given) == most
    with pytest.raises(ValueError, match=f"has no {most + 1} different one-hop questions"):
        questions(world, ONE_HOP, most + 1, test=False)
