"""The loss of a whole optimiser step and its gradient, for every algorithm, on a model in double precision."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from small_policies import VOCABULARY, trained
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedModel

from searchr1.algorithms import load_algorithm
from searchr1.algorithms.base import Algorithm
from searchr1.training.critic import ValueModel
from searchr1.training.logprobs import policy_logprobs
from searchr1.training.packing import PackedBatch, pack
from searchr1.training.samples import gather
from searchr1.types import Sample

_REGULARIZED = {"kl": "k3", "kl_in": "loss", "kl_coefficient": 0.1, "entropy_bonus": 0.01, "llds": 0.2}
OPTIONS: dict[str, dict[str, Any]] = {
    "grpo": {"clip_high": 0.3},
    "dr_grpo": {"fixed_tokens": 5, "correction": "sequence"},
    "dapo": {"dual_clip": 3.0, "llds_gate": "response"},
    "gspo": {"clip_low": 0.2, "clip_high": 0.3},
    "cispo": {"clip_high": 0.3, "aggregate": "sequence"},
    "rloo": {"importance_cap": 1.5},
    "reinforce": {"kl": "k1"},
    "reinforce_pp": {"kl": "k2", "correction": "token", "correction_cap": 1.5},
    "ppo": {"value_coefficient": 0.5},
}
"""Every algorithm with regularisers and bounds that decide something."""


def algorithm(name: str) -> Any:
    return load_algorithm(name)(**_REGULARIZED | OPTIONS[name])


def tiny_double(layers: int = 2) -> PreTrainedModel:
    """GPT-2: the architecture whose every operation stays in double precision (the others' norms are float32)."""
    torch.manual_seed(3)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=64, n_embd=8, n_layer=layers, n_head=2, initializer_range=0.4,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    return GPT2LMHeadModel(config).double().train()


def critic_of(policy: PreTrainedModel, *, shared: bool = False) -> ValueModel:
    """A critic whose head says something: a new one's is zero."""
    critic = ValueModel(policy, shared=shared).double()
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(1))
    return critic


def per_token(samples: Sequence[Sample], seed: int = 0) -> dict[str, Tensor]:
    """Something different for every trained token in each of a batch's tensors; log-probabilities near the sampled."""
    generator = torch.Generator().manual_seed(seed)
    n = trained(samples)
    old = torch.tensor([p for s in samples for p, m in zip(s.logprobs, s.mask, strict=True) if m])
    given = {name: torch.randn(n, generator=generator) for name in ("advantages_N", "returns_N", "values_N")}
    return given | {name: old + 0.3 * torch.randn(n, generator=generator) for name in ("reference_N", "trainer_N")}


def step_of(
    samples: Sequence[Sample], given: dict[str, Tensor], order: Sequence[int] | None = None, **options: Any
) -> list[PackedBatch]:
    """The micro-batches of the samples in ``order`` (default: all as they are)."""
    order = range(len(samples)) if order is None else order
    chosen = {name: gather(samples, values, order) for name, values in given.items()}
    return pack([samples[i] for i in order], **chosen, **options)


def loss_and_gradient(
    policy: PreTrainedModel, batches: Sequence[PackedBatch], algorithm: Algorithm, critic: ValueModel | None = None
) -> tuple[float, dict[str, float], Tensor]:
    """Loss and metrics of a step, combined over its micro-batches, and the gradient by all parameters."""
    parameters = [*policy.parameters(), *([] if critic is None else critic.parameters())]
    for p in parameters:
        p.grad = None
    total, sums = 0.0, dict[str, float]()
    for batch in batches:
        values = None if critic is None else partial(critic, batch)
        loss, metrics = algorithm.loss(batch, policy_logprobs(policy, batch, chunk_tokens=7, values=values))
        loss.backward()
        total += loss.item()
        for name, value in metrics.items():
            old = sums.get(name, 0.0)
            sums[name] = max(old, value.item()) if name.endswith("_max") else old + value.item()
    gradient = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    return total, sums, gradient.clone()
