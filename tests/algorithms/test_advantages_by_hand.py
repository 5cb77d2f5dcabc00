"""The advantages of every algorithm against plain Python in double precision, on random steps."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from by_hand import Hand, as_sample, costly, draw, gae, grpo, rloo, spread, whitened
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import FEW

from searchr1.algorithms import load_algorithm
from searchr1.algorithms.base import Experience, experience
from searchr1.algorithms.ppo import PPO
from searchr1.algorithms.reinforce_pp import ReinforcePP


def given_step(hands: Sequence[Hand], rng: random.Random | None = None, *, trainer: bool = False) -> Experience:
    """The step as the package sees it: observations between the actions, everything that any algorithm needs."""

    def flat(name: str) -> torch.Tensor:
        return torch.tensor([x for hand in hands for x in getattr(hand, name)], dtype=torch.float64)

    return experience(
        [as_sample(hand, rng) for hand in hands],
        reference_N=flat("reference"),
        values_N=flat("values"),
        trainer_N=flat("trainer") if trainer else None,
    )


def same(got: torch.Tensor, expected: Sequence[Sequence[float]]) -> None:
    assert got.dtype == torch.float32
    assert got.tolist() == pytest.approx([x for row in expected for x in row], rel=2e-6, abs=2e-6)


def totals(rows: Sequence[Sequence[float]]) -> list[float]:
    return [math.fsum(row) for row in rows]


def centred(hands: Sequence[Hand], rewards: Sequence[float]) -> list[float]:
    return [r - math.fsum(rewards) / len(rewards) for r in rewards]


Estimate = Callable[[Sequence[Hand], Sequence[Sequence[float]]], Sequence[Sequence[float]]]


def of_sample(estimate: Callable[[Sequence[Hand], Sequence[float]], list[float]]) -> Estimate:
    """One number a trajectory, from the sums of what its tokens earned."""
    return lambda hands, earned: spread(hands, estimate(hands, totals(earned)))


GROUPED = of_sample(lambda hands, rewards: grpo(hands, rewards, std=True))
CENTRED = of_sample(lambda hands, rewards: grpo(hands, rewards, std=False))
ESTIMATES: dict[str, tuple[str, dict[str, Any], Estimate]] = {
    "grpo": ("grpo", {}, GROUPED),
    "grpo without deviation": ("grpo", {"normalize_std": False}, CENTRED),
    "dr_grpo": ("dr_grpo", {}, CENTRED),
    "dapo": ("dapo", {}, GROUPED),
    "gspo": ("gspo", {}, GROUPED),
    "cispo": ("cispo", {}, GROUPED),
    "rloo": ("rloo", {}, of_sample(rloo)),
    "reinforce": ("reinforce", {}, of_sample(centred)),
    "reinforce without baseline": ("reinforce", {"baseline": "none"}, of_sample(lambda hands, rewards: list(rewards))),
    # arXiv 2501.03262: what a token's advantage is made of is all that is earned from it on
    "reinforce_pp": (
        "reinforce_pp",
        {},
        lambda hands, earned: whitened([[math.fsum(row[t:]) for t in range(len(row))] for row in earned]),
    ),
    "reinforce_pp with group means": (
        "reinforce_pp",
        {"baseline": "group_mean"},
        lambda hands, earned: whitened(spread(hands, grpo(hands, totals(earned), std=False))),
    ),
    "ppo": (
        "ppo",
        {"gamma": 0.9, "gae_lambda": 0.7, "kl_in": "loss"},
        lambda hands, earned: whitened([gae(row, h.values, 0.9, 0.7) for h, row in zip(hands, earned, strict=True)]),
    ),
    "ppo as in Search-R1": (
        "ppo",
        {"kl_in": "loss"},
        lambda hands, earned: whitened([gae(row, h.values, 1, 1) for h, row in zip(hands, earned, strict=True)]),
    ),
    "ppo without whitening": (
        "ppo",
        {"gamma": 0.5, "gae_lambda": 0.25, "whiten": False, "kl_in": "loss"},
        lambda hands, earned: [gae(row, h.values, 0.5, 0.25) for h, row in zip(hands, earned, strict=True)],
    ),
}


@pytest.mark.parametrize("case", ESTIMATES)
@FEW
@given(seed=st.integers(0, 2**32))
def test_of_outcomes_and_turns(case: str, seed: int) -> None:
    name, options, estimate = ESTIMATES[case]
    rng = random.Random(seed)
    hands = draw(rng)
    got = load_algorithm(name)(**options).advantages(given_step(hands, rng))
    same(got, estimate(hands, [hand.earned for hand in hands]))


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("case", ESTIMATES)
@FEW
@given(seed=st.integers(0, 2**32), trainer=st.booleans())
def test_with_the_cost_of_kl_in_every_tokens_reward(case: str, kind: str, seed: int, trainer: bool) -> None:
    """KL to the reference is that of the policy which the update starts from: the trainer's, where it was asked."""
    name, options, estimate = ESTIMATES[case]
    hands = draw(random.Random(seed))
    correction = {"correction": "token"} if trainer else {}
    algorithm = load_algorithm(name)(**{**options, "kl": kind, "kl_in": "reward", "kl_coefficient": 0.5, **correction})
    assert algorithm.needs.reference
    assert algorithm.needs.trainer == trainer
    same(
        algorithm.advantages(given_step(hands, trainer=trainer)),
        estimate(hands, costly(hands, kind, 0.5, trainer=trainer)),
    )


