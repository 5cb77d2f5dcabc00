"""``data prepare``, ``overlap``, ``coverage`` and ``filter``."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from stub_hub import StubHub, running_hub
from typer.testing import Result

from searchr1.data import download, sets
from searchr1.data.questions import read_questions
from searchr1.data.sets import FLASHRAG, File, Published

Searchr1 = Callable[..., Result]
BAMBOOGLE = [{"id": f"test_{n}", "question": f"q{n}?", "golden_answers": [f"a{n}"]} for n in range(125)]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[StubHub]:
    content = "".join(json.dumps(row) + "\n" for row in BAMBOOGLE).encode()
    with running_hub(files={f"{FLASHRAG}/bamboogle/test.jsonl": content}, storage=True) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        monkeypatch.setattr(download, "_PAUSE", 0.0)
        yield running


def write_jsonl(path: Path, rows: Sequence[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_prepare_from_the_hub(hub: StubHub, searchr1: Searchr1, tmp_path: Path) -> None:
    done = searchr1("data", "prepare", "bamboogle", "--out", tmp_path / "b.jsonl", "--json")
    told = json.loads(done.stdout)
    assert (done.exit_code, told["questions"], told["left_out"], told["format"]) == (0, 125, {}, "flashrag")
    assert read_questions(tmp_path / "b.jsonl")[3].id == "bamboogle-test-3"
    assert names(tmp_path) == ["b.jsonl"]
    assert "125 questions of Bamboogle test; licence: unverified" in done.stderr
    assert f"content hash {told['content_hash']}" in done.stderr
    # the file's hash is pinned, and this one is another
    assert len(told["doubts"]) == 1
    assert "warning: bamboogle/test.jsonl: expected the hash c9703dae6bb1ceb9..., the hub says" in done.stderr
    strict = searchr1("data", "prepare", "bamboogle", "--out", tmp_path / "c.jsonl", "--strict")
    assert strict.exit_code == 2
    assert "without --strict it is taken all the same" in strict.stderr


def test_prepare_goes_on_after_a_broken_download(hub: StubHub, searchr1: Searchr1, tmp_path: Path) -> None:
    hub.cuts = [1000, *[0] * 9]
    failed = searchr1("data", "prepare", "bamboogle", "--out", tmp_path / "b.jsonl")
    assert (failed.exit_code, len(failed.stderr.splitlines())) == (1, 1)
    assert "what came is kept, the same command goes on" in failed.stderr
    hub.cuts.clear()
    assert searchr1("data", "prepare", "bamboogle", "--out", tmp_path / "b.jsonl").exit_code == 0
    assert [wanted for *_, wanted in hub.asked if wanted][-1] == "bytes=1000-"
    assert names(tmp_path) == ["b.jsonl"]


def test_prepare_from_a_file(searchr1: Searchr1, tmp_path: Path) -> None:
    rows = [{"_id": "5a8b", "question": "Who?", "answer": "me"}, {"_id": "5a8c", "question": "Who not?"}]
    (tmp_path / "dev.json").write_text(json.dumps(rows))
    given = ("data", "prepare", "hotpotqa", "--source", tmp_path / "dev.json", "--out", tmp_path / "out.jsonl")
    done = searchr1(*given)
    assert done.exit_code == 0
    assert "1 questions of HotpotQA dev, 1 left out (no answer); licence: CC BY-SA 4.0" in done.stderr
    assert "warning: expected 7,405 questions, got 1" in done.stderr
    assert searchr1(*given, "--strict").exit_code == 2
    assert searchr1(*given, "--strict", "--limit", 1).exit_code == 0
    assert (tmp_path / "dev.json").exists()
    wrong = searchr1(*given, "--format", "musique")
    assert (wrong.exit_code, wrong.stderr.startswith("error: ")) == (2, True)


def test_prepare_something_unknown(searchr1: Searchr1, tmp_path: Path) -> None:
    done = searchr1("data", "prepare", "hotpot", "--out", tmp_path / "out.jsonl")
    assert (done.exit_code, done.stderr) == (2, "error: data set 'hotpot' is unknown; did you mean 'hotpotqa'?\n")


PASSAGES = b"".join(b'{"id": "%d", "contents": "\\"T\\"\\ntext"}\n' % number for number in range(4))


@pytest.fixture
def published(hub: StubHub, monkeypatch: pytest.MonkeyPatch) -> StubHub:
    """A small corpus and a small index in two parts, as large as they are pinned."""
    hub.files |= {"me/corpus/c.jsonl.gz": gzip.compress(PASSAGES), "me/index/aa": b"x" * 70, "me/index/ab": b"y" * 30}
    files = tuple(File("me/index", name, len(hub.files[f"me/index/{name}"])) for name in ("aa", "ab"))
    corpus = Published("a corpus", (File("me/corpus", "c.jsonl.gz"),), 4, "CC", unpacked=len(PASSAGES))
    small = {"wiki18": corpus, "wiki18_e5": Published("an index", files, 4, "CC", memory=96)}
    monkeypatch.setattr(sets, "PUBLISHED", small)
    return hub


def test_prepare_a_corpus(published: StubHub, searchr1: Searchr1, tmp_path: Path) -> None:
    done = searchr1("data", "prepare", "wiki18", "--out", tmp_path / "wiki.jsonl", "--strict")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "wiki.jsonl").read_bytes() == PASSAGES
    assert names(tmp_path) == ["wiki.jsonl"]
    again = searchr1("data", "prepare", "wiki18", "--out", tmp_path / "wiki.jsonl")
    assert (again.exit_code, "expected a new file" in again.stderr) == (2, True)
    (tmp_path / "local.gz").write_bytes(gzip.compress(PASSAGES * 2))
    local = ("data", "prepare", "wiki18", "--source", tmp_path / "local.gz", "--out")
    refused = searchr1(*local, tmp_path / "b.jsonl", "--strict")
    assert (refused.exit_code, (tmp_path / "b.jsonl").exists()) == (2, False)
    few = searchr1(*local, tmp_path / "b.jsonl.gz", "--limit", 2, "--json")
    assert (json.loads(few.stdout)["passages"], few.exit_code) == (2, 0)
    assert gzip.decompress((tmp_path / "b.jsonl.gz").read_bytes()) == b"".join(PASSAGES.splitlines(True)[:2])


def test_prepare_an_index(published: StubHub, searchr1: Searchr1, tmp_path: Path) -> None:
    done = searchr1("data", "prepare", "wiki18_e5", "--out", tmp_path / "e5_Flat.index")
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / "e5_Flat.index").read_bytes() == b"x" * 70 + b"y" * 30
    assert "to search it: 0.0 GB of memory, this machine has" in done.stderr
    for option in (("--source", tmp_path), ("--limit", 1), ("--split", "test")):
        assert searchr1("data", "prepare", "wiki18_e5", "--out", tmp_path / "x", *option).exit_code == 2


def test_a_disk_that_is_too_small(
    published: StubHub, searchr1: Searchr1, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))
    done = searchr1("data", "prepare", "wiki18_e5", "--out", tmp_path / "e5_Flat.index")
    assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
    assert "GB of free disk, it has 0.0; make room or choose another --out" in done.stderr
    assert [method for method, *_ in published.asked] == ["HEAD", "HEAD"]


def test_overlap(searchr1: Searchr1, questions: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "a", "question": "who wrote dune", "answers": ["the Frank Herbert"], "dataset": "t"},
        {"id": "b", "question": "Where was the author of Dune really born?", "answers": ["Paris"], "dataset": "t"},
        {"id": "c", "question": "Who sang it?", "answers": ["Me"], "dataset": "t"},
    ]
    train = write_jsonl(tmp_path / "train.jsonl", rows)
    out, clean = tmp_path / "pairs.jsonl", tmp_path / "clean.jsonl"
    done = searchr1("data", "overlap", questions, train, "--threshold", 0.7, "--out", out, "--clean", clean, "--json")
    told = json.loads(done.stdout)
    assert told["a"] == {"n": 3, "exact": 1, "near": 1, "overlapping": 2, "share": 2 / 3}
    assert told["b"] == told["a"]
    pairs = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(pair["a"]["id"], pair["b"]["id"], pair["exact"], pair["same_answer"]) for pair in pairs] == [
        ("1", "a", True, True),
        ("3", "b", False, False),
    ]
    assert told["worst"] == pairs
    assert [question.id for question in read_questions(clean)] == ["c"]
    shown = searchr1("data", "overlap", questions, train, "--threshold", 0.7)
    assert "equal, same answer\n  Who wrote Dune?\n  who wrote dune\n" in shown.stdout
    assert searchr1("data", "overlap", questions, train, "--threshold", 0).exit_code == 2


def test_what_questions_hold_does_not_reach_the_terminal(searchr1: Searchr1, tmp_path: Path) -> None:
    row = {"id": "a", "question": "who \x1b[2J wrote", "answers": ["x"], "dataset": "d\x1b[2J"}
    path = write_jsonl(tmp_path / "q.jsonl", [row])
    corpus = write_jsonl(tmp_path / "c.jsonl", [{"id": "1", "title": "T", "text": "x"}])
    for command in (("overlap", path, path), ("coverage", path, "--corpus", corpus)):
        done = searchr1("data", *command)
        assert (done.exit_code, "\x1b" in done.stdout) == (0, False)


def test_coverage(searchr1: Searchr1, corpus: Path, index: Path, tmp_path: Path) -> None:
    rows = [
        {"id": "1", "question": "Who wrote Dune?", "answers": ["Herbert"], "dataset": "one"},
        {"id": "2", "question": "Who wrote Ulysses?", "answers": ["Joyce"], "dataset": "one"},
        {"id": "3", "question": "Born?", "answers": ["Tacoma"], "dataset": "two", "supporting_titles": ["Dune", "X"]},
        {"id": "4", "question": "Is it?", "answers": ["yes"], "dataset": "two", "supporting_titles": ["Emma"]},
    ]
    path, out = write_jsonl(tmp_path / "q.jsonl", rows), tmp_path / "covered.jsonl"
    done = searchr1("data", "coverage", path, "--corpus", corpus, "--out", out, "--json")
    told = json.loads(done.stdout)["datasets"]
    assert {name: (row["n"], row["covered"]) for name, row in told.items()} == {"one": (2, 1), "two": (2, 1)}
    answer = told["one"]["answer"]
    assert (answer["n"], answer["value"], told["one"]["titles"]) == (2, 0.5, None)
    assert answer["ci_low"] < 0.5 < answer["ci_high"]
    assert (told["two"]["answer"]["n"], told["two"]["titles"]["value"]) == (1, 0.5)
    assert [question.id for question in read_questions(out)] == ["1", "4"]
    indexed = searchr1("data", "coverage", path, "--index", index, "--json")
    assert json.loads(indexed.stdout)["datasets"] == told
    shown = searchr1("data", "coverage", path, "--corpus", corpus).stdout
    assert [line.split()[0] for line in shown.splitlines() if line.startswith(" ") and line.split()][-2:] == [
        "one",
        "two",
    ]
    for wrong in ((), ("--corpus", corpus, "--index", index), ("--index", tmp_path)):
        assert searchr1("data", "coverage", path, *wrong).exit_code == 2


def test_filter(searchr1: Searchr1, questions: Path, tmp_path: Path) -> None:
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    texts = {question.id: question for question in read_questions(questions)}
    rows = [
        {
            "id": name,
            "dataset": texts[name].dataset,
            "question": texts[name].text,
            "exact_match": right,
            "sample": place,
        }
        for name, scores in {"1": (1.0, 0.0), "2": (1.0, 1.0)}.items()
        for place, right in enumerate(scores)
    ]
    write_jsonl(evaluation / "predictions.jsonl", rows)
    given = ("data", "filter", evaluation, "--data", questions, "--out", tmp_path / "out.jsonl")
    done = searchr1(*given, "--json")
    assert json.loads(done.stdout) == {
        "n": 3, "kept": 1, "too_easy": 1, "too_hard": 0, "unseen": 1, "attempts": 4, "foreign": 0,
    }  # fmt: skip
    (kept,) = read_questions(tmp_path / "out.jsonl")
    assert (kept.id, kept.metadata) == ("1", {"success_rate": 0.5})
    assert (
        "kept 1 of 3 questions; 1 too easy (above 0.8), 0 too hard (below 0.2), 1 unseen; 2.0 answers each"
        in done.stderr
    )
    one = tmp_path / "predictions.jsonl"
    write_jsonl(one, rows[:1])
    alone = searchr1("data", "filter", one, "--data", questions, "--out", tmp_path / "x.jsonl", "--max", 1)
    assert "warning: one answer a question" in alone.stderr
    (tmp_path / "empty").touch()
    others = write_jsonl(tmp_path / "o.jsonl", [{**rows[0], "id": "z"}])
    for wrong in ((tmp_path / "empty",), (others,), (tmp_path / "none",), (one, "--min", 2)):
        done = searchr1("data", "filter", *wrong, "--data", questions, "--out", tmp_path / "y.jsonl")
        assert (done.exit_code, len(done.stderr.splitlines())) == (2, 1)
