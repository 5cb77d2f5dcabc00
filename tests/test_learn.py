"""One step's learning: who is trained on what, in which updates, and what the metrics say of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from searchr1.algorithms import ALGORITHMS
from searchr1.config import Recipe
from searchr1.learn import Learner, step_row
from searchr1.rewards.user import RESERVED
from searchr1.training.policy import Policy
from searchr1.types import Scored, StopReason
from tiny_runs import on_policy, policy_for, random_step, recipe_of, trajectory

VOCABULARY = 12
EVERY = {name: {"name": name} for name in ALGORITHMS} | {
    "ppo with everything": {
        "name": "ppo", "kl": "k1", "kl_coefficient": 0.1, "entropy_bonus": 0.01, "llds": 0.1, "correction": "token",
        "gamma": 0.9, "gae_lambda": 0.8,
    },
    "reinforce_pp with group means": {"name": "reinforce_pp", "baseline": "group_mean", "kl": "k2"},
}  # fmt: skip


def learner_of(algorithm: dict[str, Any], *overrides: str, **tables: Any) -> Learner:
    recipe = recipe_of(*overrides, algorithm=algorithm, **tables)
    return Learner(recipe, policy_for(recipe, VOCABULARY))


def weights(policy: Policy) -> Tensor:
    return torch.cat([value.flatten() for _, value in policy.weights()]).clone()


def test_advantages_come_back_to_their_trajectories() -> None:
    """Also past those that failed or said nothing: they are in no group's mean, and not in the loss."""
    step = [
        Scored(trajectory("a", [3, 4]), 1.0, {}),
        Scored(trajectory("a", [3], stop=StopReason.SEARCH_UNAVAILABLE), 0.0, {}),
        Scored(trajectory("a", [3], [4]), 0.0, {}),
        Scored(trajectory("a", stop=StopReason.OUT_OF_TOKENS), 0.0, {}),
        Scored(trajectory("b", [8]), 0.5, {}),
        Scored(trajectory("b", [9]), 0.5, {}),
    ]
    lesson = learner_of({"name": "grpo"}).learn(1, step, ["a"] * 4 + ["b"] * 2)
    r = 0.5 / (math.sqrt(0.5) + 1e-6)
    expected = [r, None, -r, None, 0.0, 0.0]
    for got, wanted in zip(lesson.advantages, expected, strict=True):
        assert got == (wanted if wanted is None else pytest.approx(wanted))
    assert lesson.metrics["train/trained"] == 2
    assert lesson.metrics["train/zero_variance_groups"] == 0.5


def test_the_only_one_left_of_a_group_has_nothing_to_be_compared_with() -> None:
    step = [Scored(trajectory("a", [3]), 1.0, {}), Scored(trajectory("b", [4]), 1.0, {})]
    step.append(Scored(trajectory("b", [4], stop=StopReason.SEARCH_UNAVAILABLE), 0.0, {}))
    lesson = learner_of({"name": "grpo"}).learn(1, step, ["a", "b", "b"])
    assert lesson.advantages == [1.0, None, None]  # a was played alone, as REINFORCE does


def test_a_step_in_which_everything_failed_changes_nothing() -> None:
    learner = learner_of({"name": "ppo", "kl": "k3"})
    before = weights(learner.policy)
    failed = [Scored(trajectory("a", [3], stop=StopReason.ENGINE_ERROR), 0.0, {})] * 2
    lesson = learner.learn(1, failed, ["a", "a"])
    assert lesson.metrics == {"train/trained": 0.0}
    assert lesson.advantages == [None, None]
    assert torch.equal(weights(learner.policy), before)


def test_a_step_without_a_signal_changes_nothing() -> None:
    learner = learner_of({"name": "grpo"})
    before = weights(learner.policy)
    lesson = learner.learn(1, [Scored(trajectory("a", [n]), 1.0, {}) for n in (3, 4)], ["a", "a"])
    assert lesson.metrics["train/trained"] == 0
    assert lesson.metrics["train/zero_variance_groups"] == 1
    assert "train/loss" not in lesson.metrics
    assert torch.equal(weights(learner.policy), before)


