from collections.abc import Sequence

import pytest

from searchr1.errors import SearchUnavailable, UserError
from searchr1.evaluation.recall import recall
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import Passage, Question

HERBERT = Passage("1", "Frank Herbert", "An author born in Tacoma.")
DUNE = Passage("2", "Dune", "A novel.")
OSLO = Passage("3", "Oslo", "The capital of Norway.")


def question(number: int, *answers: str, titles: list[str] | None = None) -> Question:
    metadata = {} if titles is None else {"supporting_titles": titles}
    return Question(str(number), f"q{number}", answers, "demo", metadata)


async def test_every_figure_by_hand() -> None:
    retriever = DictionaryRetriever({"q1": [DUNE, HERBERT, OSLO], "q2": [OSLO, DUNE], "q3": [DUNE], "q4": []})
    questions = [
        question(1, "Tacoma", titles=["Dune", "Frank Herbert", "Dune"]),
        question(2, "Oslo", titles=["Oslo", "Norway"]),
        question(3, "Yes", "yes.", titles=["Dune"]),
        question(4, "anything"),
    ]
    found = await recall(retriever, questions, (2, 1))
    values = {table: {k: cell["value"] for k, cell in found[table].items()} for table in list(found)[1:]}
    assert found["n"] == 4
    assert values == {
        "answer_recall": {"1": pytest.approx(1 / 3), "2": pytest.approx(2 / 3)},
        "title_recall": {"1": pytest.approx(2 / 3), "2": pytest.approx(2.5 / 3)},
        "all_titles_recall": {"1": pytest.approx(1 / 3), "2": pytest.approx(2 / 3)},
    }
    for table in values:
        for cell in found[table].values():
            assert list(cell) == ["value", "ci_low", "ci_high"]
            assert 0 <= cell["ci_low"] <= cell["value"] <= cell["ci_high"] <= 1
            assert cell["ci_low"] < cell["ci_high"]
    assert found == await recall(retriever, questions, (1, 2))


async def test_tables_without_a_question_that_counts_are_empty() -> None:
    found = await recall(DictionaryRetriever({}), [question(1, "no"), question(2, "The", "A.")], (3,))
    assert found == {"n": 2, "answer_recall": {}, "title_recall": {}, "all_titles_recall": {}}


async def test_an_engine_that_reads_the_question_is_asked_for_one_at_a_time() -> None:
    class Knowing(DictionaryRetriever):
        per_question = True

        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            asked = ASKED.get()
            assert asked is not None
            await super().search(queries, k)
            return [[Passage("1", "Gold", asked.answers[0])] for _ in queries]

    knowing = Knowing({})
    found = await recall(knowing, [question(i, f"answer{i}") for i in range(3)], (1,))
    assert found["answer_recall"]["1"]["value"] == 1.0
    assert knowing.calls == [(("q0",), 1), (("q1",), 1), (("q2",), 1)]
    assert ASKED.get() is None


async def test_questions_are_searched_in_batches_for_the_largest_k() -> None:
    retriever = DictionaryRetriever({})
    calls: list[tuple[int, int | None]] = []
    questions = [question(i, "x") for i in range(5)]
    await recall(retriever, questions, (3, 10), batch_size=2, progress=lambda done, total: calls.append((done, total)))
    assert retriever.calls == [(("q0", "q1"), 10), (("q2", "q3"), 10), (("q4",), 10)]
    assert calls == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(
    ("questions", "ks", "message"),
    [
        ([], (3,), "expected at least one question"),
        ([question(1, "x")], (), "expected at least one k"),
        ([question(1, "x")], (3, 0), "k: expected a whole number from 1 to 1000, got 0"),
    ],
)
async def test_nothing_to_measure_is_the_users_error(
    questions: list[Question], ks: tuple[int, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        await recall(DictionaryRetriever({}), questions, ks)


async def test_a_failed_search_is_never_a_miss() -> None:
    class Down(DictionaryRetriever):
        async def search(self, queries, k):  # type: ignore[no-untyped-def]
            raise SearchUnavailable("down")

    with pytest.raises(SearchUnavailable, match="down"):
        await recall(Down({}), [question(1, "x")])
