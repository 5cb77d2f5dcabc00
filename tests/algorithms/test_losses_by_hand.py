"""The loss of every algorithm, its gradients and its metrics against plain Python in double precision."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from by_hand import Token, draw_tokens, loss_by_hand
from hypothesis import given
from hypothesis import strategies as st
from token_tensors import FEW, Output, Tokens, output, tokens

from searchr1.algorithms import ALGORITHMS, load_algorithm

WIDE = {"clip_low": 0.2, "clip_high": 0.3}
OPTIONS: dict[str, dict[str, Any]] = {
    "grpo": WIDE,
    "dr_grpo": WIDE | {"fixed_tokens": 10},
    "dapo": {},
    "gspo": WIDE,
    "cispo": {"clip_low": 0.4, "clip_high": 0.3},
    "rloo": {"importance_cap": 1.25},
    "reinforce": {"importance_cap": 1.25},
    "reinforce_pp": WIDE,
    "ppo": WIDE | {"value_clip": 0.3, "value_coefficient": 0.5},
}
"""Narrow enough for the drawn ratios to meet every bound."""
REGULARIZED = {"kl": "k3", "kl_in": "loss", "kl_coefficient": 0.3, "entropy_bonus": 0.1, "llds": 0.2}
SWITCHES: dict[str, dict[str, Any]] = {
    "plain": {},
    "token": {"aggregate": "token"},
    "sequence": {"aggregate": "sequence"},
    "fixed": {"aggregate": "fixed", "fixed_tokens": 7},
    "k1": {"kl": "k1", "kl_in": "loss", "kl_coefficient": 0.3},
    "k2": {"kl": "k2", "kl_in": "loss", "kl_coefficient": 0.3},
    "k3": {"kl": "k3", "kl_in": "loss", "kl_coefficient": 0.3},
    "kl in the reward": {"kl": "k1", "kl_in": "reward", "kl_coefficient": 0.3},
    "entropy": {"entropy_bonus": 0.2},
    "llds": {"llds": 0.5},
    "llds of responses": {"llds": 0.5, "llds_gate": "response"},
    "truncated importance sampling": {"correction": "token", "correction_cap": 1.2},
    "geometric mask": {"correction": "sequence", "correction_cap": 1.1},
    "everything, by token": REGULARIZED | {"correction": "token", "correction_cap": 1.2, "aggregate": "token"},
    "everything, by sequence": REGULARIZED | {"correction": "sequence", "llds_gate": "response"},
}


def tensors(batch: Sequence[Token], total_tokens: int, total_samples: int) -> tuple[Tokens, Output]:
    columns = {f.name: [getattr(t, f.name) for t in batch] for f in dataclasses.fields(Token)}
    given = tokens(
        columns["advantage"],
        columns["behaviour"],
        columns["reference"],
        columns["weight"],
        total_tokens,
        trainer=columns["trainer"],
        returns=columns["ret"],
        values=columns["old_value"],
        samples=columns["sample"],
        actions=columns["action"],
        total_samples=total_samples,
    )
    return given, output(columns["new"], columns["entropy"], columns["value"])


def compare(name: str, options: dict[str, Any], batch: Sequence[Token], more: int = 0) -> dict[str, float]:
    """Assert that both agree on the batch of a step with ``more`` tokens and samples elsewhere; the metrics."""
    algorithm = load_algorithm(name)(**options)
    complete = {"dual_clip": 0.0, **dataclasses.asdict(algorithm)}
    totals = len(batch) + 3 * more, len({t.sample for t in batch}) + more
    given, scores = tensors(batch, *totals)
    if complete["correction"] == "off":
        given = dataclasses.replace(given, trainer_N=torch.zeros(0))
    loss, metrics = algorithm.loss(given, scores)
    loss.backward()
    expected = loss_by_hand(name, complete, batch, *totals)
    assert loss.item() == pytest.approx(expected.loss, rel=1e-9, abs=1e-12)
    for leaf, by in (
        (scores.logprobs_N, expected.by_logprob),
        (scores.entropy_N, expected.by_entropy),
        (scores.values_N, expected.by_value),
    ):
        got = [0.0] * len(batch) if leaf.grad is None else leaf.grad.tolist()
        assert got == pytest.approx(by, rel=1e-9, abs=1e-12)
    assert not any(value.requires_grad for value in metrics.values())
    numbers = {key: float(value) for key, value in metrics.items()}
    for key, value in expected.metrics.items():
        assert numbers[key] == pytest.approx(value, rel=1e-5, abs=1e-6), key
    assert ("reference_kl" in numbers) == (complete["kl"] != "off")
    return numbers


@pytest.mark.parametrize("switch", SWITCHES)
@pytest.mark.parametrize("name", OPTIONS)
def test_loss_gradients_and_metrics(name: str, switch: str) -> None:
    for seed in range(8):
        compare(name, OPTIONS[name] | SWITCHES[switch], draw_tokens(random.Random(f"{seed}")), more=seed % 3)


def test_no_algorithm_is_left_out() -> None:
    assert set(OPTIONS) == set(ALGORITHMS)


@pytest.mark.parametrize("name", ["grpo", "dapo", "reinforce_pp", "ppo", "gspo"])
@FEW
@given(seed=st.integers(0, 2**32), dual=st.sampled_from([1.1, 1.5, 3.0]))
def test_dual_clip(name: str, seed: int, dual: float) -> None:
    compare(name, OPTIONS[name] | {"dual_clip": dual}, draw_tokens(random.Random(seed)))


@FEW
@given(seed=st.integers(0, 2**32))
def test_value_loss_without_clip(seed: int) -> None:
    compare("ppo", {"value_clip": 0.0, "value_coefficient": 2.0}, draw_tokens(random.Random(seed)))


def test_the_draws_meet_every_branch() -> None:
    """That clips, caps, masks and gates decide something and not everything is part of what is proved above."""
    drawn = [draw_tokens(random.Random(f"{seed}")) for seed in range(12)]
    for name in OPTIONS:
        clipped = [compare(name, OPTIONS[name], batch)["clip_fraction"] for batch in drawn]
        assert 0.02 < sum(clipped) / len(clipped) < 0.9, name
    kept = [
        1 / 1.1 <= math.exp(math.fsum(t.trainer - t.behaviour for t in own) / len(own)) <= 1.1
        for batch in drawn
        for own in [[t for t in batch if t.sample == s] for s in {t.sample for t in batch}]
    ]
    assert 0.1 < sum(kept) / len(kept) < 0.9
    capped = [t.trainer - t.behaviour > math.log(1.2) for batch in drawn for t in batch]
    assert 0.1 < sum(capped) / len(capped) < 0.9


def test_ppo_metrics_of_the_critic() -> None:
    given, scores = tensors(draw_tokens(random.Random(3)), 40, 6)
    _, metrics = load_algorithm("ppo")(value_clip=0).loss(given, scores)
    values, returns = scores.values_N.tolist(), given.returns_N.tolist()
    assert metrics["value"].item() == pytest.approx(sum(values) / 40)
    errors = [v - r for v, r in zip(values, returns, strict=True)]
    assert metrics["value_error"].item() == pytest.approx(sum(map(abs, errors)) / 40)
    assert metrics["value_loss"].item() == pytest.approx(sum(e * e for e in errors) / 80)


def on_policy(batch: Sequence[Token]) -> list[Token]:
    return [dataclasses.replace(t, new=t.behaviour) for t in batch]


@pytest.mark.parametrize("gate", ["action", "response"])
@pytest.mark.parametrize("name", OPTIONS)
def test_llds_is_nothing_on_the_first_update(name: str, gate: str) -> None:
    batch = on_policy(draw_tokens(random.Random(11)))
    results = []
    for weight in (0.0, 1.0):
        given, scores = tensors(batch, len(batch), 5)
        given = dataclasses.replace(given, trainer_N=torch.zeros(0))
        loss, metrics = load_algorithm(name)(llds=weight, llds_gate=gate).loss(given, scores)
        loss.backward()
        results.append((loss.item(), scores.logprobs_N.grad.tolist()))  # type: ignore[union-attr]
        assert metrics["llds"].item() == 0.0
    assert results[0] == results[1]


@pytest.mark.parametrize("gate", ["action", "response"])
@FEW
@given(seed=st.integers(0, 2**32))
def test_llds_pulls_only_at_good_tokens_that_fell_in_parts_that_fell(gate: str, seed: int) -> None:
    batch = draw_tokens(random.Random(seed))
    gradients = []
    for weight in (0.0, 1.0):
        given, scores = tensors(batch, len(batch), 5)
        given = dataclasses.replace(given, trainer_N=torch.zeros(0))
        load_algorithm("grpo")(llds=weight, llds_gate=gate).loss(given, scores)[0].backward()
        gradients.append(scores.logprobs_N.grad)
    pull = gradients[1] - gradients[0]
    for u, t in enumerate(batch):
        part = [v for v in batch if (v.action == t.action if gate == "action" else v.sample == t.sample)]
        fell = sum(v.behaviour - v.new for v in part) > 0
        pulled = t.advantage >= 0 and fell and t.new < t.behaviour
        assert pull[u].item() == pytest.approx(-t.weight / len(batch) if pulled else 0.0, abs=1e-12)


def test_a_token_whose_likelihood_stayed_is_not_pulled_by_the_fall_of_its_neighbours() -> None:
    """A token that the policy is certain of stays as it is: log-probability 0, before and after."""
    batch = tokens([0.0, 0.0], [-1.0, -0.5], samples=[0, 0], actions=[0, 0])
    scores = output([-1.5, -0.5])
    load_algorithm("grpo")(llds=1.0).loss(batch, scores)[0].backward()
    assert scores.logprobs_N.grad.tolist() == [-0.5, 0.0]  # type: ignore[union-attr]


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("aggregate", ["token", "sequence", "fixed"])
def test_shares_of_micro_batches_and_ranks_add_up(name: str, aggregate: str) -> None:
    """Samples divided in any way, each part told the totals of the whole: the same loss, gradient and metrics."""
    options = {**OPTIONS[name], **REGULARIZED, "aggregate": aggregate}
    algorithm = load_algorithm(name)(**options)
    for seed in range(6):
        rng = random.Random(f"{seed}")
        batch = draw_tokens(rng)
        samples = sorted({t.sample for t in batch})
        rank = {sample: rng.randrange(3) for sample in samples}
        totals = len(batch), len(samples)
        given, scores = tensors(batch, *totals)
        whole, metrics = algorithm.loss(dataclasses.replace(given, trainer_N=torch.zeros(0)), scores)
        whole.backward()
        added, combined, gradient = 0.0, dict[str, float](), {}
        for number in range(3):
            here = [u for u, t in enumerate(batch) if rank[t.sample] == number]
            if not here:
                continue
            part, own = tensors([batch[u] for u in here], *totals)
            loss, shares = algorithm.loss(dataclasses.replace(part, trainer_N=torch.zeros(0)), own)
            loss.backward()
            added += loss.item()
            gradient |= dict(zip(here, own.logprobs_N.grad.tolist(), strict=True))  # type: ignore[union-attr]
            for key, value in shares.items():
                old = combined.get(key, 0.0)
                combined[key] = max(old, value.item()) if key.endswith("_max") else old + value.item()
        assert added == pytest.approx(whole.item(), rel=1e-9, abs=1e-12)
        expected = scores.logprobs_N.grad.tolist()  # type: ignore[union-attr]
        assert [gradient[u] for u in range(len(batch))] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert combined == pytest.approx({key: value.item() for key, value in metrics.items()}, rel=1e-5, abs=1e-6)
