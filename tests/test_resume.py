"""A run that is killed at any moment and resumed ends exactly as one that never was."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from searchr1.run import RunFolder

STEPS = 5
SETTINGS = {
    "steps": STEPS,
    "data.atlas_entities": 400,
    "rollout.questions": 4,
    "rollout.group_size": 4,
    "evaluation.every": 2,
    "evaluation.questions": 6,
    "evaluation.final_questions": 9,
    "save.checkpoint_every": 2,
    "save.trajectories_every": 1,
    "engine.threads": 1,
    "algorithm.kl": "k3",  # a reference model must survive, too
    "algorithm.drop_zero_variance": "false",
}


def start(out: Path, *, resume: bool) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "searchr1.cli", "train", "atlas", "--out", str(out)]
    for key, value in SETTINGS.items():
        command += ["--set", f"{key}={value}"]
    return subprocess.Popen(
        command + ["--resume"] * resume, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


def finish(process: subprocess.Popen[bytes]) -> None:
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


def rows(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kill_during_step(out: Path, step: int, delay: float) -> None:
    """Resume (or start) the run and kill it ``delay`` seconds after the row of ``step`` was written."""
    process = start(out, resume=(out / "config.json").exists())
    deadline = time.monotonic() + 200
    while rows(out / "metrics.jsonl") < step + 1:  # the first line is the header
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.02)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def without_clock(row: Any) -> Any:
    """The row without what a clock put there."""
    if isinstance(row, dict):
        return {k: without_clock(v) for k, v in row.items() if not k.startswith("time/") and not k.endswith("_seconds")}
    return [without_clock(item) for item in row] if isinstance(row, list) else row


def test_killed_and_resumed_is_bit_identical(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    finish(start(whole, resume=False))
    chance = random.Random()
    moments = [(1, chance.uniform(0, 1.0)), (3, chance.uniform(0, 1.0))]
    print("killed at", moments)  # shown when the test fails
    for step, delay in moments:
        kill_during_step(broken, step, delay)
    if rows(broken / "metrics.jsonl") < STEPS + 1 or not (broken / "checkpoints" / f"step-{STEPS}").exists():
        finish(start(broken, resume=True))
    one, two = RunFolder.open(whole), RunFolder.open(broken)
    assert [row["step"] for row in one.read_metrics()] == list(range(1, STEPS + 1))
    assert without_clock(one.read_metrics()) == without_clock(two.read_metrics())
    assert without_clock(one.read_eval()) == without_clock(two.read_eval())
    assert one.trajectory_steps() == two.trajectory_steps()
    for step in one.trajectory_steps():
        assert without_clock(one.read_trajectories(step)) == without_clock(two.read_trajectories(step))
    last = Path("checkpoints") / f"step-{STEPS}"
    assert (whole / last / "model.safetensors").read_bytes() == (broken / last / "model.safetensors").read_bytes()
    states = [torch.load(run / last / "training_state.pt", weights_only=True)["policy"] for run in (whole, broken)]
    for number, state in states[0]["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, states[1]["optimizer"]["state"][number][name])
    saved = json.loads((whole / last / "checkpoint.json").read_text())
    assert saved["step"] == STEPS
