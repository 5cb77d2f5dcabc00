"""The terms that losses are made of: each a pure function of flat tensors ``[N]`` (tokens) or ``[S]`` (samples)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from searchr1.algorithms.base import TokenBatch

KL = Literal["off", "k1", "k2", "k3"]
Aggregate = Literal["token", "sequence", "fixed"]

RATIO_LIMIT = 20.0
"""Bound of log(pi/mu) before ``exp``: e^20 is far outside any clip range, and infinity times zero is a NaN gradient."""
KL_LIMIT = 10.0
"""Bound of log(pi_ref/pi) before k3's ``exp``, which otherwise overflows on one token and destroys the weights."""


def aggregate(values_N: Tensor, batch: TokenBatch, how: Aggregate = "token", fixed_tokens: int = 1) -> Tensor:
    """The micro-batch's share of a weighted mean over the optimiser step, whatever its micro-batches.

    ``token``: over all policy tokens (DAPO, arXiv 2503.14476, eq. 12). ``sequence``: over samples, each the mean over
    its own tokens (GRPO, arXiv 2402.03300, eq. 3). ``fixed``: over samples, each the sum over its tokens divided by
    the constant ``fixed_tokens`` (Dr. GRPO, arXiv 2503.20783: no sample's length changes the weight of its tokens).
    """
    weighted_N = values_N * batch.weights_N
    if how == "token":
        return weighted_N.sum() / batch.total_tokens
    if how == "sequence":
        return (weighted_N / lengths(batch.sample_N)).sum() / batch.total_samples
    return weighted_N.sum() / (batch.total_samples * fixed_tokens)


def share(values_N: Tensor, batch: TokenBatch) -> Tensor:
    """The micro-batch's share of a metric's plain mean over all policy tokens, detached."""
    return values_N.detach().float().sum() / batch.total_tokens


def sums(values_N: Tensor, part_N: Tensor) -> Tensor:
    """At every token the sum over its part (sample, action): [N].

    >>> sums(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([7, 7, 9])).tolist()
    [3.0, 3.0, 4.0]
    """
    parts, inverse_N = torch.unique(part_N, return_inverse=True)
    totals = values_N.new_zeros(len(parts)).index_add(0, inverse_N, values_N)
    return totals[inverse_N]


def lengths(part_N: Tensor) -> Tensor:
    """At every token the number of tokens of its part: float [N]."""
    return sums(torch.ones_like(part_N, dtype=torch.float32), part_N)


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


def group_relative(rewards_S: Tensor, groups_S: Tensor, *, normalize_std: bool) -> Tensor:
    """(r - mean) / (std + 1e-6) over the group, or r - mean; a group of one: r. float64 [S].

    DeepSeekMath (arXiv 2402.03300, section 4.1.2); without the deviation: Dr. GRPO (arXiv 2503.20783).
    """
    size_S, mean_S, std_S = group_statistics(rewards_S, groups_S)
    centred_S = rewards_S.double() - mean_S
    # No epsilon for a group of one: its advantage is the raw reward exactly.
    return torch.where(size_S == 1, centred_S, centred_S / (std_S + 1e-6)) if normalize_std else centred_S


def leave_one_out(rewards_S: Tensor, groups_S: Tensor) -> Tensor:
    """r minus the mean of the *other* samples of its group; a group of one: r. float64 [S].

    RLOO (arXiv 2402.14740, eq. 9): r - (sum - r) / (n - 1) = (r - mean) n / (n - 1).
    """
    size_S, mean_S, _ = group_statistics(rewards_S, groups_S)
    return (rewards_S.double() - mean_S) * size_S / (size_S - 1).clamp(min=1)


