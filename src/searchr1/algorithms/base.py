"""What an algorithm is given and what it must answer.

Shapes: ``S`` samples (trajectories) of one rollout step; ``N`` trained tokens of all of them, sample after sample, or
those of one micro-batch in a ``TokenBatch``. Prompt and retrieved tokens are in none of these tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

import torch
from torch import Tensor

from searchr1.types import Sample

Metrics = dict[str, Tensor]
"""Detached scalars of one micro-batch. Each is a sum over its tokens divided by the ``total_tokens`` of the whole
optimiser step, so adding them over the micro-batches (and ranks) gives the mean over all policy tokens. The one
exception: a name that ends in ``_max`` is combined by ``max``."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an algorithm wants computed beforehand, by models as they are before the step's first update.

    ``reference``: log-probabilities of the frozen reference; ``values``: the critic's; ``trainer``: log-probabilities
    of the policy as the trainer computes them, where those of the engine that sampled may differ.
    """

    reference: bool = False
    values: bool = False
    trainer: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """One rollout step: a reward and a group number per sample, and its trained tokens laid end to end.

    ``sample_N`` says which sample a trained token belongs to (ascending); ``behaviour_N`` are the log-probabilities
    it was sampled with; ``rewards_N`` is what it earned at once: what a turn earned stands on the turn's last token,
    all else on the sample's last. ``cut_S`` is True where the context was full. ``reference_N``, ``values_N``
    and ``trainer_N`` have no elements unless the algorithm ``needs`` them. Because observations are not here at all,
    the token after an observation directly follows the last one before it: a recursion over ``N`` (GAE) bridges
    observations, and the last token of a sample is its last policy token.
    """

    rewards_S: Tensor
    groups_S: Tensor
    cut_S: Tensor
    sample_N: Tensor
    rewards_N: Tensor
    behaviour_N: Tensor
    reference_N: Tensor
    values_N: Tensor
    trainer_N: Tensor

    def __post_init__(self) -> None:
        for name in ("groups", "cut"):
            if len(getattr(self, f"{name}_S")) != len(self.rewards_S):
                raise ValueError(f"expected one entry of {name} per sample ({len(self.rewards_S)})")
        for name in ("rewards", "behaviour"):
            if len(getattr(self, f"{name}_N")) != len(self.sample_N):
                raise ValueError(f"expected one entry of {name} per trained token ({len(self.sample_N)})")
        for name in ("reference", "values", "trainer"):
            given = len(getattr(self, f"{name}_N"))
            if given not in (0, len(self.sample_N)):
                raise ValueError(f"expected no {name} or one per trained token ({len(self.sample_N)}), got {given}")


def experience(
    samples: Sequence[Sample],
    *,
    reference_N: Tensor | None = None,
    values_N: Tensor | None = None,
    trainer_N: Tensor | None = None,
) -> Experience:
    """Lay the trained tokens of ``samples`` end to end; groups are numbered in order of first appearance.

    >>> a = Sample((1, 2, 3), (False, True, True), (0.0, -0.5, -1.0), 1.0, "nq/7")
    >>> b = Sample((1, 4, 9, 5), (False, True, False, True), (0.0, -0.1, 0.0, -0.2), 0.5, "nq/8", 1.0, ((1, 0.2),))
    >>> e = experience([a, b])
    >>> e.sample_N.tolist(), e.groups_S.tolist(), [round(r, 2) for r in e.rewards_N.tolist()]
    ([0, 0, 1, 1], [0, 1], [0.0, 1.0, 0.2, 0.3])

    Raises ``ValueError`` when a turn's reward stands on a token that is not trained.
    """
    numbers: dict[str, int] = {}
    for sample in samples:
        numbers.setdefault(sample.group, len(numbers))
    trained = [(i, p) for i, s in enumerate(samples) for p, m in zip(s.logprobs, s.mask, strict=True) if m]
    none = torch.zeros(0)
    return Experience(
        rewards_S=torch.tensor([s.reward for s in samples], dtype=torch.float64),
        groups_S=torch.tensor([numbers[s.group] for s in samples], dtype=torch.long),
        cut_S=torch.tensor([s.cut for s in samples], dtype=torch.bool),
        sample_N=torch.tensor([i for i, _ in trained], dtype=torch.long),
        rewards_N=torch.tensor([r for s in samples for r in _token_rewards(s)], dtype=torch.float64),
        behaviour_N=torch.tensor([p for _, p in trained], dtype=torch.float32),
        reference_N=none if reference_N is None else reference_N,
        values_N=none if values_N is None else values_N,
        trainer_N=none if trainer_N is None else trainer_N,
    )


def _token_rewards(sample: Sample) -> list[float]:
    """What each trained token of a sample earns at once; the sum is the sample's reward."""
    earned = {position: 0.0 for position, trained in enumerate(sample.mask) if trained}
    for position, value in sample.turn_rewards:
        if position not in earned:
            raise ValueError(f"a reward of {value} stands on token {position}, which is not trained")
        earned[position] += value
    if earned:
        earned[max(earned)] += sample.reward - sum(value for _, value in sample.turn_rewards)
    return list(earned.values())


class TokenBatch(Protocol):
    """The trained tokens of one micro-batch, as a loss sees them (``training.packing.PackedBatch`` is one).

    A sample is never divided between micro-batches. ``action_N`` numbers the runs of consecutive policy tokens (a
    turn's words). ``weights_N`` is the weight of each token's sample (1 unless the sample says otherwise).
    ``total_tokens`` and ``total_samples`` count those of the whole optimiser step, all micro-batches and ranks: the
    denominators of every mean. ``reference_N``, ``trainer_N``, ``returns_N`` and ``values_N`` may have no elements.
    """

    @property
    def sample_N(self) -> Tensor: ...
    @property
    def action_N(self) -> Tensor: ...
    @property
    def advantages_N(self) -> Tensor: ...
    @property
    def behaviour_N(self) -> Tensor: ...
    @property
    def trainer_N(self) -> Tensor: ...
    @property
    def reference_N(self) -> Tensor: ...
    @property
    def returns_N(self) -> Tensor: ...
    @property
    def values_N(self) -> Tensor: ...
    @property
    def weights_N(self) -> Tensor: ...
    @property
    def total_tokens(self) -> int: ...
    @property
    def total_samples(self) -> int: ...


class PolicyOutput(Protocol):
    """What the current policy says of the same tokens, with gradients (``training.logprobs.TokenScores`` is one).

    ``values_N`` has no elements for a policy without a critic.
    """

    @property
    def logprobs_N(self) -> Tensor: ...
    @property
    def entropy_N(self) -> Tensor: ...
    @property
    def values_N(self) -> Tensor: ...


class Algorithm(Protocol):
    """A frozen dataclass that is its own ``[algorithm]`` table."""

    @property
    def needs(self) -> Needs: ...

    def keep(self, experience: Experience) -> Tensor:
        """Which samples carry a signal: bool [S]. The caller leaves the others out of the batch, and counts them."""

    def advantages(self, experience: Experience) -> Tensor:
        """One advantage per trained token: float32 [N], for all samples, kept or not."""

    def returns(self, experience: Experience) -> Tensor:
        """What the critic is to predict at each trained token: float32 [N]; no elements without a critic."""

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """The micro-batch's share of the step's loss (a scalar; shares add up to the loss), and its ``Metrics``."""

    def adapted(self, metrics: Mapping[str, float], samples: int) -> Self:
        """The algorithm of the next step, given this step's metrics and how many samples it learned from."""
