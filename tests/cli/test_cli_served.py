"""``eval`` and ``ask`` with a model that an OpenAI-compatible server serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_openai import MODEL, FakeServer, Raw, serving
from typer.testing import Result

Searchr1 = Callable[..., Result]
SERVED = ("--engine", "openai", "--set", "engine.slots=4", "--set")


def says(request: dict[str, Any]) -> Any:
    """A policy that searches the question and then answers, in Search-R1's dialogue, in either API."""
    text = request["prompt"] if "prompt" in request else request["messages"][-1]["content"]
    said = "<answer> Frank Herbert" if "Doc 1(" in text else "<search> Dune"
    body = {"message": {"content": said}} if "messages" in request else {"text": said}
    return {"finish_reason": "stop", **body}


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with serving(says) as fake:
        yield fake


@pytest.mark.parametrize("api", ["chat", "completions"])
def test_a_served_model_is_evaluated_by_its_name(
    api: str, server: FakeServer, searchr1: Searchr1, index: Path, questions: Path, tmp_path: Path
) -> None:
    done = searchr1(
        "eval", MODEL, *SERVED, f"engine.url={server.url}", "--set", f"engine.api={api}", "--data", questions,
        "--retriever", index, "--out", tmp_path / "out", "--json", "--agent", "search_r1",
    )  # fmt: skip
    assert (done.exit_code, server.paths[0]) == (0, "/v1/models"), done.stderr
    macro = json.loads(done.stdout)["macro"]
    assert (macro["n"], macro["searches"], macro["failed"]) == (3, 1.0, 0)
    assert macro["exact_match"] == pytest.approx(1 / 4)  # one of two in the first set, none of one in the second
    assert len(server.requests) == 6


def test_engine_errors_are_failures_and_not_wrong_answers(
    server: FakeServer, searchr1: Searchr1, index: Path, questions: Path, tmp_path: Path
) -> None:
    refused = Raw(400, {"error": {"message": "maximum context length is 9"}})
    server.answers = lambda request: refused if "Emma" in str(request) else says(request)
    done = searchr1(
        "eval", MODEL, *SERVED, f"engine.url={server.url}", "--data", questions, "--retriever", index,
        "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    macro = json.loads(done.stdout)["macro"]
    assert (macro["n"], macro["failed"], macro["exact_match"]) == (2, 1, 0.5)
    rows = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    stops = {row["question"]: (row["stop"], row["exact_match"]) for row in rows}
    assert stops["Who wrote Emma?"] == ("engine_error", None)


def test_one_question(server: FakeServer, searchr1: Searchr1, index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    done = searchr1(
        "ask", "Who wrote Dune?", "--model", MODEL, *SERVED, f"engine.url={server.url}", "--retriever", index
    )
    assert done.exit_code == 0, done.stderr
    assert "answer: Frank Herbert" in done.stdout
    assert server.headers[-1]["authorization"] == "Bearer sk-secret"
    assert "secret" not in done.stdout + done.stderr


def test_a_folder_that_is_no_model_may_be_a_servers_name(
    server: FakeServer, searchr1: Searchr1, index: Path, tmp_path: Path
) -> None:
    (tmp_path / "weights").mkdir()
    server.models = Raw(body={"data": [{"id": str(tmp_path / "weights")}]})
    asked = ("ask", "Who?", "--model", tmp_path / "weights", "--retriever", index)
    assert searchr1(*asked, *SERVED, f"engine.url={server.url}").exit_code == 0
    assert "expected a run or a model folder" in searchr1(*asked).stderr


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([], "engine.url: expected the base URL of an OpenAI-compatible server"),
        (["engine.url=URL", "engine.tokenizer=atlas-base"], "only the engine openai with engine.api=completions"),
        (["engine.url=URL", "engine.retries=-1"], "engine.retries: expected at least 0, got -1"),
        (["engine.url=URL", "engine.timeout=0"], "engine.timeout: expected seconds above 0, got 0"),
        (["engine.url=URL", 'engine.omit=["n"]'], "engine.omit: expected some of temperature, top_p, seed, stop"),
        (["engine.url=URL", "engine.api=completions", "engine.tokenizer=atlas-base"],
         "rollout.context_tokens = 5120 is more than the model's context of 900 tokens"),
        (["engine.url=URL/nothing"], "/models: status 404"),
    ],
)  # fmt: skip
def test_one_line_says_what_is_wrong(
    settings: list[str], expected: str, server: FakeServer, searchr1: Searchr1, index: Path
) -> None:
    if settings and settings[0].endswith("/nothing"):
        server.models = Raw(404)
    given = [part for setting in settings for part in ("--set", setting.replace("URL", server.url))]
    done = searchr1("ask", "Who?", "--model", MODEL, "--engine", "openai", "--retriever", index, *given)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert expected in done.stderr


def test_another_model_is_named(server: FakeServer, searchr1: Searchr1, index: Path) -> None:
    done = searchr1("ask", "Who?", "--model", "mine", *SERVED, f"engine.url={server.url}", "--retriever", index)
    assert done.exit_code == 2
    assert done.stderr == f"error: {server.url} serves {MODEL}, other, not 'mine'; name a model that it serves\n"


@pytest.mark.parametrize("command", ["train", "sample"])
def test_training_is_refused(command: str, searchr1: Searchr1, tmp_path: Path) -> None:
    done = searchr1(command, "atlas", "--set", "engine.name=openai", "--out", tmp_path / "new")
    assert done.exit_code == 2
    assert "'openai' gives text alone, without the token ids and log-probabilities that training needs" in done.stderr
    assert not (tmp_path / "new").exists()


def test_answers_are_judged(
    server: FakeServer, searchr1: Searchr1, index: Path, questions: Path, tmp_path: Path
) -> None:
    """All say Frank Herbert; the judge finds that right for Dune, where exact match does, and for its author's town."""
    out = tmp_path / "out"
    play = ("eval", MODEL, *SERVED, f"engine.url={server.url}", "--data", questions, "--retriever", index)
    assert searchr1(*play, "--out", out).exit_code == 0

    def judge(request: dict[str, Any]) -> Any:
        right = "Dune" in request["messages"][-1]["content"]
        return {"finish_reason": "stop", "message": {"content": "correct" if right else "incorrect"}}

    server.answers = judge
    asked = ("judge", out, "--model", MODEL, "--url", server.url)
    done = searchr1(*asked, "--no-temperature", "--json")
    assert done.exit_code == 0, done.stderr
    assert "temperature" not in server.requests[-1]
    one, two = (json.loads(done.stdout)["datasets"][name] for name in ("one", "two"))
    assert (one["n"], one["correct"], one["both"], one["judge_only"]) == (2, 0.5, 1, 0)
    assert (two["n"], two["correct"], two["judge_only"], two["match_only"]) == (1, 1.0, 1, 0)
    before = len(server.requests)
    assert "Judged by" in searchr1(*asked).stdout
    assert len(server.requests) == before  # judged before
    wrong = searchr1("judge", out, "--model", "nobody", "--url", server.url)
    assert (wrong.exit_code, "not 'nobody'" in wrong.stderr) == (2, True)
    nowhere = searchr1("judge", out, "--model", MODEL, "--url", "nowhere")
    assert (nowhere.exit_code, "--url: expected the base URL" in nowhere.stderr) == (2, True)
