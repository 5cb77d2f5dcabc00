"""REINFORCE leave-one-out (arXiv 2402.14740, eq. 9): the baseline of a sample is the mean of its group's others."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience
from searchr1.algorithms.policy_gradient import Weighted


@dataclass(frozen=True)
class RLOO(Weighted):
    """The table ``[algorithm] name = "rloo"``."""

    def advantages(self, experience: Experience) -> Tensor:
        """Reward minus the mean of the group's other samples; a group of one: the reward. [N].

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0, 0.0)]
        >>> RLOO().advantages(experience(step)).tolist()
        [1.0, -0.5, -0.5]
        """
        rewards_S, _ = self.rewards(experience)
        return terms.leave_one_out(rewards_S, experience.groups_S)[experience.sample_N].float()
