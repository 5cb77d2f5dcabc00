"""Group relative policy optimisation: the reward of a sample against those of its own question's other samples.

DeepSeekMath (arXiv 2402.03300, section 4.1), as Search-R1 uses it (arXiv 2503.09516, eq. 3), with one difference: the
mean is over all policy tokens of the optimiser step, not per sequence first (``aggregate = "sequence"`` for that).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience
from searchr1.algorithms.policy_gradient import Clipped


@dataclass(frozen=True)
class GRPO(Clipped):
    """The table ``[algorithm] name = "grpo"``.

    >>> GRPO(kl="k3").needs
    Needs(reference=True, values=False, trainer=False)
    """

    normalize_std: bool = True
    """Divide by the group's standard deviation."""

    def advantages(self, experience: Experience) -> Tensor:
        """(r - mean) / (std + 1e-6) over the group, the same for every token of a sample; a group of one: r.

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0)]
        >>> [round(a, 4) for a in GRPO().advantages(experience(step)).tolist()]
        [0.7071, -0.7071]
        """
        rewards_S, _ = self.rewards(experience)
        advantages_S = terms.group_relative(rewards_S, experience.groups_S, normalize_std=self.normalize_std)
        return advantages_S[experience.sample_N].float()
