"""The dense kind of index, mostly with an encoder whose vectors are known; MiniLM runs in the contract suite."""

import asyncio
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_encoder import FakeEncoder

from searchr1.errors import UserError
from searchr1.retrieval.dense import backend, layouts
from searchr1.retrieval.dense.backend import Dense, SampledQueries
from searchr1.retrieval.index import KEPT, Estimate, build_index, open_index, read_manifest
from searchr1.types import Passage

faiss = pytest.importorskip("faiss", reason="needs searchr1[dense]")
PASSAGES = [Passage(str(i), f"Town {i}", f"The river of town {i} is river{i * i}.") for i in range(300)]

KILLED = """
import os, signal, sys
from fake_encoder import FakeEncoder
from searchr1.retrieval.dense import backend, vectors
from searchr1.retrieval.index import build_index

class Dying(FakeEncoder):
    def encode_passages(self, passages):
        if len(self.encoded) == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(passages)

backend.load_encoder = Dying().load
vectors.BLOCK_PASSAGES = 100
build_index(sys.argv[1], sys.argv[2], kind="dense")
"""


def write(path: Path, passages: list[Passage]) -> Path:
    path.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in passages))
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    return write(tmp_path / "towns.jsonl", PASSAGES)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "index"


@pytest.fixture
def encoder(monkeypatch: pytest.MonkeyPatch) -> FakeEncoder:
    """Takes the place of every encoder; blocks of 100 passages."""
    fake = FakeEncoder()
    monkeypatch.setattr(backend, "load_encoder", fake.load)
    monkeypatch.setattr("searchr1.retrieval.dense.vectors.BLOCK_PASSAGES", 100)
    return fake


def build(corpus: Path, out: Path, **options: Any) -> dict[str, Any]:
    """Build, or build again; what `dense.json` says."""
    build_index(corpus, out, kind="dense", options=options, overwrite=True)
    facts: dict[str, Any] = json.loads((out / "dense.json").read_text())
    return facts


def names(out: Path) -> set[str]:
    return {path.name for path in (out / KEPT).iterdir()}


