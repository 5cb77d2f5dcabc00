"""The gradient of a whole update: right, and the same however the step is packed, split or ordered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policies import SAMPLES, STEADY, VOCABULARY, advantages, model, one_by_one, sample, trained
from whole_updates import critic_of, loss_and_gradient, per_token, step_of, tiny_double

from searchr1.algorithms import load_algorithm
from searchr1.algorithms.base import Algorithm
from searchr1.algorithms.grpo import GRPO
from searchr1.algorithms.reinforce import Reinforce
from searchr1.training.logprobs import policy_logprobs
from searchr1.training.packing import PackedBatch, pack
from searchr1.types import Sample

FULL = GRPO(clip_low=0.2, clip_high=0.3, kl="k3", kl_coefficient=0.1, entropy_bonus=0.01)


def packed(samples: Sequence[Sample], row_length: int = 0, max_tokens: int = 4096) -> list[PackedBatch]:
    values = advantages(samples)
    return pack(samples, advantages_N=values, reference_N=values - 3, row_length=row_length, max_tokens=max_tokens)


@pytest.mark.parametrize("algorithm", [FULL, Reinforce(kl="k2")])
def test_matches_a_loop_over_samples_with_full_logits(algorithm: Algorithm) -> None:
    """Against gradients of each sample alone, through the model's own forward and a loss written out here."""
    policy = model()
    samples = [sample(n, n, weight=w) for n, w in ((9, 1.0), (4, 0.5), (12, 2.0), (6, 1.0))]
    _, _, ours = loss_and_gradient(policy, packed(samples, row_length=16, max_tokens=24), algorithm)

    policy.zero_grad()
    new, entropy = one_by_one(policy, samples)
    values = advantages(samples)
    old = torch.tensor([p for s in samples for p, m in zip(s.logprobs, s.mask, strict=True) if m])
    weights = torch.tensor([s.weight for s in samples for m in s.mask if m])
    ratio = (new - old).exp()
    if isinstance(algorithm, GRPO):
        d = values - 3 - new
        terms = -torch.minimum(ratio * values, ratio.clamp(0.8, 1.3) * values) + 0.1 * (d.exp() - 1 - d)
        terms = terms - 0.01 * entropy
    else:
        terms = -ratio.detach().clamp(max=2.0) * values * new + 0.001 * (values - 3 - new) ** 2 / 2
    (terms * weights).sum().div(trained(samples)).backward()
    theirs = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@STEADY
@given(SAMPLES, st.integers(0, 64), st.integers(13, 80))
def test_packing_does_not_change_loss_metrics_or_gradient(
    samples: list[Sample], row_length: int, max_tokens: int
) -> None:
    policy = model()
    loss, metrics, gradient = loss_and_gradient(policy, packed(samples), FULL)
    again, repeated, other = loss_and_gradient(policy, packed(samples, row_length, max_tokens), FULL)
    assert again == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert repeated == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)


