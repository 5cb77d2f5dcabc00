"""How facts become passages and questions: frames with ``[this|that]`` alternatives, chosen by hash."""

from __future__ import annotations

import re

from searchr1.data.atlas.world import FACTS, Kind, World, mix
from searchr1.types import Passage

_PASSAGES: dict[Kind, tuple[str, ...]] = {
    Kind.PERSON: (
        "{name} is a {work} [born in|from] {birthplace} in {year}, [employed by|working for] {employer}.",
        "[Born in|A native of] {birthplace}, {name} [entered the world|came] in {year} and [works for|is employed by] "
        "{employer} as a {work}.",
        "{name}, a {work} at {employer}, was born in {year} in {birthplace}.",
    ),
    Kind.TOWN: (
        "{name} is a town [founded|settled] in {year}, [known|famous] for its {craft}; its mayor is {mayor}.",
        "The town of {name}, [led by mayor|whose mayor is] {mayor}, dates from {year} and "
        "[makes|is known for] {craft}.",
        "Mayor {mayor} [leads|governs] {name}, a town of {year} that [makes|is famous for] {craft}.",
    ),
    Kind.COMPANY: (
        "{name} is a company [based|with its seat] in {seat}, founded in {year} by {founder}, [making|selling] "
        "{product}.",
        "Founded by {founder} in {year}, {name} is a company in {seat} that [makes|sells] {product}.",
        "[Based in|A company of] {seat}, {name} [makes|sells] {product} and was founded by {founder} in {year}.",
    ),
    Kind.BOOK: (
        "{name} is a {genre} [written by|by author] {author}, [published|printed] by {publisher} in {year}.",
        "[Written by|The work of author] {author}, {name} is a {genre} of {year}, published by {publisher}.",
        "[Published|Printed] by {publisher} in {year}, {name} is a {genre} [by author|written by] {author}.",
    ),
    Kind.INSTITUTE: (
        "{name} is an institute [of|for] {field} in {site}, opened in {year} and [directed|led] by {director}.",
        "[Directed by|Under director] {director}, the institute {name} in {site} has [taught|studied] {field} since "
        "{year}.",
        "Led by {director}, {name} is an institute for {field} [opened|set up] in {year} in {site}.",
    ),
}  # fmt: skip

_ASK: dict[tuple[Kind, str], tuple[str, ...]] = {
    (Kind.PERSON, "birthplace"): ("Where was {x} born?", "In which town was {x} born?"),
    (Kind.PERSON, "employer"): ("Who employs {x}?", "Which company does {x} work for?"),
    (Kind.PERSON, "year"): ("When was {x} born?", "In which year was {x} born?"),
    (Kind.TOWN, "mayor"): ("Who is the mayor of {x}?", "Who governs {x}?"),
    (Kind.TOWN, "year"): ("When was {x} settled?", "In which year was {x} settled?"),
    (Kind.COMPANY, "founder"): ("Who founded {x}?", "Who is the founder of {x}?"),
    (Kind.COMPANY, "seat"): ("Where is {x} based?", "In which town is {x} based?"),
    (Kind.COMPANY, "year"): ("When was {x} founded?", "In which year was {x} founded?"),
    (Kind.BOOK, "author"): ("Who wrote {x}?", "Who is the author of {x}?"),
    (Kind.BOOK, "publisher"): ("Who published {x}?", "Which company published {x}?"),
    (Kind.BOOK, "year"): ("When was {x} published?", "In which year was {x} published?"),
    (Kind.INSTITUTE, "director"): ("Who directs {x}?", "Who is the director of {x}?"),
    (Kind.INSTITUTE, "site"): ("Where is the site of {x}?", "In which town is the site of {x}?"),
    (Kind.INSTITUTE, "year"): ("When was {x} opened?", "In which year was {x} opened?"),
}

_REFER: dict[tuple[Kind, str], str] = {
    (Kind.PERSON, "birthplace"): "the birthplace of {x}",
    (Kind.PERSON, "employer"): "the employer of {x}",
    (Kind.TOWN, "mayor"): "the mayor of {x}",
    (Kind.COMPANY, "founder"): "the founder of {x}",
    (Kind.COMPANY, "seat"): "the seat of {x}",
    (Kind.BOOK, "author"): "the author of {x}",
    (Kind.BOOK, "publisher"): "the publisher of {x}",
    (Kind.INSTITUTE, "director"): "the director of {x}",
    (Kind.INSTITUTE, "site"): "the site of {x}",
}

OLDER, NEWER = "older", "newer"
WORDINGS = 2
"""Ways to ask for each fact."""

_ALIASES: dict[Kind, str] = {
    Kind.PERSON: "{last}, {first}",
    Kind.TOWN: "the town of {name}",
    Kind.COMPANY: "the company {name}",
    Kind.BOOK: "the book {name}",
    Kind.INSTITUTE: "the institute {name}",
}

_ARTICLE = re.compile(r"\ba (?=[aeiou])")
_ALTERNATIVES = re.compile(r"\[([^\]]+)\]")


def _choose(frames: tuple[str, ...], chance: int) -> str:
    """One frame with its alternatives settled by the bits of ``chance``."""
    chance, index = divmod(chance, len(frames))

    def settle(match: re.Match[str]) -> str:
        nonlocal chance
        options = match[1].split("|")
        chance, option = divmod(chance, len(options))
        return options[option]

    return _ALTERNATIVES.sub(settle, frames[index])


def passage(world: World, entity: int) -> Passage:
    """The page about one entity; its id is the entity's number."""
    kind = world.kind(entity)
    facts = {fact: world.value(entity, fact) for fact in FACTS[kind]}
    frame = _choose(_PASSAGES[kind], mix(world.seed, 5, entity))
    name = world.name(entity)
    return Passage(str(entity), name, _ARTICLE.sub("an ", frame.format(name=name, **facts)))


def ask(kind: Kind, fact: str, subject: str, chance: int) -> str:
    """A question for ``fact`` of ``subject`` (a name or a phrase that refers to an entity of ``kind``).

    >>> ask(Kind.BOOK, "author", "Balimo Dradtok", 0)
    'Who wrote Balimo Dradtok?'
    """
    return _choose(_ASK[kind, fact], chance).format(x=subject)


def refer(kind: Kind, fact: str, subject: str) -> str:
    """A phrase for the entity that ``fact`` of ``subject`` points to: ``the author of X``."""
    return _REFER[kind, fact].format(x=subject)


def compare(order: str, first: str, second: str) -> str:
    """A phrase for one of two entities: ``the older of X and Y``."""
    return f"the {order} of {first} and {second}"


def answers(world: World, entity: int, fact: str) -> tuple[str, ...]:
    """The fact's value and the other ways to say it."""
    value = world.value(entity, fact)
    kind = FACTS[world.kind(entity)][fact]
    if not isinstance(kind, Kind):
        return (value, f"the year {value}") if fact == "year" else (value,)
    first, _, last = value.rpartition(" ")
    return value, _ALIASES[kind].format(name=value, first=first, last=last)
