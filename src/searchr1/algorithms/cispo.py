"""CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4 and 5): the importance weight is clipped, never the gradient.

-sg(clip(pi/mu, 1 - low, 1 + high)) A log pi, with the group-relative advantages of GRPO and a mean over all tokens:
also rare tokens that decide a turn of thought (and leave any trust region at once) keep their gradient.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from searchr1.algorithms.base import PolicyOutput, TokenBatch
from searchr1.algorithms.grpo import GRPO


@dataclass(frozen=True)
class CISPO(GRPO):
    """The table ``[algorithm] name = "cispo"``. As in the paper there is no lower bound by default."""

    clip_low: float = 1.0
    clip_high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("dual_clip", not self.dual_clip, "0: here the weight is clipped, not the loss")

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        """A token is clipped when its weight is."""
        ratio_N = ratio_N.detach()
        weight_N = ratio_N.clamp(1.0 - self.clip_low, 1.0 + self.clip_high)
        return -weight_N * batch.advantages_N * output.logprobs_N, weight_N != ratio_N
