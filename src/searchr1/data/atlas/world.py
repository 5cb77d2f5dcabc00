"""A made-up world computed on the fly: entity ``i`` and its facts are pure functions of ``(seed, i)``.

Nothing is stored, so a world of a million pages costs no memory and any part of it can be made alone.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from searchr1.data.atlas import lexicon

_MASK64 = (1 << 64) - 1
_FIRST_NUMBER = {word: number for number, word in enumerate(lexicon.FIRST_WORDS)}
_SECOND_NUMBER = {word: number for number, word in enumerate(lexicon.SECOND_WORDS)}
HELD_OUT = 5
"""One name in ``HELD_OUT`` is reserved for test questions."""


class Kind(StrEnum):
    """What an entity is. Entity ``i`` is of kind ``KINDS[i % 5]``."""

    PERSON = "person"
    TOWN = "town"
    COMPANY = "company"
    BOOK = "book"
    INSTITUTE = "institute"


KINDS = tuple(Kind)

FACTS: dict[Kind, dict[str, Kind | tuple[str, ...]]] = {
    Kind.PERSON: {
        "birthplace": Kind.TOWN,
        "employer": Kind.COMPANY,
        "work": lexicon.PROFESSIONS,
        "year": lexicon.YEARS,
    },
    Kind.TOWN: {"mayor": Kind.PERSON, "craft": lexicon.GOODS, "year": lexicon.YEARS},
    Kind.COMPANY: {"founder": Kind.PERSON, "seat": Kind.TOWN, "product": lexicon.GOODS, "year": lexicon.YEARS},
    Kind.BOOK: {"author": Kind.PERSON, "publisher": Kind.COMPANY, "genre": lexicon.GENRES, "year": lexicon.YEARS},
    Kind.INSTITUTE: {"director": Kind.PERSON, "site": Kind.TOWN, "field": lexicon.FIELDS, "year": lexicon.YEARS},
}
"""The facts of each kind: another kind (the fact is one of its entities) or the values it can take."""


def mix(*parts: int) -> int:
    """A 64-bit hash of integers (splitmix64 finaliser), the world's only source of chance.

    >>> mix(1, 2) == mix(1, 2), mix(1, 2) == mix(2, 1)
    (True, False)
    """
    state = 0x9E3779B97F4A7C15
    for part in parts:
        state = (state + part * 0xBF58476D1CE4E5B9 + 0x9E3779B97F4A7C15) & _MASK64
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK64
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK64
        state ^= state >> 31
    return state


def is_held_out(name: str) -> bool:
    """Whether a name is reserved for test questions, in every world: one combination of words in five.

    The base policy is made in worlds without these names, and no training question names one.
    """
    *firsts, second = name.split(" ")
    return (sum(_FIRST_NUMBER[word] for word in firsts) + _SECOND_NUMBER[second]) % HELD_OUT == 0


@dataclass(frozen=True)
class World:
    """``size`` entities of five kinds in equal parts.

    ``exclude_held_out`` leaves out every name that is reserved for test questions (used to make the base policy).

    >>> world = World(seed=7, size=1000)
    >>> world.name(0) != world.name(1), World(7, 1000).name(0) == world.name(0)
    (True, True)
    """

    seed: int
    size: int
    exclude_held_out: bool = False

    def __post_init__(self) -> None:
        if not 10 <= self.size <= 2_000_000:
            raise ValueError(f"a world has 10 to 2000000 entities, got {self.size}")

    @cached_property
    def _words(self) -> int:
        """Words in a name: two until half of the combinations would be used, then three."""
        two = len(lexicon.FIRST_WORDS) * len(lexicon.SECOND_WORDS)
        return 2 if self.size <= two // 2 else 3

    @cached_property
    def _seconds(self) -> int:
        """How many last words can follow given first ones."""
        words = len(lexicon.SECOND_WORDS)
        return words - words // HELD_OUT if self.exclude_held_out else words

    @cached_property
    def _permutation(self) -> tuple[int, int, int]:
        """Multiplier, offset and modulus of the affine map from entity numbers to name numbers."""
        modulus = len(lexicon.FIRST_WORDS) ** (self._words - 1) * self._seconds
        multiplier = mix(self.seed, 1) % modulus
        while math.gcd(multiplier, modulus) != 1:
            multiplier += 1
        return multiplier, mix(self.seed, 2) % modulus, modulus

    def name(self, entity: int) -> str:
        """The entity's name: unique in its world."""
        multiplier, offset, modulus = self._permutation
        number, second = divmod((entity * multiplier + offset) % modulus, self._seconds)
        firsts = []
        for _ in range(self._words - 1):
            number, first = divmod(number, len(lexicon.FIRST_WORDS))
            firsts.append(first)
        if self.exclude_held_out:  # the number-th last word that does not complete a reserved name
            block, place = divmod(second, HELD_OUT - 1)
            second = block * HELD_OUT + (place + 1 - sum(firsts)) % HELD_OUT
        return " ".join([*(lexicon.FIRST_WORDS[first] for first in firsts), lexicon.SECOND_WORDS[second]])

    def kind(self, entity: int) -> Kind:
        return KINDS[entity % len(KINDS)]

    def count(self, kind: Kind) -> int:
        """How many entities are of ``kind``."""
        return (self.size - KINDS.index(kind) + len(KINDS) - 1) // len(KINDS)

    def target(self, entity: int, fact: str) -> int:
        """The entity that ``fact`` of ``entity`` points to."""
        kind = FACTS[self.kind(entity)][fact]
        assert isinstance(kind, Kind), f"{fact} is a value, not an entity"
        number = mix(self.seed, 3, entity, zlib.crc32(fact.encode())) % self.count(kind)
        return number * len(KINDS) + KINDS.index(kind)

    def value(self, entity: int, fact: str) -> str:
        """The fact as text: a name or a value."""
        values = FACTS[self.kind(entity)][fact]
        if isinstance(values, Kind):
            return self.name(self.target(entity, fact))
        return values[mix(self.seed, 4, entity, zlib.crc32(fact.encode())) % len(values)]
