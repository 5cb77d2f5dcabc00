"""Each term against a plain Python computation in double precision."""

from __future__ import annotations

import math
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import STEADY, output, tokens

from searchr1.algorithms import terms

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
    assert terms.count_groups(groups, flat) == 1


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


@STEADY
@given(st.lists(st.tuples(FINITE, FINITE, FINITE, st.floats(0, 4)), min_size=2, max_size=8), st.data())
def test_shares_of_micro_batches_add_up_to_the_mean(
    rows: list[tuple[float, float, float, float]], data: st.DataObject
) -> None:
    total = len(rows)
    cut = data.draw(st.integers(1, total - 1))

    def shares(part: list[tuple[float, float, float, float]]) -> tuple[float, dict[str, float]]:
        new, old, reference, entropy = zip(*part, strict=True)
        batch, scores = tokens([1.0] * len(part), old, reference, total=total), output(new, entropy)
        loss, metrics = terms.regularizers(batch, scores, kl="k3", kl_coefficient=0.5, entropy_bonus=0.25)
        metrics |= terms.staleness(batch, scores, terms.importance_ratio(scores.logprobs_N, batch.behaviour_N))
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


def test_kl_without_reference_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"kl='k3' needs one reference log-probability per trained token \(1\), got 0"):
        terms.regularizers(tokens([1.0], [0.0]), output([0.0]), kl="k3", kl_coefficient=1.0, entropy_bonus=0.0)
