import asyncio
import ctypes
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from searchr1 import __version__
from searchr1.errors import SearchR1Error, UserError
from searchr1.retrieval import index as index_module
from searchr1.retrieval import swap
from searchr1.retrieval.bm25 import Bm25
from searchr1.retrieval.corpus import corpus_hash
from searchr1.retrieval.index import Manifest, build_index, open_index, read_manifest
from searchr1.types import Passage


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "towns.jsonl"
    path.write_text(
        '{"id": "1", "title": "Tacoma", "text": "A port."}\n{"id": "2", "title": "Lyon", "text": "A town."}\n'
    )
    return path


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "er" / "index"


def siblings(out: Path) -> list[str]:
    return sorted(path.name for path in out.parent.iterdir())


async def test_the_manifest_says_what_was_indexed(corpus: Path, out: Path) -> None:
    calls: list[tuple[int, int | None]] = []
    manifest = build_index(corpus, out, progress=lambda done, total: calls.append((done, total)))
    expected = {
        "format": "searchr1-index",
        "version": 1,
        "kind": "bm25",
        "passages": 2,
        "corpus_hash": corpus_hash(corpus),
        "corpus": "towns.jsonl",
        "options": {
            "title_weight": 0.1,
            "language": "english",
            "stem": True,
            "stop_words": True,
            "tokens": "word",
        },
        "searchr1": __version__,
    }
    assert json.loads((out / "manifest.json").read_text()) == expected
    assert manifest == read_manifest(out) == Manifest(**expected)
    assert calls == [(2, 2)]
    assert siblings(out) == ["index"]
    info = await open_index(out).info()
    assert (info.kind, info.passages, info.corpus_hash) == ("bm25", 2, expected["corpus_hash"])


async def test_options_are_kept_in_the_index(corpus: Path, out: Path) -> None:
    build_index(corpus, out, options={"title_weight": 0})
    plain = (await open_index(out).search(["tacoma"], 1))[0][0].score
    build_index(corpus, out, options={"title_weight": 5}, overwrite=True)
    assert (await open_index(out).search(["tacoma"], 1))[0][0].score > 2 * plain


def test_an_index_is_replaced_only_when_asked(corpus: Path, out: Path) -> None:
    build_index(corpus, out)
    with pytest.raises(UserError, match="holds an index already; pass --overwrite"):
        build_index(corpus, out)
    corpus.write_text('{"id": "3", "title": "Oslo", "text": "A capital."}\n')
    assert build_index(corpus, out, overwrite=True).passages == read_manifest(out).passages == 1
    assert siblings(out) == ["index"]


async def test_an_index_of_before_the_options_opens_and_ranks_as_it_did(corpus: Path, out: Path) -> None:
    build_index(corpus, out)
    expected = await open_index(out).search(["the ports of tacoma", "town"], 2)
    edit(out, options={"title_weight": 0.1})
    assert await open_index(out).search(["the ports of tacoma", "town"], 2) == expected
    assert expected[0][0].id == "1"


@pytest.mark.parametrize("system_can_exchange", [True, False])
def test_a_replaced_index_serves_who_has_it_open_and_leaves_nothing(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, system_can_exchange: bool
) -> None:
    if not system_can_exchange:
        monkeypatch.setattr(swap, "_exchange", lambda one, other: False)
    build_index(corpus, out)
    before = open_index(out)
    corpus.write_text('{"id": "3", "title": "Oslo", "text": "A capital."}\n')
    build_index(corpus, out, overwrite=True)
    assert siblings(out) == ["index"]
    assert "building.lock" not in siblings(out / "manifest.json")
    assert [p.id for p in asyncio.run(before.search(["tacoma"], 1))[0]] == ["1"]
    assert [p.id for p in asyncio.run(open_index(out).search(["oslo"], 1))[0]] == ["3"]


