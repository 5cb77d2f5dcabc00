"""Passages added to an index and deleted from it: the same as a fresh build, for whoever asks, whatever fails."""

import asyncio
import fcntl
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.errors import SearchR1Error, UserError
from searchr1.retrieval import BACKENDS, update
from searchr1.retrieval.bm25 import Bm25, Bm25Retriever
from searchr1.retrieval.corpus import corpus_hash
from searchr1.retrieval.index import build_index, open_index, read_manifest
from searchr1.retrieval.update import add_passages, delete_passages
from searchr1.types import Passage

WORDS = ["tacoma", "dune", "lyon", "port", "novel"]
MANY = [Passage(str(i), f"Title {i}", f"common word{i}") for i in range(100)]
Found = list[list[tuple[str, float]]]


def write(path: Path, passages: Iterable[Passage]) -> Path:
    path.write_text("".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in passages))
    return path


def built(folder: Path, passages: Iterable[Passage], **options: object) -> Path:
    build_index(write(folder / "corpus.jsonl", passages), folder / "index", options=options)
    return folder / "index"


def found(index: Path | Bm25Retriever, queries: Sequence[str] = WORDS, k: int = 1000) -> Found:
    retriever = open_index(index) if isinstance(index, Path) else index
    return [[(p.id, p.score) for p in hits] for hits in asyncio.run(retriever.search(queries, k))]


def files(folder: Path) -> dict[str, str]:
    """What every file holds."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


texts = st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join)
passages = st.dictionaries(st.integers(0, 7).map(str), st.tuples(texts, texts), min_size=1, max_size=8).map(
    lambda rows: [Passage(identifier, title, text) for identifier, (title, text) in rows.items()]
)


@settings(max_examples=20, deadline=None)
@given(first=passages, steps=st.lists(st.one_of(passages, st.sets(st.integers(0, 7).map(str))), min_size=1, max_size=3))
def test_an_updated_index_is_as_a_fresh_one(first: list[Passage], steps: list[list[Passage] | set[str]]) -> None:
    """Ids and scores: of eight passages, whatever is deleted is more than a tenth."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        index = built(folder, first)
        living = {passage.id: passage for passage in first}
        for step in steps:
            known = living.keys() & (step if isinstance(step, set) else {p.id for p in step})
            if isinstance(step, list):
                updated = add_passages(index, write(folder / "more.jsonl", step))
                assert (updated.added, updated.replaced) == (len(step) - len(known), len(known))
                living = {i: p for i, p in living.items() if i not in known} | {p.id: p for p in step}
            elif known and known != living.keys():
                updated = delete_passages(index, sorted(step))
                assert updated.deleted == len(known)
                assert updated.unknown == tuple(sorted(step - known))
                living = {i: p for i, p in living.items() if i not in known}
        fresh = folder / "fresh"
        manifest = build_index(write(folder / "living.jsonl", living.values()), fresh)
        assert read_manifest(index).passages == manifest.passages
        assert read_manifest(index).corpus_hash == manifest.corpus_hash
        assert found(index) == found(fresh)


@settings(max_examples=8, deadline=None)
@given(parts=st.lists(passages, min_size=2, max_size=10))
def test_scores_after_adding_are_those_of_a_fresh_build(parts: list[list[Passage]]) -> None:
    """In as many segments of the engine as there were updates."""
    numbered = [
        [Passage(f"{part}-{passage.id}", passage.title, passage.text) for passage in passages]
        for part, passages in enumerate(parts)
    ]
    with TemporaryDirectory() as name:
        index = built(Path(name), numbered[0])
        for part in numbered[1:]:
            add_passages(index, write(Path(name) / "more.jsonl", part))
        fresh = Path(name) / "fresh"
        build_index(write(Path(name) / "all.jsonl", [p for part in numbered for p in part]), fresh)
        assert found(index) == found(fresh)


