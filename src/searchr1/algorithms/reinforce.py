"""REINFORCE (Williams, 1992) with a baseline: raise the log-probability of a sample's tokens by its advantage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from searchr1.algorithms.base import Experience
from searchr1.algorithms.policy_gradient import Weighted
from searchr1.errors import UserError

BASELINES = ("none", "batch_mean")


@dataclass(frozen=True)
class Reinforce(Weighted):
    """The table ``[algorithm] name = "reinforce"``."""

    baseline: Literal["none", "batch_mean"] = "batch_mean"
    """Nothing, or the mean reward of the step's trained samples. That of the group's other samples: see ``rloo``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline not in BASELINES:
            raise UserError(f"algorithm.baseline: expected one of {', '.join(BASELINES)}, got {self.baseline!r}")

    def advantages(self, experience: Experience) -> Tensor:
        """Reward minus baseline, the same for every token of a sample: [N].

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0)]
        >>> Reinforce().advantages(experience(step)).tolist()
        [0.5, -0.5]
        """
        rewards_S, _ = self.rewards(experience)
        if self.baseline == "batch_mean":
            kept_S = self.keep(experience)
            rewards_S = rewards_S - (rewards_S[kept_S] if kept_S.any() else rewards_S).mean()
        return rewards_S[experience.sample_N].float()
