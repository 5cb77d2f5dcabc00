import json
from collections import Counter
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval.chance import RandomRetriever
from searchr1.retrieval.index import build_index
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.retrieval.store import TEXT_FILE


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("random")
    rows = ({"id": str(i), "title": f"title {i}", "text": f"text {i}"} for i in range(20))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    build_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


async def drawn(retriever: Retriever, query: str, k: int) -> list[str]:
    return [passage.id for passage in (await retriever.search([query], k))[0]]


async def test_the_draw_follows_from_seed_and_query_alone(index: Path) -> None:
    first, again = open_retriever(f"random:index={index}"), open_retriever(f"random:index={index},seed=0")
    assert await drawn(first, "Dune", 5) == ["14", "7", "8", "16", "11"]
    await again.search(["something", "else"], 3)
    assert await drawn(again, "Dune", 5) == await drawn(first, "Dune", 5)
    assert await drawn(again, "dune", 5) != await drawn(first, "Dune", 5)
    assert await drawn(open_retriever(f"random:index={index},seed=1"), "Dune", 5) != await drawn(first, "Dune", 5)


async def test_the_first_of_many_are_those_of_few(index: Path) -> None:
    retriever = open_retriever(f"random:index={index}")
    assert (await drawn(retriever, "Dune", 20))[:4] == await drawn(retriever, "Dune", 4)


async def test_passages_are_different_whole_and_no_more_than_there_are(index: Path) -> None:
    retriever = open_retriever(f"random:index={index}")
    everything = (await retriever.search([""], 1000))[0]
    assert sorted(int(passage.id) for passage in everything) == list(range(20))
    assert all((p.title, p.text, p.score) == (f"title {p.id}", f"text {p.id}", 0.0) for p in everything)
    assert len({id(found) for found in await retriever.search(["a", "a"], 3)}) == 2
    assert await retriever.search([], 3) == []


async def test_all_passages_are_equally_likely(index: Path) -> None:
    """Chi-squared over 4,000 draws of one in 20: its 99.9% point at 19 degrees of freedom is 43.8."""
    retriever = open_retriever(f"random:index={index}")
    found = await retriever.search([f"query {i}" for i in range(4000)], 1)
    counts = Counter(passages[0].id for passages in found)
    assert len(counts) == 20
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 43.8


@pytest.mark.parametrize("k", [0, 1001, True])
async def test_a_k_out_of_range_is_the_users_error(index: Path, k: int) -> None:
    with pytest.raises(UserError, match="k: expected a whole number from 1 to 1000"):
        await open_retriever(f"random:index={index}").search(["Dune"], k)


async def test_a_query_that_no_encoding_knows_draws_too(index: Path) -> None:
    assert len(await drawn(open_retriever(f"random:index={index}"), "\ud800", 3)) == 3


async def test_it_is_a_retriever_of_the_whole_index(index: Path) -> None:
    retriever = open_retriever(f"random:index={index}")
    assert isinstance(retriever, RandomRetriever)
    manifest = json.loads((index / "manifest.json").read_bytes())
    assert await check_retriever(retriever) == RetrieverInfo("random", 20, manifest["corpus_hash"])


def test_an_index_without_passages_and_no_index_are_refused(index: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an index"):
        open_retriever(f"random:index={tmp_path}")
    for file in index.iterdir():
        if file.is_file() and file.name != TEXT_FILE:
            (tmp_path / file.name).write_bytes(file.read_bytes())
    with pytest.raises(UserError, match="expected an index that keeps its passages; a bm25 index holds none"):
        open_retriever(f"random:index={tmp_path}")