@settings(max_examples=20, deadline=None)
@given(deleted=st.sets(st.integers(0, 99), min_size=1, max_size=10))
def test_few_deleted_passages_are_not_found_and_change_no_score(deleted: set[int]) -> None:
    """Up to a tenth: they still count in the statistics, so that the scores of the others stay what they were."""
    queries = ["common", "title", *(f"word{i}" for i in deleted), "word0 word50 word99 title"]
    with TemporaryDirectory() as name:
        index = built(Path(name), MANY)
        before = found(index, queries)
        delete_passages(index, map(str, deleted))
        assert found(index, queries) == [[hit for hit in hits if int(hit[0]) not in deleted] for hits in before]
        assert (index / "deleted.rows").stat().st_size == 8 * len(deleted)


def test_more_than_a_tenth_deleted_is_made_anew(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    delete_passages(index, map(str, range(10)))
    assert (index / "passages.jsonl").read_bytes().count(b"\n") == 100
    assert (index / "deleted.rows").stat().st_size == 80
    delete_passages(index, ["10"])
    assert sorted(path.name for path in index.iterdir()) == [
        "manifest.json",
        "passages.jsonl",
        "passages.offsets",
        "tantivy",
    ]
    fresh = tmp_path / "fresh"
    assert build_index(write(tmp_path / "rest.jsonl", MANY[11:]), fresh).corpus_hash == read_manifest(index).corpus_hash
    assert (index / "passages.jsonl").read_bytes() == (fresh / "passages.jsonl").read_bytes()
    assert found(index, ["common", "title word40"]) == found(fresh, ["common", "title word40"])


def test_a_small_change_links_the_files_that_stay(tmp_path: Path) -> None:
    index = built(tmp_path, MANY, title_weight=0.3)
    before = {path.name: path.stat().st_ino for path in (index / "tantivy").glob("*.*")}
    text = (index / "passages.jsonl").stat().st_ino
    added = add_passages(index, write(tmp_path / "more.jsonl", [Passage("3", "New", "fresh"), Passage("x", "X", "y")]))
    assert (added.added, added.replaced, added.deleted, added.unknown) == (1, 1, 0, ())
    assert {name for name, inode in before.items() if (index / "tantivy" / name).stat().st_ino == inode} >= {
        name for name in before if name.endswith((".idx", ".term", ".fast", ".fieldnorm"))
    }
    assert (index / "passages.jsonl").stat().st_ino == text
    assert found(index, ["fresh", "word3", "common"], 99)[0] == [("3", found(index, ["fresh"])[0][0][1])]
    assert found(index, ["word3"]) == [[]]
    living = [passage for passage in MANY if passage.id != "3"]
    living += [Passage("3", "New", "fresh"), Passage("x", "X", "y")]
    assert read_manifest(index).corpus_hash == corpus_hash(write(tmp_path / "all.jsonl", living))
    assert read_manifest(index).options["title_weight"] == 0.3
    assert read_manifest(index).corpus == "corpus.jsonl"


def test_who_has_the_index_open_goes_on_as_before(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    reader = open_index(index)
    assert isinstance(reader, Bm25Retriever)
    queries = ["common", "word5", "word6", "fresh"]
    before = found(reader, queries)
    add_passages(index, write(tmp_path / "more.jsonl", [Passage("5", "New", "fresh common")]))
    delete_passages(index, ["6", "7"])
    delete_passages(index, map(str, range(50)))
    assert found(reader, queries) == before
    assert found(index, ["word6", "fresh"])[0] == []


def test_a_copy_made_of_links_is_not_changed(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    copy = tmp_path / "copy"
    subprocess.run(["cp", "-al", index, copy], check=True)
    before = files(copy)
    add_passages(index, write(tmp_path / "more.jsonl", [Passage("x", "New", "fresh common")]))
    assert files(copy) == before
    add_passages(copy, write(tmp_path / "other.jsonl", [Passage("y", "Other", "stale")]))
    assert [hits[0][0] for hits in (*found(index, ["fresh"]), *found(copy, ["stale"]))] == ["x", "y"]


def test_an_index_without_a_term_for_each_row_can_be_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they were built before passages could be deleted."""
    from searchr1.retrieval.bm25 import tantivy

    def schema(self: Bm25) -> Any:
        builder = tantivy.SchemaBuilder()
        for name in ("all", "title"):
            builder.add_text_field(name, tokenizer_name="searchr1_english", index_option="freq")
        return builder.add_unsigned_field("row", fast=True).build()

    with monkeypatch.context() as patched:
        patched.setattr(Bm25, "schema", schema)
        index = built(tmp_path, MANY)
    add_passages(index, write(tmp_path / "more.jsonl", [Passage("5", "New", "fresh")]))
    delete_passages(index, ["6"])
    assert [[i for i, _ in hits] for hits in found(index, ["word5", "word6", "word7", "fresh"])] == [
        [],
        [],
        ["7"],
        ["5"],
    ]


def engine_stage(name: str) -> Callable[[pytest.MonkeyPatch, BaseException], None]:
    def fail(patch: pytest.MonkeyPatch, error: BaseException) -> None:
        real = getattr(Bm25, name)

        def run(self: Bm25, *arguments: Any) -> None:
            real(self, *arguments)
            raise error

        patch.setattr(Bm25, name, run)

    return fail


def own_stage(name: str) -> Callable[[pytest.MonkeyPatch, BaseException], None]:
    def fail(patch: pytest.MonkeyPatch, error: BaseException) -> None:
        def run(*arguments: Any, **more: Any) -> None:
            raise error

        patch.setattr(update, name, run)

    return fail


STAGES = {
    "link": own_stage("link_files"),
    "engine": engine_stage("update"),
    "manifest": own_stage("write_manifest"),
    "move": own_stage("move_into_place"),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")], ids=["stop", "full"])
def test_an_update_that_fails_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, error: BaseException
) -> None:
    index = built(tmp_path, MANY)
    more = write(tmp_path / "more.jsonl", [Passage("5", "New", "fresh common"), Passage("x", "X", "y")])
    before, answers = files(index), found(index, ["common", "word5"])
    text = (index / "passages.jsonl").read_bytes()
    siblings = sorted(path.name for path in tmp_path.iterdir())
    with monkeypatch.context() as patched:
        STAGES[stage](patched, error)
        with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else SearchR1Error):
            add_passages(index, more)
    assert sorted(path.name for path in tmp_path.iterdir()) == siblings
    # The text may have grown beyond what the index knows of; nothing else may differ.
    assert {**files(index), "passages.jsonl": ""} == {**before, "passages.jsonl": ""}
    assert (index / "passages.jsonl").read_bytes().startswith(text)
    assert found(index, ["common", "word5"]) == answers
    assert add_passages(index, more).replaced == 1
    assert found(index, ["fresh"])[0][0][0] == "5"
    fresh = tmp_path / "fresh"
    build_index(
        write(
            tmp_path / "all.jsonl", [*MANY[:5], *MANY[6:], Passage("5", "New", "fresh common"), Passage("x", "X", "y")]
        ),
        fresh,
    )
    assert (index / "deleted.rows").read_bytes() == (5).to_bytes(8, "little")
    assert read_manifest(index).corpus_hash == read_manifest(fresh).corpus_hash


KILLED = """
import os, signal, sys
from searchr1.retrieval import bm25, update
from searchr1.retrieval.bm25 import Bm25

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def after(real):
    def run(*arguments):
        real(*arguments)
        sys.stdout.flush()
        die()
    return run

stage, index, corpus = sys.argv[1:]
if stage == "engine":
    Bm25.update = after(Bm25.update)
elif stage == "text":
    update.CorpusWriter.__exit__ = after(update.CorpusWriter.__exit__)
elif stage == "moved":
    update.move_into_place = after(update.move_into_place)
update.add_passages(index, corpus)
"""


@pytest.mark.parametrize("stage", ["engine", "text", "moved"])
def test_a_killed_update_leaves_a_whole_index(tmp_path: Path, stage: str) -> None:
    index = built(tmp_path, MANY)
    more = write(tmp_path / "more.jsonl", [Passage("5", "New", "fresh common"), Passage("x", "X", "y")])
    answers = found(index, ["common", "word5"])
    killed = subprocess.run([sys.executable, "-c", KILLED, stage, str(index), str(more)], check=False, timeout=60)
    assert killed.returncode == -9
    if stage == "moved":
        assert found(index, ["fresh"])[0][0][0] == "5"
    else:
        assert found(index, ["common", "word5"]) == answers
        assert (tmp_path / ".index.building").is_dir()
        assert read_manifest(index).passages == 100
    assert add_passages(index, more).manifest.passages == 101
    assert found(index, ["fresh"])[0][0][0] == "5"
    assert not (tmp_path / ".index.building").exists()
    lines = (index / "passages.jsonl").read_text().splitlines()
    assert len(lines) in (102, 104)  # where the first update was done, the second replaced both again
    assert [json.loads(line)["id"] for line in lines][-2:] == ["5", "x"]


def test_nobody_else_builds_or_changes_it_meanwhile(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    scratch = tmp_path / ".index.building"
    scratch.mkdir()
    with (scratch / "building.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is building this index, or changes it"):
            delete_passages(index, ["1"])
    assert delete_passages(index, ["1"]).deleted == 1


def test_an_id_asked_for_twice_counts_once(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    updated = delete_passages(index, ["1", "1", "nobody", "nobody", "2"])
    assert (updated.deleted, updated.unknown, updated.manifest.passages) == (2, ("nobody",), 98)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["nobody", "none"], "expected ids of passages in this index, but none of the 2 is in it, as 'nobody'"),
        ([], "none of the 0 is in it"),
        ([p.id for p in MANY], "these are all of its passages, and an index cannot be empty"),
    ],
)
def test_what_cannot_be_deleted(tmp_path: Path, ids: list[str], message: str) -> None:
    index = built(tmp_path, MANY)
    before = files(index)
    with pytest.raises(UserError, match=message):
        delete_passages(index, ids)
    assert files(index) == before
    assert sorted(os.listdir(tmp_path)) == ["corpus.jsonl", "index"]


def test_a_corpus_that_cannot_be_added(tmp_path: Path) -> None:
    index = built(tmp_path, MANY)
    before = files(index)
    more = write(tmp_path / "more.jsonl", [Passage("x", "X", "y"), Passage("x", "X", "y")])
    with pytest.raises(UserError, match=r"more\.jsonl:2: id 'x' was used before"):
        add_passages(index, more)
    assert files(index) == before


def test_a_corpus_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path, MANY)
    more = write(tmp_path / "more.jsonl", [Passage("x", "X", "y"), Passage("z", "X", "y")])
    real = update.read_corpus

    def shrinking(path: Path, *progress: Any) -> Iterable[Passage]:
        yield from real(path, *progress)
        write(path, [Passage("x", "X", "y")])

    monkeypatch.setattr(update, "read_corpus", shrinking)
    with pytest.raises(UserError, match="the corpus changed while it was read; the index is as it was"):
        add_passages(index, more)
    assert read_manifest(index).passages == 100


class Fixed:
    """A kind of index that cannot be changed."""

    def build(self) -> None: ...

    def open(self) -> None: ...


def test_a_kind_that_cannot_be_changed_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = built(tmp_path, MANY)
    monkeypatch.setattr(update, "load_backend", lambda kind, options: Fixed())
    with pytest.raises(UserError, match=r"a bm25 index cannot be changed; build it again .*--overwrite"):
        delete_passages(index, ["1"])
    assert "bm25" in BACKENDS


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected an index folder, but it does not exist"):
        delete_passages(tmp_path / "none", ["1"])
    assert list(tmp_path.iterdir()) == []
