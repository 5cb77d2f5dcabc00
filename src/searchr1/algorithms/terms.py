"""The terms that losses are made of: each a pure function of flat tensors ``[N]`` (tokens) or ``[S]`` (samples)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from searchr1.algorithms.base import Metrics, PolicyOutput, TokenBatch
from searchr1.errors import UserError

KL = Literal["off", "k1", "k2", "k3"]

RATIO_LIMIT = 20.0
"""Bound of log(pi/mu) before ``exp``: e^20 is far outside any clip range, and infinity times zero is a NaN gradient."""
KL_LIMIT = 10.0
"""Bound of log(pi_ref/pi) before k3's ``exp``, which otherwise overflows on one token and destroys the weights."""


def token_mean(values_N: Tensor, batch: TokenBatch) -> Tensor:
    """The micro-batch's share of the weighted mean over all policy tokens of the optimiser step."""
    return (values_N * batch.weights_N).sum() / batch.total_tokens


def share(values_N: Tensor, batch: TokenBatch) -> Tensor:
    """The micro-batch's share of a metric's plain mean over the same tokens, detached."""
    return values_N.detach().float().sum() / batch.total_tokens


def group_statistics(rewards_S: Tensor, groups_S: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Size, mean and standard deviation (n - 1) of each sample's group: three float64 tensors [S].

    A group of one has mean 0 and deviation 1, so that its standardised reward is the raw one (as in Search-R1).
    A group whose rewards are all equal has exactly that mean and deviation 0: float noise is not a signal.

    >>> [x.tolist() for x in group_statistics(torch.tensor([1.0, 0.0, 3.0]), torch.tensor([4, 4, 9]))[:2]]
    [[2.0, 2.0, 1.0], [0.5, 0.5, 0.0]]
    """
    rewards_S = rewards_S.double()
    groups, member_S = torch.unique(groups_S, return_inverse=True)
    zeros_G = torch.zeros(len(groups), dtype=torch.float64, device=rewards_S.device)
    size_G = zeros_G.index_add(0, member_S, torch.ones_like(rewards_S))
    low_G = zeros_G.scatter_reduce(0, member_S, rewards_S, "amin", include_self=False)
    high_G = zeros_G.scatter_reduce(0, member_S, rewards_S, "amax", include_self=False)
    flat_G = low_G == high_G
    mean_G = torch.where(flat_G, low_G, zeros_G.index_add(0, member_S, rewards_S) / size_G)
    squares_G = zeros_G.index_add(0, member_S, (rewards_S - mean_G[member_S]) ** 2)
    std_G = (squares_G / (size_G - 1).clamp(min=1)).sqrt()
    alone_G = size_G == 1
    mean_G, std_G = mean_G.masked_fill(alone_G, 0.0), std_G.masked_fill(alone_G, 1.0)
    return size_G[member_S], mean_G[member_S], std_G[member_S]


def zero_variance(rewards_S: Tensor, groups_S: Tensor) -> Tensor:
    """bool [S]: the sample's group has at least two members, all with the same reward."""
    size_S, _, std_S = group_statistics(rewards_S, groups_S)
    return (size_S > 1) & (std_S == 0)


def count_groups(groups_S: Tensor, chosen_S: Tensor) -> int:
    """How many groups have a sample in ``chosen_S``; for the metric ``train/zero_variance_groups``.

    >>> count_groups(torch.tensor([0, 0, 1]), torch.tensor([True, True, False]))
    1
    """
    return len(torch.unique(groups_S[chosen_S]))


def importance_ratio(logprobs_N: Tensor, behaviour_N: Tensor) -> Tensor:
    """pi(token) / mu(token) for current policy pi and behaviour policy mu."""
    return (logprobs_N - behaviour_N).clamp(-RATIO_LIMIT, RATIO_LIMIT).exp()


def clipped_surrogate(ratio_N: Tensor, advantages_N: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Loss per token, and whether the clip decided it: -min(r A, clip(r, 1 - low, 1 + high) A).

    PPO (arXiv 1707.06347, eq. 7), negated to be minimised; separate bounds: DAPO's clip-higher (arXiv 2503.14476,
    eq. 10).

    >>> loss, clipped = clipped_surrogate(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 1.0]), 0.2, 0.3)
    >>> [round(x, 4) for x in loss.tolist()], clipped.tolist()
    ([-1.3, -0.5], [True, False])
    """
    plain_N = -ratio_N * advantages_N
    bounded_N = -ratio_N.clamp(1.0 - low, 1.0 + high) * advantages_N
    return torch.maximum(plain_N, bounded_N), bounded_N > plain_N


def kl_estimate(kind: KL, logprobs_N: Tensor, other_N: Tensor) -> Tensor:
    """Per-token estimate of KL(p || q) from tokens sampled from p; ``logprobs_N`` of p, ``other_N`` of q.

    J. Schulman, "Approximating KL divergence" (2020): with d = log q - log p, k1 = -d, k2 = d^2 / 2, k3 = e^d - 1 - d
    with d bounded by ``KL_LIMIT`` before it is exponentiated. As values all are right (k2 nearly); as a loss on tokens
    sampled from p they pull differently: k2 has the gradient of KL(p || q), k3 that of KL(q || p), k1 none on average.

    >>> kl_estimate("k3", torch.tensor([-1.0]), torch.tensor([-1.0])).tolist()
    [0.0]
    """
    log_ratio_N = other_N - logprobs_N
    if kind == "k1":
        return -log_ratio_N
    if kind == "k2":
        return log_ratio_N.square() / 2
    if kind == "k3":
        bounded_N = log_ratio_N.clamp(-KL_LIMIT, KL_LIMIT)
        return torch.expm1(bounded_N) - bounded_N
    raise ValueError(f"no estimate is called {kind!r}")


def regularizers(
    batch: TokenBatch, output: PolicyOutput, *, kl: KL, kl_coefficient: float, entropy_bonus: float
) -> tuple[Tensor, Metrics]:
    """``+ kl_coefficient * KL(pi || pi_ref) - entropy_bonus * H(pi)`` over policy tokens, and both as metrics."""
    metrics = {"entropy": share(output.entropy_N, batch)}
    loss = -entropy_bonus * token_mean(output.entropy_N, batch) if entropy_bonus else output.logprobs_N.new_zeros(())
    if kl != "off":
        if len(batch.reference_N) != len(output.logprobs_N):
            raise ValueError(
                f"kl={kl!r} needs one reference log-probability per trained token ({len(output.logprobs_N)}), "
                f"got {len(batch.reference_N)}"
            )
        loss = loss + kl_coefficient * token_mean(kl_estimate(kl, output.logprobs_N, batch.reference_N), batch)
        metrics["reference_kl"] = share(kl_estimate("k3", output.logprobs_N, batch.reference_N), batch)
    return loss, metrics


def staleness(batch: TokenBatch, output: PolicyOutput, ratio_N: Tensor) -> Metrics:
    """How far the current policy is from the one that sampled: ``kl`` = KL(mu || pi) by k3, and the largest ratio."""
    ratio_N = ratio_N.detach()
    return {
        "kl": share(kl_estimate("k3", batch.behaviour_N, output.logprobs_N), batch),
        "ratio_max": ratio_N.max() if len(ratio_N) else ratio_N.new_zeros(()),
    }


def check_options(*, kl: str, **non_negative: float) -> None:
    """Raise ``UserError`` for an unknown KL estimator or a negative (or NaN) coefficient."""
    if kl not in ("off", "k1", "k2", "k3"):
        raise UserError(f"algorithm.kl: expected 'off', 'k1', 'k2' or 'k3', got {kl!r}")
    for name, value in non_negative.items():
        if not value >= 0:
            raise UserError(f"algorithm.{name}: expected a number of at least 0, got {value}")
