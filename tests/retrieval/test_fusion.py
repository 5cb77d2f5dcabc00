import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchUnavailable, UserError
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.retrieval.fusion import Fusion, FusionRetriever, fuse
from searchr1.retrieval.index import build_index
from searchr1.retrieval.spec import check_retriever, open_retriever
from searchr1.types import Passage


def passages(ids: str) -> list[Passage]:
    return [Passage(one, f"title {one}", f"text {one}", 1.0) for one in ids]


class Part(DictionaryRetriever):
    """Finds one thing whatever is asked, and says what it searches in; waits, fails and counts as it is told."""

    def __init__(
        self, ids: str, *, corpus_hash: str = "", size: int = 9, failure: Exception | None = None, seconds: float = 0
    ) -> None:
        super().__init__({}, default=passages(ids))
        self.says = RetrieverInfo("part", size, corpus_hash)
        self.failure = failure
        self.seconds = seconds
        self.finished = 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        found = await super().search(queries, k)
        await asyncio.sleep(self.seconds)
        if self.failure is not None:
            raise self.failure
        self.finished += 1
        return found

    async def info(self) -> RetrieverInfo:
        return self.says

    def counts(self) -> dict[str, float]:
        return {"requests": float(len(self.calls))}


def test_the_score_is_the_sum_of_reciprocal_ranks() -> None:
    fused = fuse([passages("abc"), passages("ca")], constant=60)
    assert [(p.id, p.score) for p in fused] == [
        ("a", 1 / 61 + 1 / 62),
        ("c", 1 / 63 + 1 / 61),
        ("b", 1 / 62),
    ]
    assert fused[0] == Passage("a", "title a", "text a", 1 / 61 + 1 / 62)


def test_a_constant_of_zero_makes_the_first_ranks_stand_out() -> None:
    rankings = [passages("xcab"), passages("ydab")]
    assert [p.id for p in fuse(rankings, constant=0)] == ["x", "y", "a", "c", "b", "d"]
    assert [p.id for p in fuse(rankings, constant=60)] == ["a", "b", "x", "y", "c", "d"]


def test_ties_keep_the_order_of_the_parts() -> None:
    assert [p.id for p in fuse([passages("ab"), passages("cd")])] == ["a", "c", "b", "d"]
    assert [p.id for p in fuse([passages("cd"), passages("ab")])] == ["c", "a", "d", "b"]


def test_a_passage_found_twice_by_one_part_counts_once_and_takes_one_rank() -> None:
    assert [(p.id, p.score) for p in fuse([passages("aabab")])] == [("a", 1 / 61), ("b", 1 / 62)]


def test_without_ids_equal_contents_are_the_same_passage() -> None:
    nameless = [Passage("", "T", "one"), Passage("", "T", "two")]
    assert [(p.text, p.score) for p in fuse([nameless, nameless[::-1]])] == [
        ("one", 1 / 61 + 1 / 62),
        ("two", 1 / 61 + 1 / 62),
    ]


@given(st.lists(st.lists(st.sampled_from("abcdef"), unique=True), min_size=1, max_size=4))
def test_scores_do_not_depend_on_the_order_of_the_parts(rankings: list[list[str]]) -> None:
    lists = [passages("".join(ids)) for ids in rankings]
    fused = fuse(lists)
    assert {p.id: p.score for p in fused} == {p.id: p.score for p in fuse(lists[::-1])}
    assert {p.id for p in fused} == {one for ids in rankings for one in ids}
    assert [p.score for p in fused] == sorted((p.score for p in fused), reverse=True)


async def test_every_part_is_asked_for_the_depth_or_for_more_when_more_is_wanted() -> None:
    parts = [Part("abc"), Part("cab")]
    fused = FusionRetriever(parts, depth=2)
    assert [p.id for p in (await fused.search(["q"], 1))[0]] == ["a"]
    (found,) = await fused.search(["q"], 3)
    assert [p.id for p in found] == ["a", "c", "b"]
    assert [part.calls for part in parts] == [[(("q",), 2), (("q",), 3)]] * 2


async def test_equal_queries_are_asked_once_and_answered_twice() -> None:
    parts = [Part("a"), Part("b")]
    first, second, third = await FusionRetriever(parts).search(["q", "r", "q"], 2)
    assert [p.id for p in first] == ["a", "b"]
    assert first == second == third
    assert first is not third
    assert parts[0].calls == [(("q", "r"), 50)]


