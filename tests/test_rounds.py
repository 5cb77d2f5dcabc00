"""What a step plays: groups that are told apart, and dynamic sampling; with an engine that knows some answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.run import RunFolder
from searchr1.train import further_questions
from searchr1.training.checkpoint import checkpoint_steps
from searchr1.waiting import Silent
from tiny_runs import ask, differing, recipe_of, train

SIZE = 4


def knows(question: str, seed: int) -> bool:
    """Everybody knows an easy question, nobody a hard one; the others are a matter of luck."""
    return question.startswith("easy") or (question.startswith("luck") and seed % 3 == 0)


POOL = ask(*[f"{kind} {number}" for number in range(8) for kind in ("easy", "luck", "hard")])


class Rounds(Silent):
    """Counts the trajectories of every round, step by step, and may end the run after a step."""

    def __init__(self, stop_after: int = 0) -> None:
        self.steps: list[list[int]] = [[]]
        self.stop_after = stop_after

    def phase(self, name: str, total: int) -> None:
        if name == "rollout":
            self.steps[-1].append(total)

    def stepped(self, row: Mapping[str, Any]) -> None:
        self.steps.append([])
        if row["step"] == self.stop_after:
            raise KeyboardInterrupt


def live(rows: list[dict[str, Any]]) -> set[str]:
    """Groups whose rewards differ."""
    rewards: dict[str, set[float]] = {}
    for row in rows:
        rewards.setdefault(row["group"], set()).add(row["reward"])
    return {group for group, earned in rewards.items() if len(earned) > 1}


def without_clock(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kept = [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]
    for row in kept:
        for turn in row.get("turns", []):
            turn["generate_seconds"] = turn["search_seconds"] = 0
    return kept


async def played(folder: Path, steps: int, *overrides: str, **options: Any) -> tuple[RunFolder, list[list[int]]]:
    watch = Rounds()
    recipe = recipe_of(f"steps={steps}", *overrides)
    return await train(folder, recipe, options.pop("pool", POOL), knows, monitor=watch, **options), watch.steps


async def test_groups_that_teach_nothing_are_made_up_for(tmp_path: Path) -> None:
    run, rounds = await played(tmp_path / "run", 8, "rollout.refill=3")
    metrics = run.read_metrics()
    for step in range(1, 8):  # the trajectories of the last step are those of the evaluation
        rows = run.read_trajectories(step)
        start, informative = 0, 0
        for number, count in enumerate(rounds[step - 1]):
            asked = 4 if number == 0 else 4 - informative  # never more than there is room for
            assert count == asked * SIZE
            informative += len(live(rows[start : start + count]))
            start += count
        assert start == len(rows)
        assert informative <= 4
        assert informative == 4 or len(rounds[step - 1]) == 1 + 3
        assert metrics[step - 1]["train/trained"] == informative * SIZE
        assert metrics[step - 1]["train/trajectories"] == len(rows)
    assert min(map(len, rounds[:7])) < max(map(len, rounds[:7])) == 4  # some steps were filled early, some never


async def test_no_two_trajectories_of_all_rounds_share_a_seed_or_a_strangers_group(tmp_path: Path) -> None:
    """Also with a pool so small that a later round asks again what an earlier one has asked."""
    run, rounds = await played(tmp_path / "run", 6, "rollout.refill=3", pool=POOL[:5])
    assert max(map(len, rounds)) > 1
    rows = [row for step in range(1, 6) for row in run.read_trajectories(step)]
    assert len({row["seed"] for row in rows}) == len(rows)
    members = Counter(row["group"] for row in rows)
    assert set(members.values()) == {SIZE}
    asked = {group: {row["question"]["id"] for row in rows if row["group"] == group} for group in members}
    assert all(len(ids) == 1 for ids in asked.values())
    repeated = Counter((row["step"], row["question"]["id"]) for row in rows)
    assert max(repeated.values()) > SIZE


async def test_a_step_is_not_refilled_unless_asked_for(tmp_path: Path) -> None:
    plain, rounds = await played(tmp_path / "plain", 4)
    assert rounds[:4] == [[4 * SIZE]] * 4
    refilled, _ = await played(tmp_path / "refilled", 4, "rollout.refill=2")
    for step in range(1, 4):  # and what a step asks first does not depend on it
        first = refilled.read_trajectories(step)[: 4 * SIZE]
        alone = plain.read_trajectories(step)
        assert [(row["seed"], row["group"]) for row in first] == [(row["seed"], row["group"]) for row in alone]


async def test_refilled_questions_are_others_while_there_are_any(tmp_path: Path) -> None:
    run, _ = await played(tmp_path / "run", 8, "rollout.refill=3")
    for step in range(1, 8):
        groups = Counter(row["question"]["id"] for row in run.read_trajectories(step))
        assert set(groups.values()) == {SIZE}  # of a pool of 24, at most 16 are asked in a step
    asked = [Counter(row["question"]["id"] for row in run.read_trajectories(step)) for step in range(1, 8)]
    assert len({frozenset(groups) for groups in asked}) == 7


async def test_groups_are_made_up_for_where_kl_keeps_them_too(tmp_path: Path) -> None:
    """KL acts on groups with equal rewards, so that they are trained; there is as little to compare in them."""
    _, rounds = await played(
        tmp_path / "run", 3, "rollout.refill=2", "algorithm.kl=k1", "algorithm.kl_in=reward",
        pool=ask("hard 1", "easy 1", "hard 2"),
    )  # fmt: skip
    assert rounds[:3] == [[4 * SIZE] * 3] * 3


@given(st.integers(1, 12), st.integers(0, 12), st.integers(1, 30), st.integers(0, 99))
def test_further_questions(size: int, met: int, count: int, seed: int) -> None:
    pool = ask(*map(str, range(size)))
    asked = pool[:met]
    more = further_questions(pool, asked, count, seed)
    assert len(more) == count
    new = max(0, size - met)
    assert not {question.id for question in more[: min(count, new)]} & {question.id for question in asked}
    assert len({question.id for question in more[:size]}) == min(count, size)


async def test_refilling_gives_up(tmp_path: Path) -> None:
    """Where no question teaches anything there are so many rounds and no more, and no update."""
    run, rounds = await played(tmp_path / "run", 2, "rollout.refill=2", pool=ask("hard 1", "easy 1", "hard 2"))
    assert rounds[:2] == [[4 * SIZE] * 3] * 2
    assert [row["train/trained"] for row in run.read_metrics()] == [0, 0]
    assert [row["train/zero_variance_groups"] for row in run.read_metrics()] == [1, 1]


def test_an_algorithm_that_drops_nothing_refuses_to_refill() -> None:
    with pytest.raises(UserError, match=r"rollout\.refill: .*learns from them too"):
        recipe_of("rollout.refill=3", "algorithm.name=rloo")


async def test_a_run_that_dies_in_its_first_steps_is_not_evaluated_from_the_start_again(tmp_path: Path) -> None:
    recipe = recipe_of("steps=6", "save.checkpoint_every=6")
    with pytest.raises(KeyboardInterrupt):
        await train(tmp_path, recipe, POOL, knows, monitor=Rounds(stop_after=2))
    before = [row for row in RunFolder.open(tmp_path).read_eval() if row["step"] == 0]
    assert before
    assert checkpoint_steps(tmp_path / "checkpoints") == [0]
    resumed = await train(tmp_path, recipe, POOL, knows, resume=True)
    assert [row for row in resumed.read_eval() if row["step"] == 0] == before
    assert [row["step"] for row in resumed.read_metrics()] == [1, 2, 3, 4, 5, 6]


async def test_refilled_steps_are_the_same_after_a_resume(tmp_path: Path) -> None:
    """Rounds, questions, seeds, metrics: a run that was ended in the middle plays what the whole one plays."""
    recipe = recipe_of("steps=6", "rollout.refill=3", "save.checkpoint_every=2")
    whole = await train(tmp_path / "whole", recipe, POOL, knows)
    with pytest.raises(KeyboardInterrupt):
        await train(tmp_path / "broken", recipe, POOL, knows, monitor=Rounds(stop_after=3))
    resumed = await train(tmp_path / "broken", recipe, POOL, knows, resume=True)
    assert without_clock(whole.read_metrics()) == without_clock(resumed.read_metrics())
    for step in whole.trajectory_steps():
        assert without_clock(whole.read_trajectories(step)) == without_clock(resumed.read_trajectories(step))


@pytest.mark.parametrize(
    "algorithm",
    [
        {"name": "grpo", "kl": "k3", "kl_target": 0.001, "kl_horizon": 20},
        {"name": "ppo", "kl": "k1", "kl_target": 0.001, "kl_horizon": 20},
    ],
    ids=["grpo", "ppo"],
)
async def test_critic_and_coefficient_survive_a_resume(algorithm: dict[str, Any], tmp_path: Path) -> None:
    """Everything that learns is bit for bit what it would have been: policy, critic, moments, steered coefficient."""
    recipe = recipe_of("steps=5", "save.checkpoint_every=2", "training.updates_per_batch=2", algorithm=algorithm)
    whole = await train(tmp_path / "whole", recipe, POOL, knows)
    with pytest.raises(KeyboardInterrupt):
        await train(tmp_path / "broken", recipe, POOL, knows, monitor=Rounds(stop_after=3))
    resumed = await train(tmp_path / "broken", recipe, POOL, knows, resume=True)
    rows = whole.read_metrics()
    assert without_clock(rows) == without_clock(resumed.read_metrics())
    coefficients = [row["train/kl_coefficient"] for row in rows if "train/kl_coefficient" in row]
    assert len(set(coefficients)) >= 4  # it was steered, before the checkpoint and after
    saved = [
        torch.load(run.checkpoints / "step-5" / "training_state.pt", weights_only=True)["policy"]
        for run in (whole, resumed)
    ]
    assert ("critic" in saved[0]) == (algorithm["name"] == "ppo")
    assert differing(*saved) == []


async def test_two_datasets_with_the_same_ids_merge_no_group(tmp_path: Path) -> None:
    """Every group is one question of one dataset, and compared with nothing else."""
    texts = [f"luck {number}" for number in range(3)]
    pool = [*ask(*texts, dataset="nq"), *ask(*texts, dataset="hotpotqa")]
    run, _ = await played(tmp_path / "run", 4, "rollout.questions=6", pool=pool)
    for step in range(1, 4):
        rows = run.read_trajectories(step)
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["group"], []).append(row)
        assert len(groups) == 6
        asked = Counter((own[0]["question"]["dataset"], own[0]["question"]["id"]) for own in groups.values())
        assert set(asked.values()) == {1}
        for own in groups.values():
            assert len(own) == SIZE
            assert len({(row["question"]["dataset"], row["question"]["id"]) for row in own}) == 1
            rewards = torch.tensor([row["reward"] for row in own], dtype=torch.float64)
            expected = (rewards - rewards.mean()) / (rewards.std() + 1e-6)
            assert [row["advantage"] for row in own] == pytest.approx(expected.tolist(), rel=1e-5, abs=1e-6)
