"""The run folder's memory of alarms and rollbacks: nothing is lost or doubled, whenever it is killed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from searchr1.alarms.response import Stability
from searchr1.errors import UserError
from searchr1.run import RunFolder

CONFIG = {"seed": 0}


def metrics(step: int, attempt: int = 0) -> dict[str, Any]:
    return {"step": step, "train/reward": step / 10 + 100 * attempt}


def evaluated(step: int, attempt: int = 0) -> dict[str, Any]:
    return {"step": step, "agent": "search_r1", "exact_match": step / 10, "seen": attempt}


def do_step(run: RunFolder, step: int, attempt: int = 0) -> None:
    run.append_metrics(metrics(step, attempt))
    if step % 2 == 0:
        run.append_eval(evaluated(step, attempt))
    run.write_trajectories(step, [{"step": step, "attempt": attempt}])


def alarm(step: int, attempt: int = 0, **more: Any) -> dict[str, Any]:
    return {"step": step, "name": "reward", "action": "log", "attempt": attempt, "value": 0.5, **more}


def run_to_alarm(path: Path) -> RunFolder:
    """Five steps, an alarm at the fifth, and the decision to go back to step 2."""
    run = RunFolder.create(path, CONFIG)
    for step in range(1, 6):
        do_step(run, step)
    run.append_alarm(alarm(5))
    run.append_alarm(alarm(5, action="rollback", to=2))
    run.save_stability(Stability(1, 0.5, target=2))
    return run


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_fresh_run_remembers_nothing(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, CONFIG) as run:
        assert (run.read_alarms(), run.read_rolled_back(), run.stability()) == ([], [], Stability())


def test_a_rollback_moves_what_it_takes_back(tmp_path: Path) -> None:
    with run_to_alarm(tmp_path / "run") as run:
        run.rewind(2)
        assert [row["step"] for row in run.read_metrics()] == [1, 2]
        assert run.read_eval() == [evaluated(2)]
        assert run.read_rolled_back() == [
            {"attempt": 0, "file": "metrics.jsonl", **metrics(3)},
            {"attempt": 0, "file": "metrics.jsonl", **metrics(4)},
            {"attempt": 0, "file": "metrics.jsonl", **metrics(5)},
            {"attempt": 0, "file": "eval.jsonl", **evaluated(4)},
        ]
        assert [(row["step"], row["action"]) for row in run.read_alarms()] == [(5, "log"), (5, "rollback")]
        assert run.stability() == Stability(1, 0.5)
        assert run.trajectory_steps() == [1, 2]
        kept = sorted(file.name for file in (tmp_path / "run" / "trajectories" / "attempt-0").iterdir())
        assert kept == ["step-3.jsonl.gz", "step-4.jsonl.gz", "step-5.jsonl.gz"]


def test_a_second_rollback_adds_to_the_first(tmp_path: Path) -> None:
    with run_to_alarm(tmp_path / "run") as run:
        run.rewind(2)
        for step in (3, 4):
            do_step(run, step, attempt=1)
        run.append_alarm(alarm(4, 1, action="rollback", to=1))
        run.save_stability(Stability(2, 0.25, target=1))
        run.rewind(1)
        rows = [row for row in run.read_rolled_back() if row["file"] == "metrics.jsonl"]
        assert [(row["attempt"], row["step"]) for row in rows] == [(0, 3), (0, 4), (0, 5), (1, 2), (1, 3), (1, 4)]
        assert [row["train/reward"] for row in rows][3:] == [0.2, 100.3, 100.4]
        assert run.trajectory_steps() == [1]


def test_a_resume_forgets_the_alarms_of_steps_to_come_again_but_none_of_earlier_attempts(tmp_path: Path) -> None:
    with run_to_alarm(tmp_path / "run") as run:
        run.rewind(2)
        do_step(run, 3, 1)
        run.append_alarm(alarm(3, 1))
        do_step(run, 4, 1)
        run.append_alarm(alarm(4, 1))
    with (tmp_path / "run" / "alarms.jsonl").open("ab") as file:
        file.write(b'{"step":5,"na')  # killed while writing
    with RunFolder.resume(tmp_path / "run", CONFIG) as run:
        rolled_back = run.read_rolled_back()
        run.rewind(3)
        assert [(row["attempt"], row["step"]) for row in run.read_alarms()] == [(0, 5), (0, 5), (1, 3)]
        assert run.read_rolled_back() == rolled_back  # an ordinary rewind forgets its rows, as ever
        assert [row["step"] for row in run.read_metrics()] == [1, 2, 3]


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs."""


def test_a_rollback_that_is_killed_anywhere_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # slow, and nothing that this test could see
    run_to_alarm(tmp_path / "decided").close()
    shutil.copytree(tmp_path / "decided", tmp_path / "whole")
    with RunFolder.resume(tmp_path / "whole", CONFIG) as run:
        run.rewind(2)
    whole = contents(tmp_path / "whole")
    calls = [(os, "replace"), (os, "fsync"), (Path, "rename"), (Path, "unlink"), (Path, "mkdir")]
    moments, finished = 0, False
    while not finished:
        path, left = tmp_path / f"killed-{moments}", moments

        def dying(real: Any) -> Any:
            def call(*given: Any, **options: Any) -> Any:
                nonlocal left
                if left == 0:
                    raise Killed
                left -= 1
                return real(*given, **options)

            return call

        shutil.copytree(tmp_path / "decided", path)
        with RunFolder.resume(path, CONFIG) as run, monkeypatch.context() as patch:
            for owner, name in calls:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            try:
                run.rewind(2)
            except Killed:
                finished = False
            else:
                finished = True
        with RunFolder.resume(path, CONFIG) as run:
            run.rewind(2)
        assert contents(path) == whole, f"killed before call {moments}"
        moments += 1
    assert moments > 20


def test_a_kill_before_the_decision_repeats_the_steps_and_the_alarm(tmp_path: Path) -> None:
    with run_to_alarm(tmp_path / "whole") as run:
        run.rewind(2)
    with run_to_alarm(tmp_path / "killed") as run:
        (tmp_path / "killed" / "stability.json").unlink()  # as if killed between alarms.jsonl and it
    with RunFolder.resume(tmp_path / "killed", CONFIG) as run:
        run.rewind(4)
        assert run.read_alarms() == []
        do_step(run, 5)
        run.append_alarm(alarm(5))
        run.append_alarm(alarm(5, action="rollback", to=2))
        run.save_stability(Stability(1, 0.5, target=2))
        run.rewind(2)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")


def test_the_decision_is_on_disk_as_a_whole(tmp_path: Path) -> None:
    with run_to_alarm(tmp_path) as run:
        assert RunFolder.open(tmp_path).stability() == Stability(1, 0.5, target=2)
        (tmp_path / "stability.json").write_text('{"format": "searchr1-stability", "version": 2}')
        with pytest.raises(UserError, match="newer than 1"):
            run.stability()
        (tmp_path / "stability.json").write_text('{"format": "searchr1-stability", "version": 1}')
        with pytest.raises(UserError, match="expected attempt, scale and target"):
            run.stability()


def test_a_reader_decides_nothing(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, CONFIG).close()
    with pytest.raises(RuntimeError, match="open for reading only"):
        RunFolder.open(tmp_path).save_stability(Stability(1, 0.5, 2))
