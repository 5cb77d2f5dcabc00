"""From samples to flat tensors, and from names to algorithms."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import step

from searchr1.algorithms import ALGORITHMS, load_algorithm
from searchr1.algorithms.base import Experience, Needs, experience
from searchr1.errors import UserError
from searchr1.types import Sample

A = Sample((1, 2, 3, 4), (False, True, False, True), (0.0, -0.5, 0.0, -1.5), 1.0, "x", 1.0, ((1, 0.25),))
B = Sample((1, 9), (False, True), (0.0, -0.25), 0.5, "y", cut=True)


def test_only_trained_tokens_are_laid_out_in_sample_order() -> None:
    numbers = torch.tensor([-1.0, -2.0, -3.0])
    got = experience([A, B], reference_N=numbers, trainer_N=2 * numbers)
    assert got.sample_N.tolist() == [0, 0, 1]
    assert got.behaviour_N.tolist() == [-0.5, -1.5, -0.25]
    assert got.rewards_S.tolist() == [1.0, 0.5]
    assert got.cut_S.tolist() == [False, True]
    assert got.reference_N.tolist() == [-1.0, -2.0, -3.0]
    assert got.trainer_N.tolist() == [-2.0, -4.0, -6.0]
    assert got.values_N.numel() == 0
    assert experience([A, B], values_N=numbers).values_N.tolist() == numbers.tolist()


def test_what_a_turn_earned_stands_on_its_token_and_the_rest_on_the_last() -> None:
    assert experience([A, B]).rewards_N.tolist() == [0.25, 0.75, 0.5]


@given(
    st.lists(st.booleans(), min_size=1, max_size=12).filter(any),
    st.floats(-5, 5),
    st.lists(st.floats(-5, 5), max_size=12),
    st.randoms(),
)
def test_token_rewards_add_up_to_the_reward(mask: list[bool], reward: float, paid: list[float], rng: object) -> None:
    """Whatever turns earned and how often a token was paid: no reward is lost, none doubled, none on other tokens."""
    trained = [i + 1 for i, m in enumerate(mask) if m]
    turns = tuple((rng.choice(trained), value) for value in paid)  # type: ignore[attr-defined]
    n = len(mask) + 1
    earned = experience([Sample((0,) * n, (False, *mask), (0.0,) * n, reward, "q", 1.0, turns)]).rewards_N
    assert len(earned) == len(trained)
    assert earned.sum().item() == pytest.approx(reward, abs=1e-9)
    for position, value in zip(trained[:-1], earned.tolist(), strict=False):
        assert value == pytest.approx(sum(v for p, v in turns if p == position), abs=1e-9)


@pytest.mark.parametrize("position", [0, 2, 9])
def test_a_reward_on_a_token_that_is_not_trained_is_refused(position: int) -> None:
    with pytest.raises(ValueError, match=f"a reward of 0.5 stands on token {position}, which is not trained"):
        experience([replace(A, turn_rewards=((position, 0.5),))])


def test_same_id_in_two_datasets_is_two_groups() -> None:
    assert step([1.0, 0.0, 0.0, 1.0], ["nq/7", "hotpotqa/7", "nq/7", "hotpotqa/7"]).groups_S.tolist() == [0, 1, 0, 1]


def test_wrong_lengths_are_refused() -> None:
    one, two, none = torch.zeros(1), torch.zeros(2), torch.zeros(0)
    right = {"rewards_S": one, "groups_S": one.long(), "cut_S": one.bool(), "sample_N": two.long()}
    right |= {"rewards_N": two, "behaviour_N": two, "reference_N": none, "values_N": two, "trainer_N": none}
    assert Experience(**right).values_N is two
    for name in ("groups", "cut"):
        with pytest.raises(ValueError, match=rf"one entry of {name} per sample \(1\)"):
            Experience(**{**right, f"{name}_S": two})
    for name in ("rewards", "behaviour"):
        with pytest.raises(ValueError, match=rf"one entry of {name} per trained token \(2\)"):
            Experience(**{**right, f"{name}_N": one})
    for name in ("reference", "values", "trainer"):
        with pytest.raises(ValueError, match=rf"expected no {name} or one per trained token \(2\), got 1"):
            Experience(**{**right, f"{name}_N": one})


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_name_loads_with_its_defaults(name: str) -> None:
    algorithm = load_algorithm(name)()
    e = step([1.0, 0.0], ["q", "q"], [2, 3])
    if algorithm.needs.values:
        e = replace(e, values_N=torch.zeros(5))
    assert algorithm.keep(e).tolist() == [True, True]
    assert len(algorithm.returns(e)) == (5 if algorithm.needs.values else 0)
    advantages = algorithm.advantages(e)
    assert advantages.shape == (5,)
    assert advantages.dtype == torch.float32
    assert algorithm.needs == Needs(values=name == "ppo")
    assert load_algorithm(name)(kl="k3", correction="token").needs == Needs(True, name == "ppo", True)


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r"got 'grppo'; did you mean 'grpo'\?"):
        load_algorithm("grppo")


def test_listing_algorithms_does_not_import_torch() -> None:
    code = "import sys, searchr1.algorithms, searchr1.training; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