async def test_parts_are_searched_at_the_same_time() -> None:
    """Each part waits until the other was asked as well."""
    met = asyncio.Barrier(2)

    class Waits(Part):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            await met.wait()
            return await super().search(queries, k)

    async with asyncio.timeout(5):
        assert len((await FusionRetriever([Waits("a"), Waits("b")]).search(["q"], 2))[0]) == 2


async def test_one_part_that_is_unavailable_makes_the_whole_so_and_stops_the_others() -> None:
    slow = Part("a", seconds=3600)
    broken = Part("b", failure=SearchUnavailable("http://h: gave up"))
    async with asyncio.timeout(5):
        with pytest.raises(SearchUnavailable, match="http://h: gave up"):
            await FusionRetriever([slow, broken]).search(["q"], 2)
    assert len(slow.calls) == 1
    assert slow.finished == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_part_that_loses_queries_makes_the_whole_unavailable() -> None:
    class Loses(Part):
        async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
            return (await super().search(queries, k))[1:]

    with pytest.raises(SearchUnavailable, match="expected results for 2 queries, the retriever returned 1"):
        await FusionRetriever([Part("a"), Loses("b")]).search(["q", "r"], 2)


async def test_info_of_one_corpus() -> None:
    same = FusionRetriever([Part("a", corpus_hash="f00"), Part("b", corpus_hash="f00")])
    assert await same.info() == RetrieverInfo("fusion", 9, "f00")
    unknown = FusionRetriever([Part("a", corpus_hash="f00", size=9), Part("b", size=0)], kind="hybrid")
    assert await unknown.info() == RetrieverInfo("hybrid", 9, "")


async def test_parts_over_different_corpora_are_refused_before_anything_is_searched() -> None:
    parts = [Part("a", corpus_hash="f00"), Part("b", corpus_hash=""), Part("c", corpus_hash="ba4")]
    with pytest.raises(UserError, match=r"fusion: the parts search in different corpora: part \(ba4...\) and part \(f"):
        await FusionRetriever(parts).search(["q"], 2)
    assert [part.calls for part in parts] == [[], [], []]


async def test_counts_are_the_sums_of_the_parts_and_per_question_is_passed_on() -> None:
    class Asks(Part):
        per_question = True

    fused = FusionRetriever([Part("a"), Part("b"), DictionaryRetriever({})])
    await fused.search(["q"], 2)
    assert fused.counts() == {"requests": 2.0}
    assert not fused.per_question
    assert FusionRetriever([Part("a"), Asks("b")]).per_question


async def test_a_spec_of_specs(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    rows = [("Dune", "A novel set on Arrakis."), ("Arrakis", "A planet.")]
    corpus.write_text("".join(json.dumps({"id": t, "title": t, "text": x}) + "\n" for t, x in rows))
    folders = [tmp_path / "plain", tmp_path / "titles"]
    for folder, weight in zip(folders, (0.0, 1.0), strict=True):
        build_index(corpus, folder, options={"title_weight": weight})
    inline = f'fusion:parts=["{folders[0]}","{folders[1]}"],constant=1'
    table = {"kind": "fusion", "parts": [str(folders[0]), {"kind": "fusion", "parts": list(map(str, folders))}]}
    for spec, score in ((inline, 1 / 2 + 1 / 2), (table, 1 / 61 + 1 / 61)):
        fused = open_retriever(spec)
        assert (await check_retriever(fused)).passages == 2
        (found,) = await fused.search(["arrakis"], 3)
        assert [p.id for p in found] == ["Arrakis", "Dune"]
        assert found[0].score == score


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("fusion:", "options of a fusion search engine: Object missing required field `parts`"),
        ('fusion:parts=["a"]', "parts: expected at least two search engines to fuse, got 1"),
        ('fusion:parts=["a","b"],depth=0', "depth: expected a number of passages from 1 to 1000, got 0"),
        ('fusion:parts=["a","b"],constant=-1', "constant: expected 0 or more, got -1"),
        ('fusion:parts=["http://h","no-such"]', "expected an index folder, a URL .*, got 'no-such'"),
    ],
)
def test_wrong_options_are_refused(spec: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_retriever(spec)


def test_the_options_are_those_of_the_paper() -> None:
    assert (Fusion(("a", "b")).depth, Fusion(("a", "b")).constant) == (50, 60)
