import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.retrieval import store as store_module
from searchr1.retrieval.store import DELETED_FILE, OFFSETS_FILE, TEXT_FILE, CorpusStore, CorpusWriter
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


@pytest.mark.parametrize(
    ("name", "keep"),
    [
        (name, keep)
        for name in (TEXT_FILE, OFFSETS_FILE)
        for keep in (None, 0, -1, -8)
        if (name, keep) != (OFFSETS_FILE, -8)
    ],
)
def test_files_that_do_not_fit_are_refused(folder: Path, name: str, keep: int | None) -> None:
    path = folder / name
    data = path.read_bytes()
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(data[:keep])
    with pytest.raises(UserError, match=r"build (it|the index) again"):
        CorpusStore(folder)


def test_offsets_of_other_lines_are_refused(folder: Path) -> None:
    offsets = np.fromfile(folder / OFFSETS_FILE, dtype="<u8")
    offsets[-1] -= 3
    offsets.tofile(folder / OFFSETS_FILE)
    with pytest.raises(UserError, match=r"expected at least .* bytes of whole lines"):
        CorpusStore(folder)


def test_what_a_killed_update_left_is_not_read_and_then_written_over(folder: Path) -> None:
    whole = (folder / TEXT_FILE).read_bytes()
    (folder / TEXT_FILE).write_bytes(whole + b'{"id":"half a li')
    store = CorpusStore(folder)
    assert (len(store), store.rows, store.end) == (10, 10, len(whole))
    assert list(store.passages()) == PASSAGES
    added = [Passage("x", "X", "new"), Passage("y", "Y", "newer")]
    with CorpusWriter(folder, end=store.end, digest=hashlib.sha256(whole)) as writer:
        for passage in added:
            writer.add(passage)
    assert list(CorpusStore(folder).passages()) == PASSAGES + added
    assert writer.passages == 2
    assert writer.corpus_hash() == hashlib.sha256((folder / TEXT_FILE).read_bytes()).hexdigest()
    assert list(store.passages()) == PASSAGES  # as it was opened


def delete(folder: Path, *rows: int) -> None:
    np.array(rows, dtype="<u8").tofile(folder / DELETED_FILE)


@given(deleted=st.sets(st.integers(0, 9), min_size=1, max_size=9))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_deleted_rows_leave_no_gap(folder: Path, deleted: set[int]) -> None:
    delete(folder, *sorted(deleted))
    store = CorpusStore(folder)
    living = [passage for row, passage in enumerate(PASSAGES) if row not in deleted]
    assert (len(store), store.rows) == (len(living), 10)
    assert [store.passage(place) for place in range(len(store))] == living
    assert list(store.passages()) == living
    assert [row for row, _ in store.lines()] == [row for row in range(10) if row not in deleted]
    assert [store.stored(row) for row in range(10)] == PASSAGES
    with pytest.raises(IndexError):
        store.passage(len(living))


@pytest.mark.parametrize("rows", [(3, 2), (3, 3), (3, 10)])
def test_deleted_rows_that_do_not_fit_are_refused(folder: Path, rows: tuple[int, ...]) -> None:
    delete(folder, *rows)
    with pytest.raises(UserError, match=r"deleted\.rows: does not fit the passages; build the index again"):
        CorpusStore(folder)


@pytest.mark.parametrize("data", [b"", b"1234"])
def test_a_list_of_deleted_rows_that_is_cut_off_is_refused(folder: Path, data: bytes) -> None:
    (folder / DELETED_FILE).write_bytes(data)
    with pytest.raises(UserError, match="build it again"):
        CorpusStore(folder)
