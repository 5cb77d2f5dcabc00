"""The gradient of a whole update: right, and the same however the step is packed, split or ordered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policies import SAMPLES, STEADY, VOCABULARY, advantages, model, one_by_one, sample, trained
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from searchr1.algorithms.base import Algorithm
from searchr1.algorithms.grpo import GRPO
from searchr1.algorithms.reinforce import Reinforce
from searchr1.training.logprobs import policy_logprobs
from searchr1.training.packing import PackedBatch, pack
from searchr1.types import Sample

FULL = GRPO(clip_low=0.2, clip_high=0.3, kl="k3", kl_coefficient=0.1, entropy_bonus=0.01)


def loss_and_gradient(
    policy: PreTrainedModel, batches: Sequence[PackedBatch], algorithm: Algorithm
) -> tuple[float, dict[str, float], Tensor]:
    policy.zero_grad()
    total, sums = 0.0, dict[str, float]()
    for batch in batches:
        loss, metrics = algorithm.loss(batch, policy_logprobs(policy, batch, chunk_tokens=7))
        loss.backward()
        total += loss.item()
        for name, value in metrics.items():
            old = sums.get(name, 0.0)
            sums[name] = max(old, value.item()) if name.endswith("_max") else old + value.item()
    gradient = torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])
    return total, sums, gradient.clone()


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


def tiny_double() -> PreTrainedModel:
    """GPT-2: the architecture whose every operation stays in double precision (the others' norms are float32)."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=32, n_embd=8, n_layer=2, n_head=2, initializer_range=0.4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).double().train()


def test_finite_differences_of_the_whole_grpo_loss() -> None:
    policy = tiny_double()
    samples = [sample(n, n, weight=w) for n, w in ((9, 1.0), (5, 0.5), (12, 2.0), (6, 1.0))]
    batches = packed(samples, row_length=16, max_tokens=24)
    assert len(batches) > 1

    def loss() -> float:
        with torch.no_grad():
            shares = [FULL.loss(batch, policy_logprobs(policy, batch))[0].item() for batch in batches]
        return math.fsum(shares)

    _, metrics, gradient = loss_and_gradient(policy, batches, FULL)
    assert 0.1 < metrics["clip_fraction"] < 0.9  # both branches of the surrogate are there
    parameters = list(policy.parameters())
    generator = torch.Generator().manual_seed(1)
    step = 1e-6
    for _ in range(8):
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
