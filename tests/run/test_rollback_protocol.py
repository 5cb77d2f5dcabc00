"""Alarms, rollbacks and pruning in the order in which a training loop does them, killed anywhere, end the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from searchr1.alarms.response import respond, worth_keeping
from searchr1.alarms.settings import Alarms
from searchr1.alarms.watches import check
from searchr1.run import RunFolder
from searchr1.training.best import Rating, mark_best, read_best
from searchr1.training.checkpoint import checkpoint_steps, latest_checkpoint, prune_checkpoints, remove_stale

STEPS, EVERY = 36, 4
ALARMS = Alarms(warmup=4, window=1, confirm=5, max_rollbacks=2)


class Stopped(Exception):
    """What a run that gives up raises."""


class Loop:
    """A run whose policy is one number: it grows by 1 a step, and is lost for good where the rate is too high."""

    def __init__(self, run: RunFolder, collapses: dict[float, int]) -> None:
        self.run, self.collapses = run, collapses
        self.skill, self.scale = 0.0, 1.0
        self.rows: list[dict[str, Any]] = []

    def restore(self) -> int:
        remove_stale(self.run.checkpoints)
        state = self.run.stability()
        if state.target is not None:
            steps = checkpoint_steps(self.run.checkpoints)
            prune_checkpoints(self.run.checkpoints, [step for step in steps if step <= state.target])
        newest = latest_checkpoint(self.run.checkpoints)
        step, self.skill = (0, 0.0) if newest is None else json.loads((newest / "state").read_text())
        self.run.rewind(step if newest is not None else -1)
        self.scale, self.rows = self.run.stability().scale, self.run.read_metrics()
        if newest is not None:
            self.keep(step)  # a kill after the checkpoint was written must not cost it its place
        return step

    def train(self) -> None:
        step = self.restore()
        while step < STEPS:
            step += 1
            self.skill = 0.0 if step >= self.collapses.get(self.scale, STEPS + 1) else self.skill + 1
            row = {"step": step, "train/exact_match": self.skill / STEPS, "rate": self.scale}
            self.run.append_metrics(row)
            self.rows.append(row)
            if fired := check(self.rows, ALARMS):
                steps = checkpoint_steps(self.run.checkpoints)
                response = respond(
                    fired, ALARMS, self.run.stability(), checkpoints=steps, history=self.run.read_alarms()
                )
                for noted in response.rows:
                    self.run.append_alarm(noted)
                if response.action == "stop":
                    raise Stopped(response.reason)
                if response.action == "rollback":
                    self.run.save_stability(response.state)
                    step = self.restore()
                    continue
            if step % EVERY == 0:
                self.save(step)

    def save(self, step: int) -> None:
        folder = self.run.checkpoints
        temporary = folder / f"step-{step}.tmp"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        (temporary / "state").write_text(json.dumps([step, self.skill]))
        if (folder / f"step-{step}").exists():  # a step that is done again
            shutil.rmtree(folder / f"step-{step}")
        temporary.rename(folder / f"step-{step}")
        self.keep(step)

    def keep(self, step: int) -> None:
        folder = self.run.checkpoints
        rating = Rating(step, "exact_match", self.skill)
        if rating.beats(read_best(folder)):
            mark_best(folder, rating)
        keep = worth_keeping(checkpoint_steps(folder), self.run.read_alarms(), ALARMS, now=step, last=2)
        prune_checkpoints(folder, keep)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and nothing that these tests could see


def test_a_collapse_is_taken_back_and_the_run_ends_well(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as run:
        Loop(run, {1.0: 22}).train()
        assert [row["step"] for row in run.read_metrics()] == list(range(1, STEPS + 1))
        assert [row["rate"] for row in run.read_metrics()] == [1.0] * 16 + [0.5] * 20
        assert [(row["step"], row["attempt"]) for row in run.read_rolled_back()] == [
            (step, 0) for step in range(17, 23)
        ]
        assert [(row["step"], row["action"]) for row in run.read_alarms()] == [(22, "log"), (22, "rollback")]
        assert run.stability().attempt == 1
        assert read_best(run.checkpoints) == Rating(36, "exact_match", 36)
        assert checkpoint_steps(run.checkpoints) == [28, 32, 36]


def test_a_second_collapse_goes_back_again_and_the_third_ends_the_run(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, {}) as run:
        with pytest.raises(
            Stopped, match=r"step 3\d: exact match .* The run stops: alarms\.max_rollbacks = 2 rollbacks"
        ):
            Loop(run, {1.0: 22, 0.5: 19, 0.25: 30}).train()
        done = [(row["step"], row["action"], row.get("to")) for row in run.read_alarms() if row["action"] != "log"]
        assert [(action, to) for _, action, to in done] == [("rollback", 16), ("rollback", 12), ("stop", None)]
        assert {row["attempt"] for row in run.read_rolled_back()} == {0, 1}
        assert read_best(run.checkpoints) == Rating(28, "exact_match", 28)


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def moments() -> Iterator[int]:
    """Not every call (that takes minutes), but without a pattern."""
    moment = 3
    while True:
        yield moment
        moment += 5 + moment % 4


def test_killed_anywhere_a_run_with_rollbacks_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collapses = {1.0: 22, 0.5: 19}
    with RunFolder.create(tmp_path / "whole", {}) as run:
        Loop(run, collapses).train()
    whole = contents(tmp_path / "whole")
    killed = 0
    for moment in moments():
        path, left = tmp_path / f"killed-{moment}", moment

        def dying(real: Any) -> Any:
            def call(*given: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*given, **options)

            return call

        finished = False
        with RunFolder.create(path, {}) as run, monkeypatch.context() as patch:
            for owner, name in [(os, "replace"), (os, "fsync"), (Path, "rename"), (Path, "unlink"), (os, "rmdir")]:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            try:
                Loop(run, collapses).train()
                finished = True
            except Killed:
                killed += 1
        if finished:
            break
        with RunFolder.resume(path, {}) as run:
            Loop(run, collapses).train()
        assert contents(path) == whole, f"killed before call {moment}"
        shutil.rmtree(path)
    assert killed > 20
