"""A published corpus is unpacked from whatever it is in."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from searchr1.data.archive import unpack_corpus
from searchr1.errors import UserError
from searchr1.retrieval.corpus import read_corpus

LINES = [b'{"id": "%d", "contents": "\\"Dune\\"\\nPassage %d."}\n' % (n, n) for n in range(5)]


def tar(*members: tuple[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


PLAIN = b"".join(LINES)
ARCHIVE = tar(("data00/readme.txt", b"hello"), ("data00/wiki_dump.jsonl", PLAIN))


@pytest.mark.parametrize("packed", [PLAIN, gzip.compress(PLAIN), ARCHIVE, gzip.compress(ARCHIVE), PLAIN[:-1]])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_unpack(tmp_path: Path, packed: bytes, name: str) -> None:
    (tmp_path / "wiki-18.jsonl.gz").write_bytes(packed)
    seen: list[tuple[int, int | None]] = []
    count = unpack_corpus(
        tmp_path / "wiki-18.jsonl.gz", tmp_path / name, total=9, progress=lambda *given: seen.append(given)
    )
    assert (count, seen[-1]) == (5, (5, 5))
    content = (tmp_path / name).read_bytes()
    assert (gzip.decompress(content) if name.endswith(".gz") else content) == PLAIN
    assert [(passage.id, passage.title) for passage in read_corpus(tmp_path / name)][:2] == [
        ("0", "Dune"),
        ("1", "Dune"),
    ]


def test_only_the_first(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(gzip.compress(ARCHIVE))
    assert unpack_corpus(tmp_path / "in", tmp_path / "out", limit=2) == 2
    assert (tmp_path / "out").read_bytes() == b"".join(LINES[:2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(ARCHIVE * 50)[:-60], "broken after passage"),
        (gzip.compress(ARCHIVE[:1700]), "broken after passage"),
        (tar(("a.txt", b"x")), "expected a JSONL file in this archive, found none"),
        (b"hello\n", "expected passages in JSON lines"),
        (b'{"id": 1}\n', 'expected objects with "id" and "contents"'),
        (b"\n\n", "expected at least one passage"),
    ],
)
def test_what_is_no_corpus(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "in").write_bytes(content)
    with pytest.raises(UserError, match=message):
        unpack_corpus(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out").exists()
