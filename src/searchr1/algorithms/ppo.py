"""Proximal policy optimisation with a critic (arXiv 1707.06347), as Search-R1 uses it (arXiv 2503.09516, eq. 2).

Advantages by GAE (arXiv 1506.02438) over policy tokens only: retrieved tokens have no value, and the last token before
an observation is followed by the first one after it. KL to the reference is a cost in every token's reward.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience, Metrics, PolicyOutput, TokenBatch
from searchr1.algorithms.policy_gradient import Clipped


@dataclass(frozen=True)
class PPO(Clipped):
    """The table ``[algorithm] name = "ppo"``; the critic itself is the table ``[critic]``.

    >>> PPO().needs
    Needs(reference=False, values=True, trainer=False)
    """

    kl_in: Literal["loss", "reward"] = "reward"
    drop_zero_variance: bool = False
    """The critic, not the group, is the baseline: also equal rewards have advantages."""
    gamma: float = 1.0
    gae_lambda: float = 1.0
    whiten: bool = True
    """Advantages of the step's tokens with mean 0 and standard deviation 1."""
    value_clip: float = 0.5
    """How far a value may move from that of the rollout before its loss stops rewarding it; 0: not clipped."""
    value_coefficient: float = 1.0
    """Weight of the value loss; it matters where critic and policy share a backbone."""

    critic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("gamma", "gae_lambda"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name in ("value_clip", "value_coefficient"):
            self._require(name, getattr(self, name) >= 0, "at least 0")

    def advantages(self, experience: Experience) -> Tensor:
        """GAE of every policy token, whitened over those of the step that are trained: [N].

        >>> import torch
        >>> from searchr1.algorithms.base import experience
        >>> from searchr1.types import Sample
        >>> step = [Sample((1, 2, 3), (False, True, True), (0.0, -1.0, -1.0), 1.0, "q")]
        >>> PPO(whiten=False).advantages(experience(step, values_N=torch.tensor([0.25, 0.5]))).tolist()
        [0.75, 0.5]
        """
        advantages_N = self._estimate(experience)
        kept_N = self.keep(experience)[experience.sample_N]
        return (terms.whiten(advantages_N, kept_N) if self.whiten else advantages_N).float()

    def returns(self, experience: Experience) -> Tensor:
        """Advantage plus value, before whitening: [N]."""
        return (self._estimate(experience) + experience.values_N.double()).float()

    def _estimate(self, experience: Experience) -> Tensor:
        if len(experience.values_N) != len(experience.sample_N):
            raise ValueError("ppo needs a value of the critic for every trained token")
        _, rewards_N = self.rewards(experience)
        return terms.generalized_advantages(
            rewards_N,
            experience.values_N.double(),
            experience.sample_N,
            gamma=self.gamma,
            gae_lambda=self.gae_lambda,
        )

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """The policy's loss, and 0.5 (V - R)^2, clipped, over the same tokens."""
        loss, metrics = super().loss(batch, output)
        value_N = terms.value_loss(output.values_N, batch.values_N, batch.returns_N, self.value_clip)
        metrics |= {
            "value_loss": terms.share(value_N, batch),
            "value": terms.share(output.values_N, batch),
            "value_error": terms.share((output.values_N - batch.returns_N).abs(), batch),
        }
        return loss + self.value_coefficient * terms.aggregate(value_N, batch), metrics
