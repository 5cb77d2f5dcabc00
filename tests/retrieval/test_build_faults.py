"""What goes wrong while an index is built, and with one that was: a kill, two builders, a full disk, broken files."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.retrieval.corpus import corpus_hash
from searchr1.retrieval.index import build_index, open_index, read_manifest
from searchr1.retrieval.spec import check_corpus
from searchr1.retrieval.update import delete_passages

ROWS = 3000
DIE = "def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)\n"
BEFORE_KILL = {
    "while reading": "build_index(corpus, out, overwrite=True, progress=lambda done, total: done > 1500 and die())",
    "engine written": "index.write_manifest = die; build_index(corpus, out, overwrite=True)",
    "before the move": "index.move_into_place = die; build_index(corpus, out, overwrite=True)",
    "folders exchanged": "swap.os.rename = die; build_index(corpus, out, overwrite=True)",
    "after the move": "swap.shutil.rmtree = die; build_index(corpus, out, overwrite=True)",
}


def write(path: Path, word: str, rows: int = ROWS) -> Path:
    lines = ({"id": str(i), "title": f"Title {i}", "text": f"{word} word{i} common"} for i in range(rows))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def python(code: str, *arguments: object, **options: object) -> "subprocess.CompletedProcess[str]":
    imports = "import os, resource, signal, sys\nfrom searchr1.retrieval import index, swap\n"
    imports += "from searchr1.retrieval.index import build_index\ncorpus, out = sys.argv[1:]\n"
    command = [sys.executable, "-c", imports + DIE + code, *map(str, arguments)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


def first(index: Path, query: str) -> list[str]:
    return [passage.id for passage in asyncio.run(open_index(index).search([query], 1))[0]]


def siblings(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".jsonl")


@pytest.mark.parametrize("stage", BEFORE_KILL)
def test_a_killed_build_leaves_the_old_index_or_the_new_one(tmp_path: Path, stage: str) -> None:
    out = tmp_path / "index"
    build_index(write(tmp_path / "old.jsonl", "old"), out)
    new = write(tmp_path / "new.jsonl", "new")
    assert python(BEFORE_KILL[stage], new, out).returncode == -9
    there = stage in ("after the move", "folders exchanged")
    assert (first(out, "old word7"), first(out, "new")) == (["7"], ["0"] if there else [])
    build_index(new, out, overwrite=True)
    assert siblings(tmp_path) == ["index"]
    assert sorted(os.listdir(out)) == ["manifest.json", "passages.jsonl", "passages.offsets", "tantivy"]
    assert (first(out, "old"), first(out, "new word7")) == ([], ["7"])


def test_of_two_builders_at_once_the_second_is_told(tmp_path: Path) -> None:
    corpus, out = write(tmp_path / "corpus.jsonl", "some"), tmp_path / "index"
    code = (
        "import sys\nfrom searchr1.retrieval.index import build_index\n"
        "def wait(done, total):\n    print(done, flush=True)\n    sys.stdin.readline()\n"
        "build_index(sys.argv[1], sys.argv[2], progress=wait)\n"
    )
    command = [sys.executable, "-c", code, str(corpus), str(out)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as slow:
        assert slow.stdin is not None
        assert slow.stdout is not None
        assert slow.stdout.readline() == "1000\n"
        with pytest.raises(UserError, match="another process is building this index, or changes it; wait"):
            build_index(corpus, out)
        slow.stdin.close()
        assert slow.wait(60) == 0
    assert siblings(tmp_path) == ["index"]
    assert read_manifest(out).passages == ROWS


def limited(size: int) -> str:
    """A disk on which no file grows beyond ``size`` bytes, as far as a process can tell."""
    return f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))\n"


CLI = "from searchr1.cli import main\nsys.argv[1:] = ['index', *{arguments}]\nmain()\n"


@pytest.mark.parametrize("size", [1, 20_000, 150_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path, size: int) -> None:
    corpus, out = write(tmp_path / "corpus.jsonl", "some"), tmp_path / "index"
    assert corpus.stat().st_size > 200_000
    done = python(limited(size) + CLI.format(arguments="('build', corpus, '--out', out)"), corpus, out)
    assert done.returncode == 1
    error = done.stderr.splitlines()[-1]
    assert re.fullmatch(r"error: .*(cannot write the index: File too large; .*make room|is the disk full\?).*", error)
    assert "Traceback" not in done.stderr
    assert siblings(tmp_path) == []


def test_a_disk_that_is_full_for_the_engine_alone_is_told(tmp_path: Path) -> None:
    """The text goes through; what fails is a thread of the engine's."""
    corpus, out = write(tmp_path / "corpus.jsonl", "some"), tmp_path / "index"
    code = (
        "from pathlib import Path\n"
        "from searchr1.errors import SearchR1Error\nfrom searchr1.retrieval.bm25 import Bm25\n"
        "from searchr1.retrieval.corpus import read_corpus\nPath(out).mkdir()\n"
        "try:\n    Bm25().build(Path(out), read_corpus(corpus))\n"
        "except SearchR1Error as error:\n    print(error)\n"
    )
    done = python(limited(10_000) + code, corpus, out)
    assert re.search("is the disk full\\?$", done.stdout.strip()), done.stderr


