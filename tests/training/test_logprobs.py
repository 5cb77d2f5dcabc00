"""Packed scores are the model's own, whatever stands beside a sample in its row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_policies import MODELS, SAMPLES, STEADY, VOCABULARY, model, one_by_one, sample

from searchr1.errors import UserError
from searchr1.training.logprobs import block_mask, check_head, head_logits, policy_logprobs
from searchr1.training.packing import pack
from searchr1.types import Sample

MANY = [sample(n, n) for n in (12, 5, 9, 2, 7, 12, 3, 8)]


def test_block_mask() -> None:
    assert block_mask(torch.tensor([[4, 4, 2, -1]]))[0, 0].int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 1],  # padding looks at itself: a row of False alone would be NaN
    ]


@pytest.mark.parametrize(
    ("kind", "attention"),
    [
        ("qwen2", "sdpa"),
        ("llama", "sdpa"),
        ("qwen3", "sdpa"),
        ("granite", "sdpa"),
        ("qwen2", "eager"),
        ("gemma2", "eager"),
    ],
)
def test_packed_scores_equal_one_by_one(kind: str, attention: str) -> None:
    policy = model(kind, attn_implementation=attention)
    with torch.no_grad():
        expected, entropies = one_by_one(policy, MANY)
        for batch in pack(MANY, row_length=24, max_tokens=48):
            scores = policy_logprobs(policy, batch)
            torch.testing.assert_close(scores.logprobs_N, expected[batch.flat_N], rtol=0, atol=1e-5)
            torch.testing.assert_close(scores.entropy_N, entropies[batch.flat_N], rtol=0, atol=1e-5)


def test_training_mode_with_gradients_scores_the_same() -> None:
    policy = model().train()
    [batch] = pack(MANY, row_length=24)
    expected, _ = one_by_one(policy, MANY)
    scores = policy_logprobs(policy, batch, chunk_tokens=3)
    assert scores.logprobs_N.requires_grad
    torch.testing.assert_close(scores.logprobs_N, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_temperature_is_that_of_the_sampling_distribution(temperature: float) -> None:
    policy = model()
    [batch] = pack(MANY, row_length=24)
    with torch.no_grad():
        expected, entropies = one_by_one(policy, MANY, temperature)
        scores = policy_logprobs(policy, batch, temperature=temperature)
    torch.testing.assert_close(scores.logprobs_N, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(scores.entropy_N, entropies, rtol=0, atol=1e-5)


def test_temperature_zero_is_refused() -> None:
    [batch] = pack(MANY)
    with pytest.raises(UserError, match="temperature: training needs a number above 0, got 0"):
        policy_logprobs(model(), batch, temperature=0)


@STEADY
@given(SAMPLES, st.integers(0, VOCABULARY - 1))
def test_neighbours_do_not_leak(samples: list[Sample], token: int) -> None:
    """Another sample's tokens, whatever they are, change no bit of the first sample's log-probabilities."""
    policy = model()
    mine = sample(6, 0)
    others = [Sample((token,) * len(s.token_ids), s.mask, s.logprobs, s.reward, s.group) for s in samples]
    with torch.no_grad():
        [before] = pack([mine, *samples], row_length=128)
        [after] = pack([mine, *others], row_length=128)
        own = before.sample_N == 0
        first, second = (policy_logprobs(policy, batch).logprobs_N[own] for batch in (before, after))
    assert torch.equal(first, second)


def test_logits_exist_for_one_chunk_at_a_time() -> None:
    policy = model("qwen3")
    [batch] = pack(MANY, row_length=64)
    tokens, chunk = len(batch.targets_N), 5
    assert tokens > 4 * chunk
    sizes: list[int] = []
    saved: list[int] = []

    def record(_module: Any, _inputs: Any, logits: torch.Tensor) -> None:
        sizes.append(logits.shape[0])

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(tensor.shape[0] if tensor.ndim == 2 and tensor.shape[-1] == VOCABULARY else 0)
        return tensor

    handle = policy.get_output_embeddings().register_forward_hook(record)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        scores = policy_logprobs(policy, batch, chunk_tokens=chunk)
    assert max(saved) == 0  # nothing of vocabulary width waits for the backward pass
    chunks = -(-tokens // chunk)
    assert len(sizes) == chunks
    scores.logprobs_N.sum().backward()
    handle.remove()
    assert len(sizes) == 2 * chunks  # each chunk once more, in the backward pass
    assert max(sizes) == chunk


def test_entropy_and_values_only_when_asked_for() -> None:
    policy = model()
    [batch] = pack(MANY, row_length=64)
    plain = policy_logprobs(policy, batch, with_entropy=False)
    assert plain.entropy_N.numel() == plain.values_N.numel() == 0
    head = torch.nn.Linear(16, 1)
    scores = policy_logprobs(policy, batch, values=head)
    assert scores.values_N.shape == scores.logprobs_N.shape
    states = policy.get_decoder()(torch.tensor([MANY[0].token_ids]), use_cache=False).last_hidden_state[0]
    first = MANY[0].mask.index(True)
    assert scores.values_N[0].item() == pytest.approx(head(states[first - 1]).item(), abs=1e-5)


@pytest.mark.parametrize("kind", MODELS)
def test_head_is_the_models_own(kind: str) -> None:
    policy = model(kind)
    check_head(policy)
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    hidden = policy.get_decoder()(ids).last_hidden_state[0]
    torch.testing.assert_close(head_logits(policy, hidden), policy(ids).logits[0], rtol=1e-6, atol=1e-6)


def test_a_head_that_does_more_is_refused() -> None:
    policy = model("granite")
    policy.config.logits_scaling = 1.0
    policy.forward = lambda input_ids, use_cache: type(  # type: ignore[method-assign,assignment]
        "Output", (), {"logits": head_logits(policy, policy.get_decoder()(input_ids).last_hidden_state) + 1}
    )()
    with pytest.raises(UserError, match=r"GraniteForCausalLM: its logits are not head\(hidden states\)"):
        check_head(policy)


def test_a_sample_longer_than_the_sliding_window_is_refused() -> None:
    policy = model(use_sliding_window=True, sliding_window=6, max_window_layers=0)
    [short] = pack([sample(6, 1)])
    policy_logprobs(policy, short)
    [long] = pack([Sample(tuple(range(8)), (False,) * 7 + (True,), (0.0,) * 7 + (-1.0,), 1.0, "q")])
    with pytest.raises(UserError, match="a sample of 7 tokens does not fit the model's sliding attention window of 6"):
        policy_logprobs(policy, long)


def test_attention_that_would_ignore_the_mask_is_refused() -> None:
    policy = model()
    policy.config._attn_implementation_internal = "flash_attention_2"
    with pytest.raises(UserError, match="for 'sdpa' or 'eager' attention; the model has 'flash_attention_2'"):
        policy_logprobs(policy, pack(MANY)[0])


def test_bfloat16_decoder_keeps_a_float32_head() -> None:
    policy = model()
    [batch] = pack(MANY, row_length=64)
    with torch.no_grad():
        exact = policy_logprobs(policy, batch).logprobs_N
        with torch.autocast("cpu", dtype=torch.bfloat16):
            scores = policy_logprobs(policy, batch)
    assert scores.logprobs_N.dtype == torch.float32
    difference = (scores.logprobs_N - exact).abs().max()
    assert 0 < difference < 0.1
