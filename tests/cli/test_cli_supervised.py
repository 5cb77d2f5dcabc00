"""``sample`` and ``sft`` from end to end, on a tiny model; killed and resumed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from searchr1.run import RunFolder
from searchr1.supervised.file import read_header, read_kept

Run = Callable[..., Any]
SAMPLING = ["--questions", 20, "--rollouts", 2, "--keep", "all", "--set", "engine.slots=2"]  # five blocks
LEARNING = ["--set", "sft.batch=8", "--set", "evaluation.every=0", "--set", "evaluation.baselines=[]"]
LEARNING += ["--set", "evaluation.final_questions=3"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The encyclopedia that sampling searches is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def settings(settings: list[str]) -> list[str]:
    return [*settings, "--set", "engine.threads=1"]


@pytest.fixture(scope="module")
def kept(searchr1: Run, settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trajectories of the tiny policy, right or wrong."""
    path = tmp_path_factory.mktemp("kept") / "kept.jsonl.gz"
    result = searchr1("sample", "atlas", *settings, *SAMPLING, "--out", path)
    assert result.exit_code == 0, result.stderr
    assert "kept 40 of 40 trajectories (100.0%), of 20 of 20 questions" in result.stderr
    return path


@pytest.fixture(scope="module")
def tuned(searchr1: Run, settings: list[str], kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tuned") / "run"
    result = searchr1("sft", "atlas", *settings, *LEARNING, "--data", kept, "--out", folder)
    assert result.exit_code == 0, result.stderr
    assert "learning from 38 trajectories" in result.stderr
    assert "    step      loss   token accuracy   held-out loss   seconds      left" in result.stderr.splitlines()
    assert "  10/10  " in result.stderr
    assert "after step 10" in result.stdout
    return folder


def kill_when(command: list[object], reached: Callable[[], bool]) -> None:
    """Start a command and kill it (-9) when it got so far."""
    process = subprocess.Popen(
        [sys.executable, "-m", "searchr1.cli", *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "it makes no progress"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_sampling_killed_and_resumed_makes_the_same_bytes(
    searchr1: Run, settings: list[str], kept: Path, tmp_path: Path
) -> None:
    path = tmp_path / "kept.jsonl.gz"
    command = ["sample", "atlas", *settings, *SAMPLING, "--out", path]
    progress = tmp_path / "kept.jsonl.gz.progress"
    kill_when(command, lambda: progress.exists() and '"done":4' in progress.read_text())
    assert not path.exists()
    result = searchr1(*command, "--resume")
    assert result.exit_code == 0, result.stderr
    assert " of 20 questions were played before" in result.stderr
    assert path.read_bytes() == kept.read_bytes()
    again = searchr1(*command, "--resume")
    assert (again.exit_code, again.stderr) == (0, f"{path}: all was sampled already\n")
    other = searchr1(*command, "--set", "rollout.top_k=1", "--resume")
    assert other.exit_code == 2
    assert "changed: rollout.top_k (2 -> 1)" in other.stderr


def test_the_counts_as_json(searchr1: Run, settings: list[str], tmp_path: Path) -> None:
    result = searchr1(
        "sample", "atlas", *settings, "--questions", 3, "--rollouts", 2, "--out", tmp_path / "a.jsonl.gz", "--json"
    )
    assert result.exit_code == 0, result.stderr
    counts = json.loads(result.stdout)
    assert (counts["questions"], counts["played"], counts["kept"] + counts["filtered"]) == (3, 6, 6)
    assert [row for _, row in read_kept(tmp_path / "a.jsonl.gz")] == []
    assert "nothing was kept" in result.stderr
    nothing = searchr1("sft", "atlas", *settings, "--data", tmp_path / "a.jsonl.gz", "--out", tmp_path / "run")
    assert nothing.exit_code == 2
    assert "expected at least one trajectory" in nothing.stderr
    assert not (tmp_path / "run").exists()


def test_the_run_of_a_fine_tuned_policy(tuned: Path) -> None:
    run = RunFolder.open(tuned)
    rows = run.read_metrics()
    assert [row["step"] for row in rows] == list(range(1, 11))
    assert [row["epoch"] for row in rows] == [1] * 5 + [2] * 5
    assert [row["train/trajectories"] for row in rows] == [8, 8, 8, 8, 6] * 2
    assert ["validation/loss" in row for row in rows] == [step % 5 == 0 for step in range(1, 11)]
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert all(0 <= row["train/token_accuracy"] <= 1 for row in rows)
    assert {(row["step"], row["decoding"]) for row in run.read_eval()} == {
        (0, "sampled"), (0, "greedy"), (10, "sampled"), (10, "greedy")
    }  # fmt: skip
    assert run.trajectory_steps() == [0, 10]
    assert (tuned / "report.html").is_file()
    AutoModelForCausalLM.from_pretrained(tuned / "checkpoints" / "step-10")


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def test_learning_killed_and_resumed_is_bit_identical(
    searchr1: Run, settings: list[str], kept: Path, tuned: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    command = ["sft", "atlas", *settings, *LEARNING, "--data", kept, "--out", folder]
    slower = [*command, "--set", "save.checkpoint_every=2"]
    kill_when(slower, lambda: lines(folder / "metrics.jsonl") >= 4)  # with the header: three steps
    assert not (folder / "checkpoints" / "step-10").exists()
    result = searchr1(*slower, "--resume")
    assert result.exit_code == 0, result.stderr
    one, two = RunFolder.open(tuned), RunFolder.open(folder)
    assert without_clock(one.read_metrics()) == without_clock(two.read_metrics())
    assert one.read_eval() == two.read_eval()
    last = Path("checkpoints") / "step-10"
    assert (tuned / last / "model.safetensors").read_bytes() == (folder / last / "model.safetensors").read_bytes()
    states = [torch.load(run / last / "training_state.pt", weights_only=True)["policy"] for run in (tuned, folder)]
    assert [state.pop("origin") for state in states] == ["", ""]  # fine-tuning has no reference
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert (tuned / "examples.json").read_bytes() == (folder / "examples.json").read_bytes()


def test_a_run_does_not_go_on_with_other_trajectories(
    searchr1: Run, settings: list[str], kept: Path, tuned: Path, tmp_path: Path
) -> None:
    command = ["sft", "atlas", *settings, *LEARNING, "--out", tuned, "--resume"]
    other = searchr1(*command, "--answers")
    assert other.exit_code == 2
    assert "the trajectories changed since the run began" in other.stderr
    (tmp_path / "same.jsonl.gz").write_bytes(kept.read_bytes())
    renamed = searchr1(*command, "--data", tmp_path / "same.jsonl.gz")
    assert renamed.exit_code == 2
    assert "changed: sft.data" in renamed.stderr
    done = searchr1(*command, "--data", kept)
    assert done.exit_code == 0, done.stderr
    assert "all 10 steps were done already" in done.stderr


def test_a_fine_tuned_policy_is_a_model(searchr1: Run, settings: list[str], tuned: Path, tmp_path: Path) -> None:
    """Of every other command: a run or one of its checkpoints."""
    few = [*settings, "--set", "evaluation.final_questions=2", "--set", "steps=1"]
    trained = searchr1("train", "atlas", *few, "--set", f"model={tuned}", "--out", tmp_path / "run")
    assert trained.exit_code == 0, trained.stderr
    assert f"policy: {tuned}" in trained.stderr
    checkpoint = tuned / "checkpoints" / "step-10"
    files = []
    for model in (tuned, checkpoint):
        files.append(tmp_path / f"{model.name}.jsonl.gz")
        sampled = searchr1("sample", "atlas", *few, *SAMPLING, "--questions", 2, "--model", model, "--out", files[-1])
        assert sampled.exit_code == 0, sampled.stderr
    assert read_header(files[0])["sampling"]["model"] == str(checkpoint)
    assert files[0].read_bytes() == files[1].read_bytes()
    more = searchr1("eval", tuned, "--limit", 2, "--out", tmp_path / "eval", "--json")
    assert more.exit_code == 0, more.stderr
    assert json.loads(more.stdout)["macro"]["n"] == 2
    asked = searchr1("ask", "Who?", "--model", tuned)
    assert asked.exit_code == 0, asked.stderr


def test_direct_answers(searchr1: Run, settings: list[str], questions: Path, tmp_path: Path) -> None:
    few = [*settings, *LEARNING, "--set", f"data.train={questions}", "--set", "sft.epochs=4", "--set", "sft.held_out=0"]
    result = searchr1("sft", "atlas", *few, "--answers", "--out", tmp_path / "run")
    assert result.exit_code == 0, result.stderr
    assert "learning from 3 trajectories" in result.stderr
    run = RunFolder.open(tmp_path / "run")
    assert {(row["step"], row["agent"]) for row in run.read_eval()} == {(0, "direct"), (4, "direct")}
    assert run.config["rollout"]["agent"] == "direct"
    rows = run.read_metrics()
    assert rows[-1]["train/loss"] < rows[0]["train/loss"]
    assert rows[0]["tokens/policy"] == (len("FrankHerbertJaneAustenTacoma") + 4 + 2 * 3 + 2 * 3 - 2) / 3
    assert "Direct sampled" in result.stdout


@pytest.mark.parametrize("options", [[], ["--answers", "--data", "x.jsonl.gz"]])
def test_one_source_of_examples(searchr1: Run, settings: list[str], options: list[str], tmp_path: Path) -> None:
    result = searchr1("sft", "atlas", *settings, *options, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "sft: expected --data FILE or --answers, got " in result.stderr


def test_trajectories_of_another_model_or_dialogue(
    searchr1: Run, settings: list[str], kept: Path, tmp_path: Path
) -> None:
    for change, message in (
        ("model=atlas-base", "line 2 was made with another tokenizer"),
        ("protocol.prompt_template=standard", "line 2 was made in another dialogue"),
        ("training.micro_batch_tokens=20", "needs training.micro_batch_tokens of at least as many"),
        ("rollout.temperature=0", "training needs rollout.temperature > 0"),
    ):
        result = searchr1("sft", "atlas", *settings, "--set", change, "--data", kept, "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert message in result.stderr
        assert not (tmp_path / "run").exists()


def test_wrong_filters_and_files(searchr1: Run, settings: list[str], kept: Path, tmp_path: Path) -> None:
    for options, message in (
        (["--keep", "good", "--out", tmp_path / "a"], "--keep: expected all, correct or NAME>=NUMBER"),
        (["--out", kept], "expected a new file, it is there already"),
        (["--out", tmp_path / "a", "--resume"], "start without --resume"),
        (["--out", tmp_path / "a", "--model", tmp_path / "none"], "expected a model folder"),
    ):
        result = searchr1("sample", "atlas", *settings, *options)
        assert result.exit_code == 2
        assert message in result.stderr
    assert list(tmp_path.iterdir()) == []