@pytest.mark.parametrize("case", EVERY)
def test_the_order_of_groups_and_samples_does_not_matter(case: str) -> None:
    """Nor which name a group has: advantages go along, the loss, the gradient and all metrics are the same."""
    scored, groups = random_step(5)
    order = random.Random(6).sample(range(len(scored)), len(scored))
    lessons, moved = [], []
    for shuffled in (False, True):
        learner = learner_of(EVERY[case])
        if shuffled:
            lessons.append(learner.learn(1, [scored[i] for i in order], [groups[i][::-1] for i in order]))
        else:
            lessons.append(learner.learn(1, scored, groups))
        moved.append(learner.policy.optimizer.adamw.state_dict()["state"])
    first, second = lessons
    assert second.advantages == pytest.approx([first.advantages[i] for i in order], rel=1e-4, abs=1e-5)
    assert second.metrics == pytest.approx(first.metrics, rel=1e-3, abs=1e-5)
    for number, state in moved[0].items():  # moments, since Adam makes steps of rounding errors
        torch.testing.assert_close(state["exp_avg"], moved[1][number]["exp_avg"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo"])
def test_two_datasets_together_teach_each_question_what_it_teaches_alone(name: str) -> None:
    """The same ids in both, told apart by their groups."""
    options = {"name": name}
    one, names = random_step(1)
    two, _ = random_step(2)
    others = [name.replace("nq", "hotpotqa") for name in names]
    assert [item.trajectory.question.id for item in one] == [item.trajectory.question.id for item in two]
    together = learner_of(options).learn(1, one + two, names + others).advantages
    alone = [learner_of(options).learn(1, part, names).advantages for part in (one, two)]
    assert together == pytest.approx([*alone[0], *alone[1]])
    confused = learner_of(options).learn(1, one + two, names + names).advantages
    assert together != pytest.approx(confused)


@settings(max_examples=15)
@given(st.integers(1, 5), st.integers(0, 99), st.booleans())
def test_every_chosen_sample_is_in_exactly_one_update(parts: int, seed: int, drop: bool) -> None:
    """With its own numbers, and denominators that count its update alone."""
    algorithm = {"name": "grpo", "kl": "k3", "correction": "token", "drop_zero_variance": drop}
    learner = learner_of(algorithm, f"training.updates_per_batch={parts}", "training.micro_batch_tokens=40")
    scored, groups = random_step(seed)
    updates: list[Any] = []
    learner.policy.update = lambda batches, loss, critic_alone: updates.append(batches) or {}  # type: ignore[method-assign, assignment, func-returns-value]
    kept = [i for i in range(len(scored)) if not drop or groups[i] in learner.informative(scored, groups)]
    lesson = learner.learn(3, scored, groups)
    assert lesson.metrics["train/trained"] == len(kept)
    assert len(updates) == min(parts, len(kept))
    seen = []
    for batches in updates:
        count = sum(len(batch.targets_N) for batch in batches)
        samples = sum(len(batch.sample_N.unique()) for batch in batches)
        for batch in batches:
            assert (batch.total_tokens, batch.total_samples) == (count, samples)
            assert len(batch.reference_N) == len(batch.trainer_N) == len(batch.targets_N)
            for number in batch.sample_N.unique():
                own = batch.sample_N == number
                [advantage] = batch.advantages_N[own].unique().tolist()
                seen.append((advantage, batch.targets_N[own].tolist()))
    said = [
        (lesson.advantages[i], [t for t, m in zip(s.trajectory.tokens, s.trajectory.mask, strict=True) if m])
        for i, s in enumerate(scored)
        if i in kept
    ]
    assert sorted(t for _, t in seen) == sorted(t for _, t in said)
    assert sorted(a for a, _ in seen) == pytest.approx(sorted(a for a, _ in said if a is not None), abs=1e-6)


@pytest.mark.parametrize("case", EVERY)
def test_no_reward_may_have_the_name_of_what_learning_measures(case: str) -> None:
    learner = learner_of(EVERY[case])
    step, groups = random_step(1)
    metrics = learner.learn(1, on_policy(learner.policy, step), groups).metrics
    names = {name.removeprefix("train/") for name in metrics if name.startswith("train/")}
    assert {"loss", "trained"} <= names <= RESERVED


def test_the_kl_coefficient_stays_while_the_policy_stays() -> None:
    learner = learner_of(
        {"name": "ppo", "kl": "k1", "kl_coefficient": 0.1, "kl_target": 0.01, "kl_horizon": 10}, "critic.alone_steps=1"
    )
    step, groups = random_step(1)
    learner.learn(1, on_policy(learner.policy, step), groups)
    assert learner.algorithm.kl_coefficient == 0.1
    learner.learn(2, on_policy(learner.policy, step), groups)
    assert learner.algorithm.kl_coefficient != 0.1


def test_informative_groups_are_those_with_something_to_learn() -> None:
    rewards = {"flat": [1.0, 1.0], "live": [0.0, 1.0], "one left": [0.5], "failed": [1.0, 0.0]}
    scored, groups = [], []
    for group, earned in rewards.items():
        stop = StopReason.SEARCH_UNAVAILABLE if group == "failed" else StopReason.ANSWERED
        scored += [Scored(trajectory("q", [3], stop=stop), reward, {}) for reward in earned]
        groups += [group] * len(earned)
    assert learner_of({"name": "grpo"}).informative(scored, groups) == {"live", "one left"}
    for other in ({"name": "ppo"}, {"name": "grpo", "kl": "k1", "kl_in": "reward"}, {"name": "grpo", "llds": 0.1}):
        assert learner_of(other).informative(scored, groups) == {"live", "one left"}
    assert learner_of({"name": "grpo"}).informative(scored[-2:], groups[-2:]) == set()


def test_dapo_leaves_out_what_a_budget_ended_but_compares_with_it() -> None:
    cut = trajectory("q", [3], stop=StopReason.OUT_OF_TOKENS)
    step = [Scored(cut, 0.0, {}), Scored(trajectory("q", [4]), 1.0, {})]
    lesson = learner_of({"name": "dapo"}).learn(1, step, ["q", "q"])
    assert lesson.metrics["train/trained"] == 1
    assert lesson.advantages == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)], abs=1e-5)


