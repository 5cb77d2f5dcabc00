"""``eval``, ``compare``, ``score``, ``ask`` and ``report``: what they print and what they leave."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from searchr1.commands import evaluating
from searchr1.evaluation import controls
from searchr1.run import RunFolder

SCRIPT: dict[str, str | list[str]] = {
    "born?": [
        "<think> the author </think><search> Dune </search>",
        "<search> Frank Herbert </search>",
        "<answer> Tacoma </answer>",
    ],
    "Dune?": ["<search> Dune </search>", "<answer> Frank Herbert </answer>"],
    "Emma?": ["<answer> Charlotte Bronte </answer>"],
}


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "script.json"
    path.write_text(json.dumps(SCRIPT))
    return path


def scores(summary: str) -> dict[str, dict[str, Any]]:
    """The figures of a summary that no clock can change."""
    datasets = json.loads(summary)["datasets"]
    return {
        name: {key: value for key, value in figures.items() if "seconds" not in key}
        for name, figures in datasets.items()
    }


def evaluate(searchr1: Any, script: Path, index: Path, *more: object) -> Result:
    options = ["--engine", "scripted", "--retriever", index, "--set", "rollout.context_tokens=9000"]
    return searchr1("eval", script, *options, *more)


def test_a_scripted_policy(searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = evaluate(searchr1, script, index, "--data", questions, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    summary = json.loads(result.stdout)
    assert summary == json.loads((out / "summary.json").read_text())
    one, two, macro = summary["datasets"]["one"], summary["datasets"]["two"], summary["macro"]
    assert (one["n"], one["exact_match"], one["searches"], one["failed"]) == (2, 0.5, 0.5, 0)
    assert (two["n"], two["exact_match"], two["searches"], two["failed"]) == (1, 1.0, 2.0, 0)
    assert (macro["n"], macro["exact_match"]) == (3, 0.75)
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    by_id = {row["id"]: row for row in rows}
    assert {name: row["prediction"] for name, row in by_id.items()} == {
        "1": "Frank Herbert",
        "2": "Charlotte Bronte",
        "3": "Tacoma",
    }
    assert by_id["3"]["queries"] == ["Dune", "Frank Herbert"]
    assert (one["answer_retrieved"], two["answer_retrieved"]) == (1.0, 1.0)
    settings = summary["settings"]
    assert (settings["name"], settings["agent"], settings["decoding"]) == ("Search-R1", "search_r1", "greedy")
    assert (settings["retriever"]["kind"], settings["retriever"]["passages"]) == ("bm25", 3)
    assert settings["questions"]["n"] == 3
    assert result.stderr.splitlines()[-1] == f"written: {out}/summary.json and predictions.jsonl"


def test_the_table_and_several_files(searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    lines = questions.read_text().splitlines(keepends=True)
    for name, line in zip("ab", (lines[0], lines[2]), strict=True):
        (tmp_path / f"{name}.jsonl").write_text(line)
    for given in (["--data", tmp_path / "a.jsonl", tmp_path / "b.jsonl"],
                  ["--data", tmp_path / "a.jsonl", "--data", tmp_path / "b.jsonl"]):  # fmt: skip
        out = tmp_path / f"out-{len(given)}"
        result = evaluate(searchr1, script, index, *given, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert "100.0 [" in result.stdout
        assert result.stdout.count("macro average") == 1
    limited = evaluate(searchr1, script, index, "--data", questions, "--limit", 1, "--out", tmp_path / "1", "--json")
    assert json.loads(limited.stdout)["macro"]["n"] == 1


def test_compare(searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    evaluate(searchr1, script, index, "--data", questions, "--out", a)
    script.write_text(json.dumps(SCRIPT | {"Emma?": "<answer> Jane Austen </answer>"}))
    evaluate(searchr1, script, index, "--data", questions, "--out", b)
    result = json.loads(searchr1("compare", a, b, "--json").stdout)
    assert {"n", "difference", "ci_low", "ci_high", "p_value", "mcnemar_p", "datasets", "macro"} <= set(result)
    assert (result["n"], result["difference"]) == (3, pytest.approx(1 / 3))
    worse = searchr1("compare", b, a)
    assert worse.exit_code == 0
    assert "no clear difference" in worse.stdout
    assert "-33.3 [" in worse.stdout


def test_parts_are_merged(searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    whole = evaluate(searchr1, script, index, "--data", questions, "--out", tmp_path / "whole", "--json")
    for number in (1, 2):
        out = tmp_path / str(number)
        result = evaluate(searchr1, script, index, "--data", questions, "--part", f"{number}/2", "--out", out)
        assert result.exit_code == 0, result.stderr
    merged = searchr1("merge", tmp_path / "1", tmp_path / "2", "--out", tmp_path / "all", "--json")
    assert scores(merged.stdout) == scores(whole.stdout)
    assert json.loads(searchr1("compare", tmp_path / "whole", tmp_path / "all", "--json").stdout)["difference"] == 0.0
    for wrong in ("3/2", "x", "0/2"):
        refused = evaluate(searchr1, script, index, "--data", questions, "--part", wrong, "--out", tmp_path / "w")
        assert (refused.exit_code, "--part: expected K/N" in refused.stderr) == (2, True)


def test_resuming(searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path) -> None:
    """Failed questions are asked again and nothing else is; other settings are refused."""
    out = tmp_path / "out"
    del (broken := dict(SCRIPT))["Emma?"]
    script.write_text(json.dumps(broken))
    first = evaluate(searchr1, script, index, "--data", questions, "--out", out)
    assert first.exit_code == 0, first.stderr
    assert "1 answers failed (0 searches, 1 of the engine): left out of every figure" in first.stderr
    occupied = evaluate(searchr1, script, index, "--data", questions, "--out", out)
    assert (occupied.exit_code, "--resume goes on with it" in occupied.stderr) == (2, True)
    other = evaluate(searchr1, script, index, "--data", questions, "--out", out, "--resume", "--limit", 1)
    assert (other.exit_code, "questions.n (3 -> 1)" in other.stderr) == (2, True)
    script.write_text(json.dumps({"Emma?": SCRIPT["Emma?"]}))  # the only question that may be asked
    again = evaluate(searchr1, script, index, "--data", questions, "--out", out, "--resume", "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["macro"]["failed"] == 0
    script.write_text(json.dumps(SCRIPT))
    whole = evaluate(searchr1, script, index, "--data", questions, "--out", tmp_path / "whole", "--json")
    assert scores(again.stdout) == scores(whole.stdout)


def test_a_killed_evaluation_goes_on(
    tiny_model: Path, index: Path, searchr1: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL in the middle, for real: what was answered is kept, the rest is played, the figures are the same."""
    rows = [{"id": str(n), "question": f"Who wrote book {n}?", "answers": ["x"], "dataset": "d"} for n in range(40)]
    data = tmp_path / "many.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["rollout.turn_tokens=8", "rollout.observation_tokens=150", "rollout.context_tokens=1000",
                "protocol.prompt_template=short", "rollout.max_searches=2", "engine.slots=2",
                "engine.threads=1"]  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["eval", tiny_model, "--data", data, "--retriever", index, *options, "--json", "--out"]
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "searchr1.cli", *map(str, [*command, out])],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    file = out / "predictions.jsonl"
    deadline = time.monotonic() + 120
    while not (file.exists() and file.read_bytes().count(b"\n") >= 5):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    kept = file.read_bytes().count(b"\n")
    assert kept < 40, "it was killed too late: use more questions"
    assert not (out / "summary.json").exists()
    resumed = searchr1(*command, out, "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    whole = searchr1(*command, tmp_path / "whole")
    assert scores(resumed.stdout) == scores(whole.stdout)
    assert len({json.loads(line)["id"] for line in file.read_text().splitlines()}) == 40


def test_samples_and_controls(trained: tuple[Path, Result], searchr1: Any, tmp_path: Path) -> None:
    sampled = searchr1("eval", trained[0], "--limit", 4, "--decoding", "sampled", "--samples", 3,
                       "--out", tmp_path / "samples", "--json")  # fmt: skip
    assert sampled.exit_code == 0, sampled.stderr
    macro = json.loads(sampled.stdout)["datasets"]
    assert set(next(iter(macro.values()))["pass_at"]) >= {"1"}
    assert len((tmp_path / "samples" / "predictions.jsonl").read_text().splitlines()) == 12
    greedy = searchr1("eval", trained[0], "--samples", 3, "--out", tmp_path / "greedy")
    assert (greedy.exit_code, "greedy answers are all the same" in greedy.stderr) == (2, True)
    for control in ("empty", "shuffled"):
        out = tmp_path / control
        result = searchr1("eval", trained[0], "--limit", 4, "--control", control, "--out", out, "--json")
        assert result.exit_code == 0, result.stderr
        assert json.loads(result.stdout)["settings"]["control"] == control
    rows = [json.loads(line) for line in (tmp_path / "empty" / "predictions.jsonl").read_text().splitlines()]
    assert {row["retrieved_tokens"] for row in rows} == {0}


def test_a_run_gives_its_own_numbers_again(trained: tuple[Path, Result], searchr1: Any, tmp_path: Path) -> None:
    folder, _ = trained
    for decoding in ("greedy", "sampled"):
        out = tmp_path / decoding
        result = searchr1("eval", folder, "--decoding", decoding, "--limit", 6, "--out", out, "--json")
        assert result.exit_code == 0, result.stderr
        datasets = json.loads(result.stdout)["datasets"]
        wanted = [r for r in RunFolder.open(folder).read_eval() if (r["step"], r["decoding"]) == (2, decoding)]
        for row in wanted:
            if row["dataset"] != "all":
                assert {key: datasets[row["dataset"]][key] for key in ("n", "exact_match", "f1", "searches")} == {
                    key: row[key] for key in ("n", "exact_match", "f1", "searches")
                }
    checkpoint = searchr1("eval", folder / "checkpoints" / "step-2", "--limit", 6, "--out", tmp_path / "c", "--json")
    assert scores(checkpoint.stdout) == scores((tmp_path / "greedy" / "summary.json").read_text())


def test_baselines_of_a_run(trained: tuple[Path, Result], searchr1: Any, tmp_path: Path) -> None:
    for agent, searches in (("rag", 1.0), ("direct", 0.0)):
        result = searchr1("eval", trained[0], "--agent", agent, "--limit", 4, "--out", tmp_path / agent, "--json")
        assert json.loads(result.stdout)["macro"]["searches"] == searches


def test_a_model_on_the_cached_atlas(
    searchr1: Any, tiny_model: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    settings = ["data.atlas_entities=200", "rollout.turn_tokens=8", "rollout.observation_tokens=150",
                "rollout.context_tokens=1000", "protocol.prompt_template=short", "rollout.max_searches=2"]  # fmt: skip
    options = [part for setting in settings for part in ("--set", setting)]
    command = ["eval", tiny_model, "--data", "atlas", "--retriever", index, "--limit", 2, *options, "--out"]
    first, second = searchr1(*command, tmp_path / "1"), searchr1(*command, tmp_path / "2")
    assert (first.exit_code, second.exit_code) == (0, 0), first.stderr
    assert first.stdout == second.stdout
    assert "encyclopedia: 200 pages" in first.stderr
    assert "encyclopedia" not in second.stderr
    assert len(list((tmp_path / "cache" / "searchr1").iterdir())) == 1


def test_ask_shows_every_turn(searchr1: Any, script: Path, index: Path) -> None:
    options = ["--model", script, "--retriever", index, "--set", "engine.name=scripted"]
    result = searchr1("ask", "Who wrote Dune?", *options, "--set", "rollout.context_tokens=9000",
                      "--set", "protocol.prompt_template=short", "--set", "rollout.top_k=1")  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "Question: Who wrote Dune?",
        "<search> Dune </search>",
        '<information>Doc 1(Title: "Dune") Dune is a novel by Frank Herbert.</information>',
        "<answer> Frank Herbert </answer><eos>".removesuffix("<eos>"),
        "",
        "answer: Frank Herbert",
    ]
    assert result.stderr.startswith("1 search, ")


def test_ask_a_run(trained: tuple[Path, Result], searchr1: Any) -> None:
    result = searchr1("ask", "In which town was Abo born?", "--model", trained[0])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith("Question: In which town was Abo born?\n")
    assert searchr1("ask", " ", "--model", trained[0]).exit_code == 2


def test_score(searchr1: Any, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(
        '{"answers": ["Frank Herbert"], "prediction": "the Frank Herbert!"}\n{"answers": ["a b"], "prediction": null}\n'
    )
    result = json.loads(searchr1("score", rows, "--json").stdout)
    assert (result["n"], result["exact_match"], result["f1"]) == (2, 0.5, 0.5)
    assert result["rows"][1] == {"exact_match": 0.0, "cover_match": 0.0, "f1": 0.0}
    assert "50.0%" in searchr1("score", rows).stdout


def test_report(trained: tuple[Path, Result], searchr1: Any) -> None:
    result = searchr1("report", trained[0])
    assert (result.exit_code, result.stdout) == (0, f"{trained[0] / 'report.html'}\n")


def test_one_id_for_two_questions_is_refused(searchr1: Any, script: Path, index: Path, tmp_path: Path) -> None:
    """Two files of one name: without a "dataset" in them their questions would take each other's place."""
    rows = {"a": ("Who wrote Dune?", "Frank Herbert"), "b": ("Who wrote Emma?", "Jane Austen")}
    for name, (text, answer) in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "dev.jsonl").write_text(json.dumps({"id": 0, "question": text, "answers": [answer]}))
    files = [tmp_path / "a" / "dev.jsonl", tmp_path / "b" / "dev.jsonl"]
    refused = evaluate(searchr1, script, index, "--data", *files, "--out", tmp_path / "out")
    assert (refused.exit_code, "dev '0' is two questions, 'Who wrote Dune?' and" in refused.stderr) == (2, True)
    twice = evaluate(searchr1, script, index, "--data", files[0], files[0], "--out", tmp_path / "out", "--json")
    assert "1 questions occur in several files and are asked once" in twice.stderr
    assert json.loads(twice.stdout)["macro"]["n"] == 1


def test_a_changed_prompt_file_is_another_evaluation(
    searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("One. {question}")
    more = ["--data", questions, "--set", f"protocol.prompt_template={words}", "--out", tmp_path / "out"]
    assert evaluate(searchr1, script, index, *more).exit_code == 0
    assert evaluate(searchr1, script, index, *more, "--resume").exit_code == 0
    words.write_text("Two. {question}")
    refused = evaluate(searchr1, script, index, *more, "--resume")
    assert (refused.exit_code, "changed: wording (" in refused.stderr) == (2, True)


def test_the_seed_decides_which_pages_are_shuffled(
    searchr1: Any, script: Path, questions: Path, index: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seeds = []
    original = controls.controlled

    def controlled(*given: Any) -> Any:
        seeds.append(given[-1])
        return original(*given)

    monkeypatch.setattr(controls, "controlled", controlled)
    for seed in (3, 4):
        more = ["--seed", seed, "--control", "shuffled", "--out", tmp_path / str(seed)]
        assert evaluate(searchr1, script, index, "--data", questions, *more).exit_code == 0
    assert seeds == [3, 4]


@pytest.mark.parametrize(
    ("given", "more"),
    [
        (["eval", "m"], ["--out", "runs/e", "--resume"]),
        (["eval", "m", "--out=x"], ["--resume"]),
        (["eval", "m", "--out", "x", "--resume"], []),
    ],
)
def test_the_command_that_goes_on_names_the_folder(
    given: list[str], more: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["searchr1", *given])
    assert evaluating._again(Path("runs/e")).split() == ["searchr1", *given, *more]


def test_react_counts_what_is_shown_in_its_own_words(
    searchr1: Any, script: Path, questions: Path, index: Path, tmp_path: Path
) -> None:
    script.write_text(json.dumps({"Dune?": ["Action: Search[Dune]\n", "Action: Finish[Frank Herbert]\n"]}))
    more = ["--data", questions, "--limit", 1, "--agent", "react", "--set", "rollout.top_k=1"]
    result = evaluate(searchr1, script, index, *more, "--out", tmp_path / "out", "--json")
    shown = 'Observation: Doc 1(Title: "Dune") Dune is a novel by Frank Herbert.\nThought:'
    assert json.loads(result.stdout)["macro"]["retrieved_tokens"] == len(shown)
