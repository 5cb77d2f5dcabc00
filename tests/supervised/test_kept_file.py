"""The file of kept trajectories: whole blocks, the same bytes after a kill anywhere, errors with their place."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import UserError
from searchr1.run import RunFolder
from searchr1.supervised.file import KeptFile, read_header, read_kept

ORDER = {"model": "m", "keep": "correct", "rollout": {"top_k": 2}}
BLOCKS = [[{"step": 0, "n": 0}, {"step": 0, "n": 1}], [], [{"step": 0, "n": 2, "text": "ü" * 500}]]


def write(path: Path, blocks: int = len(BLOCKS), *, finish: bool = True) -> None:
    with KeptFile.begin(path, ORDER) as file:
        go_on(file, blocks, finish=finish)


def go_on(file: KeptFile, blocks: int = len(BLOCKS), *, finish: bool = True) -> None:
    for block in BLOCKS[file.done : blocks]:
        file.append(block, done=file.done + 1, counts={"kept": file.counts.get("kept", 0) + len(block)})
    if finish:
        file.finish()


def part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


@pytest.fixture(params=["kept.jsonl.gz", "kept.jsonl"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder: Path = tmp_path / "deep" / request.param
    return folder


def test_what_was_written_is_read_with_its_place(path: Path) -> None:
    write(path)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert read_header(path) == {"format": "searchr1-trajectories", "version": 1, "sampling": ORDER}
    rows = [row for block in BLOCKS for row in block]
    assert list(read_kept(path)) == [(f"{path}, line {number}", row) for number, row in enumerate(rows, start=2)]


@pytest.mark.parametrize("done", range(4))
@pytest.mark.parametrize("torn", [b"", b"\x1f\x8b torn", b'{"step": 0, "n"'])
def test_a_kill_anywhere_leaves_the_same_bytes(path: Path, tmp_path: Path, done: int, torn: bytes) -> None:
    whole = tmp_path / "whole" / path.name
    write(whole)
    write(path, done, finish=False)
    with part(path).open("ab") as stream:
        stream.write(torn)
    file = KeptFile.resume(path, ORDER)
    assert file is not None
    with file:
        assert (file.done, file.counts.get("kept", 0)) == (done, sum(map(len, BLOCKS[:done])))
        go_on(file)
    assert path.read_bytes() == whole.read_bytes()


def test_a_kill_before_anything_was_noted(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    part(path).write_bytes(b"half a header")
    file = KeptFile.resume(path, ORDER)
    assert file is not None
    with file:
        go_on(file)
    assert [row["n"] for _, row in read_kept(path)] == [0, 1, 2]


def test_a_finished_file_is_only_looked_at(path: Path) -> None:
    write(path)
    before = path.read_bytes()
    assert KeptFile.resume(path, ORDER) is None
    with pytest.raises(UserError, match='changed: keep \\("correct" -> "all"\\)'):
        KeptFile.resume(path, {**ORDER, "keep": "all"})
    with pytest.raises(UserError, match="there already"):
        KeptFile.begin(path, ORDER)
    assert path.read_bytes() == before


def test_another_order_does_not_go_on(path: Path) -> None:
    write(path, 1, finish=False)
    before = part(path).read_bytes()
    with pytest.raises(UserError, match=r"changed: rollout\.top_k \(2 -> 3\)"):
        KeptFile.resume(path, {**ORDER, "rollout": {"top_k": 3}})
    with pytest.raises(UserError, match="an unfinished one is there; --resume goes on with it"):
        KeptFile.begin(path, ORDER)
    with pytest.raises(UserError, match="is not finished: searchr1 sample"):
        list(read_kept(path))
    assert part(path).read_bytes() == before


def test_one_process_at_a_time(path: Path) -> None:
    with KeptFile.begin(path, ORDER), pytest.raises(UserError, match="another process is writing it"):
        KeptFile.resume(path, ORDER)


def test_nothing_to_go_on_with(path: Path) -> None:
    with pytest.raises(UserError, match="begun before, found none; start without --resume"):
        KeptFile.resume(path, ORDER)


def test_a_file_that_lost_what_was_written(path: Path) -> None:
    write(path, 3, finish=False)
    with part(path).open("r+b") as stream:
        stream.truncate(10)
    with pytest.raises(UserError, match="is shorter than it was written"):
        KeptFile.resume(path, ORDER)
    part(path).unlink()
    write(path)  # and it is not locked


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-12])


def foreign(path: Path) -> None:
    path.write_bytes(gzip.compress(json.dumps({"format": "searchr1-metrics", "version": 1}).encode()))


def newer(path: Path) -> None:
    path.write_bytes(gzip.compress(json.dumps({"format": "searchr1-trajectories", "version": 9}).encode()))


def garbled(path: Path) -> None:
    path.write_bytes(path.read_bytes() + gzip.compress(b"{torn\n"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(damage, "line 4: damaged gzip data"), (foreign, "line 1: expected the format 'searchr1-trajectories'"),
     (newer, "line 1: format version 9 is newer"), (garbled, "line 5: not valid JSON"),
     (Path.unlink, "does not exist")],
)  # fmt: skip
def test_files_that_cannot_be_read(spoil: Callable[[Path], Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "kept.jsonl.gz"
    write(path)
    spoil(path)
    with pytest.raises(UserError, match=message):
        list(read_kept(path))


def test_trajectories_of_a_run_are_read_too(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path / "run", {}) as run:
        written = run.write_trajectories(3, BLOCKS[0])
    assert [row["n"] for _, row in read_kept(written)] == [0, 1]