# Regularisers over the updates of a step.


def fresh(algorithm: dict[str, Any], *overrides: str, **tables: Any) -> tuple[Learner, list[Scored], list[str]]:
    """A learner and a step that its own policy has just played."""
    learner = learner_of(algorithm, *overrides, **tables)
    scored, groups = random_step(4)
    return learner, on_policy(learner.policy, scored), groups


@pytest.mark.parametrize("gate", ["action", "response"])
def test_llds_is_nothing_on_the_first_update_and_something_on_the_next(gate: str) -> None:
    for updates in (1, 2):
        outcomes = []
        for weight in (0.0, 5.0):
            algorithm = {"name": "grpo", "llds": weight, "llds_gate": gate}
            learner, scored, groups = fresh(
                algorithm, f"training.updates_per_batch={updates}", optimizer={"learning_rate": 0.05}
            )
            lesson = learner.learn(1, scored, groups)
            outcomes.append((lesson.metrics["train/llds"], weights(learner.policy)))
        assert torch.equal(outcomes[0][1], outcomes[1][1]) == (updates == 1)
        assert [value > 0 for value, _ in outcomes] == [updates > 1] * 2


def test_a_fresh_step_starts_at_ratio_one() -> None:
    learner, scored, groups = fresh({"name": "grpo"})
    metrics = learner.learn(1, scored, groups).metrics
    assert metrics["train/mismatch_kl"] == metrics["train/mismatch_max"] == metrics["train/clip_fraction"] == 0
    assert metrics["train/ratio_max"] == 1
    assert metrics["train/kl"] == 0
    assert metrics["learning_rate"] == 1e-3


def test_the_mismatch_is_that_before_the_first_update() -> None:
    learner, scored, groups = fresh({"name": "grpo"}, "training.updates_per_batch=3", optimizer={"learning_rate": 0.05})
    metrics = learner.learn(1, scored, groups).metrics
    assert metrics["train/mismatch_kl"] == metrics["train/mismatch_max"] == 0
    assert metrics["train/kl"] > 0
    assert "train/difference_max" not in metrics


