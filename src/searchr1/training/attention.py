"""Attention within samples that lie end to end: each is a causal attention of its own, and nothing is padded or masked.

A mask over packed rows costs the square of the row, whoever sees whom. Where a model lets its attention be replaced
(transformers' ``AttentionInterface``), `separate_samples` does that, and its decoder can be run by `packed_states`.
Called in any other way the model does what it did before: the replacement hands on to ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAME = "searchr1_samples"
SHORT = 512
"""Samples of fewer tokens are attended to in float32 on a CPU: its bfloat16 kernel takes twice as long for them."""


def separate_samples(model: PreTrainedModel) -> bool:
    """Make `packed_states` possible; whether it is.

    It is tried on two short samples beside each other. A model whose attention is not ``sdpa``, or that answers
    otherwise than for each sample alone (because it does not pass keywords on to its attention), stays as it is.
    """
    if model.config.get_text_config()._attn_implementation != "sdpa":
        return False
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(NAME, _attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    untyped: Any = model
    untyped.set_attn_implementation(NAME)
    if not _separates(model):
        untyped.set_attn_implementation("sdpa")
        return False
    return True


def separates(model: PreTrainedModel) -> bool:
    """Whether `separate_samples` was called for the model, and was possible."""
    return bool(model.config.get_text_config()._attn_implementation == NAME)


def packed_states(model: PreTrainedModel, input_ids: Tensor, position_ids: Tensor, lengths: Sequence[int]) -> Tensor:
    """Hidden states [1, T, H] of samples of ``lengths`` tokens that lie end to end in ``input_ids`` [T]."""
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    # A mask of four dimensions is passed on as it is; without one transformers would build one of [T, T].
    unused = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=input_ids.device)
    # use_cache=False: with a cache a model in eval mode would mix the samples.
    states: Tensor = decoder(
        input_ids=input_ids[None],
        position_ids=position_ids[None],
        attention_mask=unused,
        use_cache=False,
        sample_lengths=tuple(lengths),
    ).last_hidden_state
    return states


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    sample_lengths: tuple[int, ...] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Query [1, heads, T, D] -> [1, T, heads, D]: ``sdpa`` for each sample, or for all when no lengths are given."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if sample_lengths is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    # split, not slices: the gradient of a slice is a tensor of the whole size.
    parts = zip(*(torch.split(states, list(sample_lengths), dim=2) for states in (query, key, value)), strict=True)
    attended = []
    for part in parts:
        q, k, v = map(_widened, part)
        attended.append(sdpa_attention_forward(module, q, k, v, None, **options)[0].to(query.dtype))
    return torch.cat(attended, dim=1), None


def _widened(states: Tensor) -> Tensor:
    short = states.device.type == "cpu" and states.shape[2] < SHORT
    return states.float() if short and states.dtype == torch.bfloat16 else states


@torch.no_grad()
def _separates(model: PreTrainedModel) -> bool:
    lengths = (3, 5)
    device = model.device
    ids = torch.arange(1, 1 + sum(lengths), device=device) % model.config.get_text_config().vocab_size
    places = torch.cat([torch.arange(length, device=device) for length in lengths])
    decoder = model.get_decoder()  # type: ignore[no-untyped-call]
    try:
        together = packed_states(model, ids, places, lengths)[0]
        alone = [decoder(input_ids=part[None], use_cache=False).last_hidden_state[0] for part in ids.split(lengths)]
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError):  # a model that cannot be called so
        return False
    expected = torch.cat(alone)
    return bool((together - expected).abs().max() <= 1e-3 * expected.abs().max().clamp(min=1.0))
