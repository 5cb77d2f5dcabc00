import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.data.jsonl import encode, read_rows, replacing, write_rows
from searchr1.errors import UserError

TEXT = st.text(alphabet='ab"\\\n\r\t\0\u2028\x85é漢😀\ud800', max_size=8)
JSON = st.none() | st.booleans() | st.integers() | TEXT | st.lists(TEXT, max_size=3)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_back_with_their_places(tmp_path: Path, name: str) -> None:
    path = tmp_path / "new" / name
    write_rows(path, [{"a": 1}, {"b": "zwei\u2028Ü"}])
    assert list(read_rows(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:2", {"b": "zwei\u2028Ü"})]
    assert [entry.name for entry in path.parent.iterdir()] == [name]


def test_gzipped_rows_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    for name in ("one.jsonl.gz", "two.jsonl.gz"):
        write_rows(tmp_path / name, [{"a": 1}])
    assert (tmp_path / "one.jsonl.gz").read_bytes() == (tmp_path / "two.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "one.jsonl.gz").read_bytes()) == b'{"a": 1}\n'


def test_blank_lines_and_a_byte_order_mark_are_skipped_but_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n  \n{"a": 2}')
    assert list(read_rows(path)) == [(f"{path}:1", {"a": 1}), (f"{path}:4", {"a": 2})]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_a_failing_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, name: str) -> None:
    def rows() -> Iterator[dict[str, int]]:
        yield {"a": 2}
        raise RuntimeError("stopped")

    path = tmp_path / name
    write_rows(path, [{"a": 1}])
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="stopped"):
        write_rows(path, rows())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_appears_before_the_end(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with replacing(path) as stream:
        stream.write(b"x")
        assert not path.exists()
    assert path.read_bytes() == b"x"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("bad.jsonl", b'{"a": 1}\n{"a": ', r"bad\.jsonl:2: expected one JSON object a line: .*"),
        ("bad.jsonl", b'{"a": 1}\n[1]\n', r"bad\.jsonl:2: expected a JSON object, got list"),
        ("bad.jsonl", b'{"a": 1}\n\xff\xfe', r"bad\.jsonl: expected UTF-8 text"),
        ("bad.jsonl.gz", b'{"a": 1}\n', r"bad\.jsonl\.gz: expected gzipped JSON lines, after line 0"),
        ("bad.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 9)[:-9], r"bad\.jsonl\.gz: expected gzipped JSON lines"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_rows(tmp_path / name))


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: expected a file, but it does not exist"):
        list(read_rows(tmp_path / "none.jsonl"))
    with pytest.raises(UserError, match="expected a file, but it is a folder"):
        list(read_rows(tmp_path))


@settings(deadline=None)
@given(st.dictionaries(TEXT, JSON, max_size=4))
def test_any_json_survives(tmp_path_factory: pytest.TempPathFactory, row: dict[str, object]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    write_rows(path, [row])
    assert [found for _, found in read_rows(path)] == [row]


def test_a_lone_surrogate_stays_an_escape() -> None:
    assert encode("\ud800é") == b'"\\ud800\xc3\xa9"'
