"""How facts become words: every frame, every alternative, every way to ask."""

import re

import pytest

from searchr1.data.atlas import text
from searchr1.data.atlas.questions import ASKED
from searchr1.data.atlas.world import FACTS, KINDS, Kind, World
from searchr1.types import Passage

LEFT_OVER = re.compile(r"[{}\[\]|]")
FACTS_OF = [(kind, fact) for kind, facts in FACTS.items() for fact in facts]
ASKED_OF = [(kind, fact) for kind, facts in ASKED.items() for fact in facts]
LINKS = [(kind, fact) for kind, fact in FACTS_OF if isinstance(FACTS[kind][fact], Kind)]
WORLD = World(11, 2000)


def test_a_passage() -> None:
    assert text.passage(World(0, 3000), 0) == Passage(
        "0",
        "Kuda Mudrith",
        "A native of Rimo Pirbran, Kuda Mudrith entered the world in 1870 and is employed by Huno Milnak as a baker.",
    )


def test_every_passage_states_all_its_facts_and_nothing_is_left_to_fill_in() -> None:
    for entity in range(WORLD.size):
        page = text.passage(WORLD, entity)
        assert (page.id, page.title) == (str(entity), WORLD.name(entity))
        assert not LEFT_OVER.search(page.text)
        assert page.text.endswith(".")
        assert "  " not in page.text
        for said in (page.title, *(WORLD.value(entity, fact) for fact in FACTS[WORLD.kind(entity)])):
            assert re.search(rf"\b{said}\b", page.text), (said, page.text)


@pytest.mark.parametrize("kind", KINDS)
def test_every_frame_has_every_fact_and_every_alternative_is_used(kind: Kind) -> None:
    frames = text._PASSAGES[kind]
    for frame in frames:
        assert sorted(set(re.findall(r"\{(\w+)\}", frame))) == sorted(["name", *FACTS[kind]])
    settled = {text._choose(frames, chance) for chance in range(300)}
    alternatives = sum(2 ** len(re.findall(r"\[[^\]]+\|[^\]]+\]", frame)) for frame in frames)
    assert len(settled) == alternatives
    assert not [frame for frame in settled if re.search(r"[\[\]|]", frame)]


def test_the_article_fits_the_word() -> None:
    pages = [text.passage(WORLD, entity).text for entity in range(WORLD.size)]
    assert any(" an actor" in page for page in pages)
    assert any(" a baker" in page for page in pages)
    assert not [page for page in pages if re.search(r"\ba [aeiou]|\ban [^aeiou]", page)]


@pytest.mark.parametrize(("kind", "fact"), ASKED_OF)
def test_every_fact_can_be_asked_for_in_every_wording(kind: Kind, fact: str) -> None:
    asked = [text.ask(kind, fact, "Balimo Dradtok", wording) for wording in range(text.WORDINGS)]
    assert len(set(asked)) == text.WORDINGS
    for words in asked:
        assert words.endswith("?")
        assert words.count("Balimo Dradtok") == 1
        assert not LEFT_OVER.search(words)


def test_no_wording_asks_for_two_facts_of_a_kind() -> None:
    asked = [(kind, text.ask(kind, fact, "X", wording)) for kind, fact in ASKED_OF for wording in range(text.WORDINGS)]
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(("kind", "fact"), LINKS)
def test_every_link_can_be_referred_to(kind: Kind, fact: str) -> None:
    assert re.fullmatch(r"the \w+ of X Y", text.refer(kind, fact, "X Y"))


def test_comparison_phrases() -> None:
    assert text.compare(text.OLDER, "A B", "C D") == "the older of A B and C D"
    assert text.compare(text.NEWER, "A B", "C D") == "the newer of A B and C D"


@pytest.mark.parametrize(("entity", "fact"), [(entity, fact) for entity in range(5) for fact in FACTS[KINDS[entity]]])
def test_answers_are_the_value_and_its_other_names(entity: int, fact: str) -> None:
    value = WORLD.value(entity, fact)
    first, _, last = value.rpartition(" ")
    others = {
        Kind.PERSON: (f"{last}, {first}",),
        Kind.TOWN: (f"the town of {value}",),
        Kind.COMPANY: (f"the company {value}",),
    }
    target = FACTS[KINDS[entity]][fact]
    expected = others[target] if isinstance(target, Kind) else (f"the year {value}",) if fact == "year" else ()
    assert text.answers(WORLD, entity, fact) == (value, *expected)


def test_a_person_of_three_words_is_named_last_name_first() -> None:
    world = World(0, 20_000)
    name, alias = text.answers(world, 1, "mayor")
    first, second, last = name.split(" ")
    assert alias == f"{last}, {first} {second}"
