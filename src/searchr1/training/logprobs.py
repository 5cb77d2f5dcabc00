"""What the policy says of the trained tokens: log-probabilities, entropies and values, with gradients.

The decoder runs over packed rows under an explicit block-diagonal causal mask; only the hidden states that predict a
trained token go on to the output head, in chunks whose logits are recomputed in the backward pass. So logits over
the vocabulary exist for one chunk at a time, however long the trajectories are.

Log-probabilities are those of the softmax at the sampling temperature. A distribution cut by top-p is another one,
and a ratio between the two is not an importance ratio: train with ``top_p = 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from searchr1.errors import UserError
from searchr1.training.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, eq=False)
class TokenScores:
    """One value per trained token of a micro-batch; tensors that were not asked for have no elements."""

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor


def policy_logprobs(
    model: PreTrainedModel,
    packed: PackedBatch,
    *,
    temperature: float = 1.0,
    chunk_tokens: int = 1024,
    with_entropy: bool = True,
    values: Callable[[Tensor], Tensor] | None = None,
) -> TokenScores:
    """Score ``packed.targets_N`` with ``model`` (a Hugging Face causal language model on the batch's device).

    ``values`` maps the hidden states [N, H] that precede the trained tokens to [N] or [N, 1] (a value head).
    Raises ``UserError`` for a temperature that is not positive, and for a sample longer than a sliding window.
    """
    if not temperature > 0:
        raise UserError(f"temperature: training needs a number above 0, got {temperature} (greedy has no gradient)")
    hidden_NH = _hidden_states(model, packed)

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head_logits(model, hidden) / temperature
        normaliser = logits.logsumexp(-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
        if not with_entropy:
            return logprobs, logprobs.new_zeros(0)
        return logprobs, normaliser - ((logits - normaliser[:, None]).exp() * logits).sum(-1)

    chunks = zip(torch.split(hidden_NH, chunk_tokens), torch.split(packed.targets_N, chunk_tokens), strict=True)
    if torch.is_grad_enabled():
        scored = [checkpoint(score, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in chunks]
    else:
        scored = [score(h, t) for h, t in chunks]
    return TokenScores(
        logprobs_N=torch.cat([logprobs for logprobs, _ in scored]),
        entropy_N=torch.cat([entropy for _, entropy in scored]),
        values_N=values(hidden_NH).reshape(-1) if values is not None else hidden_NH.new_zeros(0),
    )


def block_mask(segment_ids: Tensor) -> Tensor:
    """Who may look at whom: bool [R, 1, L, L], True within one sample and not ahead.

    >>> block_mask(torch.tensor([[0, 0, 1]]))[0, 0].int().tolist()
    [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    """
    length = segment_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=segment_ids.device).tril()
    return ((segment_ids[:, :, None] == segment_ids[:, None, :]) & causal)[:, None]


def head_logits(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    """Logits [N, V] of hidden states [N, H] as the model's own forward makes them, in float32 or wider.

    The head runs in the precision of its weights, also under autocast: log-probabilities of bfloat16 logits are too
    coarse for importance ratios. Honours logit soft-capping (Gemma 2), scale (Cohere) and divisor (Granite).
    """
    head = _untyped(model).get_output_embeddings()
    with torch.autocast(hidden.device.type, enabled=False):
        logits: Tensor = head(hidden.to(head.weight.dtype))
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    config = model.config
    logits = logits * (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    cap = getattr(config, "final_logit_softcapping", None)
    return torch.tanh(logits / cap) * cap if cap else logits


@torch.no_grad()
def check_head(model: PreTrainedModel) -> None:
    """Compare ``head_logits`` with the model's own logits on one short row; call it once for a new model.

    Raises ``UserError`` when they differ: training on them would be training another model.
    """
    ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
    expected = model(input_ids=ids, use_cache=False).logits[0]
    ours = head_logits(model, _untyped(model).get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[0])
    difference = (ours - expected).abs().max().item()
    if not difference <= 1e-3 * max(1.0, expected.abs().max().item()):
        raise UserError(
            f"{type(model).__name__}: its logits are not head(hidden states) (largest difference {difference:.2g}); "
            "expected a causal language model whose head is plain, scaled or soft-capped"
        )


def _untyped(model: PreTrainedModel) -> Any:
    """The same model, for methods that transformers leaves without types."""
    return model


def _hidden_states(model: PreTrainedModel, packed: PackedBatch) -> Tensor:
    """Hidden states [N, H] at the positions that predict a trained token."""
    config = model.config.get_text_config()
    window = getattr(config, "sliding_window", None)
    slides = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
    longest = int(packed.position_ids.max()) + 1
    if window and slides and longest > window:
        raise UserError(
            f"a sample of {longest} tokens does not fit the model's sliding attention window of {window}: shorten the "
            "trajectories, or use a model with full attention"
        )
    mask = block_mask(packed.segment_ids)
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise UserError(
            f"training packs samples under a mask, for 'sdpa' or 'eager' attention; the model has {attention!r}"
        )
    if attention == "eager":  # adds the mask to the scores
        mask = torch.zeros_like(mask, dtype=model.dtype).masked_fill(~mask, torch.finfo(model.dtype).min)
    decoder = _untyped(model).get_decoder()
    # use_cache=False: with a cache a model in eval mode would ignore the packing and mix the samples of a row.
    states: Tensor = decoder(
        input_ids=packed.input_ids, attention_mask=mask, position_ids=packed.position_ids, use_cache=False
    ).last_hidden_state
    return states.flatten(0, 1).index_select(0, packed.index_N)
