"""REINFORCE: baselines and the capped importance weight, by hand."""

from __future__ import annotations

import math

import pytest
from token_tensors import output, step, tokens

from searchr1.algorithms.policy_gradient import Weighted
from searchr1.algorithms.reinforce import Reinforce
from searchr1.algorithms.rloo import RLOO
from searchr1.errors import UserError

REWARDS, GROUPS, LENGTHS = [1.0, 0.0, 0.5, 1.0], ["a", "a", "b", "a"], [2, 1, 1, 1]


@pytest.mark.parametrize(
    ("baseline", "expected"),
    [
        ("none", [1.0, 1.0, 0.0, 0.5, 1.0]),
        ("batch_mean", [0.375, 0.375, -0.625, -0.125, 0.375]),
    ],
)
def test_baselines(baseline: str, expected: list[float]) -> None:
    got = Reinforce(baseline=baseline).advantages(step(REWARDS, GROUPS, LENGTHS))  # type: ignore[arg-type]
    assert got.tolist() == pytest.approx(expected)


def test_leave_one_out() -> None:
    """Each of group a against the mean of the two others; b is alone."""
    assert RLOO().advantages(step(REWARDS, GROUPS, LENGTHS)).tolist() == pytest.approx([0.5, 0.5, -1.0, 0.5, 0.5])


@pytest.mark.parametrize("algorithm", [Reinforce, RLOO])
def test_every_sample_is_kept(algorithm: type[Weighted]) -> None:
    flat = step([1.0, 1.0], ["a", "a"])
    assert algorithm().keep(flat).tolist() == [True, True]
    assert algorithm(drop_zero_variance=True).keep(flat).tolist() == [False, False]


def test_gradient_is_the_capped_ratio_times_the_advantage() -> None:
    scores = output([-1.0, -1.0, -1.0], [0.5, 0.5, 0.5])
    batch = tokens([1.0, -2.0, 3.0], [-1.0, -0.5, -2.0], [0.0] * 3, [1.0, 1.0, 0.5], total=6)
    algorithm = Reinforce(importance_cap=2.0)
    loss, metrics = algorithm.loss(batch, scores)
    loss.backward()
    ratios = [1.0, math.exp(-0.5), 2.0]  # the last, e, is capped
    assert scores.logprobs_N.grad is not None
    expected = [-1.0 * ratios[0] / 6, 2.0 * ratios[1] / 6, -3.0 * ratios[2] * 0.5 / 6]
    assert scores.logprobs_N.grad.tolist() == pytest.approx(expected)
    assert loss.item() == pytest.approx(-sum(expected))
    assert metrics["clip_fraction"].item() == pytest.approx(1 / 6)
    assert metrics["ratio_max"].item() == pytest.approx(math.e)
    assert metrics["entropy"].item() == pytest.approx(1.5 / 6)


def test_kl_and_entropy_enter_the_loss() -> None:
    batch = tokens([0.0], [-1.0], [-2.0])
    loss, metrics = Reinforce(kl="k1", kl_coefficient=0.5, entropy_bonus=0.1).loss(batch, output([-1.0], [0.7]))
    assert loss.item() == pytest.approx(0.5 * 1.0 - 0.1 * 0.7)
    assert metrics["reference_kl"].item() == pytest.approx(math.exp(-1.0))


def test_option_errors() -> None:
    assert Reinforce(kl="k3").needs.reference
    with pytest.raises(UserError, match=r"algorithm\.baseline: expected one of none, batch_mean, got 'mean'"):
        Reinforce(baseline="mean")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"algorithm\.importance_cap: expected at least 1, got 0\.5"):
        Reinforce(importance_cap=0.5)
