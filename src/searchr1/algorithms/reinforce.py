"""REINFORCE (Williams, 1992) with a baseline: raise the log-probability of a sample's tokens by its advantage.

One gradient step on fresh samples is plain REINFORCE. On samples that are a few updates old each token's term is
multiplied by min(pi/mu, cap), a constant for the gradient (truncated importance sampling, arXiv 1802.01561, section
4.1): unlike a clipped surrogate, no token ever drops out of the gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience, Metrics, Needs, PolicyOutput, TokenBatch
from searchr1.errors import UserError

BASELINES = ("none", "batch_mean", "leave_one_out")


@dataclass(frozen=True)
class Reinforce:
    """The table ``[algorithm] name = "reinforce"``.

    ``baseline``: ``none``, the mean reward of the step (``batch_mean``), or the mean of the *other* samples of the
    same group (``leave_one_out``: RLOO, arXiv 2402.14740; a group of one keeps its raw reward).
    """

    baseline: Literal["none", "batch_mean", "leave_one_out"] = "batch_mean"
    importance_cap: float = 2.0
    kl: terms.KL = "off"
    kl_coefficient: float = 0.001
    entropy_bonus: float = 0.0

    def __post_init__(self) -> None:
        if self.baseline not in BASELINES:
            raise UserError(f"algorithm.baseline: expected one of {', '.join(BASELINES)}, got {self.baseline!r}")
        if not self.importance_cap >= 1:
            raise UserError(f"algorithm.importance_cap: expected a number of at least 1, got {self.importance_cap}")
        terms.check_options(kl=self.kl, kl_coefficient=self.kl_coefficient, entropy_bonus=self.entropy_bonus)

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.kl != "off")

    def keep(self, experience: Experience) -> Tensor:
        """Every sample, also one with advantage 0: it belongs to the mean that the gradient is an estimate of."""
        return torch.ones(len(experience.rewards_S), dtype=torch.bool, device=experience.rewards_S.device)

    def advantages(self, experience: Experience) -> Tensor:
        """Reward minus baseline, the same for every token of a sample: [N].

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0, 0.0)]
        >>> Reinforce(baseline="leave_one_out").advantages(experience(step)).tolist()
        [1.0, -0.5, -0.5]
        """
        rewards_S = experience.rewards_S.double()
        if self.baseline == "batch_mean":
            rewards_S = rewards_S - rewards_S.mean()
        elif self.baseline == "leave_one_out":
            size_S, mean_S, _ = terms.group_statistics(rewards_S, experience.groups_S)
            # r - (sum - r) / (n - 1) = (r - mean) n / (n - 1); a group of one has mean 0 here.
            rewards_S = (rewards_S - mean_S) * size_S / (size_S - 1).clamp(min=1)
        return rewards_S[experience.sample_N].float()

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """-min(pi/mu, cap) A log pi, over policy tokens; ``clip_fraction`` counts tokens whose weight was capped."""
        ratio_N = terms.importance_ratio(output.logprobs_N, batch.behaviour_N).detach()
        surrogate_N = -ratio_N.clamp(max=self.importance_cap) * batch.advantages_N * output.logprobs_N
        regularizer, metrics = terms.regularizers(
            batch, output, kl=self.kl, kl_coefficient=self.kl_coefficient, entropy_bonus=self.entropy_bonus
        )
        metrics |= terms.staleness(batch, output, ratio_N)
        metrics["clip_fraction"] = terms.share(ratio_N > self.importance_cap, batch)
        return terms.token_mean(surrogate_N, batch) + regularizer, metrics
