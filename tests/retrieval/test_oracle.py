import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.chance import open_passages
from searchr1.retrieval.counting import ASKED, per_question
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.index import build_index
from searchr1.retrieval.oracle import OracleRetriever
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage, Question

ROWS = [
    ("d0", "Dune", "A science fiction novel."),
    ("d1", "Dune", "Its author is Frank Herbert."),
    ("d2", "Frank Herbert", "An American author."),
    ("d3", "Frank Herbert", "He was born in Tacoma, a port."),
    ("d4", "Tacoma", "A port city in Washington."),
    ("d5", "Frank Herbert Jr.", "A footballer from Tacoma, not Tacoman."),
]
TITLES = {"supporting_titles": ["Dune", "Frank Herbert"]}


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("oracle")
    rows = ({"id": id_, "title": title, "text": text} for id_, title, text in ROWS)
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


@pytest.fixture(autouse=True)
def nothing_is_asked() -> Iterator[None]:
    token = ASKED.set(None)
    yield
    ASKED.reset(token)


def oracle(index: Path, fill: DictionaryRetriever | None = None) -> OracleRetriever:
    return OracleRetriever(*open_passages(str(index), "oracle"), fill)


def found_for(retriever: OracleRetriever, question: Question, k: int, query: str = "anything") -> list[str]:
    async def search() -> list[str]:
        ASKED.set(question)
        return [passage.id for passage in (await retriever.search([query], k))[0]]

    return asyncio.run(search())


def question(*answers: str, **metadata: object) -> Question:
    return Question("q", "Where was the author of Dune born?", answers, "test", metadata)


def test_one_passage_of_each_page_in_turn_those_with_the_answer_first(index: Path) -> None:
    asked = question("Tacoma", **TITLES)
    assert [found_for(oracle(index), asked, k) for k in (1, 2, 3, 9)] == [
        *(["d0"], ["d0", "d3"], ["d0", "d3", "d1"], ["d0", "d3", "d1", "d2"])
    ]


def test_titles_are_compared_whole_and_unknown_or_repeated_ones_add_nothing(index: Path) -> None:
    titles = ["Herbert", "Tacoma", "Nowhere", "Tacoma"]
    assert found_for(oracle(index), question("Seattle", supporting_titles=titles), 9) == ["d4"]


def test_yes_and_no_are_no_answers_to_look_for(index: Path) -> None:
    assert found_for(oracle(index), question("No", supporting_titles=["Frank Herbert Jr."]), 9) == ["d5"]
    fill = DictionaryRetriever({}, default=[Passage("d5", "x", "no")])
    assert found_for(oracle(index, fill), question("no", "yes", "the"), 9) == ["d5"]
    assert fill.calls == [(("anything",), 9)]  # only to fill


def test_gold_passages_come_before_what_fills_and_none_comes_twice(index: Path) -> None:
    fill = DictionaryRetriever(
        {"sand": [Passage("d9", "Sand", "Grains.", 8.0), Passage("d0", "Dune", "A novel.", 7.0)]}
    )
    retriever = oracle(index, fill)
    assert found_for(retriever, question("Tacoma", supporting_titles=["Tacoma"]), 3, "sand") == ["d4", "d9", "d0"]
    assert found_for(retriever, question("Tacoma", supporting_titles=["Dune"]), 3, "sand") == ["d0", "d1", "d9"]
    calls = len(fill.calls)
    assert found_for(retriever, question("Tacoma", supporting_titles=["Dune"]), 2, "sand") == ["d0", "d1"]
    assert len(fill.calls) == calls  # nothing to fill


async def test_gold_scores_one_and_what_fills_zero(index: Path) -> None:
    fill = DictionaryRetriever({}, default=[Passage("d9", "Sand", "Grains.", 8.0)])
    ASKED.set(question("Tacoma", supporting_titles=["Tacoma"]))
    assert await oracle(index, fill).search(["sand"], 3) == [
        [Passage("d4", "Tacoma", "A port city in Washington.", 1.0), Passage("d9", "Sand", "Grains.", 0.0)]
    ]


def test_without_titles_gold_is_what_holds_an_answer_among_what_fills(index: Path) -> None:
    asked = question("Tacoma", "the port of Tacoma")
    text = asked.text
    fill = DictionaryRetriever(
        {
            f"{text} Tacoma": [
                Passage("a", "x", "Tacoman"),
                Passage("b", "x", "In TACOMA!"),
                Passage("c", "Tacoma", ""),
            ],
            f"{text} the port of Tacoma": [Passage("c", "Tacoma", ""), Passage("d", "x", "nothing")],
            "sand": [Passage("e", "x", "sand"), Passage("b", "x", "In TACOMA!")],
        }
    )
    assert found_for(oracle(index, fill), asked, 9, "sand") == ["c", "b", "e"]
    assert fill.calls == [((f"{text} Tacoma", f"{text} the port of Tacoma"), 100), (("sand",), 9)]


def test_without_titles_and_fill_nothing_is_known(index: Path) -> None:
    assert found_for(oracle(index), question("Tacoma"), 3) == []


async def test_without_a_question_it_is_the_users_error(index: Path) -> None:
    with pytest.raises(UserError, match="the oracle finds what belongs to the question that is being answered"):
        await oracle(index).search(["Dune"], 3)


async def test_each_task_finds_what_belongs_to_its_question(index: Path) -> None:
    retriever = oracle(index)
    assert per_question(retriever)

    async def ask(title: str) -> str:
        ASKED.set(question("?", supporting_titles=[title]))
        await asyncio.sleep(0)
        return (await retriever.search(["same"], 1))[0][0].title

    titles = ["Dune", "Frank Herbert", "Tacoma"] * 5
    assert await asyncio.gather(*map(ask, titles)) == titles


async def test_the_check_before_a_run_passes_with_and_without_a_fill(index: Path) -> None:
    manifest = json.loads((index / "manifest.json").read_bytes())
    expected = RetrieverInfo("oracle", 6, manifest["corpus_hash"])
    assert await check_retriever(open_retriever(f"oracle:index={index}")) == expected
    assert await check_retriever(open_retriever(f"oracle:index={index},fill={index}")) == expected
    assert ASKED.get() is None


async def test_every_query_has_its_own_list_and_k_is_checked(index: Path) -> None:
    ASKED.set(question("Tacoma", **TITLES))
    retriever = oracle(index)
    first, second = await retriever.search(["a", "a"], 2)
    assert first == second
    assert first is not second
    assert await retriever.search([], 2) == []
    with pytest.raises(UserError, match="k: expected"):
        await retriever.search(["a"], 0)


async def test_a_title_with_many_passages_and_equal_hashes_of_titles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ({"id": str(i), "title": f"t{i % 2}", "text": "x"} for i in range(2400))
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(tmp_path / "corpus.jsonl", tmp_path / "index")
    ASKED.set(question("?", supporting_titles=["t1"]))
    (found,) = await oracle(tmp_path / "index").search(["q"], 1000)
    assert [passage.id for passage in found] == [str(i) for i in range(1, 2000, 2)]
    monkeypatch.setattr("searchr1.retrieval.oracle.hash", lambda _: 7, raising=False)
    (found,) = await oracle(tmp_path / "index").search(["q"], 3)
    assert [passage.title for passage in found] == ["t1"] * 3