@pytest.mark.parametrize("case", ESTIMATES)
def test_kl_in_the_loss_changes_no_advantage(case: str) -> None:
    name, options, _ = ESTIMATES[case]
    given = given_step(draw(random.Random(5)))
    plain, with_kl = (load_algorithm(name)(**{**options, **kl}) for kl in ({}, {"kl": "k3", "kl_in": "loss"}))
    assert plain.advantages(given).tolist() == with_kl.advantages(given).tolist()


@pytest.mark.parametrize("case", ESTIMATES)
@FEW
@given(seed=st.integers(0, 2**32))
def test_shuffled_samples_take_their_advantages_along(case: str, seed: int) -> None:
    name, options, _ = ESTIMATES[case]
    algorithm = load_algorithm(name)(**options)
    rng = random.Random(seed)
    hands = draw(rng)
    order = rng.sample(range(len(hands)), len(hands))
    before, after = (given_step(part) for part in (hands, [hands[i] for i in order]))
    kept = [algorithm.keep(given).tolist() for given in (before, after)]
    assert [kept[0][i] for i in order] == kept[1]
    whole, shuffled = algorithm.advantages(before), algorithm.advantages(after)
    for place, i in enumerate(order):
        torch.testing.assert_close(whole[before.sample_N == i], shuffled[after.sample_N == place], rtol=1e-5, atol=1e-6)


@FEW
@given(seed=st.integers(0, 2**32), gamma=st.sampled_from([1.0, 0.75]), lam=st.sampled_from([1.0, 0.5]))
def test_what_the_critic_learns_is_advantage_plus_value(seed: int, gamma: float, lam: float) -> None:
    """Before whitening; with lambda = 1 it is the discounted sum of all that follows, whatever the critic says."""
    hands = draw(random.Random(seed))
    got = PPO(gamma=gamma, gae_lambda=lam).returns(given_step(hands))
    expected = [
        [a + v for a, v in zip(gae(hand.earned, hand.values, gamma, lam), hand.values, strict=True)] for hand in hands
    ]
    same(got, expected)
    if lam == 1:
        to_go = [
            [math.fsum(gamma**k * r for k, r in enumerate(hand.earned[t:])) for t in range(len(hand.earned))]
            for hand in hands
        ]
        same(got, to_go)


@pytest.mark.parametrize(
    "algorithm",
    [PPO(gamma=0.9, gae_lambda=0.8), PPO(whiten=False), ReinforcePP(), ReinforcePP(kl="k1", kl_in="reward")],
    ids=["ppo", "ppo without whitening", "reinforce_pp", "reinforce_pp with kl"],
)
@FEW
@given(seed=st.integers(0, 2**32))
def test_no_observation_changes_an_advantage(algorithm: Any, seed: int) -> None:
    """Of any length, between any two actions: its tokens are not steps of the process."""
    hands = draw(random.Random(seed))
    first, second = (given_step(hands, random.Random(seed + n)) for n in (1, 2))
    assert algorithm.advantages(first).tolist() == algorithm.advantages(second).tolist()
    assert algorithm.returns(first).tolist() == algorithm.returns(second).tolist()


def test_gae_in_numbers() -> None:
    """Three tokens, a turn reward on the first, an observation after it: worked out on paper."""
    hand = Hand(1.5, "q", [0.5, 0.0, 1.0], [-1.0] * 3, [], [-1.0] * 3, [1.0, 2.0, 4.0], [0, 1, 1])
    got = PPO(gamma=0.5, gae_lambda=0.5, whiten=False).advantages(given_step([hand]))
    # deltas: 0.5 + 0.5 * 2 - 1 = 0.5;  0 + 0.5 * 4 - 2 = 0;  1 + 0 - 4 = -3;  gamma lambda = 0.25
    assert got.tolist() == [0.5 + 0.25 * 0.25 * -3, 0.25 * -3, -3.0]


def test_a_critic_that_was_not_asked_is_an_error() -> None:
    with pytest.raises(ValueError, match="ppo needs a value of the critic for every trained token"):
        PPO().advantages(experience([as_sample(hand) for hand in draw(random.Random(1))]))
