"""The critic: what reward is still to come, judged at every token that the policy is about to sample."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from searchr1.training.logprobs import hidden_states
from searchr1.training.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class ValueModel(nn.Module):
    """A linear head, zero at first, on the hidden states of a backbone of its own or of the policy's.

    Zero weights say "no reward to come" of everything, so that the first advantages are the rewards themselves.
    """

    def __init__(self, policy: PreTrainedModel, *, shared: bool) -> None:
        super().__init__()
        self.backbone = None if shared else _copy_of(policy)
        size = policy.config.get_text_config().hidden_size
        self.head = nn.Linear(size, 1, device=policy.device, dtype=torch.float32)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, packed: PackedBatch, hidden_NH: Tensor) -> Tensor:
        """Values [N] of the states before the trained tokens; ``hidden_NH`` are the policy's hidden states there."""
        if self.backbone is not None:
            hidden_NH = hidden_states(self.backbone, packed)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            values_N: Tensor = self.head(hidden_NH.to(self.head.weight.dtype)).squeeze(-1)
        return values_N


def _copy_of(policy: Any) -> PreTrainedModel:
    """The policy's weights as they are; its output head is not needed, and never trained here."""
    model: PreTrainedModel = copy.deepcopy(policy)
    untyped: Any = model
    head, embeddings = untyped.get_output_embeddings(), untyped.get_input_embeddings()
    if head.weight is not embeddings.weight:
        head.requires_grad_(False)
    return model
