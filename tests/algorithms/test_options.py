"""Options that would do nothing, or another thing than they say, are refused; what they change for whom."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from token_tensors import output, tokens

from searchr1.algorithms import load_algorithm
from searchr1.algorithms.base import experience
from searchr1.errors import UserError
from searchr1.types import Sample


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("grpo", {"kl_target": 0.1}, "kl_target: expected 0 without kl"),
        ("grpo", {"kl": "k3", "kl_target": 0.1, "kl_coefficient": 0.0}, "kl_target: expected 0 without kl"),
        ("cispo", {"dual_clip": 3.0}, "dual_clip: expected 0"),
        ("grpo", {"dual_clip": 0.5}, "dual_clip: expected 0 .off. or more than 1"),
        ("ppo", {"gamma": 1.5}, "gamma: expected a number from 0 to 1"),
        ("gspo", {"aggregate": "mean"}, "aggregate: expected one of token, sequence, fixed"),
        ("rloo", {"llds": float("nan")}, "llds: expected at least 0"),
        ("dapo", {"correction_cap": 0.9}, "correction_cap: expected at least 1"),
    ],
)
def test_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{said}"):
        load_algorithm(name)(**options)


def test_llds_compares_with_the_trainer_and_not_with_the_engine() -> None:
    assert load_algorithm("grpo")(llds=0.1).needs.trainer
    assert not load_algorithm("grpo")().needs.trainer


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, False),
        ({"kl": "k3", "kl_coefficient": 0.0}, False),
        ({"kl": "k3"}, True),
        ({"kl": "k1", "kl_in": "reward"}, True),
        ({"entropy_bonus": 0.01}, True),
        ({"llds": 0.1}, False),
    ],
)
def test_equal_rewards_are_left_out_where_nothing_else_acts_on_their_samples(options: Any, kept: bool) -> None:
    step = [Sample((1, 2), (False, True), (0.0, -1.0), 1.0, "q")] * 2
    assert load_algorithm("grpo")(**options).keep(experience(step)).tolist() == [kept, kept]


@pytest.mark.parametrize(("name", "expected"), [("ppo", 0.5**0.5), ("reinforce", 0.5), ("reinforce_pp", 0.5**0.5)])
def test_statistics_of_the_step_are_those_of_its_trained_samples(name: str, expected: float) -> None:
    """A sample that is left out (rewarded with -9) is not in the mean that the others are measured against."""
    step = [Sample((1, 2), (False, True), (0.0, -1.0), r, f"q{r}", cut=r < 0) for r in (1.0, 0.0, -9.0)]
    given = experience(step, values_N=torch.zeros(3))
    advantages = load_algorithm(name)(drop_cut=True).advantages(given).tolist()
    assert advantages[:2] == pytest.approx([expected, -expected], rel=1e-4)


@pytest.mark.parametrize(("how", "share"), [("token", 0.25), ("sequence", 0.5)])
def test_the_share_of_corrected_tokens_is_known(how: str, share: float) -> None:
    """Ratios 4, 1 and 1, 1, the cap 1.1: one token is above it, and one sample's geometric mean, which is 2."""
    trainer = [math.log(4.0), 0.0, 0.0, 0.0]
    batch = tokens([1.0] * 4, [0.0] * 4, trainer=trainer, samples=[0, 0, 1, 1])
    _, metrics = load_algorithm("grpo")(correction=how, correction_cap=1.1).loss(batch, output(trainer))
    assert metrics["corrected"].item() == pytest.approx(share)
    assert "corrected" not in load_algorithm("grpo")().loss(batch, output(trainer))[1]


def test_equal_rewards_still_count_where_kl_is_a_part_of_them() -> None:
    step = [Sample((1, 2), (False, True), (0.0, -p), 1.0, "q") for p in (1.0, 2.0)]
    given = experience(step, reference_N=torch.tensor([-1.5, -1.5]))
    costly = load_algorithm("grpo")(kl="k1", kl_in="reward")
    assert costly.keep(given).tolist() == [True, True]
    assert costly.advantages(given).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-2)
