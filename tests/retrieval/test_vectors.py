from pathlib import Path

import numpy as np
import pytest
from fake_encoder import FakeEncoder

from searchr1.retrieval.dense import vectors as module
from searchr1.retrieval.dense.vectors import Vectors, embed, remove_others
from searchr1.types import Passage

PASSAGES = [Passage(str(i), f"title {i}", f"text {i % 7}") for i in range(10)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_PASSAGES", 4)


def everything(vectors: Vectors) -> np.ndarray:
    return np.concatenate(list(vectors))


def test_blocks_hold_the_vectors_in_order_and_half_precision(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    vectors = embed(tmp_path / "kept", iter(PASSAGES), encoder)
    assert (len(vectors), vectors.dimension, encoder.encoded) == (10, 32, [4, 4, 2])
    assert everything(vectors).tolist() == encoder.encode_passages(PASSAGES).astype(np.float16).tolist()
    assert [block.shape for block in vectors] == [(4, 32), (4, 32), (2, 32)]
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(p.name for p in vectors.blocks)


def test_what_was_encoded_is_not_encoded_again(tmp_path: Path) -> None:
    embed(tmp_path, PASSAGES, FakeEncoder())
    again, longer, changed, other = FakeEncoder(), FakeEncoder(), FakeEncoder(), FakeEncoder("another")
    embed(tmp_path, PASSAGES, again)
    embed(tmp_path, [*PASSAGES[:8], *PASSAGES[:3]], longer)
    embed(tmp_path, [Passage("0", "title 0", "another text"), *PASSAGES[1:]], changed)
    embed(tmp_path, [Passage(f"new {p.id}", p.title, p.text) for p in PASSAGES], again)  # an id is not encoded
    embed(tmp_path, PASSAGES, other)
    assert (again.encoded, longer.encoded, changed.encoded, other.encoded) == ([], [3], [4], [4, 4, 2])


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"not vectors"])
def test_a_damaged_block_is_encoded_again(tmp_path: Path, damage: bytes) -> None:
    vectors = embed(tmp_path, PASSAGES, FakeEncoder())
    before = everything(vectors)
    vectors.blocks[1].write_bytes(damage)
    encoder = FakeEncoder()
    assert everything(embed(tmp_path, PASSAGES, encoder)).tolist() == before.tolist()
    assert encoder.encoded == [4]


def test_a_block_cut_in_its_middle_is_encoded_again(tmp_path: Path) -> None:
    vectors = embed(tmp_path, PASSAGES, FakeEncoder())
    vectors.blocks[0].write_bytes(vectors.blocks[0].read_bytes()[:-1])
    encoder = FakeEncoder()
    embed(tmp_path, PASSAGES, encoder)
    assert encoder.encoded == [4]


def test_half_written_blocks_and_those_of_others_go(tmp_path: Path) -> None:
    (tmp_path / "abc.vectors.part").write_bytes(b"half")
    (tmp_path / "of-another-part-of-the-index").write_bytes(b"")
    embed(tmp_path, PASSAGES, FakeEncoder("old"))
    vectors = embed(tmp_path, PASSAGES, FakeEncoder())
    assert len(list(tmp_path.iterdir())) == 7
    remove_others(tmp_path, vectors)
    assert {p.name for p in tmp_path.iterdir()} == {*(p.name for p in vectors.blocks), "of-another-part-of-the-index"}
    vectors.remove()
    assert [p.name for p in tmp_path.iterdir()] == ["of-another-part-of-the-index"]


def test_equal_blocks_are_one_file(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    vectors = embed(tmp_path, [*PASSAGES[:4], *PASSAGES[:4]], encoder)
    assert (encoder.encoded, len(set(vectors.blocks)), len(vectors)) == ([4], 1, 8)
    vectors.remove()


def test_a_sample_is_drawn_from_all_blocks(tmp_path: Path) -> None:
    vectors = embed(tmp_path, PASSAGES, FakeEncoder())
    rows = everything(vectors).tolist()
    assert vectors.sample(99).tolist() == rows
    places = [rows.index(row) for row in vectors.sample(6).tolist()]
    assert places == sorted(set(places))
    assert len(places) == 6
    assert vectors.sample(6).tolist() == vectors.sample(6).tolist() != vectors.sample(6, seed=1).tolist()


def test_the_nearest_are_those_of_one_matrix_product(tmp_path: Path) -> None:
    vectors = embed(tmp_path, PASSAGES, FakeEncoder())
    queries = FakeEncoder().encode_queries([f"title {i} text" for i in range(5)])
    expected = np.argsort(-np.round(queries @ everything(vectors).T, 5), axis=1, kind="stable")
    for k in (1, 3, 10):
        assert vectors.nearest(queries, k).tolist() == expected[:, :k].tolist()
    assert vectors.nearest(queries, 99).shape == (5, 10)


def test_ties_of_the_nearest_are_in_the_order_of_the_rows(tmp_path: Path) -> None:
    vectors = embed(tmp_path, [PASSAGES[0]] * 9, FakeEncoder())
    assert vectors.nearest(FakeEncoder().encode_queries(["title"]), 6).tolist() == [[0, 1, 2, 3, 4, 5]]


def test_no_passages_are_no_vectors(tmp_path: Path) -> None:
    assert len(embed(tmp_path, [], FakeEncoder())) == 0
