"""``index``, ``serve``, ``data atlas`` and ``bench``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from searchr1.benchmarks import rollout


def test_build_says_what_it_will_take_and_took(searchr1: Any, corpus: Path, tmp_path: Path) -> None:
    result = searchr1("index", "build", corpus, "--out", tmp_path / "new", "--set", "title_weight=0.5")
    assert (result.exit_code, result.stdout) == (0, "")
    plan, bar, done = result.stderr.splitlines()
    assert plan.startswith("plan: 3 passages; at most 0.3 GB of memory; about 0.0 MB of disk, ")
    assert bar.startswith("indexing: 3 of 3 passages (")
    assert done.startswith(f"{tmp_path / 'new'}: 3 passages, bm25, ")
    assert json.loads((tmp_path / "new" / "manifest.json").read_text())["options"]["title_weight"] == 0.5
    assert searchr1("index", "build", corpus, "--out", tmp_path / "new", "--overwrite").exit_code == 0


def test_search(searchr1: Any, index: Path) -> None:
    found = json.loads(searchr1("index", "search", index, "Herbert", "-k", 1, "--json").stdout)
    assert [(p["id"], p["title"], set(p)) for p in found] == [("h", "Frank Herbert", {"id", "title", "text", "score"})]
    shown = searchr1("index", "search", index, "novel").stdout
    assert shown.splitlines()[0].startswith(("1. Dune  ", "1. Emma  "))
    assert "   Emma is a novel by Jane Austen." in [line.rstrip() for line in shown.splitlines()]
    assert json.loads(searchr1("index", "search", index, "zzz", "--json").stdout) == []


def test_a_language_is_an_option(searchr1: Any, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "new"
    options = ["--set", "language=", "--set", "tokens=ngram"]
    assert searchr1("index", "build", corpus, "--out", out, *options).exit_code == 0
    assert [p["id"] for p in json.loads(searchr1("index", "search", out, "uster", "--json").stdout)] != []
    refused = searchr1("index", "build", corpus, "--out", tmp_path / "b", "--set", "language=klingon")
    assert (refused.exit_code, refused.stderr.count("\n")) == (2, 1)
    assert "got 'klingon'; known: arabic, danish" in refused.stderr


def test_add_and_delete(searchr1: Any, index: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.jsonl"
    rows = [{"id": "e", "title": "Emma", "text": "Emma, by Austen."}, {"id": "o", "title": "Oslo", "text": "A port."}]
    more.write_text("".join(json.dumps(row) + "\n" for row in rows))
    added = searchr1("index", "add", index, more)
    assert (added.exit_code, added.stdout) == (0, "")
    assert added.stderr.splitlines()[-1].startswith(f"{index}: 1 added, 1 replaced; 4 passages, in ")
    assert json.loads(searchr1("index", "search", index, "oslo", "--json").stdout)[0]["text"] == "A port."
    (tmp_path / "ids.txt").write_text("o\n\nnobody\n")
    deleted = searchr1("index", "delete", index, "--ids", tmp_path / "ids.txt", "--id", "d", "--id", "d")
    assert (deleted.exit_code, deleted.stdout) == (0, "")
    assert deleted.stderr.startswith(f"{index}: 2 deleted, 1 not found (nobody); 2 passages, in ")
    assert json.loads(searchr1("index", "search", index, "oslo", "--json").stdout) == []
    assert json.loads((index / "manifest.json").read_text())["passages"] == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected ids of passages: --id ID, or --ids FILE with an id a line"),
        (["--id", "nobody"], "none of the 1 is in it, as 'nobody'"),
        (["--ids", "none.txt"], "--ids none.txt: expected a text file with an id a line"),
    ],
)
def test_deleting_nothing_is_refused(searchr1: Any, index: Path, arguments: list[str], message: str) -> None:
    result = searchr1("index", "delete", index, *arguments)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_any_search_engine_can_be_searched_and_measured(
    searchr1: Any, index: Path, questions: Path, tmp_path: Path
) -> None:
    (tmp_path / "random.toml").write_text(f'kind = "random"\nindex = "{index}"\nseed = 3\n')
    inline = json.loads(searchr1("index", "search", f"random:index={index},seed=3", "Dune", "--json").stdout)
    assert len(inline) == 3
    assert inline == json.loads(searchr1("index", "search", tmp_path / "random.toml", "Dune", "--json").stdout)
    measured = searchr1("index", "eval", f"random:index={index}", "--data", questions, "-k", 3, "--json")
    assert json.loads(measured.stdout)["answer_recall"]["3"]["value"] == 1.0


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("none", "none: expected an index folder, but it does not exist; make one with"),
        ("bm25", "a bm25 index is built from a corpus first"),
        ("rnadom:index=x", "did you mean 'random'?"),
        ("none.toml", "retriever: expected an index folder, a URL"),
    ],
)
def test_what_cannot_be_searched(searchr1: Any, spec: str, message: str) -> None:
    result = searchr1("index", "search", spec, "q")
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert message in result.stderr


def test_hostile_passages_reach_no_terminal(searchr1: Any, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text(json.dumps({"id": "1", "title": "[red]x", "text": "word \x1b]0;owned\x07 [/] [link=a]b"}) + "\n")
    searchr1("index", "build", corpus, "--out", tmp_path / "index")
    shown = searchr1("index", "search", tmp_path / "index", "word").stdout
    assert "[red]x" in shown
    assert "[/] [link=a]b" in shown
    assert "\x1b" not in shown
    assert "\x1b" not in searchr1("index", "search", tmp_path / "index", "word", "--json").stdout


def test_recall(searchr1: Any, index: Path, questions: Path) -> None:
    result = searchr1("index", "eval", index, "--data", questions, "-k", 1, "-k", 2, "--json")
    figures = json.loads(result.stdout)
    assert figures["n"] == 3
    assert set(figures["answer_recall"]) == {"1", "2"}
    assert figures["answer_recall"]["2"]["value"] == 1.0
    shown = searchr1("index", "eval", index, "--data", questions, "-k", 2).stdout
    assert "100.0% [43.9, 100.0]" in shown


def test_the_server_answers_until_it_is_interrupted(index: Path) -> None:
    command = [sys.executable, "-m", "searchr1.cli", "serve", "retriever", str(index), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    ready = process.stderr.readline()
    assert ready.startswith("3 passages at http://127.0.0.1:")
    url = ready.split()[3]
    body = json.dumps({"queries": ["Dune"], "topk": 1}).encode()
    with urllib.request.urlopen(f"{url}/retrieve", body, timeout=20) as answer:
        assert json.load(answer)["result"][0][0]["title"] == "Dune"
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, "stopped\n")


def test_atlas(searchr1: Any, tmp_path: Path) -> None:
    command = ["data", "atlas", "--entities", 150, "--seed", 3, "--out"]
    result = searchr1(*command, tmp_path / "a")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"{tmp_path / 'a'}: 150 pages, ")
    assert searchr1(*command, tmp_path / "b").exit_code == 0
    for name in ("corpus.jsonl", "train.jsonl", "test.jsonl"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_bench_rollout(searchr1: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"figure": "f", "unit": "u", "ours": 30.0, "peer": "them", "theirs": 10.0, "ratio": 3.0}
    monkeypatch.setattr(rollout, "bench_rollout", lambda: [row])
    assert json.loads(searchr1("bench", "rollout", "--json").stdout) == [row]
    assert "3.00" in searchr1("bench", "rollout").stdout
