"""Each term against a plain Python computation in double precision."""

from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import STEADY, double, output, step, tokens
from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import PolicyOutput, TokenBatch
from searchr1.algorithms.policy_gradient import Clipped, PolicyGradient
from searchr1.algorithms.ppo import PPO
from searchr1.errors import UserError

REWARDS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.85, 1.0]), st.integers(0, 3)), min_size=1, max_size=12)


@STEADY
@given(REWARDS)
def test_group_statistics_against_the_statistics_module(members: list[tuple[float, int]]) -> None:
    rewards, groups = torch.tensor([r for r, _ in members]).double(), torch.tensor([g for _, g in members])
    size, mean, std = terms.group_statistics(rewards, groups)
    for i, (_, group) in enumerate(members):
        own = [float(r) for r, (_, g) in zip(rewards, members, strict=True) if g == group]
        assert size[i] == len(own)
        assert mean[i] == pytest.approx(0.0 if len(own) == 1 else statistics.mean(own))
        assert std[i] == pytest.approx(1.0 if len(own) == 1 else statistics.stdev(own))


@STEADY
@given(REWARDS, st.randoms())
def test_group_statistics_do_not_depend_on_the_order(members: list[tuple[float, int]], rng: object) -> None:
    order = list(range(len(members)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    rewards, groups = torch.tensor([r for r, _ in members]), torch.tensor([g for _, g in members])
    plain = terms.group_statistics(rewards, groups)
    shuffled = terms.group_statistics(rewards[order], groups[order])
    for a, b in zip(plain, shuffled, strict=True):
        torch.testing.assert_close(a[order], b, rtol=0, atol=1e-12)


def test_equal_rewards_that_do_not_add_up_exactly_have_exactly_zero_deviation() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1], dtype=torch.float64)
    assert rewards.sum() / 3 != 0.1  # float noise that would otherwise be divided by 1e-6
    _, mean, std = terms.group_statistics(rewards, torch.tensor([5, 5, 5]))
    assert std.tolist() == [0.0] * 3
    assert (rewards - mean).tolist() == [0.0] * 3


def test_zero_variance_marks_flat_groups_and_never_a_group_of_one() -> None:
    rewards, groups = torch.tensor([1.0, 0.0, 1.0, 0.0, 0.5]), torch.tensor([0, 1, 0, 2, 2])
    flat = terms.zero_variance(rewards, groups)
    assert flat.tolist() == [True, False, True, False, False]


FINITE = st.floats(-5, 5, allow_nan=False)


@STEADY
@given(FINITE, FINITE, st.floats(-3, 3), st.floats(0, 0.5), st.floats(0, 0.5))
def test_clipped_surrogate(new: float, old: float, advantage: float, low: float, high: float) -> None:
    ratio = terms.importance_ratio(torch.tensor([new]).double(), torch.tensor([old]).double())
    loss, clipped = terms.clipped_surrogate(ratio, torch.tensor([advantage]).double(), low, high)
    r = math.exp(float(torch.tensor(new)) - float(torch.tensor(old)))
    a = float(torch.tensor(advantage))
    plain, bounded = r * a, min(max(r, 1 - low), 1 + high) * a
    assert loss.item() == pytest.approx(-min(plain, bounded), rel=1e-9, abs=1e-12)
    if abs(plain - bounded) > 1e-9:
        assert clipped.item() == (bounded < plain)


