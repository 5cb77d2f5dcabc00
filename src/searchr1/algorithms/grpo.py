"""Group relative policy optimisation: the reward of a sample against those of its own question's other samples.

DeepSeekMath (arXiv 2402.03300, section 4.1), as Search-R1 uses it (arXiv 2503.09516, eq. 3), with one difference: the
mean is over all policy tokens of the optimiser step (as in DAPO, arXiv 2503.14476, eq. 12), not per sequence first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience, Metrics, Needs, PolicyOutput, TokenBatch


@dataclass(frozen=True)
class GRPO:
    """The table ``[algorithm] name = "grpo"``.

    >>> GRPO(kl="k3").needs
    Needs(reference=True, values=False)
    """

    normalize_std: bool = True
    """Divide by the group's standard deviation; False: Dr. GRPO (arXiv 2503.20783)."""
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl: terms.KL = "off"
    """Estimator of KL(policy || reference) in the loss; see ``terms.kl_estimate``."""
    kl_coefficient: float = 0.001
    entropy_bonus: float = 0.0
    drop_zero_variance: bool = True
    """Leave out groups whose rewards are all equal: their advantages are zero and would only dilute the mean."""

    def __post_init__(self) -> None:
        terms.check_options(
            kl=self.kl,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            kl_coefficient=self.kl_coefficient,
            entropy_bonus=self.entropy_bonus,
        )

    @property
    def needs(self) -> Needs:
        return Needs(reference=self.kl != "off")

    def keep(self, experience: Experience) -> Tensor:
        """False [S] for samples of zero-variance groups when they are to be dropped."""
        flat_S = terms.zero_variance(experience.rewards_S, experience.groups_S)
        return ~flat_S if self.drop_zero_variance else torch.ones_like(flat_S)

    def advantages(self, experience: Experience) -> Tensor:
        """(r - mean) / (std + 1e-6) over the group, the same for every token of a sample; a group of one: r.

        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2), (False, True), (0.0, -1.0), r, "q") for r in (1.0, 0.0)]
        >>> [round(a, 4) for a in GRPO().advantages(experience(step)).tolist()]
        [0.7071, -0.7071]
        """
        size_S, mean_S, std_S = terms.group_statistics(experience.rewards_S, experience.groups_S)
        advantages_S = experience.rewards_S.double() - mean_S
        if self.normalize_std:
            # No epsilon for a group of one: its advantage is the raw reward exactly.
            advantages_S = torch.where(size_S == 1, advantages_S, advantages_S / (std_S + 1e-6))
        return advantages_S[experience.sample_N].float()

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """Clipped surrogate + KL to the reference - entropy bonus, over policy tokens."""
        ratio_N = terms.importance_ratio(output.logprobs_N, batch.behaviour_N)
        surrogate_N, clipped_N = terms.clipped_surrogate(ratio_N, batch.advantages_N, self.clip_low, self.clip_high)
        regularizer, metrics = terms.regularizers(
            batch, output, kl=self.kl, kl_coefficient=self.kl_coefficient, entropy_bonus=self.entropy_bonus
        )
        metrics |= terms.staleness(batch, output, ratio_N)
        metrics["clip_fraction"] = terms.share(clipped_N, batch)
        return terms.token_mean(surrogate_N, batch) + regularizer, metrics