@STEADY
@given(SAMPLES, st.randoms())
def test_the_order_of_samples_does_not_matter(samples: list[Sample], rng: object) -> None:
    policy = model()
    order = list(range(len(samples)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    starts = [trained(samples[:i]) for i in range(len(samples) + 1)]
    values = advantages(samples)
    shuffled = torch.cat([values[starts[i] : starts[i + 1]] for i in order])
    batches = pack([samples[i] for i in order], advantages_N=shuffled, reference_N=shuffled - 3, max_tokens=40)
    loss, metrics, gradient = loss_and_gradient(policy, packed(samples, max_tokens=40), FULL)
    again, repeated, other = loss_and_gradient(policy, batches, FULL)
    assert again == pytest.approx(loss, rel=1e-4, abs=1e-5)
    assert repeated == pytest.approx(metrics, rel=1e-4, abs=1e-5)
    torch.testing.assert_close(other, gradient, rtol=1e-3, atol=1e-5)


@STEADY
@given(st.lists(st.integers(0, VOCABULARY - 1), min_size=3, max_size=3), st.floats(-9, 0))
def test_an_observation_acts_only_as_context(observation: list[int], junk: float) -> None:
    """Its ids are never targets, its log-probabilities never read, and what follows the last policy token is gone."""
    mask = (False, False, True, False, False, False, True, False)
    tokens = (1, 2, 3, *observation, 4, 5)
    clean = Sample(tokens, mask, tuple(-1.0 if m else 0.0 for m in mask), 1.0, "q")
    dirty = Sample((*tokens[:-1], observation[0]), mask, tuple(-1.0 if m else junk for m in mask), 1.0, "q")
    [first], [second] = packed([clean]), packed([dirty])
    assert first.targets_N.tolist() == [3, 4]
    assert (first.index_N + 1).tolist() == [2, 6]
    policy = model()
    a, b = loss_and_gradient(policy, [first], FULL), loss_and_gradient(policy, [second], FULL)
    assert a[:2] == b[:2]
    assert torch.equal(a[2], b[2])


def test_nothing_after_the_observation_reaches_back_to_tokens_before_it() -> None:
    """With advantage on the token before the observation alone, the observation's embeddings get no gradient."""
    policy = model("llama")
    mask = (False, True, False, False, True)
    s = Sample((1, 2, 20, 21, 4), mask, (0.0, -1.0, 0.0, 0.0, -1.0), 1.0, "q")
    batches = pack([s], advantages_N=torch.tensor([1.0, 0.0]))
    loss_and_gradient(policy, batches, GRPO())
    rows = policy.get_input_embeddings().weight.grad
    assert rows[1].abs().sum() > 0
    assert rows[[2, 20, 21]].abs().sum() == 0
    # and as targets of the language-model head observations are just "not the sampled token"
    batches = pack([s], advantages_N=torch.tensor([0.0, 1.0]))
    loss_and_gradient(policy, batches, GRPO())
    assert policy.get_input_embeddings().weight.grad[[20, 21]].abs().sum() > 0  # context of the second token


def wide(name: str, **options: Any) -> Any:
    """The algorithm with bounds that some of the tokens below pass and some do not."""
    return load_algorithm(name)(**{"clip_low": 0.5, "clip_high": 1.0, **options})


SMOOTH: dict[str, Any] = {
    "grpo with k3": FULL,
    "grpo with k2, entropy and llds": wide("grpo", kl="k2", kl_coefficient=0.2, entropy_bonus=0.05, llds=0.3),
    "grpo with llds of responses": wide("grpo", llds=0.3, llds_gate="response", aggregate="sequence"),
    "grpo with dual clip": wide("grpo", dual_clip=1.5),
    "grpo corrected": wide("grpo", correction="token", correction_cap=1.2),
    "dr_grpo": wide("dr_grpo", fixed_tokens=9),
    "gspo": wide("gspo", entropy_bonus=0.05),
    "ppo": wide("ppo", kl="k3", kl_in="loss", kl_coefficient=0.2, entropy_bonus=0.05, value_coefficient=0.7),
    "ppo without value clip": wide("ppo", value_clip=0.0),
}
"""Losses without a stop-gradient (those of CISPO and REINFORCE have one: see the losses by hand)."""


CASES = [(case, "separate") for case in SMOOTH] + [(case, "shared") for case in SMOOTH if SMOOTH[case].needs.values]


@pytest.mark.parametrize(("case", "backbone"), CASES)
def test_finite_differences_of_the_whole_loss(case: str, backbone: str) -> None:
    """Away from the policy that sampled, over several micro-batches, in random directions of all parameters."""
    algorithm = SMOOTH[case]
    policy = tiny_double()
    critic = critic_of(policy, shared=backbone == "shared") if algorithm.needs.values else None
    samples = [sample(n, n, weight=w) for n, w in ((9, 1.0), (5, 0.5), (12, 2.0), (6, 1.0))]
    batches = step_of(samples, per_token(samples), row_length=16, max_tokens=24)
    if algorithm.correction == "off":
        batches = [replace(batch, trainer_N=torch.zeros(0)) for batch in batches]
    assert len(batches) > 1

    def loss() -> float:
        with torch.no_grad():
            outputs = [
                policy_logprobs(policy, batch, values=None if critic is None else partial(critic, batch))
                for batch in batches
            ]
            return math.fsum(algorithm.loss(b, o)[0].item() for b, o in zip(batches, outputs, strict=True))

    _, metrics, gradient = loss_and_gradient(policy, batches, algorithm, critic)
    assert 0.1 < metrics["clip_fraction"] < 0.9  # both branches of the surrogate are there
    assert metrics["llds"] > 0
    trained_parameters = [*policy.parameters(), *([] if critic is None else critic.parameters())]
    parameters = [p for p in trained_parameters if p.grad is not None]
    generator = torch.Generator().manual_seed(1)
    step = 1e-6
    for _ in range(6):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(d, alpha=sign * step)
                ends.append(loss())
                for p, d in zip(parameters, direction, strict=True):
                    p.add_(d, alpha=-sign * step)
        expected = gradient @ torch.cat([d.flatten() for d in direction])
        assert (ends[0] - ends[1]) / (2 * step) == pytest.approx(expected.item(), rel=1e-5, abs=1e-7)


def test_a_separate_critic_and_the_policy_do_not_touch_each_other() -> None:
    """The value loss has no gradient for the policy, and the policy's loss none for the critic."""
    samples = [sample(n, n) for n in (9, 5)]
    batches = step_of(samples, per_token(samples))
    gradients = {}
    for coefficient in (0.0, 1.0):
        policy = tiny_double()
        critic = critic_of(policy)
        loss_and_gradient(policy, batches, wide("ppo", value_coefficient=coefficient), critic)
        gradients[coefficient] = [
            torch.cat([p.grad.flatten() for p in part.parameters() if p.grad is not None]) for part in (policy, critic)
        ]
    assert torch.equal(gradients[0.0][0], gradients[1.0][0])
    assert gradients[0.0][1].abs().max() == 0
    assert gradients[1.0][1].abs().max() > 0


def test_a_shared_backbone_feels_both() -> None:
    samples = [sample(n, n) for n in (9, 5)]
    batches = step_of(samples, per_token(samples))
    gradients = []
    for coefficient in (0.0, 1.0):
        policy = tiny_double()
        algorithm = wide("ppo", value_coefficient=coefficient)
        loss_and_gradient(policy, batches, algorithm, critic_of(policy, shared=True))
        gradients.append(torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None]))
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3
