"""What the policy says of the trained tokens: log-probabilities, entropies and values, with gradients.

The decoder runs over samples end to end, each with an attention of its own (``attention``), or where the model does
not allow that over packed rows under a block-diagonal causal mask. Only the hidden states that predict a trained token
go on to the output head, in chunks whose logits are recomputed in the backward pass (``head``). So logits over the
vocabulary exist for one chunk at a time, however long the trajectories are.

Log-probabilities are those of the softmax at the sampling temperature. A distribution cut by top-p is another one,
and a ratio between the two is not an importance ratio: train with ``top_p = 1``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from searchr1.errors import UserError
from searchr1.training.attention import packed_states, separates
from searchr1.training.head import linear_scores
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
    chunk_tokens: int = 256,
    with_entropy: bool = True,
    values: Callable[[Tensor], Tensor] | None = None,
) -> TokenScores:
    """Score ``packed.targets_N`` with ``model`` (a Hugging Face causal language model on the batch's device).

    ``values`` maps the hidden states [N, H] that precede the trained tokens to [N] or [N, 1] (a value head).
    Raises ``UserError`` for a temperature that is not positive, and for a sample longer than a sliding window.
    """
    if not temperature > 0:
        raise UserError(f"temperature: training needs a number above 0, got {temperature} (greedy has no gradient)")
    hidden_NH = hidden_states(model, packed)
    score = _plain_scores if _head_is_plain(model) else _any_scores
    logprobs_N, entropy_N = score(model, hidden_NH, packed.targets_N, temperature, chunk_tokens, with_entropy)
    return TokenScores(
        logprobs_N=logprobs_N,
        entropy_N=entropy_N,
        values_N=values(hidden_NH).reshape(-1) if values is not None else hidden_NH.new_zeros(0),
    )


def _plain_scores(
    model: PreTrainedModel, hidden_NH: Tensor, targets_N: Tensor, temperature: float, chunk: int, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies under a head that is one matrix, times a number."""
    weight_VH = _untyped(model).get_output_embeddings().weight
    scale = _head_scale(model.config) / temperature
    reduced = torch.is_autocast_enabled(hidden_NH.device.type)
    with torch.autocast(hidden_NH.device.type, enabled=False):
        return linear_scores(
            hidden_NH.to(weight_VH.dtype),
            weight_VH,
            targets_N,
            scale=scale,
            chunk_tokens=chunk,
            with_entropy=with_entropy,
            reduced=reduced,
        )


def _any_scores(
    model: PreTrainedModel, hidden_NH: Tensor, targets_N: Tensor, temperature: float, chunk: int, with_entropy: bool
) -> tuple[Tensor, Tensor]:
    """The same under any head, differentiated by autograd, which keeps more tensors of a chunk's size at a time."""

    def score(hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits = head_logits(model, hidden) / temperature
        normaliser = logits.logsumexp(-1)
        logprobs = logits.gather(-1, targets[:, None]).squeeze(-1) - normaliser
        if not with_entropy:
            return logprobs, logprobs.new_zeros(0)
        return logprobs, normaliser - ((logits - normaliser[:, None]).exp() * logits).sum(-1)

    chunks = zip(torch.split(hidden_NH, chunk), torch.split(targets_N, chunk), strict=True)
    if torch.is_grad_enabled():
        scored = [checkpoint(score, h, t, use_reentrant=False, preserve_rng_state=False) for h, t in chunks]
    else:
        scored = [score(h, t) for h, t in chunks]
    return torch.cat([logprobs for logprobs, _ in scored]), torch.cat([entropy for _, entropy in scored])


def _head_is_plain(model: PreTrainedModel) -> bool:
    """Whether the head is one float32 or float64 matrix and nothing watches its calls, as sharding of weights does."""
    head = _untyped(model).get_output_embeddings()
    return (
        type(head) is torch.nn.Linear
        and head.bias is None
        and head.weight.dtype in (torch.float32, torch.float64)
        and not head._forward_hooks
        and not head._forward_pre_hooks
        and not getattr(model.config, "final_logit_softcapping", None)
    )


def _head_scale(config: Any) -> float:
    """The number that a model multiplies its logits by (Cohere), or divides them by (Granite)."""
    return (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)


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
    logits = logits * _head_scale(config)
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


def hidden_states(model: PreTrainedModel, packed: PackedBatch) -> Tensor:
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
    if separates(model):
        return _separate_states(model, packed)
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
    return predicting(states, packed)


def _separate_states(model: PreTrainedModel, packed: PackedBatch) -> Tensor:
    """The same without rows: the padding left out, samples end to end."""
    real = (packed.segment_ids >= 0).flatten()
    positions = packed.position_ids.flatten()[real]
    starts = [*(positions == 0).nonzero().flatten().tolist(), len(positions)]
    lengths = [end - start for start, end in pairwise(starts)]
    states = packed_states(model, packed.input_ids.flatten()[real], positions, lengths)
    return predicting(states, packed)


def predicting(states: Tensor, packed: PackedBatch) -> Tensor:
    """Those of a decoder's states, padded [R, L, H] or not [1, T, H], that predict a trained token: [N, H]."""
    index_N = packed.index_N
    if states.shape[:2] != packed.input_ids.shape:
        index_N = ((packed.segment_ids >= 0).flatten().cumsum(0) - 1)[index_N]
    return states.flatten(0, 1).index_select(0, index_N)
