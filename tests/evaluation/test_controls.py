"""Searches that find nothing, and searches that find what belongs to another question."""

from collections.abc import Sequence

from evaluation_parts import question

from searchr1.evaluation.controls import EmptyRetriever, ShuffledRetriever, controlled
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.counting import ASKED, per_question
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import Passage

QUESTIONS = [question(f"q{n}", "ab"[n == 5]) for n in range(6)]
INNER = DictionaryRetriever({q.text: [Passage(q.id, q.id, "x")] for q in QUESTIONS})


async def found(retriever: ShuffledRetriever) -> dict[str, list[str]]:
    result = {}
    for asked in QUESTIONS:
        token = ASKED.set(asked)
        passages = await retriever.search(["whatever", "else"], 3)
        ASKED.reset(token)
        assert passages[0] == passages[1]
        result[asked.id] = [passage.id for passage in passages[0]]
    return result


async def test_empty() -> None:
    empty = controlled(INNER, "empty", QUESTIONS, 0)
    assert isinstance(empty, EmptyRetriever)
    assert await empty.search(["a", "b"], 3) == [[], []]
    assert await empty.info() == await INNER.info()


async def test_shuffled_finds_what_another_question_of_the_set_finds() -> None:
    shuffled = ShuffledRetriever(INNER, QUESTIONS, 0)
    pages = await found(shuffled)
    assert pages["q5"] == []  # alone in its set
    others = {name: found[0] for name, found in pages.items() if found}
    assert sorted(others.values()) == ["q0", "q1", "q2", "q3", "q4"]
    assert all(name != page for name, page in others.items())
    assert per_question(shuffled)
    assert await found(ShuffledRetriever(INNER, QUESTIONS[::-1], 0)) == pages
    assert await found(ShuffledRetriever(INNER, QUESTIONS, 1)) != pages
    assert shuffled.counts() == {}


async def test_none_changes_nothing() -> None:
    assert controlled(INNER, "none", QUESTIONS, 0) is INNER
    assert isinstance(controlled(INNER, "shuffled", QUESTIONS, 0), ShuffledRetriever)


class Knowing:
    """Finds what belongs to the question that is being answered, whatever the query: an oracle."""

    per_question = True

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        asked = ASKED.get()
        assert asked is not None
        return [[Passage(asked.id, asked.id, "x")] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("oracle", 1, "")


async def test_shuffled_finds_what_an_oracle_finds_for_the_other_question() -> None:
    pages = await found(ShuffledRetriever(Knowing(), QUESTIONS, 0))
    assert pages == await found(ShuffledRetriever(INNER, QUESTIONS, 0))
    assert all(page != [name] for name, page in pages.items())
