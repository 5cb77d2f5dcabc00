"""The made-up world: names, reserved names, kinds and facts as pure functions of seed and number."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.data.atlas import lexicon
from searchr1.data.atlas.text import passage
from searchr1.data.atlas.world import FACTS, KINDS, Kind, World, is_held_out, mix

SEEDS = st.integers(0, 2**64)
WORLDS = st.builds(World, SEEDS, st.integers(10, 2_000_000), st.booleans())


def test_known_values() -> None:
    """Trained policies depend on these words: another value here is another encyclopedia."""
    assert mix(0) == 0x6E789E6AA1B965F4  # the second output of splitmix64 from state 0
    assert mix(1, 2) == 0x9F236C1649EF1942
    assert World(0, 3000).name(0) == "Kuda Mudrith"
    text = "\n".join(passage(World(0, size), entity).contents for size in (3000, 20_000) for entity in range(500))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "caf18dd6b958bce0fc88e9ccc1cafbf4392c96ce21385afb3a30f54a18b9a16a"
    )


def test_words() -> None:
    assert (len(set(lexicon.FIRST_WORDS)), len(set(lexicon.SECOND_WORDS))) == (160, 160)
    assert not set(lexicon.FIRST_WORDS) & set(lexicon.SECOND_WORDS)
    assert not [word for word in lexicon.FIRST_WORDS + lexicon.SECOND_WORDS if word.endswith(("s", "ed", "ing", "ly"))]
    values = (lexicon.PROFESSIONS, lexicon.GOODS, lexicon.GENRES, lexicon.FIELDS, lexicon.YEARS)
    assert [len(set(words)) for words in values] == [40, 40, 40, 40, 100]


@pytest.mark.parametrize("excluding", [False, True])
def test_names_are_unique_in_the_largest_world_of_two_words(excluding: bool) -> None:
    world = World(5, 12_800, excluding)
    names = {world.name(entity) for entity in range(world.size)}
    assert len(names) == world.size
    assert {len(name.split(" ")) for name in names} == {2}


@pytest.mark.parametrize("excluding", [False, True])
def test_names_are_unique_with_three_words(excluding: bool) -> None:
    world = World(5, 12_801, excluding)
    names = {world.name(entity) for entity in range(world.size)}
    assert len(names) == world.size
    assert {len(name.split(" ")) for name in names} == {3}


@given(WORLDS, st.data())
def test_two_entities_never_share_a_name(world: World, data: st.DataObject) -> None:
    numbers = st.integers(0, world.size - 1)
    first, second = data.draw(numbers), data.draw(numbers)
    assert (world.name(first) == world.name(second)) == (first == second)


def test_one_name_in_five_is_reserved_in_every_world() -> None:
    pairs = [f"{first} {second}" for first in lexicon.FIRST_WORDS for second in lexicon.SECOND_WORDS]
    assert sum(map(is_held_out, pairs)) * 5 == len(pairs)
    for world in (World(3, 10_000), World(3, 20_000)):
        share = sum(is_held_out(world.name(entity)) for entity in range(10_000)) / 10_000
        assert 0.19 < share < 0.21


@given(st.builds(World, SEEDS, st.integers(10, 2_000_000), st.just(True)), st.data())
def test_a_world_that_excludes_reserved_names_has_none(world: World, data: st.DataObject) -> None:
    assert not is_held_out(world.name(data.draw(st.integers(0, world.size - 1))))


@pytest.mark.parametrize("size", range(10, 21))
def test_kinds_in_equal_parts(size: int) -> None:
    world = World(0, size)
    kinds = [world.kind(entity) for entity in range(size)]
    assert {kind: world.count(kind) for kind in KINDS} == {kind: kinds.count(kind) for kind in KINDS}
    assert max(map(kinds.count, KINDS)) - min(map(kinds.count, KINDS)) <= 1


@given(WORLDS, st.data())
def test_facts(world: World, data: st.DataObject) -> None:
    entity = data.draw(st.integers(0, world.size - 1))
    for fact, values in FACTS[world.kind(entity)].items():
        value = world.value(entity, fact)
        if isinstance(values, Kind):
            target = world.target(entity, fact)
            assert 0 <= target < world.size
            assert world.kind(target) is values
            assert value == world.name(target)
        else:
            assert value in values


def test_facts_are_spread_over_their_values() -> None:
    world = World(1, 10_000)
    years = [world.value(entity, "year") for entity in range(world.size)]
    assert set(years) == set(lexicon.YEARS)
    assert max(map(years.count, lexicon.YEARS)) < 160  # 100 each on average
    mayors = [world.target(town, "mayor") for town in range(1, world.size, 5)]
    assert len(set(mayors)) > 1100  # of 2000 drawn from 2000; 1264 expected


def test_worlds_differ_by_seed_alone() -> None:
    names = {seed: [World(seed, 3000).name(entity) for entity in range(20)] for seed in (0, 1)}
    assert names[0] == [World(0, 3000).name(entity) for entity in range(20)]
    assert not set(names[0]) & set(names[1])
    assert World(0, 3000).name(7) == World(0, 500).name(7)


@pytest.mark.parametrize("size", [-1, 0, 9, 2_000_001])
def test_sizes(size: int) -> None:
    with pytest.raises(ValueError, match=f"^a world has 10 to 2000000 entities, got {size}$"):
        World(0, size)
