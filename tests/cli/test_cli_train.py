"""``train`` and ``demo`` from end to end, on a tiny model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from searchr1.errors import EngineError
from searchr1.run import RunFolder
from searchr1.train import Trainer


def test_a_run_from_start_to_report(trained: tuple[Path, Result]) -> None:
    folder, result = trained
    assert result.exit_code == 0, result.stderr
    run = RunFolder.open(folder)
    assert [row["step"] for row in run.read_metrics()] == [1, 2]
    assert {(row["step"], row["agent"], row["decoding"]) for row in run.read_eval()} == {
        (0, "search_r1", "sampled"), (0, "search_r1", "greedy"), (0, "direct", "greedy"), (0, "rag", "greedy"),
        (1, "search_r1", "sampled"), (2, "search_r1", "sampled"), (2, "search_r1", "greedy"),
    }  # fmt: skip
    assert (folder / "report.html").is_file()
    assert "Exact match on 6 test questions, %" in result.stdout
    for name in ("Search-R1 sampled", "one-hop", "two-hop", "comparison", "all", "Direct greedy", "RAG greedy"):
        assert name in result.stdout
    said = result.stderr
    assert "encyclopedia: 300 pages, " in said
    assert "index: 300 passages, bm25" in said
    assert "  1/2 " in said
    assert "  2/2 " in said
    assert said.splitlines()[-2] == f"report: {folder}/report.html"
    assert said.splitlines()[-1].startswith("done in 0:")


def test_the_tiny_policy_does_search(trained: tuple[Path, Result]) -> None:
    assert all(row["train/searches"] > 0 for row in RunFolder.open(trained[0]).read_metrics())


def test_a_folder_with_a_run_is_refused(trained: tuple[Path, Result], searchr1: Any, settings: list[str]) -> None:
    folder, _ = trained
    for command in (["train", "atlas"], ["demo"]):
        result = searchr1(*command, *settings, "--out", folder)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "already holds a run of 2 steps; use another --out, or --resume" in result.stderr


def test_resume(searchr1: Any, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    missing = searchr1("train", "atlas", *settings, "--out", folder, "--resume")
    assert missing.exit_code == 2
    assert "expected a run folder" in missing.stderr
    assert not folder.exists()

    checkpoint = Trainer._checkpoint

    def interrupt(self: Any, step: int) -> None:
        checkpoint(self, step)
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_checkpoint", interrupt)
    stopped = searchr1("train", "atlas", *settings, "--out", folder)
    assert stopped.exit_code == 130
    assert "--set steps=2 --set data.atlas_entities=300" in stopped.stderr
    assert stopped.stderr.rstrip().endswith(f"--out {folder} --resume")
    monkeypatch.setattr(Trainer, "_checkpoint", checkpoint)

    (folder / "checkpoints" / "step-9.tmp").mkdir()
    changed = searchr1("train", "atlas", *settings, "--set", "seed=3", "--out", folder, "--resume")
    assert changed.exit_code == 2
    assert "changed: seed (0 -> 3)" in changed.stderr

    gone_on = searchr1("train", "atlas", *settings, "--set", "steps=3", "--out", folder, "--resume")
    assert gone_on.exit_code == 0, gone_on.stderr
    assert "index:" not in gone_on.stderr  # it was built before
    assert [row["step"] for row in RunFolder.open(folder).read_metrics()] == [1, 2, 3]
    assert not (folder / "checkpoints" / "step-9.tmp").exists()

    fewer = searchr1("train", "atlas", *settings, "--out", folder, "--resume")
    assert fewer.exit_code == 2
    assert "the run has 3 steps" in fewer.stderr
    again = searchr1("train", "atlas", *settings, "--set", "steps=3", "--out", folder, "--resume")
    assert again.exit_code == 0
    assert "all 3 steps were done already" in again.stderr


def test_a_failure_during_training_keeps_the_run(
    searchr1: Any, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Any) -> None:
        raise EngineError("the model broke")

    monkeypatch.setattr(Trainer, "train", fail)
    result = searchr1("train", "atlas", *settings, "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: the model broke"
    assert "--resume goes on" in result.stderr
    assert (tmp_path / "run" / "config.json").is_file()


def test_ctrl_c_during_training(settings: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, "-m", "searchr1.cli", "train", "atlas", *settings, "--set", "steps=100000"]
    process = subprocess.Popen(
        [*command, "--out", folder], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "--resume goes on: searchr1 train atlas" in errors.splitlines()[-1]


def test_demo(searchr1: Any, settings: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    (tmp_path / "runs" / "demo" / "config.json").write_text("{}")
    result = searchr1("demo", *settings, "--steps", 1, "--seed", 7)
    assert result.exit_code == 0, result.stderr
    config = json.loads((tmp_path / "runs" / "demo-2" / "config.json").read_text())["config"]
    assert (config["steps"], config["seed"]) == (1, 7)
    assert "train 1 step of 2 questions x 4 trajectories" in result.stderr
    assert "Everything goes to runs/demo-2." in result.stderr
    assert "after step 1" in result.stdout
    assert "One question: " in result.stdout
    assert "before: wrong" in result.stdout
    assert result.stderr.splitlines()[-2] == "report: runs/demo-2/report.html"
    assert " of memory" in result.stderr.splitlines()[-1]