def test_the_kl_coefficient_is_steered_from_step_to_step_and_kept_in_the_state() -> None:
    algorithm = {"name": "grpo", "kl": "k3", "kl_coefficient": 0.1, "kl_target": 0.001, "kl_horizon": 100}
    learner, scored, groups = fresh(algorithm, "training.updates_per_batch=2", optimizer={"learning_rate": 0.05})
    used = []
    for step in (1, 2, 3):
        metrics = learner.learn(step, on_policy(learner.policy, scored), groups).metrics
        used.append(metrics["train/kl_coefficient"])
        assert metrics["train/reference_kl"] > 0.0012  # above the target by more than a fifth
    growth = 1 + 0.2 * len(scored) / 100
    assert used == pytest.approx([0.1, 0.1 * growth, 0.1 * growth**2])
    assert learner.state() == {"kl_coefficient": pytest.approx(0.1 * growth**3)}
    again = learner_of(algorithm)
    assert again.state() == {"kl_coefficient": 0.1}
    again.restore(learner.state())
    assert again.algorithm == learner.algorithm


@pytest.mark.parametrize("backbone", ["separate", "shared"])
def test_a_critic_learns_alone_first(backbone: str) -> None:
    learner, scored, groups = fresh(
        {"name": "ppo"}, critic={"backbone": backbone, "alone_steps": 2, "learning_rate": 0.01}
    )
    policy, before = learner.policy, weights(learner.policy)
    assert policy.critic is not None
    for step in (1, 2):
        head = policy.critic.head.weight.detach().clone()
        learner.learn(step, scored, groups)
        assert torch.equal(weights(policy), before)
        assert not policy.optimizer.adamw.state_dict()["state"]
        assert not torch.equal(policy.critic.head.weight, head)
    learner.learn(3, scored, groups)
    assert not torch.equal(weights(policy), before)


def test_a_critic_learns_what_is_still_to_come() -> None:
    """All earn 0.75 in their first turn and 0.25 at the end: before the first turn's end 1 is to come, then 0.25."""
    learner = learner_of({"name": "ppo", "value_clip": 0}, critic={"alone_steps": 99, "learning_rate": 0.02})
    step = [Scored(trajectory("a", [3, n], [4]), 1.0, {}, (0.75, 0.0)) for n in (8, 9)]
    errors = [learner.learn(n, step, ["a", "a"]).metrics["train/value_error"] for n in range(1, 41)]
    assert errors[0] == pytest.approx((1 + 1 + 0.25) / 3)  # a new critic expects nothing
    assert errors[-1] < 0.1


# Rows.


def test_the_row_of_a_step() -> None:
    rows = [
        {"loss": 1.0, "kl": 0.1, "difference_max": 0.2, "ratio_max": 3.0, "learning_rate": 2e-3},
        {"loss": 2.0, "kl": 0.3, "difference_max": 0.1, "ratio_max": 1.5, "learning_rate": 2e-3},
    ]
    good: list[dict[str, float]] = [
        {"good_tokens": 0.5, "good_logprob": -1.0},
        {"good_tokens": 0.25, "good_logprob": -0.5},
    ]
    assert step_row([a | b for a, b in zip(rows, good, strict=True)]) == pytest.approx(
        {
            "train/loss": 1.5,
            "train/kl": 0.2,
            "train/ratio_max": 3.0,
            "learning_rate": 2e-3,
            "train/mismatch_kl": 0.1,
            "train/mismatch_max": 0.2,
            "train/correct_logprob": -2.0,
        }
    )
    assert step_row([]) == {}
    assert "train/correct_logprob" not in step_row([rows[0] | {"good_tokens": 0.0, "good_logprob": 0.0}])


def test_the_likelihood_of_good_samples_is_that_of_their_tokens() -> None:
    recipe: Recipe = recipe_of(algorithm={"name": "grpo"})
    learner = Learner(recipe, policy_for(recipe, VOCABULARY))
    step: Sequence[Scored] = on_policy(
        learner.policy,
        [Scored(trajectory("a", [3, 4], [5]), 1.0, {}), Scored(trajectory("a", [8]), 0.0, {})],
    )
    metrics = learner.learn(1, step, ["a", "a"]).metrics
    said = [p for p, m in zip(step[0].trajectory.logprobs, step[0].trajectory.mask, strict=True) if m]
    assert metrics["train/correct_logprob"] == pytest.approx(sum(said) / 3, rel=1e-5)
