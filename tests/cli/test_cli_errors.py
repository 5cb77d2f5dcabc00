"""Wrong input: exit code 2, one line on stderr that says what to do, nothing on stdout and nothing left behind."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result


def refused(result: Result) -> str:
    """The message, of a result that is a refusal."""
    assert (result.exit_code, result.stdout) == (2, ""), result.stderr
    *_, last = lines = result.stderr.splitlines()
    assert [line for line in lines if line.startswith("error: ")] == [last]
    return last.removeprefix("error: ")


def refused_at_once(result: Result) -> str:
    """The same, of one that said nothing else."""
    assert result.stderr.count("\n") == 1, result.stderr
    return refused(result)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("stpes=3", "unknown key 'stpes'; did you mean 'steps'?"),
        ("rollout.serches=3", "unknown key 'rollout.serches'; did you mean 'max_searches'?"),
        ("rollout.agent=serch_r1", "rollout.agent: there is no 'serch_r1'; did you mean 'search_r1'?"),
        ("engine.name=locl", "engine.name: there is no 'locl'; did you mean 'local'?"),
        ("algorithm.name=grppo", "did you mean 'grpo'?"),
        ("algorithm.klo=k3", "unknown key 'algorithm.klo'"),
        ("algorithm.name=3", "algorithm.name: expected one of grpo, "),
        (
            "reward.exact_match=high",
            "reward.exact_match: expected a weight, or a table",
        ),
        ("reward.reward=mine.py:function", "reward.reward: train/reward is a metric already"),
        (
            "training.micro_batch_tokens=899",
            "micro_batch_tokens: expected room for the longest trajectory, rollout.context_tokens = 900, got 899",
        ),
        ("reward.exact=1", "reward.exact: no such reward"),
        ("steps=many", "steps: input should be a valid integer"),
        ("engine.slots=0", "engine.slots: expected at least 1, got 0"),
        ("steps", "--set steps: expected key=value"),
        ("data.train=missing.jsonl", "missing.jsonl: expected a file, but it does not exist"),
        ("data.corpus=", "retriever = 'bm25' builds an index of data.corpus, but that is empty"),
        ("retriever=bm26", "a .toml file, got 'bm26'; did you mean 'bm25'?"),
        (
            "retriever=not/there",
            "retriever: expected an index folder, a URL (http://HOST:PORT), KIND:key=value or ",
        ),
        ("model=not/a/model", "model: expected a model folder, a run or a name on the Hugging Face hub"),
        ("engine.name=scripted", "engine.name: training needs 'local'"),
        ("rollout.temperature=0", "training needs rollout.temperature > 0"),
        ("engine.device=cuda", "engine.device: expected auto, cpu or an available GPU, got 'cuda'"),
        (
            "rollout.turn_tokens=400",
            "4 turns x 400 + 3 observations x 150 = 2061 > rollout.context_tokens = 900",
        ),
        ("rollout.context_tokens=2000", "rollout.context_tokens = 2000 is more than the model's context of 1024"),
    ],
)
def test_settings(searchr1: Any, settings: list[str], tmp_path: Path, setting: str, message: str) -> None:
    run = tmp_path / "run"
    assert message in refused_at_once(searchr1("train", "atlas", *settings, "--set", setting, "--out", run))
    assert not run.exists()


def test_a_path_through_a_file(searchr1: Any, settings: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = searchr1("train", "atlas", *settings, "--out", tmp_path / "file" / "run")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"error: {tmp_path / 'file'}")
    assert result.stderr.endswith("; check the path, its permissions and the disk\n")


def test_a_recipe_that_is_not_there(searchr1: Any, tmp_path: Path) -> None:
    assert "recipe atlsa: no such file; did you mean 'atlas'?" in refused_at_once(searchr1("train", "atlsa"))
    (tmp_path / "broken.toml").write_text("steps = = 3")
    assert "broken.toml: expected TOML" in refused_at_once(searchr1("train", tmp_path / "broken.toml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "2", "question": "Who?"}', "questions.jsonl:4: missing key 'answers'"),
        ('{"id": "2", oops', "questions.jsonl:4: expected one JSON object a line"),
        ('{"id": "1", "question": "Who?", "answers": ["a"]}', "questions.jsonl:4: id '1' was used before"),
    ],
)
def test_question_lines(
    searchr1: Any, settings: list[str], questions: Path, tmp_path: Path, line: str, message: str
) -> None:
    questions.write_text(questions.read_text() + line + "\n")
    given = ["--set", f"data.train={questions}", "--set", f"data.test={questions}"]
    assert message in refused_at_once(searchr1("train", "atlas", *settings, *given, "--out", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "expected at least one passage, the corpus is empty"),
        ('{"id": "1", "title": "A", "text": "a"}\n{"id": "2", "title": "B"}\n', 'corpus.jsonl:2: missing "text"'),
        ('{"id": "1", "contents": "a"}\n{"id": "1", "contents": "b"}\n', "corpus.jsonl:2: id '1' was used before"),
    ],
)
def test_corpus_lines(searchr1: Any, corpus: Path, tmp_path: Path, content: str, message: str) -> None:
    corpus.write_text(content)
    assert message in refused_at_once(searchr1("index", "build", corpus, "--out", tmp_path / "index"))
    assert not (tmp_path / "index").exists()


def test_index_options(searchr1: Any, corpus: Path, index: Path, tmp_path: Path) -> None:
    build = ["index", "build", corpus, "--out"]
    assert "did you mean 'bm25'?" in refused_at_once(searchr1(*build, tmp_path / "other", "--kind", "bm24"))
    assert "did you mean 'title_weight'?" in refused_at_once(
        searchr1(*build, tmp_path / "other", "--set", "title_wait=1")
    )
    assert "holds an index already" in refused_at_once(searchr1(*build, index))
    assert "expected a new folder or an index" in refused_at_once(searchr1(*build, tmp_path, "--overwrite"))
    assert "expected an index folder, but it is a file" in refused_at_once(searchr1("index", "search", corpus, "q"))


def test_an_index_of_another_corpus(searchr1: Any, settings: list[str], index: Path, tmp_path: Path) -> None:
    given = ["--set", f"retriever={index}", "--out", tmp_path / "run"]
    assert "built from another corpus" in refused(searchr1("train", "atlas", *settings, *given))
    assert not (tmp_path / "run").exists()


class Garbage(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def garbage_url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Garbage) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_search_engine_that_is_down_or_answers_garbage(
    searchr1: Any, settings: list[str], garbage_url: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        down = f"http://127.0.0.1:{free.getsockname()[1]}"
        for url, reason in ((down, "ConnectError"), (garbage_url, "<html>hello</html>")):
            command = ["train", "atlas", *settings, "--set", f"retriever={url}", "--out", tmp_path / "run"]
            message = refused_at_once(searchr1(*command))
            assert message.startswith("the search engine does not work")
            assert reason in message
            assert not (tmp_path / "run").exists()


def test_a_model_without_a_tokenizer(searchr1: Any, settings: list[str], tiny_model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(tiny_model / name, bare)
    (tmp_path / "run").mkdir()
    command = ["train", "atlas", *settings, "--set", f"model={bare}", "--out", tmp_path / "run"]
    assert f"{bare} has no tokenizer" in refused_at_once(searchr1(*command))
    assert list((tmp_path / "run").iterdir()) == []  # a folder that was there stays, empty


def test_evaluations(searchr1: Any, tiny_model: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    command = ["eval", tiny_model, "--out", tmp_path / "out"]
    assert "--data: " in refused_at_once(searchr1(*command, "--retriever", index))
    assert "--retriever: " in refused_at_once(searchr1(*command, "--data", questions))
    given = ["--data", questions, "--retriever", index]
    assert "unknown key" in refused_at_once(searchr1(*command, *given, "--set", "rolout.top_k=1"))
    assert "rollout.agent: there is no 'ragg'" in refused_at_once(searchr1(*command, *given, "--agent", "ragg"))
    assert "holds something else already" in refused_at_once(searchr1("eval", tiny_model, *given, "--out", tmp_path))
    assert "found no config.json in it" in refused_at_once(searchr1("eval", tmp_path, *given))
    assert "expected an evaluation folder" in refused_at_once(searchr1("compare", tmp_path, tmp_path))
    assert "missing key 'prediction'" in refused_at_once(searchr1("score", questions))
    assert not (tmp_path / "out").exists()


def test_ports(searchr1: Any, index: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        message = refused_at_once(searchr1("serve", "retriever", index, "--port", port))
    assert message.startswith(f"cannot listen on 127.0.0.1:{port}: ")


def test_the_atlas(searchr1: Any, tmp_path: Path) -> None:
    assert "entities: a world has" in refused_at_once(
        searchr1("data", "atlas", "--out", tmp_path / "a", "--entities", 1)
    )
    assert "expected an empty folder or an atlas" in refused_at_once(
        searchr1("data", "atlas", "--out", Path(__file__).parent)
    )
    assert not (tmp_path / "a").exists()


def test_a_message_is_one_line_whatever_it_quotes(searchr1: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(json.dumps({"prediction": "x", "answers": "a\x1b[2J\nb"}) + "\n")
    assert "\x1b" not in refused_at_once(searchr1("score", rows))
    assert "no\ufffd[2J such" in refused_at_once(searchr1("score", tmp_path / "no\x1b[2J such"))


def test_exit_codes_of_the_installed_program(tmp_path: Path) -> None:
    def program(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "searchr1.cli", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    (tmp_path / "rows.jsonl").write_text('{"answers": ["Herbert"], "prediction": "herbert"}\n')
    code, out, errors = program("score", "rows.jsonl", "--json")
    assert (code, errors) == (0, "")
    assert json.loads(out)["exact_match"] == 1.0
    assert program("score", "missing.jsonl") == (
        2, "", "error: missing.jsonl: expected a file, but it does not exist; check the path\n"
    )  # fmt: skip
