from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from fake_encoder import FakeEncoder

from searchr1.errors import UserError
from searchr1.retrieval.dense import layouts
from searchr1.retrieval.dense.layouts import (
    LAYOUTS,
    LayoutName,
    build_index,
    choices,
    choose,
    memory_of,
    open_file,
    search,
    set_parameter,
    tune,
)
from searchr1.retrieval.dense.memory import free_memory
from searchr1.retrieval.dense.vectors import Vectors, embed
from searchr1.types import Passage

faiss = pytest.importorskip("faiss", reason="needs searchr1[dense]")
WORDS = [f"word{i}" for i in range(60)]


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    draw = np.random.default_rng(0)
    passages = [Passage(str(i), "", " ".join(draw.choice(WORDS, 6))) for i in range(2500)]
    return embed(tmp_path_factory.mktemp("kept"), passages, FakeEncoder())


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    draw = np.random.default_rng(1)
    return FakeEncoder().encode_queries([" ".join(draw.choice(WORDS, 3)) for _ in range(40)])


def test_every_layout_has_its_name() -> None:
    assert tuple(LAYOUTS) == get_args(LayoutName)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_finds_what_it_promises_within_the_memory_that_it_promises(
    name: LayoutName, vectors: Vectors, queries: np.ndarray, tmp_path: Path
) -> None:
    index = build_index(name, vectors)
    assert (index.ntotal, index.d, index.metric_type) == (2500, 32, faiss.METRIC_INNER_PRODUCT)
    truth = vectors.nearest(queries, 10)
    parameter = LAYOUTS[name].parameter
    value, recall = tune(index, parameter, queries, truth, 0.95)
    assert recall >= {"flat": 1.0, "fp16": 0.99, "ivf-pq": 0.5}.get(name, 0.95)
    assert (value > 0) == bool(parameter)
    faiss.write_index(index, str(tmp_path / "index"))
    assert memory_of(name, 2500, 32) == pytest.approx((tmp_path / "index").stat().st_size, rel=0.25)
    mapped = open_file(tmp_path / "index")
    set_parameter(mapped, parameter, value)
    found = search(mapped, queries, 10)
    assert layouts.recall_of(np.array([[row for _, row in hits] for hits in found]), truth) == pytest.approx(recall)


def test_hnsw_takes_a_third_of_flat() -> None:
    for dimension in (384, 768, 1024):
        assert memory_of("hnsw", 1_000_000, dimension) < memory_of("flat", 1_000_000, dimension) / 3


def test_the_value_is_the_least_that_reaches_the_target(vectors: Vectors, queries: np.ndarray) -> None:
    index = build_index("ivf-sq8", vectors)
    truth = vectors.nearest(queries, 10)
    found = {target: tune(index, "nprobe", queries, truth, target) for target in (0.3, 0.8, 0.95, 1.01)}
    values = [value for value, _ in found.values()]
    assert values == sorted(values)
    assert values[0] < values[2] <= values[3] <= index.nlist
    for target, (_, recall) in list(found.items())[:3]:
        assert recall >= target
    far = tune(build_index("ivf-pq", vectors), "nprobe", queries, truth, 1.01)
    assert far[0] < index.nlist  # more lists find hardly more: the codes lose the rest
    set_parameter(index, "nprobe", values[2] - 1)
    assert layouts.recall_of(index.search(queries, 10)[1], truth) < 0.97


def test_training_says_nothing(vectors: Vectors, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("ivf-sq8", "ivf-pq"):
        build_index(name, vectors)  # type: ignore[arg-type]
    assert capfd.readouterr() == ("", "")


def test_few_vectors_are_enough_for_all_but_pq(tmp_path: Path) -> None:
    two = embed(tmp_path, [Passage("a", "", "one"), Passage("b", "", "two")], FakeEncoder())
    query = FakeEncoder().encode_queries(["two"])
    for name in LAYOUTS:
        if name != "ivf-pq":
            assert [row for _, row in search(build_index(name, two), query, 5)[0]] == [1, 0]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="layout: ivf-pq needs at least 256 passages, got 2; take flat"):
        build_index("ivf-pq", two)


def test_equal_scores_are_in_the_order_of_the_rows_however_many_they_are() -> None:
    index = faiss.IndexFlatIP(2)
    index.add(np.array([[0, 1]] * 5 + [[1, 0]] * 100 + [[0, 1]] * 5, dtype=np.float32))
    queries = np.array([[1, 0.5], [0, 1]], dtype=np.float32)
    first, second = search(index, queries, 7)
    assert first == [(1.0, row) for row in range(5, 12)]
    assert second == [(1.0, row) for row in (0, 1, 2, 3, 4, 105, 106)]


def test_what_was_not_found_is_no_passage() -> None:
    """faiss pads with -1, which would be the last row of an array."""
    index = faiss.index_factory(2, "IVF2,Flat", faiss.METRIC_INNER_PRODUCT)
    index.cp.min_points_per_centroid = 1
    data = np.array([[1, 0], [0.9, 0.1], [-1, 0], [-0.9, 0.1]], dtype=np.float32)
    index.train(data)
    index.add(data)
    set_parameter(index, "nprobe", 1)
    (found,) = search(index, np.array([[1, 0]], dtype=np.float32), 4)
    assert [row for _, row in found] == [0, 1]
    assert index.search(data[:1], 4)[1].tolist() == [[0, 1, -1, -1]]


def test_no_queries_and_no_vectors_find_nothing() -> None:
    index = faiss.IndexFlatIP(2)
    assert search(index, np.empty((0, 2), dtype=np.float32), 3) == []
    assert search(index, np.ones((1, 2), dtype=np.float32), 3) == [[]]


def test_the_choice_is_the_most_exact_that_fits_and_is_fast() -> None:
    flat = memory_of("flat", 100_000, 384)
    assert choose(100_000, 384, 2 * flat) == "flat"
    assert choose(100_000, 384, 2 * flat - 1) == "fp16"
    assert choose(100_000, 384, flat - 1) == "sq8"
    assert choose(100_000, 384, 1) == "ivf-pq"
    assert choose(10_000_000, 384, 1e15) == "hnsw"


def test_the_table_shows_each_layout_and_marks_the_one_taken() -> None:
    header, *rows = choices(1_000_000, 384, 0.01, "hnsw")
    assert header[:4] == ("layout", "memory, search", "time to build", "recall@10")
    assert [row[0] for row in rows] == list(LAYOUTS)
    assert [row[0] for row in rows if row[4]] == ["hnsw"]
    assert rows[0] == ("flat", "1,536.0 MB", "3 h", "1.00", "")


def test_this_machine_has_memory() -> None:
    assert 1e7 < free_memory() < 1e14


def test_a_file_that_is_no_index_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(b"no index")
    with pytest.raises(UserError, match="index: expected a faiss index: "):
        open_file(tmp_path / "index")
