"""Samples end to end, each with an attention of its own: the same as rows under a mask, and as each sample alone."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given
from small_policies import MODELS, SAMPLES, STEADY, advantages, model, one_by_one, sample
from torch import Tensor
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, PreTrainedModel

from searchr1.algorithms.grpo import GRPO
from searchr1.training.attention import NAME, packed_states, separate_samples, separates
from searchr1.training.logprobs import block_mask, policy_logprobs
from searchr1.training.optimization import Optimization
from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.types import Sample

MANY = [sample(n, n) for n in (12, 5, 9, 2, 7, 12, 3, 8)]
SDPA = [kind for kind in MODELS if kind != "gemma2"]  # soft-capped attention needs 'eager'


def separate(kind: str = "qwen2", **changes: int) -> PreTrainedModel:
    policy = model(kind, **changes)
    assert separate_samples(policy)
    return policy


@pytest.mark.parametrize("kind", SDPA)
def test_scores_are_those_of_each_sample_alone(kind: str) -> None:
    expected, entropies = one_by_one(model(kind), MANY)
    policy = separate(kind)
    with torch.no_grad():
        for batch in pack(MANY, row_length=24, max_tokens=48):
            scores = policy_logprobs(policy, batch)
            torch.testing.assert_close(scores.logprobs_N, expected[batch.flat_N], rtol=0, atol=1e-5)
            torch.testing.assert_close(scores.entropy_N, entropies[batch.flat_N], rtol=0, atol=1e-5)


@STEADY
@given(SAMPLES)
def test_gradients_are_those_of_rows_under_a_mask(samples: list[Sample]) -> None:
    def gradient(policy: PreTrainedModel) -> Tensor:
        for batch in pack(samples, advantages_N=advantages(samples), max_tokens=40):
            GRPO(entropy_bonus=0.1).loss(batch, policy_logprobs(policy, batch))[0].backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    torch.testing.assert_close(gradient(separate()), gradient(model()), rtol=1e-3, atol=1e-5)


def test_padding_is_left_out_and_no_mask_is_made() -> None:
    policy = separate()
    widths: list[int] = []
    policy.get_input_embeddings().register_forward_hook(lambda _, ids, __: widths.append(ids[0].numel()))
    [batch] = pack([sample(12, 1), sample(7, 1)])
    assert batch.input_ids.numel() > int((batch.segment_ids >= 0).sum())
    policy_logprobs(policy, batch)
    assert widths == [int((batch.segment_ids >= 0).sum())]


@STEADY
@given(SAMPLES)
def test_neighbours_change_no_bit(samples: list[Sample]) -> None:
    """Where a sample lies may change how a matrix product adds up; what its neighbours say may not."""
    policy = separate()
    mine = sample(6, 0)
    others = [Sample((7,) * len(s.token_ids), s.mask, s.logprobs, s.reward, s.group) for s in samples]
    with torch.no_grad():
        [before], [after] = (pack([mine, *rest], row_length=128) for rest in (samples, others))
        own = before.sample_N == 0
        first, second = (policy_logprobs(policy, batch).logprobs_N[own] for batch in (before, after))
    assert torch.equal(first, second)


def test_checkpointed_layers_are_recomputed_with_the_same_attention() -> None:
    def gradient(checkpointing: bool) -> Tensor:
        policy = Policy(model(), Optimization(gradient_checkpointing=checkpointing)).model
        assert separates(policy)
        [batch] = pack(MANY)
        policy_logprobs(policy, batch).logprobs_N.sum().backward()
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    assert torch.equal(gradient(True), gradient(False))


def test_any_other_call_is_as_before() -> None:
    """Plain rows, padded rows, a mask of one's own, generation: bit for bit what sdpa gives."""
    plain, policy = model(), separate()
    ids = torch.arange(24).reshape(2, 12) % 31
    padding = torch.ones_like(ids)
    padding[1, :4] = 0
    own = block_mask(torch.tensor([[0] * 5 + [1] * 7, [2] * 12]))
    with torch.no_grad():
        for attention_mask in (None, padding, own):
            first, second = (m(input_ids=ids, attention_mask=attention_mask).logits for m in (plain, policy))
            assert torch.equal(first, second)
        arguments = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 0, "attention_mask": padding}
        assert torch.equal(plain.generate(ids, **arguments), policy.generate(ids, **arguments))


def test_bfloat16_under_autocast() -> None:
    policy = separate()
    [batch] = pack(MANY)
    with torch.no_grad():
        exact = policy_logprobs(policy, batch).logprobs_N
        with torch.autocast("cpu", dtype=torch.bfloat16):
            low = policy_logprobs(policy, batch).logprobs_N
    assert low.dtype == torch.float32
    assert 0 < (low - exact).abs().max() < 0.1


def test_eager_models_keep_their_mask() -> None:
    policy = model("gemma2", attn_implementation="eager")
    assert not separate_samples(policy)
    assert policy.config._attn_implementation == "eager"


class _Deaf(GPT2LMHeadModel):  # type: ignore[misc]
    """A model that does not pass keywords on to its attention."""

    def get_decoder(self) -> object:
        decoder = super().get_decoder()

        def forward(sample_lengths: object = None, **arguments: object) -> object:
            return decoder(**arguments)

        return forward


def test_a_model_that_does_not_pass_the_lengths_on_keeps_its_mask() -> None:
    config = GPT2Config(vocab_size=31, n_positions=32, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0)
    deaf = _Deaf(config).eval()
    assert not separate_samples(deaf)
    assert deaf.config._attn_implementation == "sdpa"


def test_copies_and_saved_models(tmp_path: object) -> None:
    """A critic's copy separates too; a folder holds an ordinary model."""
    policy = Policy(model()).model
    assert separates(policy)
    assert separates(copy.deepcopy(policy))
    policy.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config._attn_implementation == "sdpa"
    assert NAME not in loaded.config.to_json_string()


def test_states_of_two_samples() -> None:
    policy = separate()
    ids = torch.tensor([1, 2, 3, 4, 5])
    with torch.no_grad():
        together = packed_states(policy, ids, torch.tensor([0, 1, 0, 1, 2]), (2, 3))
        alone = [policy.get_decoder()(input_ids=part[None]).last_hidden_state for part in ids.split((2, 3))]
    torch.testing.assert_close(together, torch.cat(alone, dim=1), rtol=0, atol=1e-5)
