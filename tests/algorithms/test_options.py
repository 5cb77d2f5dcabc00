"""Options that would do nothing, or another thing than they say, are refused; what they change for whom."""

from __future__ import annotations

from typing import Any

import pytest
import torch

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


def test_equal_rewards_still_count_where_kl_is_a_part_of_them() -> None:
    step = [Sample((1, 2), (False, True), (0.0, -p), 1.0, "q") for p in (1.0, 2.0)]
    given = experience(step, reference_N=torch.tensor([-1.5, -1.5]))
    assert load_algorithm("grpo")(kl="k1", kl_in="loss").keep(given).tolist() == [False, False]
    costly = load_algorithm("grpo")(kl="k1", kl_in="reward")
    assert costly.keep(given).tolist() == [True, True]
    assert costly.advantages(given).tolist() == pytest.approx([-(0.5**0.5), 0.5**0.5], rel=1e-2)