def test_clip_stops_the_gradient_only_on_the_improving_side() -> None:
    new = torch.tensor([0.5, 0.5, -0.5, -0.5], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    loss, clipped = terms.clipped_surrogate(terms.importance_ratio(new, torch.zeros(4)), advantages, 0.2, 0.2)
    loss.sum().backward()
    assert clipped.tolist() == [True, False, False, True]
    assert new.grad is not None
    assert new.grad.tolist() == pytest.approx([0.0, math.exp(0.5), -math.exp(-0.5), 0.0])


@STEADY
@given(FINITE, FINITE)
def test_kl_estimates(p: float, q: float) -> None:
    p, q = (float(torch.tensor(x)) for x in (p, q))
    a, b = torch.tensor([p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)
    d = q - p
    assert terms.kl_estimate("k1", a, b).item() == pytest.approx(-d)
    assert terms.kl_estimate("k2", a, b).item() == pytest.approx(d * d / 2)
    assert terms.kl_estimate("k3", a, b).item() == pytest.approx(math.exp(d) - 1 - d, abs=1e-12)
    assert terms.kl_estimate("k3", a, b).item() >= 0


def test_kl_estimates_average_to_the_kl() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([0.4, 0.4, 0.2]).double()
    exact = (p * (p / q).log()).sum().item()
    k1, k2, k3 = ((p * terms.kl_estimate(kind, p.log(), q.log())).sum().item() for kind in ("k1", "k2", "k3"))
    assert k1 == pytest.approx(exact)
    assert k3 == pytest.approx(exact)
    assert k2 == pytest.approx(exact, rel=0.1)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
@pytest.mark.parametrize("distance", [800.0, -800.0])
def test_a_single_absurd_token_stays_finite(kind: terms.KL, distance: float) -> None:
    new = torch.tensor([-1.0], requires_grad=True)
    loss = terms.kl_estimate(kind, new, new.detach() + distance)
    ratio = terms.importance_ratio(new, new.detach() + distance)
    surrogate, _ = terms.clipped_surrogate(ratio, torch.tensor([1.0]), 0.2, 0.2)
    (loss + surrogate).sum().backward()
    assert torch.isfinite(loss).all()
    assert new.grad is not None
    assert torch.isfinite(new.grad).all()


def test_unknown_kl_is_refused() -> None:
    with pytest.raises(ValueError, match="no estimate is called 'k4'"):
        terms.kl_estimate("k4", torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]


class Regularizers(PolicyGradient):
    """What is left of a loss without its surrogate."""

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        return 0 * ratio_N, ratio_N > ratio_N


@STEADY
@given(st.lists(st.tuples(FINITE, FINITE, FINITE, st.floats(0, 4)), min_size=2, max_size=8), st.data())
def test_shares_of_micro_batches_add_up_to_the_mean(
    rows: list[tuple[float, float, float, float]], data: st.DataObject
) -> None:
    total = len(rows)
    cut = data.draw(st.integers(1, total - 1))
    algorithm = Regularizers(kl="k3", kl_coefficient=0.5, entropy_bonus=0.25)

    def shares(part: list[tuple[float, float, float, float]]) -> tuple[float, dict[str, float]]:
        new, old, reference, entropy = zip(*part, strict=True)
        batch, scores = tokens([1.0] * len(part), old, reference, total=total), output(new, entropy)
        loss, metrics = algorithm.loss(batch, scores)
        return loss.item(), {name: float(value) for name, value in metrics.items()}

    (whole, metrics), (left, left_metrics), (right, right_metrics) = map(shares, (rows, rows[:cut], rows[cut:]))
    k3 = [math.exp(r - n) - 1 - (r - n) for n, _, r, _ in rows]
    entropy = sum(e for *_, e in rows) / total
    assert whole == pytest.approx(0.5 * sum(k3) / total - 0.25 * entropy, rel=1e-5, abs=1e-6)
    assert left + right == pytest.approx(whole, rel=1e-9, abs=1e-12)
    for name, value in metrics.items():
        parts = left_metrics[name], right_metrics[name]
        combined = max(parts) if name.endswith("_max") else sum(parts)
        assert combined == pytest.approx(value, rel=1e-5, abs=1e-6), name
    assert metrics["entropy"] == pytest.approx(entropy, abs=1e-6)
    assert metrics["reference_kl"] == pytest.approx(sum(k3) / total, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_kl_without_reference_is_an_error(kl_in: str) -> None:
    message = r"expected one reference log-probability per trained token \(1\), got 0"
    with pytest.raises(ValueError, match=message):
        Regularizers(kl="k3", kl_in=kl_in).loss(tokens([1.0], [0.0]), output([0.0]))  # type: ignore[arg-type]


@pytest.mark.parametrize("correction", ["token", "sequence"])
def test_correction_without_the_trainers_probabilities_is_an_error(correction: str) -> None:
    message = r"expected one trainer log-probability per trained token \(1\), got 0"
    with pytest.raises(ValueError, match=message):
        Regularizers(correction=correction).loss(tokens([1.0], [0.0]), output([0.0]))  # type: ignore[arg-type]


SPANS = tokens([0.0] * 6, [0.0] * 6, weights=[1, 1, 1, 2, 0.5, 0.5], samples=[4, 4, 4, 7, 9, 9], total=6)
VALUES = [1.0, 2.0, 6.0, 5.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("token", (1 + 2 + 6 + 2 * 5 + 0.5 * 4 + 0.5 * 8) / 6),
        ("sequence", ((1 + 2 + 6) / 3 + 2 * 5 / 1 + (0.5 * 4 + 0.5 * 8) / 2) / 3),
        ("fixed", ((1 + 2 + 6) / 10 + 2 * 5 / 10 + (0.5 * 4 + 0.5 * 8) / 10) / 3),
    ],
)
def test_three_kinds_of_mean(how: terms.Aggregate, expected: float) -> None:
    assert terms.aggregate(double(VALUES), SPANS, how, 10).item() == pytest.approx(expected, rel=1e-12)


def test_which_tokens_weigh_what() -> None:
    """By token all tokens weigh the same, by sequence all samples; by fixed length a token's weight has no length."""
    slopes = {}
    for how in ("token", "sequence", "fixed"):
        values = double(VALUES).requires_grad_()
        plain = tokens([0.0] * 6, [0.0] * 6, samples=[4, 4, 4, 7, 9, 9])
        terms.aggregate(values, plain, how, 10).backward()  # type: ignore[arg-type]
        slopes[how] = values.grad.tolist()  # type: ignore[union-attr]
    assert slopes["token"] == pytest.approx([1 / 6] * 6)
    assert slopes["sequence"] == pytest.approx([1 / 9] * 3 + [1 / 3] + [1 / 6] * 2)
    assert slopes["fixed"] == pytest.approx([1 / 30] * 6)


def whiten(values: list[float]) -> list[float]:
    """Over all of them."""
    whitened: list[float] = terms.whiten(double(values), torch.ones(len(values), dtype=torch.bool)).tolist()
    return whitened


def test_whitening() -> None:
    values = [0.5, -1.0, 2.0, 2.0]
    mean, deviation = statistics.mean(values), math.sqrt(statistics.variance(values) + 1e-8)
    assert whiten(values) == pytest.approx([(v - mean) / deviation for v in values], rel=1e-12)
    assert whiten([0.3, 0.3, 0.3]) == pytest.approx([0.0] * 3, abs=1e-9)
    assert whiten([0.3]) == [0.3]
    assert whiten([]) == []
    kept = torch.tensor([True, True, False, True, True])
    assert terms.whiten(double([*values[:2], 9.0, *values[2:]]), kept)[kept].tolist() == whiten(values)


def test_correction_weights() -> None:
    engine = double([-1.0, -1.0, -2.0, -0.5])
    trainer = engine + double([math.log(3), math.log(0.5), math.log(1.5), math.log(1.9)])
    samples = torch.tensor([0, 0, 1, 1])
    by_token = terms.correction_weights(trainer.requires_grad_(), engine, samples, "token", 2.0)
    assert by_token.tolist() == pytest.approx([2.0, 0.5, 1.5, 1.9])
    assert not by_token.requires_grad
    # geometric means sqrt(3 / 2) = 1.22 and sqrt(1.5 * 1.9) = 1.69
    assert terms.correction_weights(trainer, engine, samples, "sequence", 1.5).tolist() == [1, 1, 0, 0]
    assert terms.correction_weights(engine, trainer, samples, "sequence", 1.5).tolist() == [1, 1, 0, 0]
    assert terms.correction_weights(trainer, engine, samples, "sequence", 1.2).tolist() == [0, 0, 0, 0]


def test_correction_of_an_engine_that_agrees_changes_nothing() -> None:
    numbers = [0.5, -1.0], [-1.0, -0.5]
    plain, _ = Clipped().loss(tokens(*numbers), output([-1.25, -0.25]))
    for how in ("token", "sequence"):
        algorithm = Clipped(correction=how)  # type: ignore[arg-type]
        corrected, _ = algorithm.loss(tokens(*numbers, trainer=numbers[1]), output([-1.25, -0.25]))
        assert corrected.item() == plain.item()


def steered(target: float, kl: float, samples: int, horizon: float = 1000.0) -> float:
    algorithm = PolicyGradient(kl="k3", kl_coefficient=0.5, kl_target=target, kl_horizon=horizon)
    return algorithm.adapted({"train/reference_kl": kl}, samples).kl_coefficient


def test_adaptive_kl_by_hand() -> None:
    """beta (1 + clip(KL / target - 1, -0.2, 0.2) n / horizon), arXiv 1909.08593, section 2.2."""
    assert steered(0.1, 0.11, 200) == pytest.approx(0.5 * (1 + 0.1 * 0.2))
    assert steered(0.1, 0.09, 200) == pytest.approx(0.5 * (1 - 0.1 * 0.2))
    assert steered(0.1, 9.0, 200) == pytest.approx(0.5 * (1 + 0.2 * 0.2))
    assert steered(0.1, 0.0, 200) == pytest.approx(0.5 * (1 - 0.2 * 0.2))
    assert steered(0.1, 0.1, 200) == 0.5
    assert steered(0.0, 9.0, 200) == 0.5  # no target: fixed
    assert PolicyGradient(kl="k3", kl_target=0.1).adapted({}, 200).kl_coefficient == 0.001


@given(st.floats(1e-3, 10), st.floats(0, 100), st.integers(1, 10**6), st.floats(1, 10**5))
def test_adaptive_kl_never_turns_a_cost_into_a_bonus(target: float, kl: float, samples: int, horizon: float) -> None:
    """However many samples a step has: towards the target, and by a fifth at most."""
    coefficient = steered(target, kl, samples, horizon)
    assert 0.5 * 0.8 <= coefficient <= 0.5 * 1.2 + 1e-12
    assert (coefficient - 0.5) * (kl - target) >= 0


def test_adaptive_kl_finds_its_target() -> None:
    """A process whose KL is inversely proportional to the coefficient settles where it was asked to."""
    algorithm = PolicyGradient(kl="k3", kl_coefficient=1.0, kl_target=0.05, kl_horizon=1000)
    for _ in range(300):
        algorithm = algorithm.adapted({"train/reference_kl": 0.01 / algorithm.kl_coefficient}, 500)
    assert 0.01 / algorithm.kl_coefficient == pytest.approx(0.05, rel=1e-3)


def test_samples_that_a_budget_ended_are_dropped_where_asked() -> None:
    e = replace(step([1.0, 0.0, 0.5, 0.5], ["a", "a", "b", "b"]), cut_S=torch.tensor([True, False, True, False]))
    assert PolicyGradient(drop_cut=True).keep(e).tolist() == [False, True, False, False]
    assert PolicyGradient(drop_cut=True, drop_zero_variance=False).keep(e).tolist() == [False, True, False, True]
    assert PolicyGradient().keep(e).tolist() == [True, True, False, False]


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("kl", "k4", "one of off, k1, k2, k3"),
        ("kl_in", "advantage", "one of loss, reward"),
        ("llds_gate", "token", "one of action, response"),
        ("correction", "on", "one of off, token, sequence"),
        ("aggregate", "mean", "one of token, sequence, fixed"),
        ("kl_coefficient", -0.1, "at least 0"),
        ("kl_target", math.nan, "at least 0"),
        ("entropy_bonus", -1, "at least 0"),
        ("llds", math.nan, "at least 0"),
        ("kl_horizon", 0, "more than 0"),
        ("fixed_tokens", 0, "more than 0"),
        ("correction_cap", 0.5, "at least 1"),
        ("clip_low", -0.1, "at least 0"),
        ("clip_high", math.nan, "at least 0"),
        ("dual_clip", 1, "0 \\(off\\) or more than 1"),
        ("gamma", 1.1, "a number from 0 to 1"),
        ("gae_lambda", -0.1, "a number from 0 to 1"),
        ("value_clip", -0.1, "at least 0"),
        ("value_coefficient", math.nan, "at least 0"),
    ],
)
def test_options_out_of_range_name_themselves(option: str, value: object, expected: str) -> None:
    with pytest.raises(UserError, match=rf"algorithm\.{option}: expected {expected}, got"):
        PPO(**{option: value})  # type: ignore[arg-type]
