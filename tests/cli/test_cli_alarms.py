"""Alarms on the console, and ``eval RUN --checkpoint``."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from searchr1.commands.running import FREE
from searchr1.commands.targets import find_target
from searchr1.config import build_recipe
from searchr1.display import LiveDisplay, PlainDisplay
from searchr1.errors import UserError
from searchr1.run import RunFolder


def alarm(step: int, name: str = "kl", level: str = "warning", **more: Any) -> dict[str, Any]:
    return {"step": step, "name": name, "level": level, "action": "log", "message": f"{name} is bad.", **more}


def step(number: int) -> dict[str, Any]:
    return {"step": number, "train/reward": 0.5, "train/exact_match": 0.5, "time/step": 2.0}


@pytest.mark.parametrize("live", [False, True])
def test_an_alarm_is_said_when_it_begins_and_when_it_acts(
    live: bool, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    display = LiveDisplay(9, "run") if live else PlainDisplay(9)
    now = time.monotonic()
    for number in range(1, 7):
        display.stepped(step(number))
    capsys.readouterr()
    display.alarmed([alarm(2)])
    display.alarmed([alarm(3), alarm(3, "reward", "critical")])
    display.alarmed([alarm(6)])
    display.alarmed([alarm(6, "reward", "critical", action="rollback", to=2, message="back to step 2.")])
    display.alarmed([alarm(7, "reward", "critical", action="stop")])  # the error that ends the run says it
    assert capsys.readouterr().err.splitlines() == [
        "warning at step 2: kl is bad.",
        "ALARM at step 3: reward is bad.",
        "warning at step 6: kl is bad.",
        "back to step 2.",
    ]
    assert [row["step"] for row in display.rows] == [1, 2]
    monkeypatch.setattr(time, "monotonic", lambda: now + 60)
    assert display.left() == pytest.approx(70, abs=1)  # six steps took a minute, seven are to come
    display.stepped(step(3))
    assert display.left() == pytest.approx(60 / 7 * 6, abs=1)


def test_alarms_and_what_is_saved_may_change_when_a_run_is_resumed(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, build_recipe({}).resolved()).close()
    changed = build_recipe({}, ["alarms.action=log", 'alarms.ignore=["entropy"]', "save.best=f1", "save.keep=9"])
    RunFolder.resume(tmp_path, changed.resolved(), free=FREE).close()
    assert RunFolder.open(tmp_path).config["alarms"]["ignore"] == ["entropy"]


@pytest.fixture
def run(tmp_path: Path, tiny_model: Path) -> Path:
    """A run with the checkpoints 2 and 10, of which 2 is the best."""
    path = tmp_path / "run"
    settings = [
        "rollout.turn_tokens=24",
        "rollout.observation_tokens=150",
        "rollout.max_searches=1",
        "rollout.context_tokens=900",
    ]
    RunFolder.create(path, build_recipe({}, settings).resolved()).close()
    for name in ("step-2", "step-10", "best"):
        shutil.copytree(tiny_model, path / "checkpoints" / name)
    return path


def test_checkpoints_by_name(run: Path) -> None:
    assert find_target(str(run), checkpoint="best").model == str(run / "checkpoints" / "best")
    assert find_target(str(run), checkpoint="last").model == str(run / "checkpoints" / "step-10")
    target = find_target(str(run), checkpoint="2")
    assert (target.model, target.home) == (str(run / "checkpoints" / "step-2"), run)
    assert find_target(str(run / "checkpoints" / "best")).home == run  # by its path, too
    with pytest.raises(UserError, match="there is no checkpoint '3'; there are: 2, 10, last, best"):
        find_target(str(run), checkpoint="3")
    with pytest.raises(UserError, match="--checkpoint: expected a run folder to choose from, got atlas-base"):
        find_target("atlas-base", checkpoint="best")


def test_the_best_checkpoint_is_evaluated(
    searchr1: Any, run: Path, questions: Path, index: Path, tmp_path: Path
) -> None:
    shutil.rmtree(run / "checkpoints" / "step-10")  # so that no other could be meant
    shutil.rmtree(run / "checkpoints" / "step-2")
    given = ["--data", questions, "--retriever", index, "--limit", 1, "--out", tmp_path / "out"]
    result = searchr1("eval", run, *given, "--checkpoint", "best", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["macro"]["n"] == 1