def test_a_full_disk_leaves_the_index_that_was_there(tmp_path: Path) -> None:
    corpus, out = write(tmp_path / "corpus.jsonl", "some"), tmp_path / "index"
    build_index(corpus, out)
    for command in ("('build', corpus, '--out', out, '--overwrite')", "('add', out, corpus)"):
        done = python(limited(100_000) + CLI.format(arguments=command), corpus, out)
        assert (done.returncode, "what was there is as it was" in done.stderr) == (1, True), done.stderr
        assert siblings(tmp_path) == ["index"]
        assert (read_manifest(out).passages, first(out, "word7")) == (ROWS, ["7"])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    build_index(write(folder / "corpus.jsonl", "some", 300), folder / "index")
    delete_passages(folder / "index", ["3", "4"])
    return folder / "index"


@pytest.mark.parametrize("damage", ["gone", "empty", "half", "garbage"])
def test_an_index_with_one_bad_file_is_refused_when_it_is_opened(tmp_path: Path, whole: Path, damage: str) -> None:
    """Every file in turn but those that searching does not need."""
    unneeded = {".managed.json", ".tantivy-meta.lock", ".tantivy-writer.lock"}
    names = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file()]
    tried = [name for name in names if name.name not in unneeded]
    assert len(tried) >= 11
    for name in tried:
        copy = tmp_path / "copy"
        shutil.copytree(whole, copy)
        data = (copy / name).read_bytes()
        (copy / name).write_bytes({"empty": b"", "half": data[: len(data) // 2]}.get(damage, b"\xff" * len(data)))
        if damage == "gone":
            (copy / name).unlink()
        if name.name == "passages.jsonl" and damage == "garbage":
            shutil.rmtree(copy)
            continue
        with pytest.raises(UserError, match=r"copy.*(build|make one)"):
            open_index(copy)
        shutil.rmtree(copy)


def test_a_damaged_passage_is_told_when_it_is_found(tmp_path: Path, whole: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    text = copy / "passages.jsonl"
    text.write_bytes(text.read_bytes().replace(b'{"id":"7"', b'\xff"id":"7"'))
    retriever = open_index(copy)
    with pytest.raises(UserError, match=r"passages\.jsonl: row 7 is damaged: .*; build the index again"):
        asyncio.run(retriever.search(["word7"], 1))
    assert asyncio.run(retriever.search(["word8"], 1))[0][0].id == "8"


def test_offsets_of_another_corpus_are_refused(tmp_path: Path, whole: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(whole, copy)
    other = tmp_path / "other"
    build_index(write(tmp_path / "other.jsonl", "some", 290), other)
    shutil.copy(other / "passages.offsets", copy / "passages.offsets")
    with pytest.raises(UserError, match="expected 298 passages, got 288; build the index again"):
        open_index(copy)


def test_an_updated_index_is_told_from_the_corpus_it_was_built_from(tmp_path: Path, whole: Path) -> None:
    info = asyncio.run(open_index(whole).info())
    with pytest.raises(UserError, match="was built from another corpus"):
        check_corpus(info, corpus_hash(whole.parent / "corpus.jsonl"))
    lines = (whole.parent / "corpus.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "rest.jsonl").write_text("".join(lines[:3] + lines[5:]))
    check_corpus(info, corpus_hash(tmp_path / "rest.jsonl"))