def whiten(values_N: Tensor, keep_N: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 over the tokens that are kept: (x - mean) / sqrt(var + 1e-8), var with n - 1.

    >>> keep = torch.tensor([True, True, True, False])
    >>> [round(x, 4) for x in whiten(torch.tensor([1.0, 2.0, 3.0, 9.0]), keep).tolist()]
    [-1.0, 0.0, 1.0, 7.0]
    """
    kept_N = values_N[keep_N]
    if len(kept_N) < 2:
        return values_N
    return (values_N - kept_N.mean()) / (kept_N.var() + 1e-8).sqrt()


def generalized_advantages(
    rewards_N: Tensor, values_N: Tensor, sample_N: Tensor, *, gamma: float, gae_lambda: float
) -> Tensor:
    """GAE (arXiv 1506.02438, eq. 16) within each sample, over its trained tokens alone: [N].

    A_t = delta_t + gamma lambda A_{t+1}, delta_t = r_t + gamma V_{t+1} - V_t; beyond the last trained token both are 0.
    The token that follows an observation is the successor of the last one before it.

    >>> generalized_advantages(torch.tensor([0.0, 1.0]), torch.tensor([0.5, 0.25]), torch.tensor([0, 0]),
    ...     gamma=1.0, gae_lambda=0.5).tolist()
    [0.125, 0.75]
    """
    if not len(sample_N):
        return values_N
    samples, row_N, count_S = torch.unique_consecutive(sample_N, return_inverse=True, return_counts=True)
    column_N = torch.arange(len(sample_N), device=sample_N.device) - (count_S.cumsum(0) - count_S)[row_N]
    padded = values_N.new_zeros(2, len(samples), int(count_S.max()) + 1)
    padded[0, row_N, column_N], padded[1, row_N, column_N] = rewards_N.to(values_N.dtype), values_N
    rewards_ST, values_ST = padded
    advantages_ST = torch.zeros_like(values_ST)
    for t in range(values_ST.shape[1] - 2, -1, -1):
        delta_S = rewards_ST[:, t] + gamma * values_ST[:, t + 1] - values_ST[:, t]
        advantages_ST[:, t] = delta_S + gamma * gae_lambda * advantages_ST[:, t + 1]
    return advantages_ST[row_N, column_N]


def importance_ratio(logprobs_N: Tensor, other_N: Tensor) -> Tensor:
    """pi(token) / mu(token) for current policy pi and the policy mu that it is compared with."""
    return (logprobs_N - other_N).clamp(-RATIO_LIMIT, RATIO_LIMIT).exp()


def correction_weights(trainer_N: Tensor, behaviour_N: Tensor, sample_N: Tensor, how: str, cap: float) -> Tensor:
    """What corrects for an engine that samples from another distribution than the trainer computes: [N], constants.

    ``token``: min(pi_trainer / pi_engine, cap) of each token (truncated importance sampling, Yao et al. 2025, "Your
    efficient RL framework secretly brings you off-policy RL training"). ``sequence``: 1, or 0 for every token of a
    sample whose geometric mean ratio is not within [1 / cap, cap] (masked importance sampling).
    """
    if how == "token":
        return importance_ratio(trainer_N, behaviour_N).clamp(max=cap).detach()
    mean_N = sums(trainer_N - behaviour_N, sample_N) / lengths(sample_N)
    bound = torch.log(torch.tensor(cap))
    return (mean_N.abs() <= bound).to(trainer_N.dtype).detach()


def clipped_surrogate(
    ratio_N: Tensor, advantages_N: Tensor, low: float, high: float, dual: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Loss per token, and whether a clip decided it: -min(r A, clip(r, 1 - low, 1 + high) A).

    PPO (arXiv 1707.06347, eq. 7), negated to be minimised; separate bounds: DAPO's clip-higher (arXiv 2503.14476,
    eq. 10). ``dual`` above 1 bounds the loss of a negative advantage by -dual A (arXiv 1912.09729, eq. 5).

    >>> loss, clipped = clipped_surrogate(torch.tensor([1.5, 0.5]), torch.tensor([1.0, 1.0]), 0.2, 0.3)
    >>> [round(x, 4) for x in loss.tolist()], clipped.tolist()
    ([-1.3, -0.5], [True, False])
    """
    plain_N = -ratio_N * advantages_N
    bounded_N = -ratio_N.clamp(1.0 - low, 1.0 + high) * advantages_N
    loss_N, clipped_N = torch.maximum(plain_N, bounded_N), bounded_N > plain_N
    if dual:
        ceiling_N = -dual * advantages_N
        over_N = (advantages_N < 0) & (loss_N > ceiling_N)
        loss_N, clipped_N = torch.where(over_N, ceiling_N, loss_N), clipped_N | over_N
    return loss_N, clipped_N


def value_loss(values_N: Tensor, old_N: Tensor, returns_N: Tensor, clip: float) -> Tensor:
    """0.5 max((V - R)^2, (V_old + clip(V - V_old, -clip, clip) - R)^2) of each token; ``clip`` 0: not clipped.

    >>> value_loss(torch.tensor([2.0]), torch.tensor([0.0]), torch.tensor([3.0]), 0.5).tolist()
    [3.125]
    """
    loss_N = (values_N - returns_N).square()
    if clip:
        bounded_N = old_N + (values_N - old_N).clamp(-clip, clip)
        loss_N = torch.maximum(loss_N, (bounded_N - returns_N).square())
    return loss_N / 2


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


def likelihood_fall(logprobs_N: Tensor, old_N: Tensor, batch: TokenBatch, gate: str) -> Tensor:
    """LLDS (arXiv 2512.04220): how far the likelihood of good samples fell since they were drawn, per token [N].

    max(0, log pi_old - log pi) on the tokens of samples with a mean advantage of at least 0, in actions (``gate``
    "action": runs of policy tokens) or samples ("response") whose likelihood fell altogether; 0 elsewhere. There is
    no gradient through the gate, and none where likelihood rose.
    """
    fall_N = old_N - logprobs_N
    part_N = batch.action_N if gate == "action" else batch.sample_N
    fell_N = sums(fall_N.detach(), part_N) > 0
    good_N = sums(batch.advantages_N, batch.sample_N) >= 0
    return torch.where(fell_N & good_N, fall_N.relu(), torch.zeros_like(fall_N))
