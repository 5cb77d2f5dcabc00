"""Fetching from a real server that breaks off, lies, forgets ranges and comes back."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from stub_hub import StubHub, running_hub

from searchr1.data import download
from searchr1.data.download import Remote, describe, fetch, hub_url, plan
from searchr1.errors import DownloadError, UserError

DATA = hashlib.shake_256(b"a file").digest(300_000)
MORE = hashlib.shake_256(b"another").digest(100_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    with running_hub(files={"me/sets/a": DATA, "me/sets/b": MORE}) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url + "/")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(download, "_PAUSE", 0.0)
        yield running


def get(target: Path, *paths: str) -> list[Remote]:
    remotes = describe([hub_url("me/sets", path) for path in paths or ("a",)])
    fetch(remotes, target)
    return remotes


def leftovers(folder: Path) -> list[int]:
    return [file.stat().st_size for file in folder.glob(".*.part")]


@pytest.mark.parametrize("hashes", ["sha256", "git", "none"])
@pytest.mark.parametrize("storage", [False, True])
def test_a_file(hub: StubHub, tmp_path: Path, hashes: str, storage: bool) -> None:
    hub.hashes, hub.storage = hashes, storage
    (remote,) = get(tmp_path / "new" / "file")
    assert (remote.size, remote.digest) == (300_000, "" if hashes == "none" else hub.digest(DATA))
    assert (tmp_path / "new" / "file").read_bytes() == DATA
    assert leftovers(tmp_path / "new") == []


def test_a_repository_with_a_new_name(hub: StubHub, tmp_path: Path) -> None:
    hub.renamed["me/old/a"] = "sets"
    fetch(describe([hub_url("me/old", "a")]), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_several_files_become_one(hub: StubHub, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    remotes = describe([hub_url("me/sets", path) for path in ("a", "b")])
    fetch(remotes, tmp_path / "file", lambda done, total: seen.append((done, total)))
    assert (tmp_path / "file").read_bytes() == DATA + MORE
    assert seen[-1] == (400_000, 400_000)
    assert seen == sorted(seen)


def test_a_broken_line_is_gone_on_with(hub: StubHub, tmp_path: Path) -> None:
    hub.cuts = [100_000, 50_000, 0, 1]
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    starts = [int(wanted[6:-1]) for method, _, wanted in hub.asked if method == "GET" and wanted]
    assert starts == [100_000, 150_000, 150_000, 150_001]


def test_a_server_without_ranges_begins_again(hub: StubHub, tmp_path: Path) -> None:
    hub.ranges, hub.cuts = False, [100_000, 200_000]
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_later_call_goes_on_where_an_earlier_one_ended(hub: StubHub, tmp_path: Path) -> None:
    hub.cuts = [10**9, 40_000, *[0] * 9]  # the first file whole, a part of the second
    with pytest.raises(DownloadError, match=r"/b: .*what came is kept, the same command goes on"):
        get(tmp_path / "file", "a", "b")
    assert not (tmp_path / "file").exists()
    assert leftovers(tmp_path) == [340_000]
    hub.asked.clear()
    hub.cuts.clear()
    get(tmp_path / "file", "a", "b")
    assert (tmp_path / "file").read_bytes() == DATA + MORE
    assert [wanted for method, _, wanted in hub.asked if method == "GET"] == ["bytes=40000-"]


def test_a_killed_process_is_gone_on_with(hub: StubHub, tmp_path: Path) -> None:
    hub.stall = 200_000
    code = (
        "import sys; from pathlib import Path; from searchr1.data.download import *\n"
        "fetch(describe([hub_url('me/sets', 'a')]), Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "file")]) as process:
        while not sum(leftovers(tmp_path)) > 100_000 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    hub.awake.set()
    (there,) = leftovers(tmp_path)
    assert process.returncode == -9
    hub.asked.clear()
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA
    assert hub.asked[-1][2] == f"bytes={there}-"


def test_what_lies_there_broken_is_found_out(hub: StubHub, tmp_path: Path) -> None:
    hub.cuts = [40_000, *[0] * 9]
    with pytest.raises(DownloadError, match="what came is kept"):
        get(tmp_path / "file")
    (part,) = tmp_path.glob(".*.part")
    part.write_bytes(b"x" * 40_000)
    hub.cuts.clear()
    with pytest.raises(DownloadError, match="thrown away"):
        get(tmp_path / "file")
    assert leftovers(tmp_path) == [0]
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


def test_a_file_that_changed_on_the_server_is_fetched_anew(hub: StubHub, tmp_path: Path) -> None:
    hub.cuts = [40_000, *[0] * 9]
    with pytest.raises(DownloadError):
        get(tmp_path / "file")
    hub.cuts.clear()
    hub.files["me/sets/a"] = MORE
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == MORE
    assert leftovers(tmp_path) == []


def test_content_with_another_hash_is_thrown_away(hub: StubHub, tmp_path: Path) -> None:
    hub.served["me/sets/a"] = b"x" * len(DATA)
    with pytest.raises(DownloadError, match=rf"expected the hash {hub.digest(DATA)[:16]}"):
        get(tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert leftovers(tmp_path) == [0]


@pytest.mark.parametrize("ranges", [True, False])
def test_content_of_another_size(hub: StubHub, tmp_path: Path, ranges: bool) -> None:
    hub.ranges = ranges
    hub.served["me/sets/a"] = DATA + b"x"
    with pytest.raises(DownloadError, match="300,000 bytes, more came"):
        get(tmp_path / "file")
    hub.served["me/sets/a"] = DATA[:-1]
    with pytest.raises(DownloadError, match=r"only 299,999 of 300,000 bytes came"):
        get(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_a_server_that_has_to_think_again(hub: StubHub, tmp_path: Path) -> None:
    hub.statuses = [500, 503, 200, 429, 502]
    get(tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == DATA


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (404, UserError, r"there is no such file \(HTTP 404\); give a local one with --source"),
        (401, UserError, "set HF_TOKEN"),
        (403, UserError, "set HF_TOKEN"),
        (410, DownloadError, "the server answered 410"),
        (500, DownloadError, "the server answered 500; what came is kept"),
    ],
)
@pytest.mark.parametrize("at", ["HEAD", "GET"])
def test_refusals(hub: StubHub, tmp_path: Path, at: str, status: int, kind: type[Exception], message: str) -> None:
    hub.statuses = [status] * 20 if at == "HEAD" else [200, *[status] * 20]
    with pytest.raises(kind, match=message):
        get(tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(download, "_PAUSE", 0.0)
    with pytest.raises(DownloadError, match=r"^http://127.0.0.1:9/datasets/me/sets/resolve/main/a: .*--source"):
        get(tmp_path / "file")


def test_the_token_goes_to_the_hub_only_where_it_is_set(
    hub: StubHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(tmp_path / "file")
    assert hub.tokens == {None}
    hub.tokens.clear()
    monkeypatch.setenv("HF_TOKEN", "secret")
    get(tmp_path / "other")
    assert hub.tokens == {"Bearer secret"}


def test_what_is_there_is_checked_and_left_alone(hub: StubHub, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    get(tmp_path / "file")
    assert [method for method, *_ in hub.asked] == ["HEAD"]
    for wrong in (b"x" * len(DATA), DATA + b"x"):
        (tmp_path / "file").write_bytes(wrong)
        with pytest.raises(UserError, match="is not what would be fetched"):
            get(tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == wrong


def test_two_processes_do_not_write_one_file(hub: StubHub, tmp_path: Path) -> None:
    remotes = describe([hub_url("me/sets", "a")])
    target = tmp_path / "file"
    with download._locked(download._part(target, remotes)), pytest.raises(UserError, match="another process"):
        fetch(remotes, target)


def test_the_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remotes = [Remote("u", 10**9, "a"), Remote("v", 10**9, "b")]
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5 * 10**9))
    target = tmp_path / "new" / "file"
    assert plan(remotes, target) == download.Plan(2 * 10**9, 2 * 10**9, 5 * 10**9)
    assert plan(remotes, target, unpacked=10**9).disk == 3 * 10**9
    with pytest.raises(UserError, match=r"expected 5\.3 GB of free disk, it has 5\.0; make room"):
        plan(remotes, target, unpacked=3 * 10**9)
    with download._part(target, remotes).open("wb") as part:
        part.truncate(5 * 10**8)
    assert plan(remotes, target).fetch == 15 * 10**8
