"""Group sequence policy optimisation (arXiv 2507.18071): one importance ratio for a whole sample.

s = (pi(y) / mu(y)) ^ (1 / |y|), the geometric mean of the token ratios (eq. 7), is clipped instead of every token's
(eq. 5). |y| counts policy tokens: observations are in neither product.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import PolicyOutput, TokenBatch
from searchr1.algorithms.grpo import GRPO


@dataclass(frozen=True)
class GSPO(GRPO):
    """The table ``[algorithm] name = "gspo"``: advantages of `GRPO`; bounds as in section 5.1 of the paper."""

    clip_low: float = 3e-4
    clip_high: float = 4e-4
    aggregate: terms.Aggregate = "sequence"

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        """The sample's clipped surrogate at each of its tokens: their mean is the sample's."""
        sample_N = batch.sample_N
        sequence_N = (terms.sums(ratio_N.log(), sample_N) / terms.lengths(sample_N)).exp()
        return terms.clipped_surrogate(sequence_N, batch.advantages_N, self.clip_low, self.clip_high, self.dual_clip)
