"""A trainer that is rolled back by an alarm, or by a number that is none, ends where it would have ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from searchr1 import train as training
from searchr1.alarms.watches import Alarm
from searchr1.config import Recipe
from searchr1.errors import NumericalError, TrainingStopped
from searchr1.run import RunFolder
from searchr1.training.policy import Policy
from tiny_runs import ask, differing, recipe_of, train

POOL = ask(*[f"question {number}" for number in range(24)])
FALL = Alarm("reward", "critical", 7, "train/exact_match", 0.0, 1.0, "it fell")
KINDS = {
    "ppo": ({"name": "ppo", "kl": "k1", "kl_target": 0.001, "kl_horizon": 20}, "critic.backbone=separate"),
    "ppo shared": ({"name": "ppo"}, "critic.backbone=shared"),
    "grpo": ({"name": "grpo", "kl": "k3", "kl_target": 0.001, "kl_horizon": 20, "llds": 0.1}, "seed=3"),
}


def knows(question: str, seed: int) -> bool:
    return seed % 3 == 0


def recipe(kind: str, *more: str) -> Recipe:
    algorithm, override = KINDS[kind]
    shape = ["steps=9", "save.checkpoint_every=3", "training.updates_per_batch=2", "alarms.confirm=1"]
    return recipe_of(*shape, "alarms.rollback_factor=1.0", override, *more, algorithm=algorithm)


@pytest.fixture
def alarm_once(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """An alarm at step 7, the first time that it is played."""
    fired: list[int] = []

    def check(rows: Sequence[Mapping[str, Any]], alarms: object) -> list[Alarm]:
        if rows[-1]["step"] == 7 and not fired:
            fired.append(7)
            return [FALL]
        return []

    monkeypatch.setattr(training, "check", check)
    return fired


def outcome(run: RunFolder) -> dict[str, Any]:
    """All that the last checkpoint holds, and every metric but the clock's."""
    state = torch.load(run.checkpoints / "step-9" / "training_state.pt", weights_only=True)
    rows = [{name: value for name, value in row.items() if "time/" not in name} for row in run.read_metrics()]
    return {"state": state, "rows": rows}


@pytest.mark.parametrize("kind", KINDS)
async def test_by_an_alarm(kind: str, tmp_path: Path, alarm_once: list[int]) -> None:
    rolled = await train(tmp_path / "rolled", recipe(kind), POOL, knows)
    whole = await train(tmp_path / "whole", recipe(kind), POOL, knows)  # the alarm has fired
    assert alarm_once == [7]
    assert differing(outcome(rolled), outcome(whole)) == []
    done = [(row["step"], row["action"], row.get("to")) for row in rolled.read_alarms() if row["action"] != "log"]
    assert done == [(7, "rollback", 3)]
    lost = [row["step"] for row in rolled.read_rolled_back() if row["file"] == "metrics.jsonl"]
    assert lost == [4, 5, 6, 7]
    assert whole.read_alarms() == []


async def test_by_a_number_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the second update of step 7, when the first has been made."""
    whole = await train(tmp_path / "whole", recipe("ppo"), POOL, knows)
    update, calls = Policy.update, []

    def broken(self: Policy, *given: Any, **options: Any) -> dict[str, float]:
        calls.append(1)
        if len(calls) == 14:
            raise NumericalError("the loss is nan")
        return update(self, *given, **options)

    monkeypatch.setattr(Policy, "update", broken)
    rolled = await train(tmp_path / "rolled", recipe("ppo"), POOL, knows)
    assert len(calls) > 18
    assert differing(outcome(rolled), outcome(whole)) == []
    (row,) = [row for row in rolled.read_alarms() if row["action"] == "rollback"]
    assert (row["step"], row["name"]) == (7, "nonfinite")


async def test_the_rate_is_lower_afterwards(tmp_path: Path, alarm_once: list[int]) -> None:
    run = await train(tmp_path / "run", recipe("grpo", "alarms.rollback_factor=0.25"), POOL, knows)
    lost = {row["step"]: row["learning_rate"] for row in run.read_rolled_back() if row["file"] == "metrics.jsonl"}
    kept = {row["step"]: row["learning_rate"] for row in run.read_metrics()}
    assert all(kept[step] == pytest.approx(rate / 4) for step, rate in lost.items())


async def test_or_it_stops(tmp_path: Path, alarm_once: list[int]) -> None:
    with pytest.raises(TrainingStopped, match="it fell"):
        await train(tmp_path / "run", recipe("grpo", "alarms.action=stop"), POOL, knows)
    assert len(RunFolder.open(tmp_path / "run").read_metrics()) == 7