def test_an_index_is_never_missing_while_it_is_replaced(corpus: Path, out: Path) -> None:
    if not hasattr(ctypes.CDLL(None), "renameat2"):
        pytest.skip("this system cannot exchange two folders in one step")
    build_index(corpus, out)
    stop = threading.Event()
    missed: list[str] = []

    def look() -> None:
        while not stop.is_set():
            if not (out / "manifest.json").exists():
                missed.append("missing")

    watcher = threading.Thread(target=look)
    watcher.start()
    for _ in range(10):
        build_index(corpus, out, overwrite=True)
    stop.set()
    watcher.join()
    assert missed == []


def test_who_waited_for_the_folder_does_not_replace_what_was_built_meanwhile(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = index_module.scratch_folder

    def late(path: Path, kept: str) -> AbstractContextManager[Path]:
        monkeypatch.setattr(index_module, "scratch_folder", real)
        build_index(corpus, out)
        return real(path, kept)

    monkeypatch.setattr(index_module, "scratch_folder", late)
    with pytest.raises(UserError, match="holds an index already"):
        build_index(corpus, out)
    assert siblings(out) == ["index"]


def test_an_empty_folder_is_used_and_a_foreign_one_is_never_touched(corpus: Path, out: Path) -> None:
    out.mkdir(parents=True)
    build_index(corpus, out)
    foreign = out.parent / "thesis"
    foreign.mkdir()
    (foreign / "manifest.json").write_text("{}")
    for target in (foreign, corpus):
        with pytest.raises(UserError, match="expected a new folder or an index, and this is neither"):
            build_index(corpus, target, overwrite=True)
    assert [path.name for path in foreign.iterdir()] == ["manifest.json"]


def test_a_damaged_index_can_be_replaced(corpus: Path, out: Path) -> None:
    build_index(corpus, out)
    (out / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="holds an index already"):
        build_index(corpus, out)
    build_index(corpus, out, overwrite=True)
    assert read_manifest(out).passages == 2


def test_a_folder_that_cannot_be_made_is_the_users_error(corpus: Path) -> None:
    with pytest.raises(UserError, match="cannot make this folder: Not a directory"):
        build_index(corpus, corpus / "index")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_build_that_fails_leaves_everything_as_it_was(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException, overwrite: bool
) -> None:
    if overwrite:
        build_index(corpus, out)
    out.parent.mkdir(parents=True, exist_ok=True)
    before = siblings(out)
    real = Bm25.build

    def fail_at_the_end(self: Bm25, folder: Path, passages: Iterable[Passage]) -> None:
        real(self, folder, passages)
        raise failure

    monkeypatch.setattr(Bm25, "build", fail_at_the_end)
    told = KeyboardInterrupt if failure is KeyboardInterrupt else SearchR1Error
    with pytest.raises(told, match=None if failure is KeyboardInterrupt else "No space left on device.*make room"):
        build_index(corpus, out, overwrite=overwrite)
    assert siblings(out) == before
    if overwrite:
        assert read_manifest(out).passages == 2


def test_a_bad_row_in_the_middle_leaves_nothing(corpus: Path, out: Path) -> None:
    corpus.write_text(corpus.read_text() + "not json\n")
    with pytest.raises(UserError, match=r"towns\.jsonl:3: "):
        build_index(corpus, out)
    assert siblings(out) == []


def test_an_error_that_is_not_the_disks_is_not_explained_away(
    corpus: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Bm25, folder: Path, passages: Iterable[Passage]) -> None:
        raise FileNotFoundError(2, "gone")

    monkeypatch.setattr(Bm25, "build", fail)
    with pytest.raises(FileNotFoundError):
        build_index(corpus, out)


def test_what_a_killed_build_left_is_removed(corpus: Path, out: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from searchr1.retrieval.index import build_index\n"
        "build_index(sys.argv[1], sys.argv[2], progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(corpus), str(out)], check=False)
    assert killed.returncode == -9
    assert siblings(out) == [".index.building"]
    build_index(corpus, out)
    assert siblings(out) == ["index"]
    assert sorted(path.name for path in out.iterdir()) == [
        "manifest.json",
        "passages.jsonl",
        "passages.offsets",
        "tantivy",
    ]


def test_two_builds_of_one_folder_do_not_meet(corpus: Path, out: Path) -> None:
    scratch = out.parent / ".index.building"
    scratch.mkdir(parents=True)
    with (scratch / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is building this index"):
            build_index(corpus, out)
        assert siblings(out) == [".index.building"]
    build_index(corpus, out)
    assert siblings(out) == ["index"]


@pytest.mark.parametrize("finished", [False, True])
def test_a_replacement_cut_off_between_its_renames_is_undone(corpus: Path, out: Path, finished: bool) -> None:
    build_index(corpus, out)
    replaced = out.parent / ".index.replaced"
    if finished:
        shutil.copytree(out, replaced)
    else:
        os.rename(out, replaced)
    with pytest.raises(UserError, match="holds an index already"):
        build_index(corpus, out)
    assert siblings(out) == ["index"]
    assert read_manifest(out).passages == 2


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("bm52", {}, "index kind 'bm52' is unknown; did you mean 'bm25'"),
        ("bm25", {"title_wieght": 1}, "option 'title_wieght' of a bm25 index is unknown; did you mean 'title_weight'"),
        ("bm25", {"title_weight": "x"}, "options of a bm25 index: "),
    ],
)
def test_unknown_kinds_and_options_name_the_nearest(
    corpus: Path, out: Path, kind: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        build_index(corpus, out, kind=kind, options=options)
    assert not out.parent.exists()


def edit(out: Path, **changes: object) -> None:
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps({k: v for k, v in {**manifest, **changes}.items() if v is not None}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "not an index: its format is 'other'"),
        ({"format": None}, "not an index: its format is None"),
        ({"version": 2}, "expected index version 1, got 2; build it again, or use the searchr1 that wrote it"),
        ({"kind": "bm52"}, "index kind 'bm52' is unknown; did you mean 'bm25'"),
        ({"passages": 3}, "expected 3 passages, got 2; build the index again"),
        ({"passages": "2"}, "manifest.json: broken: .*build the index again"),
        ({"corpus_hash": None}, "manifest.json: broken: .*corpus_hash.*build the index again"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    corpus: Path, out: Path, changes: dict[str, object], message: str
) -> None:
    build_index(corpus, out)
    edit(out, **changes)
    with pytest.raises(UserError, match=message):
        open_index(out)


def test_what_is_not_an_index_is_refused(corpus: Path, out: Path) -> None:
    hint = "make one with `searchr1 index build"
    with pytest.raises(UserError, match=f"expected an index folder, but it does not exist; {hint}"):
        open_index(out)
    with pytest.raises(UserError, match=f"expected an index folder, but it is a file; {hint}"):
        open_index(corpus)
    with pytest.raises(UserError, match=r"not an index: no readable manifest.json \(No such file or directory\)"):
        open_index(corpus.parent)
    for broken in (b"{", b"\xff\xfe", b"[]"):
        (corpus.parent / "manifest.json").write_bytes(broken)
        with pytest.raises(UserError, match=r"manifest\.json: broken: .*; build the index again"):
            open_index(corpus.parent)


@pytest.mark.parametrize("damage", ["meta.json", ".term", ".idx", "gone"])
def test_a_damaged_engine_folder_is_refused(corpus: Path, out: Path, damage: str) -> None:
    build_index(corpus, out)
    if damage == "gone":
        shutil.rmtree(out / "tantivy")
    else:
        (path,) = [path for path in (out / "tantivy").iterdir() if path.name.endswith(damage)]
        path.write_bytes(b"{")
    with pytest.raises(UserError, match=r"the index is damaged: .*; build it again"):
        open_index(out)


def test_an_engine_folder_of_another_index_is_refused(corpus: Path, out: Path) -> None:
    build_index(corpus, out)
    corpus.write_text('{"id": "3", "title": "Oslo", "text": "A capital."}\n')
    other = out.parent / "other"
    build_index(corpus, other)
    shutil.rmtree(out / "tantivy")
    shutil.copytree(other / "tantivy", out / "tantivy")
    with pytest.raises(UserError, match="1 passages indexed, 2 stored; build it again"):
        open_index(out)
