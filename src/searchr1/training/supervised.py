"""One update of supervised fine-tuning: cross-entropy on the policy's tokens, and on no others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from searchr1.algorithms.base import Metrics
from searchr1.algorithms.terms import share
from searchr1.training.logprobs import TokenScores, head_logits, predicting
from searchr1.training.packing import PackedBatch
from searchr1.training.policy import Policy


def imitate(policy: Policy, batches: Sequence[PackedBatch]) -> dict[str, float]:
    """One `Policy.update` with `cross_entropy`; its metrics and ``token_accuracy``.

    Token accuracy is the share of trained tokens that are the most probable ones where they stand, before the update.
    """
    seen: list[Tensor] = []
    untyped: Any = policy.model

    def remember(module: Any, arguments: Any, output: Any) -> None:
        seen[:] = [output.last_hidden_state.detach()]

    def loss_function(packed: PackedBatch, scores: TokenScores) -> tuple[Tensor, Metrics]:
        loss, metrics = cross_entropy(packed, scores)
        hidden_NH = predicting(seen[0], packed)
        likely_N = _most_probable(policy, hidden_NH)
        return loss, {**metrics, "token_accuracy": share(likely_N == packed.targets_N, packed)}

    hook = untyped.get_decoder().register_forward_hook(remember)
    try:
        return policy.update(batches, loss_function)
    finally:
        hook.remove()


def cross_entropy(packed: PackedBatch, scores: TokenScores) -> tuple[Tensor, Metrics]:
    """The micro-batch's share of the mean negative log-probability over all trained tokens of the step; its entropy.

    >>> from searchr1.training.packing import pack
    >>> from searchr1.types import Sample
    >>> [batch] = pack([Sample((5, 6, 7, 8), (False, True, False, True), (0.0,) * 4, 1.0, "q")])
    >>> none = torch.zeros(2)
    >>> cross_entropy(batch, TokenScores(torch.tensor([-1.0, -3.0]), none, none[:0]))[0].item()
    2.0
    """
    loss = -(scores.logprobs_N * packed.weights_N).sum() / packed.total_tokens
    return loss, {"entropy": share(scores.entropy_N, packed)}


@torch.no_grad()
def _most_probable(policy: Policy, hidden_NH: Tensor) -> Tensor:
    """The most probable next token after each of the states: ids [N]."""
    chunks = torch.split(hidden_NH, policy.optimization.chunk_tokens)
    return torch.cat([head_logits(policy.model, chunk).argmax(-1) for chunk in chunks])