async def test_the_folder_says_what_was_built(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    facts = build(corpus, out, layout="hnsw")
    assert sorted(path.name for path in out.iterdir()) == [
        "dense.json", "index.faiss", "kept", "manifest.json", "passages.jsonl", "passages.offsets",
    ]  # fmt: skip
    assert facts.pop("recall") >= 0.95
    assert facts.pop("value") >= 16
    assert facts == {
        "layout": "hnsw",
        "parameter": "efSearch",
        "dimension": 32,
        "encoder": "sentence-transformers/all-MiniLM-L6-v2",
        "fingerprint": "fake",
        "faiss_file": "",
        "size": 0,
        "mtime_ns": 0,
    }
    assert encoder.encoded == [100, 100, 100]
    retriever = open_index(out)
    assert (await retriever.info()).kind == "dense"
    assert [
        [p.id for p in found] for found in await retriever.search([PASSAGES[12].contents, PASSAGES[7].text], 1)
    ] == [
        ["12"],
        ["7"],
    ]


async def test_queries_without_a_word_find_nothing(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out)
    found = await open_index(out).search(["", " \n", "?!", "😀", "\ud800", "\x00", "river", "小"], 2)
    assert [len(passages) for passages in found] == [0, 0, 0, 0, 0, 0, 2, 2]


def test_another_layout_encodes_nothing(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    assert build(corpus, out)["layout"] == "flat"
    before = names(out)
    for layout in ("sq8", "ivf-sq8", "ivf-pq"):
        assert build(corpus, out, layout=layout)["layout"] == layout
        assert names(out) == before
    assert encoder.encoded == [100, 100, 100]


def test_more_passages_encode_only_what_is_new(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out)
    write(corpus, [*PASSAGES, Passage("new", "New", "town")])
    build(corpus, out)
    assert encoder.encoded == [100, 100, 100, 1]
    assert read_manifest(out).passages == 301


def test_stale_vectors_go(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out)
    before = names(out)
    encoder.fingerprint = "another"
    build(corpus, out)
    after = names(out)
    assert (len(before), len(after), before & after) == (3, 3, set())
    write(corpus, PASSAGES[:150])
    build(corpus, out)
    assert len(names(out)) == 2


def test_vectors_need_not_be_kept(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out, keep_vectors=False)
    assert names(out) == set()
    assert open_index(out)


def test_embedding_goes_on_where_it_was_killed(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(corpus), str(out)], env=environment, capture_output=True, check=False
    )
    assert killed.returncode == -9, killed.stderr
    assert not out.exists()
    build(corpus, out)
    assert encoder.encoded == [100]  # two of three blocks were done


def test_memory_holds_one_block_of_passages_and_nothing_more(encoder: FakeEncoder, tmp_path: Path) -> None:
    """What is read is encoded before more is read, so that progress is told as it is made."""
    read: list[int] = []

    def stream() -> Any:
        for number, passage in enumerate(PASSAGES):
            if number % 100 == 0:
                read.append(len(encoder.encoded))
            yield passage

    Dense(layout="flat").build(tmp_path, stream())
    assert read == [0, 1, 2]


async def test_results_do_not_depend_on_the_company(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out)
    retriever = open_index(out)
    queries = [f"town {i} river" for i in range(30)]
    together = await retriever.search(queries, 4)
    assert await asyncio.gather(*(retriever.search([query], 4) for query in queries)) == [[one] for one in together]
    assert [found[0] for found in await asyncio.gather(*(retriever.search([queries[3]], k) for k in (1, 2, 3)))] == [
        together[3][:k] for k in (1, 2, 3)
    ]


async def test_searches_that_wait_are_one_batch(
    corpus: Path, out: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(corpus, out)
    retriever = open_index(out)
    batches: list[int] = []
    entered, released = threading.Event(), threading.Event()
    real = encoder.encode_queries

    def blocking(queries: list[str]) -> Any:
        batches.append(len(queries))
        entered.set()
        assert released.wait(10)
        return real(queries)

    monkeypatch.setattr(encoder, "encode_queries", blocking)
    calls = [asyncio.create_task(retriever.search([PASSAGES[0].contents], 1))]
    assert await asyncio.to_thread(entered.wait, 10)
    calls += [asyncio.create_task(retriever.search([PASSAGES[i].contents], 1)) for i in range(1, 50)]
    await asyncio.sleep(0)  # all of them have asked
    calls[7].cancel()
    await asyncio.sleep(0)
    released.set()
    found = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(found.pop(7), asyncio.CancelledError)
    assert [one[0][0].id for one in found] == [str(i) for i in range(50) if i != 7]  # type: ignore[index]
    assert batches == [1, 48]


async def test_an_error_reaches_those_who_wait_and_the_next_search_works(
    corpus: Path, out: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(corpus, out)
    retriever = open_index(out)
    with monkeypatch.context() as broken:
        broken.setattr(encoder, "encode_queries", lambda queries: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            await retriever.search(["town"], 1)
    assert await retriever.search(["town"], 1)


def test_the_plan_weighs_the_layouts(encoder: FakeEncoder) -> None:
    estimate = Estimate(1_000_000, 500_000_000, tuple(PASSAGES[:20]))
    plan = Dense(layout="sq8").plan(estimate)
    assert [row[0] for row in plan.choices] == ["layout", *layouts.LAYOUTS]
    assert [row[0] for row in plan.choices if row[4]] == ["sq8"]
    assert plan.disk_bytes == 510_000_000 + 32_000_000 + 64_000_000
    assert plan.memory_bytes == 1.2e9 + 32_000_000
    assert encoder.encoded == [8, 8]
    assert Dense(faiss_file="x").plan(estimate).choices == ()


def test_queries_are_drawn_from_the_whole_stream() -> None:
    drawn = SampledQueries(Passage(str(i), f" title {i} ", "") for i in range(5000))
    assert len(list(drawn)) == 5000
    numbers = [int(query.split()[1]) for query in drawn.chosen()]
    assert len(set(numbers)) == 200
    assert 2000 < np.mean(numbers) < 3000
    untitled = SampledQueries([Passage("1", "", " ".join(map(str, range(20))))] * 2)
    list(untitled)
    assert untitled.chosen() == ["0 1 2 3 4 5 6 7 8 9 10 11"]


def published(path: Path, encoder: FakeEncoder, kind: str = "Flat", metric: int = faiss.METRIC_INNER_PRODUCT) -> Path:
    index = faiss.index_factory(32, kind, metric)
    index.add(encoder.encode_passages(PASSAGES))
    faiss.write_index(index, str(path))
    encoder.encoded.clear()
    return path


@pytest.mark.parametrize(("kind", "layout", "value"), [("Flat", "IndexFlatIP", 0), ("HNSW64", "IndexHNSWFlat", 128)])
async def test_a_published_index_is_searched_where_it_lies(
    corpus: Path, out: Path, encoder: FakeEncoder, tmp_path: Path, kind: str, layout: str, value: int
) -> None:
    file = published(tmp_path / "e5.index", encoder, kind)
    facts = build(corpus, out, faiss_file=str(file), encoder="intfloat/e5-base-v2")
    assert (facts["layout"], facts["value"], facts["recall"], facts["faiss_file"]) == (layout, value, None, str(file))
    assert encoder.encoded == []
    assert not (out / "index.faiss").exists()
    ((found,),) = await open_index(out).search([PASSAGES[12].contents], 1)
    assert found.id == "12"
    os.utime(file, (1, 1))
    with pytest.raises(UserError, match="has changed since the index was built"):
        open_index(out)
    file.unlink()
    with pytest.raises(UserError, match="faiss_file: there is no file"):
        open_index(out)


def test_a_published_index_has_to_fit(corpus: Path, out: Path, encoder: FakeEncoder, tmp_path: Path) -> None:
    file = published(tmp_path / "e5.index", encoder)
    with pytest.raises(UserError, match=r"e5\.index has its own; leave layout"):
        build(corpus, out, faiss_file=str(file), layout="flat")
    encoder.dimension = 33
    with pytest.raises(UserError, match="expected vectors of 33 dimensions, which the encoder makes, got 32"):
        build(corpus, out, faiss_file=str(file))
    encoder.dimension = 32
    write(corpus, PASSAGES[:7])
    with pytest.raises(UserError, match="expected 7 vectors, one a passage, got 300"):
        build(corpus, out, faiss_file=str(file))
    write(corpus, PASSAGES)
    published(file, encoder, metric=faiss.METRIC_L2)
    with pytest.raises(UserError, match="expected an index by inner product, got metric 1"):
        build(corpus, out, faiss_file=str(file))
    with pytest.raises(UserError, match=r"faiss_file: there is no file .*nowhere"):
        build(corpus, out, faiss_file="nowhere")
    assert not out.exists()


def test_a_damaged_index_is_told(corpus: Path, out: Path, encoder: FakeEncoder) -> None:
    build(corpus, out)
    facts, index = (out / "dense.json").read_bytes(), (out / "index.faiss").read_bytes()
    (out / "dense.json").write_text("{")
    with pytest.raises(UserError, match=r"dense\.json: cannot be read"):
        open_index(out)
    (out / "dense.json").write_bytes(facts)
    (out / "index.faiss").write_bytes(index[:-1])
    with pytest.raises(UserError, match=r"index\.faiss: expected a faiss index"):
        open_index(out)
    small = faiss.IndexFlatIP(32)
    faiss.write_index(small, str(out / "index.faiss"))
    with pytest.raises(UserError, match="expected 300 vectors of 32 dimensions, got 0 of 32; build it again"):
        open_index(out)
    encoder.fingerprint = "another"
    with pytest.raises(UserError, match="is not the encoder that it was built with; build it again"):
        open_index(out)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"recall": 0}, {"recall": 1.1}, {"layout": "tree"}])
def test_options_out_of_range_are_the_users_error(corpus: Path, out: Path, options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(options))):
        build_index(corpus, out, kind="dense", options=options)


def test_without_faiss_the_extra_is_named(
    corpus: Path, out: Path, encoder: FakeEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(UserError, match=r"not installed .*: pip install 'searchr1\[dense\]'"):
        build(corpus, out)
    assert encoder.encoded == []
