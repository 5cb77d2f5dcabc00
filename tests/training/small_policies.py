"""Models of a few thousand weights and samples of a few tokens, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from searchr1.types import Sample

VOCABULARY = 31
STEADY = settings(deadline=None, derandomize=True, max_examples=15)

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 128,
}
MODELS: dict[str, tuple[type[Any], type[Any], dict[str, Any]]] = {
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True}),
    "llama": (LlamaConfig, LlamaForCausalLM, {}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, {"head_dim": 8}),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {"head_dim": 8, "final_logit_softcapping": 0.1}),
    "granite": (GraniteConfig, GraniteForCausalLM, {"logits_scaling": 3.0}),
}


def model(kind: str = "qwen2", seed: int = 0, **changes: Any) -> PreTrainedModel:
    """A random model whose weights are large enough for its distributions to be far from uniform."""
    config, architecture, extra = MODELS[kind]
    torch.manual_seed(seed)
    made: PreTrainedModel = architecture(config(**{**_SHAPE, **extra, "initializer_range": 0.3, **changes}))
    return made.eval()


def sample(length: int, seed: int, *, reward: float = 1.0, group: str = "q", weight: float = 1.0) -> Sample:
    """Random ids; every token but the first is trained with probability 1/2, at least one."""
    rng = random.Random(f"{length}/{seed}")
    mask = [False, *(rng.random() < 0.5 for _ in range(length - 1))]
    mask[rng.randrange(1, length)] = True
    return Sample(
        token_ids=tuple(rng.randrange(VOCABULARY) for _ in range(length)),
        mask=tuple(mask),
        logprobs=tuple(round(rng.uniform(-4, -1), 3) if m else 0.0 for m in mask),
        reward=reward,
        group=group,
        weight=weight,
    )


SAMPLES = st.lists(st.tuples(st.integers(2, 14), st.integers(0, 9)), min_size=1, max_size=6).map(
    lambda specs: [sample(length, seed) for length, seed in specs]
)


def trained(samples: Sequence[Sample]) -> int:
    return sum(sum(s.mask) for s in samples)


def advantages(samples: Sequence[Sample]) -> Tensor:
    """A different advantage for every trained token."""
    return torch.linspace(-1.5, 2.0, trained(samples))


def one_by_one(policy: PreTrainedModel, samples: Sequence[Sample], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies [N] from the model's own logits, each sample alone: the slow, obvious way."""
    logprobs, entropies = [], []
    for s in samples:
        logits = policy(input_ids=torch.tensor([s.token_ids]), use_cache=False).logits[0] / temperature
        table = torch.log_softmax(logits, dim=-1)
        for place, is_trained in enumerate(s.mask):
            if is_trained:
                logprobs.append(table[place - 1, s.token_ids[place]])
                entropies.append(-(table[place - 1].exp() * table[place - 1]).sum())
    return torch.stack(logprobs), torch.stack(entropies)
