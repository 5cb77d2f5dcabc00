import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.retrieval import corpus as corpus_module
from searchr1.retrieval.corpus import corpus_hash, encode_row, read_corpus, split_contents
from searchr1.types import Passage

DUNE = '{"id": "7", "title": "Dune", "text": "A novel."}\n'
TACOMA = '{"id": "8", "title": "Tacoma", "text": "A port."}\n'
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def write(tmp_path: Path, data: str | bytes, name: str = "corpus.jsonl") -> Path:
    path = tmp_path / name
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        ('"Dune"\nA novel.', ("Dune", "A novel.")),
        ('"Dune"\nA novel.\nBy Herbert.', ("Dune", "A novel.\nBy Herbert.")),
        ('"The "best" of"\nAn album.', ('The "best" of', "An album.")),
        ('""\nA novel.', ("", "A novel.")),
        ('"Dune"', ("Dune", "")),
        ("Dune\nA novel.", ("Dune", "A novel.")),
        ("A novel.", ("", "A novel.")),
        ('"', ("", '"')),
        ("", ("", "")),
    ],
)
def test_split_contents(contents: str, expected: tuple[str, str]) -> None:
    assert split_contents(contents) == expected


@given(title=TEXT.filter(lambda t: "\n" not in t), text=TEXT)
def test_the_wire_form_of_a_passage_splits_back_into_it(title: str, text: str) -> None:
    assert split_contents(Passage("1", title, text).contents) == (title, text)


def test_both_schemas_are_the_same_passages(tmp_path: Path) -> None:
    ours = write(tmp_path, DUNE + TACOMA)
    theirs = write(
        tmp_path,
        '{"id": 7, "contents": "\\"Dune\\"\\nA novel."}\n{"id": "8", "contents": "\\"Tacoma\\"\\nA port.", "x": 1}',
        "theirs.jsonl",
    )
    expected = [Passage("7", "Dune", "A novel."), Passage("8", "Tacoma", "A port.")]
    assert list(read_corpus(ours)) == list(read_corpus(theirs)) == expected


def test_the_hash_depends_on_the_passages_alone(tmp_path: Path) -> None:
    plain = write(tmp_path, DUNE + TACOMA)
    zipped = write(tmp_path, gzip.compress((TACOMA + DUNE).encode()), "swapped.jsonl.gz")
    same = write(tmp_path, gzip.compress(b'{"contents": "\\"Dune\\"\\nA novel.", "id": 7}\n' + TACOMA.encode()), "same")
    rows = b'{"id":"7","title":"Dune","text":"A novel."}\n{"id":"8","title":"Tacoma","text":"A port."}\n'
    assert corpus_hash(plain) == corpus_hash(same) == hashlib.sha256(rows).hexdigest()
    assert corpus_hash(zipped) != corpus_hash(plain)


def test_a_title_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps({"id": "1", "title": "A\nB\r\nC\n", "text": "x\ny"}))
    assert list(read_corpus(path)) == [Passage("1", "A B C", "x\ny")]


