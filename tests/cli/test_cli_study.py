"""``study`` from end to end, on a tiny model: killed, gone on with, collected, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from searchr1.run import RunFolder
from searchr1.studies import plot

STUDY = """
title = "Masked or not"
source = "a paper"
finding = "Masked is better."
seeds = [7]
expectations = [{{higher = "masked", lower = "trained", of = "exact_match"}}]

[shared]
{shared}

[variants.masked]

[variants.trained]
training.mask_environment = false
"""


@pytest.fixture(scope="module")
def tiny_study(settings: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lines = []
    for key, value in (setting.split("=", 1) for setting in settings[1::2]):
        lines.append(f"{key} = {json.dumps(value) if key == 'model' else value}")
    path = tmp_path_factory.mktemp("study") / "tiny.toml"
    shared = [*lines, "evaluation.every = 0", "save.trajectories_every = 0"]
    kept = {line.split(" = ")[0]: line for line in shared}
    kept["steps"] = "steps = 8"
    path.write_text(STUDY.format(shared="\n".join(kept.values())))
    return path


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "searchr1.cli", "study", *map(str, arguments)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Any, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process is None or process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def unlocked(folder: Path) -> bool:
    with (folder / ".lock").open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


def test_a_killed_study_goes_on(searchr1: Any, tiny_study: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = out / "tiny" / "masked" / "seed-7"
    with started(tiny_study, "--out", out, "--jobs", 1, "--only", "masked") as process:
        wait_for(lambda: (run / "checkpoints" / "step-1").exists(), process)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    wait_for(lambda: unlocked(run))  # the run has ended with the study that started it
    done = len(RunFolder.open(run).read_metrics())
    assert 1 <= done < 8

    changed = searchr1("study", tiny_study, "--out", out, "--set", "optimizer.learning_rate=1")
    assert (changed.exit_code, changed.stdout) == (2, "")
    assert (
        f"error: {run}: expected the settings it was started with, changed: optimizer.learning_rate" in changed.stderr
    )

    result = searchr1("study", tiny_study, "--out", out, "--jobs", 1, "--only", "masked")
    assert result.exit_code == 0, result.stderr
    assert [row["step"] for row in RunFolder.open(run).read_metrics()] == list(range(1, 9))
    log = (out / "tiny" / "masked" / "seed-7.log").read_text()
    commands = [line for line in log.splitlines() if line.startswith("$ searchr1 train atlas ")]
    assert [command.endswith(" --resume") for command in commands] == [False, True]
    for line in ("0 of 1 runs done, 0 at work", "tiny/masked/seed-7: training", "tiny/masked/seed-7: done",
                 "1 of 1 runs done, 0 at work"):  # fmt: skip
        assert line in result.stderr
    assert "cannot tell  exact match: masked above trained: " in result.stdout

    again = searchr1("study", tiny_study, "--out", out, "--only", "masked", "--json")
    assert again.exit_code == 0
    assert again.stderr == "1 of 1 runs done, 0 at work\n"
    (document,) = json.loads(again.stdout)
    assert document == json.loads((out / "tiny" / "study.json").read_text())
    assert document["seeds"] == [7]
    assert document["variants"]["masked"]["runs"][0]["finished"]
    assert document["variants"]["trained"]["runs"] == []

    table = (out / "tiny" / "table.md").read_text()
    (out / "tiny" / "table.md").unlink()
    collected = searchr1("study", "--collect", out)
    assert collected.exit_code == 0
    assert (out / "tiny" / "table.md").read_text() == table
    assert "![Masked or not](plot.svg)" in table
    assert (out / "tiny" / "plot.svg").is_file()
    assert collected.stdout == result.stdout


def test_ctrl_c_stops_the_runs_and_says_how_to_go_on(tiny_study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "tiny" / "trained"
    with started(tiny_study, "--out", tmp_path / "out", "--only", "trained", "--seeds", "0,1", "--jobs", 1) as process:
        wait_for((folder / "seed-0.log").exists, process)
        os.kill(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines()[-1] == "interrupted; the same command goes on where the runs stopped"
    assert not (folder / "seed-0" / "checkpoints").exists()
    assert not (folder / "seed-1.log").exists()


def test_failed_runs_are_told_of(searchr1: Any, tiny_study: Path, tmp_path: Path) -> None:
    result = searchr1(
        "study", tiny_study, "--out", tmp_path / "out", "--set", "data.train=missing.jsonl", "--only", "masked"
    )
    assert result.exit_code == 1
    log = tmp_path / "out" / "tiny" / "masked" / "seed-7.log"
    assert result.stderr.splitlines()[-1].startswith(
        "error: 1 of 1 runs failed, first tiny/masked/seed-7: missing.jsonl: expected a file, but it does not exist"
    )
    assert result.stderr.endswith(f"see {log}, and run the same command again to go on\n")
    assert "0 of 1 runs done, 1 failed, 0 at work" in result.stderr
    assert "| masked | 0 |" in (tmp_path / "out" / "tiny" / "table.md").read_text()


def test_without_matplotlib_there_is_a_table(searchr1: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from searchr1.studies.collect import collect, write_json
    from searchr1.studies.definition import load_study

    write_json(collect(load_study("mask"), tmp_path / "mask"), tmp_path / "mask")
    monkeypatch.setattr(plot, "can_draw", lambda: False)
    result = searchr1("study", "--collect", tmp_path / "mask")
    assert result.exit_code == 0
    assert result.stderr == "no plot: the library matplotlib is missing; run: pip install 'searchr1[studies]'\n"
    assert sorted(path.name for path in (tmp_path / "mask").iterdir()) == ["study.json", "table.md"]


def test_help(searchr1: Any) -> None:
    result = searchr1("study", "--help")
    assert result.exit_code == 0
    assert "--collect" in result.stdout


def test_the_list(searchr1: Any) -> None:
    result = searchr1("study", "--list")
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "mask masked, trained Retrieved tokens: masked or trained" in text
    assert "ppo, grpo, reinforce (and dr_grpo, " in text
    names = [one["name"] for one in json.loads(searchr1("study", "--list", "--json").stdout)]
    assert names == sorted(names)
    assert {"mask", "topk"} <= set(names)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "study: expected the name of a study; see `searchr1 study --list`"),
        (["maks"], "study maks: no such study and no such .toml file; did you mean 'mask'?"),
        (["mask", "--seeds", "0,x"], "--seeds: expected different whole numbers like 0,1,2, got '0,x'"),
        (["mask", "--seeds", "1,1"], "--seeds: expected different whole numbers like 0,1,2, got '1,1'"),
        (["mask", "--only", "maskt"], "--only: there is no variant 'maskt'; did you mean 'masked'?"),
        (["mask", "--set", "x"], "--set x: expected key=value"),
        (["mask", "--set", "stpes=3"], "study mask, variant masked: unknown key 'stpes'; did you mean 'steps'?"),
        (["mask", "--set", "training.mask_environment=true"], "study mask varies it"),
        (["mask", "--set", "seed=1"], "use --seeds"),
        (["--collect", "nowhere"], "nowhere: expected a folder with studies, found no study.json in it"),
    ],
)
def test_refusals(searchr1: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: Any, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    result = searchr1("study", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert message in line
    assert list(tmp_path.iterdir()) == []
