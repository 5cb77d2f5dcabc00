"""GRPO: advantages, dropped groups and the loss, against plain Python in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import STEADY, output, step, tokens

from searchr1.algorithms.grpo import GRPO
from searchr1.errors import UserError


def test_advantages_of_two_groups_by_hand() -> None:
    e = step([1.0, 0.0, 0.0, 0.5, 0.25], ["a", "b", "a", "a", "b"], [1, 2, 1, 2, 1])
    # group a: 1, 0, 0.5: mean 0.5, std 0.5; group b: 0, 0.25: mean 0.125, std 0.125 * sqrt 2
    a, b = 0.5 / (0.5 + 1e-6), 0.125 / (0.125 * math.sqrt(2) + 1e-6)
    assert GRPO().advantages(e).tolist() == pytest.approx([a, -b, -b, -a, 0.0, 0.0, b])
    plain = GRPO(normalize_std=False).advantages(e).tolist()
    assert plain == pytest.approx([0.5, -0.125, -0.125, -0.5, 0.0, 0.0, 0.125])


def test_group_of_one_keeps_its_raw_reward() -> None:
    e = step([0.7, 0.0], ["a", "b"])
    assert GRPO().advantages(e).tolist() == pytest.approx([0.7, 0.0], rel=1e-7)
    assert GRPO().keep(e).tolist() == [True, True]


def test_a_real_group_of_mean_zero_and_deviation_one_is_not_taken_for_a_group_of_one() -> None:
    r = 1 / math.sqrt(2)
    got = GRPO().advantages(step([r, -r], ["a", "a"])).double()
    assert got.tolist() == torch.tensor([r / (1 + 1e-6), -r / (1 + 1e-6)]).double().tolist()


def test_flat_groups_are_dropped_unless_asked_for() -> None:
    e = step([0.1, 0.1, 0.1, 1.0, 0.0], ["flat", "flat", "flat", "live", "live"])
    assert GRPO().keep(e).tolist() == [False, False, False, True, True]
    assert GRPO(drop_zero_variance=False).keep(e).tolist() == [True] * 5
    assert GRPO().advantages(e).tolist()[:3] == [0.0, 0.0, 0.0]


@STEADY
@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.2, 1.0]), st.sampled_from("ab"), st.integers(1, 3)), min_size=2),
    st.randoms(),
)
def test_shuffling_samples_shuffles_their_advantages(rows: list[tuple[float, str, int]], rng: object) -> None:
    order = list(range(len(rows)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    first, second = (
        step([r for r, _, _ in part], [g for _, g, _ in part], [n for _, _, n in part])
        for part in (rows, [rows[i] for i in order])
    )
    before, after = GRPO().advantages(first), GRPO().advantages(second)
    for place, i in enumerate(order):
        mine, moved = before[first.sample_N == i], after[second.sample_N == place]
        torch.testing.assert_close(mine, moved, rtol=1e-6, atol=1e-6)


def golden(advantages, behaviour, new, reference, entropy, weights, total, g: GRPO) -> tuple[float, float]:  # type: ignore[no-untyped-def]
    """Loss and clip fraction by a loop over tokens."""
    loss = clipped = 0.0
    for a, mu, pi, ref, h, w in zip(advantages, behaviour, new, reference, entropy, weights, strict=True):
        ratio = math.exp(pi - mu)
        bounded = min(max(ratio, 1 - g.clip_low), 1 + g.clip_high)
        d = ref - pi
        kl = {"off": 0.0, "k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[g.kl]
        loss += w * (-min(ratio * a, bounded * a) + g.kl_coefficient * kl - g.entropy_bonus * h)
        clipped += bounded * a < ratio * a
    return loss / total, clipped / total


@pytest.mark.parametrize("kl", ["off", "k1", "k2", "k3"])
def test_loss_and_metrics_by_hand(kl: str) -> None:
    g = GRPO(clip_low=0.1, clip_high=0.3, kl=kl, kl_coefficient=0.2, entropy_bonus=0.05)  # type: ignore[arg-type]
    values = {
        "advantages": [1.0, -0.5, 2.0, -1.0],
        "behaviour": [-1.0, -0.2, -2.0, -0.7],
        "new": [-0.5, -0.4, -2.1, -0.1],
        "reference": [-0.9, -0.3, -1.0, -0.6],
        "entropy": [0.5, 1.0, 0.1, 0.7],
        "weights": [1.0, 1.0, 0.5, 2.0],
    }
    batch = tokens(values["advantages"], values["behaviour"], values["reference"], values["weights"], total=7)
    loss, metrics = g.loss(batch, output(values["new"], values["entropy"]))
    expected, clip_fraction = golden(**values, total=7, g=g)
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert clip_fraction == 2 / 7
    assert metrics["clip_fraction"].item() == pytest.approx(clip_fraction)
    assert metrics["entropy"].item() == pytest.approx(2.3 / 7)
    assert metrics["ratio_max"].item() == pytest.approx(math.exp(0.6))
    stale = [math.exp(n - b) - 1 - (n - b) for n, b in zip(values["new"], values["behaviour"], strict=True)]
    assert metrics["kl"].item() == pytest.approx(sum(stale) / 7, rel=1e-6)
    assert ("reference_kl" in metrics) == (kl != "off")
    assert all(not value.requires_grad for value in metrics.values())


def test_on_policy_gradient_is_advantage_over_all_tokens_of_the_step() -> None:
    scores = output([-1.0, -2.0])
    loss, _ = GRPO().loss(tokens([1.0, -3.0], [-1.0, -2.0], total=10), scores)
    loss.backward()
    assert scores.logprobs_N.grad is not None
    assert scores.logprobs_N.grad.tolist() == pytest.approx([-0.1, 0.3])


def test_needs_and_option_errors() -> None:
    assert not GRPO().needs.reference
    assert GRPO(kl="k2").needs.reference
    with pytest.raises(UserError, match=r"algorithm\.kl: expected one of off, k1, k2, k3, got 'kl3'"):
        GRPO(kl="kl3")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"algorithm\.clip_high: expected at least 0, got -0\.1"):
        GRPO(clip_high=-0.1)
    with pytest.raises(UserError, match=r"algorithm\.entropy_bonus"):
        GRPO(entropy_bonus=math.nan)
