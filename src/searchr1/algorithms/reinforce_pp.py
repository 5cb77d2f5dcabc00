"""REINFORCE++ (arXiv 2501.03262): PPO's clipped surrogate without a critic, advantages whitened over the whole step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience
from searchr1.algorithms.policy_gradient import Clipped
from searchr1.errors import UserError

BASELINES = ("none", "group_mean")


@dataclass(frozen=True)
class ReinforcePP(Clipped):
    """The table ``[algorithm] name = "reinforce_pp"``.

    ``baseline = "group_mean"`` is the paper's REINFORCE++-baseline: the group's mean is subtracted first, and what is
    whitened is one number a sample; KL then belongs into the loss (``kl = "k2"``). Without a baseline a token's
    advantage is all that is earned from it on, so that KL in the reward (``kl_in = "reward"``) and rewards of turns
    count from where they stand.
    """

    drop_zero_variance: bool = False
    """Every sample belongs to the mean and deviation of the step."""
    baseline: Literal["none", "group_mean"] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in BASELINES:
            raise UserError(f"algorithm.baseline: expected one of {', '.join(BASELINES)}, got {self.baseline!r}")

    def advantages(self, experience: Experience) -> Tensor:
        """Rewards to go of every token, less the baseline, whitened over the step's trained tokens: [N].

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0)]
        >>> [round(a, 4) for a in ReinforcePP().advantages(experience(step)).tolist()]
        [0.7071, -0.7071]
        """
        rewards_S, rewards_N = self.rewards(experience)
        kept_N = self.keep(experience)[experience.sample_N]
        if self.baseline == "group_mean":
            centred_S = terms.group_relative(rewards_S, experience.groups_S, normalize_std=False)
            return terms.whiten(centred_S[experience.sample_N], kept_N).float()
        nothing_N = torch.zeros_like(rewards_N)
        to_go_N = terms.generalized_advantages(rewards_N, nothing_N, experience.sample_N, gamma=1.0, gae_lambda=1.0)
        return terms.whiten(to_go_N, kept_N).float()
