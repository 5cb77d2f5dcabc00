import hashlib
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.retrieval import store as store_module
from searchr1.retrieval.store import OFFSETS_FILE, TEXT_FILE, CorpusStore, CorpusWriter
from searchr1.types import Passage

PASSAGES = [Passage(str(i), f"Title {i}", "é" * i + "\nline") for i in range(10)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(store_module, "_FLUSH_EVERY", 4)
    with CorpusWriter(tmp_path) as writer:
        for passage in PASSAGES:
            writer.add(passage)
    assert writer.passages == 10
    assert writer.corpus_hash() == hashlib.sha256((tmp_path / TEXT_FILE).read_bytes()).hexdigest()
    return tmp_path


def test_every_row_reads_back_with_the_score_it_was_asked_with(folder: Path) -> None:
    store = CorpusStore(folder)
    assert len(store) == 10
    assert [store.passage(row) for row in range(10)] == PASSAGES
    assert store.passage(3, score=2.5).score == 2.5


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_outside_the_corpus_is_an_error_and_never_another_passage(folder: Path, row: int) -> None:
    with pytest.raises(IndexError, match=f"row {row} of a corpus of 10 passages"):
        CorpusStore(folder).passage(row)


@pytest.mark.parametrize("name", [TEXT_FILE, OFFSETS_FILE])
@pytest.mark.parametrize("keep", [None, 0, -1, -8])
def test_files_that_do_not_fit_are_refused(folder: Path, name: str, keep: int | None) -> None:
    path = folder / name
    data = path.read_bytes()
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(data[:keep])
    with pytest.raises(UserError, match=r"build (it|the index) again"):
        CorpusStore(folder)