def test_byte_order_mark_windows_line_ends_and_blank_lines_at_the_end(tmp_path: Path) -> None:
    path = write(tmp_path, b"\xef\xbb\xbf" + (DUNE + TACOMA).replace("\n", "\r\n").encode() + b"\r\n  \n\n")
    assert [passage.id for passage in read_corpus(path)] == ["7", "8"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("", "expected at least one passage, the corpus is empty"),
        ("\n\n", "expected at least one passage, the corpus is empty"),
        (DUNE + "\n \n" + TACOMA, ":2: expected a passage, the line is blank"),
        (DUNE + '{"id": "8", "tit\n', ":2: expected one object .*malformed"),
        (DUNE + "[1]\n", ":2: expected one object .*got `array`"),
        (DUNE + '{"title": "x", "text": "y"}\n', ":2: .*missing required field `id`"),
        ('{"id": null, "title": "x", "text": "y"}\n', ":1: .*got `null`.*id"),
        ('{"id": 1.5, "title": "x", "text": "y"}\n', ":1: .*got `float`"),
        ('{"id": true, "title": "x", "text": "y"}\n', ":1: .*got `bool`"),
        ('{"id": "", "title": "x", "text": "y"}\n', ':1: expected an "id", got an empty one'),
        ('{"id": "1", "title": "x"}\n', ':1: missing "text"; expected'),
        ('{"id": "1", "text": "x"}\n', ':1: missing "title"; expected'),
        ('{"id": "1"}\n', ':1: missing "title" and "text"; expected'),
        ('{"id": "1", "title": 5, "text": "y"}\n', ":1: .*got `int`.*title"),
        ('{"id": "1", "contents": ["y"]}\n', ":1: .*got `array`.*contents"),
        (b'{"id": "1", "title": "\xff", "text": "y"}\n', ":1: expected one object"),
        (DUNE + TACOMA + DUNE, ":3: id '7' was used before in line 1; ids must be unique"),
        ('{"id": 7, "contents": "x"}\n' + DUNE, ":2: id '7' was used before in line 1"),
    ],
)
def test_a_bad_corpus_is_refused_with_file_and_line(tmp_path: Path, data: str | bytes, message: str) -> None:
    path = write(tmp_path, data)
    with pytest.raises(UserError, match=message) as caught:
        list(read_corpus(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(UserError, match="expected a corpus in JSON lines"):
            list(read_corpus(path))


@pytest.mark.parametrize("damage", [lambda data: data[:-20], lambda data: data[:40] + b"\xff\x00\xff" * 9 + data[67:]])
def test_broken_gzip_data_is_refused(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    rows = "".join(json.dumps({"id": str(i), "title": f"T{i}", "text": "x"}) + "\n" for i in range(100))
    path = write(tmp_path, damage(gzip.compress(rows.encode())), "corpus.jsonl.gz")
    with pytest.raises(UserError, match="broken gzip data after line"):
        list(read_corpus(path))


def test_a_duplicate_is_found_before_the_end_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "_FIRST_DUPLICATE_CHECK", 4)
    rows = [{"id": str(i), "title": "t", "text": "x"} for i in (0, 1, 2, 1, 4, 5)]
    path = write(tmp_path, "\n".join(map(json.dumps, rows)) + "\nnot read before the duplicate is found")
    with pytest.raises(UserError, match=":4: id '1' was used before in line 2"):
        list(read_corpus(path))


def test_ids_whose_hashes_collide_are_no_duplicates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus_module, "hash", lambda text: 5, raising=False)
    assert len(list(read_corpus(write(tmp_path, DUNE + TACOMA)))) == 2
    with pytest.raises(UserError, match=":3: id '8' was used before in line 2"):
        list(read_corpus(write(tmp_path, DUNE + TACOMA + TACOMA)))


@pytest.mark.parametrize("zipped", [False, True])
def test_progress_estimates_the_total_and_ends_exact(tmp_path: Path, zipped: bool) -> None:
    rows = "".join(json.dumps({"id": str(i), "title": "t", "text": f"{i * 7919:x}" * 20}) + "\n" for i in range(2500))
    calls: list[tuple[int, int | None]] = []
    path = write(tmp_path, gzip.compress(rows.encode()) if zipped else rows)
    list(read_corpus(path, lambda done, total: calls.append((done, total))))
    assert [done for done, _ in calls] == [1000, 2000, 2500]
    assert calls[-1] == (2500, 2500)
    assert all(total is not None and done <= total <= 4000 for done, total in calls)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(rows=st.lists(st.tuples(TEXT.filter(bool), TEXT, TEXT), min_size=1, max_size=5, unique_by=lambda row: row[0]))
def test_normal_form_reads_back(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    passages = [Passage(identifier, " ".join(title.splitlines()), text) for identifier, title, text in rows]
    path = write(tmp_path, b"".join(map(encode_row, passages)))
    assert list(read_corpus(path)) == passages
