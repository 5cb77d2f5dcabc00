"""What all algorithms share: regularisers, correction of the sampler, which samples count, how tokens are averaged.

An algorithm is a subclass with its ``advantages`` and its ``surrogate``; `Clipped` has the surrogate of PPO, which
most of them use, `Weighted` that of REINFORCE.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self, get_args

import torch
from torch import Tensor

from searchr1.algorithms import terms
from searchr1.algorithms.base import Experience, Metrics, Needs, PolicyOutput, TokenBatch
from searchr1.errors import UserError

_CHOICES = {
    "kl": get_args(terms.KL),
    "kl_in": ("loss", "reward"),
    "llds_gate": ("action", "response"),
    "correction": ("off", "token", "sequence"),
    "aggregate": get_args(terms.Aggregate),
}
_NOT_NEGATIVE = ("kl_coefficient", "kl_target", "entropy_bonus", "llds")
_POSITIVE = ("kl_horizon", "fixed_tokens")


@dataclass(frozen=True)
class PolicyGradient:
    """Options of every algorithm, and the loss that is made of its surrogate."""

    kl: terms.KL = "off"
    """Estimator of KL(policy || reference); see ``terms.kl_estimate``."""
    kl_in: Literal["loss", "reward"] = "loss"
    """A term of the loss, or a cost subtracted from every token's reward (the estimate at the time of sampling)."""
    kl_coefficient: float = 0.001
    kl_target: float = 0.0
    """Above 0, ``kl_coefficient`` is steered towards this KL a token (arXiv 1909.08593, section 2.2)."""
    kl_horizon: float = 10_000.0
    """Samples in which the coefficient can change by a fifth, at most."""
    entropy_bonus: float = 0.0
    llds: float = 0.0
    """Weight of ``terms.likelihood_fall``, which is logged at any weight. 0.1 to 0.2 (arXiv 2512.04220)."""
    llds_gate: Literal["action", "response"] = "action"
    correction: Literal["off", "token", "sequence"] = "off"
    """For engines whose log-probabilities differ from the trainer's: see ``terms.correction_weights``."""
    correction_cap: float = 2.0
    drop_zero_variance: bool = True
    """Leave out groups whose rewards are all equal, where nothing but their advantages, all zero, would act on them.

    They would only dilute the mean then. KL and an entropy bonus act on every sample, so with one of these on they
    stay.
    """
    drop_cut: bool = False
    """Leave out samples that a limit on tokens ended (overlong filtering, arXiv 2503.14476, section 3.4)."""
    aggregate: terms.Aggregate = "token"
    fixed_tokens: int = 256
    """The constant that ``aggregate = "fixed"`` divides by, about the policy tokens of one sample."""

    critic: ClassVar[bool] = False
    """True for an algorithm that learns a value function."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"algorithm.{name}: expected one of {', '.join(choices)}, got {getattr(self, name)!r}")
        for name in _NOT_NEGATIVE:
            self._require(name, getattr(self, name) >= 0, "at least 0")
        for name in _POSITIVE:
            self._require(name, getattr(self, name) > 0, "more than 0")
        self._require("correction_cap", self.correction_cap >= 1, "at least 1")
        steered = self.kl != "off" and self.kl_coefficient > 0
        self._require("kl_target", not self.kl_target or steered, "0 without kl and a kl_coefficient above 0")

    def _require(self, name: str, met: bool, expected: str) -> None:
        if not met:  # NaN meets nothing
            raise UserError(f"algorithm.{name}: expected {expected}, got {getattr(self, name)}")

    @property
    def needs(self) -> Needs:
        # LLDS compares with the trainer's own numbers: against a sampler's, rounding alone would open its gate.
        trainer = self.correction != "off" or self.llds > 0
        return Needs(reference=self.kl != "off", values=self.critic, trainer=trainer)

    def keep(self, experience: Experience) -> Tensor:
        """Samples to learn from: bool [S]."""
        keep_S = torch.ones_like(experience.cut_S)
        # KL in the reward makes equal rewards unequal.
        regularised = self.entropy_bonus > 0 or (self.kl != "off" and self.kl_coefficient > 0)
        if self.drop_zero_variance and not regularised:
            keep_S &= ~terms.zero_variance(experience.rewards_S, experience.groups_S)
        return keep_S & ~experience.cut_S if self.drop_cut else keep_S

    def rewards(self, experience: Experience) -> tuple[Tensor, Tensor]:
        """Rewards of samples and of tokens, less the cost of KL where it is one: float64 [S] and [N]."""
        rewards_S, rewards_N = experience.rewards_S.double(), experience.rewards_N.double()
        if self.kl == "off" or self.kl_in == "loss":
            return rewards_S, rewards_N
        old_N = experience.trainer_N if len(experience.trainer_N) else experience.behaviour_N
        cost_N = self.kl_coefficient * terms.kl_estimate(self.kl, old_N, experience.reference_N).double()
        return rewards_S.index_add(0, experience.sample_N, -cost_N), rewards_N - cost_N

    def returns(self, experience: Experience) -> Tensor:
        """Nothing to predict: there is no critic."""
        return torch.zeros(0)

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        """Loss of each token, and whether it was clipped: two tensors [N], given pi / pi_old with its gradient."""
        raise NotImplementedError

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """Surrogate + KL to the reference - entropy bonus + LLDS, each over policy tokens alone."""
        logprobs_N = output.logprobs_N
        old_N = batch.trainer_N if len(batch.trainer_N) else batch.behaviour_N
        ratio_N = terms.importance_ratio(logprobs_N, old_N)
        surrogate_N, clipped_N = self.surrogate(ratio_N, batch, output)
        weights_N = self._correction(batch) if self.correction != "off" else None
        if weights_N is not None:
            surrogate_N = surrogate_N * weights_N
        fall_N = terms.likelihood_fall(logprobs_N, old_N, batch, self.llds_gate)
        loss = terms.aggregate(surrogate_N, batch, self.aggregate, self.fixed_tokens)
        metrics = _diagnostics(batch, output) | {
            "clip_fraction": terms.share(clipped_N, batch),
            "ratio_max": ratio_N.detach().max() if len(ratio_N) else logprobs_N.new_zeros(()),
            "llds": terms.share(fall_N, batch),
        }
        if weights_N is not None:  # tokens whose weight was capped, or that were left out
            bound = 0.0 if self.correction == "sequence" else self.correction_cap
            metrics["corrected"] = terms.share(weights_N == bound, batch)
        if self.llds:
            loss = loss + self.llds * terms.aggregate(fall_N, batch)
        if self.entropy_bonus:
            loss = loss - self.entropy_bonus * terms.aggregate(
                output.entropy_N, batch, self.aggregate, self.fixed_tokens
            )
        if self.kl != "off":
            _require_tokens("reference", batch.reference_N, logprobs_N)
            metrics["reference_kl"] = terms.share(terms.kl_estimate("k3", logprobs_N, batch.reference_N), batch)
            if self.kl_in == "loss":
                kl_N = terms.kl_estimate(self.kl, logprobs_N, batch.reference_N)
                loss = loss + self.kl_coefficient * terms.aggregate(kl_N, batch, self.aggregate, self.fixed_tokens)
        return loss, metrics

    def _correction(self, batch: TokenBatch) -> Tensor:
        _require_tokens("trainer", batch.trainer_N, batch.behaviour_N)
        return terms.correction_weights(
            batch.trainer_N, batch.behaviour_N, batch.sample_N, self.correction, self.correction_cap
        )

    def adapted(self, metrics: Mapping[str, float], samples: int) -> Self:
        """With ``kl_target``: beta (1 + clip(KL / target - 1, -0.2, 0.2) samples / horizon), arXiv 1909.08593, eq. 4.

        >>> algorithm = PolicyGradient(kl="k3", kl_coefficient=0.1, kl_target=0.01, kl_horizon=1000)
        >>> round(algorithm.adapted({"train/reference_kl": 0.05}, 500).kl_coefficient, 6)
        0.11
        """
        if not self.kl_target or "train/reference_kl" not in metrics:
            return self
        error = min(max(metrics["train/reference_kl"] / self.kl_target - 1.0, -0.2), 0.2)
        part = min(1.0, samples / self.kl_horizon)  # more than a horizon at once must not turn the sign of the cost
        return replace(self, kl_coefficient=self.kl_coefficient * (1.0 + error * part))


@dataclass(frozen=True)
class Clipped(PolicyGradient):
    """The clipped surrogate of PPO (arXiv 1707.06347, eq. 7)."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 0.0
    """Bound of the loss of a negative advantage, in units of the advantage (arXiv 1912.09729: 3); 0: none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("clip_low", "clip_high"):
            self._require(name, getattr(self, name) >= 0, "at least 0")
        self._require("dual_clip", self.dual_clip == 0 or self.dual_clip > 1, "0 (off) or more than 1")

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        return terms.clipped_surrogate(ratio_N, batch.advantages_N, self.clip_low, self.clip_high, self.dual_clip)


@dataclass(frozen=True)
class Weighted(PolicyGradient):
    """The score function times a bounded weight: -min(pi/mu, cap) A log pi.

    On fresh samples this is plain REINFORCE. On samples that are a few updates old the weight, a constant for the
    gradient, is truncated importance sampling (arXiv 1802.01561, section 4.1): no token drops out of the gradient.
    """

    drop_zero_variance: bool = False
    """Every sample counts, also one with advantage 0: it belongs to the mean that the gradient is an estimate of."""
    importance_cap: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require("importance_cap", self.importance_cap >= 1, "at least 1")

    def surrogate(self, ratio_N: Tensor, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Tensor]:
        """A token is clipped when its weight is capped."""
        weight_N = ratio_N.detach().clamp(max=self.importance_cap)
        return -weight_N * batch.advantages_N * output.logprobs_N, ratio_N.detach() > self.importance_cap


def _diagnostics(batch: TokenBatch, output: PolicyOutput) -> Metrics:
    """What every run logs: ``kl`` = KL(sampler || policy) by k3, entropy, and the likelihood of good samples' tokens.

    ``good_logprob`` / ``good_tokens`` is the mean log-probability in samples with a positive mean advantage.
    """
    good_N = (terms.sums(batch.advantages_N, batch.sample_N) > 0).to(output.logprobs_N.dtype)
    difference_N = (output.logprobs_N - batch.behaviour_N).detach().abs()
    return {
        "kl": terms.share(terms.kl_estimate("k3", batch.behaviour_N, output.logprobs_N), batch),
        "difference_max": difference_N.max() if len(difference_N) else difference_N.new_zeros(()),
        "entropy": terms.share(output.entropy_N, batch),
        "good_logprob": terms.share(output.logprobs_N * good_N, batch),
        "good_tokens": terms.share(good_N, batch),
    }


def _require_tokens(name: str, given_N: Tensor, tokens_N: Tensor) -> None:
    if len(given_N) != len(tokens_N):
        raise ValueError(f"expected one {name} log-probability per trained token ({len(tokens_N)}), got {len(given_N)}")
