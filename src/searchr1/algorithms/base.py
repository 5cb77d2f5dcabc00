"""What an algorithm is given and what it must answer.

Shapes: ``S`` samples (trajectories) of one rollout step; ``N`` trained tokens of all of them, sample after sample, or
those of one micro-batch in a ``TokenBatch``. Prompt and retrieved tokens are in none of these tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from searchr1.types import Sample

Metrics = dict[str, Tensor]
"""Detached scalars of one micro-batch. Each is a sum over its tokens divided by the ``total_tokens`` of the whole
optimiser step, so adding them over the micro-batches (and ranks) gives the mean over all policy tokens. The one
exception: a name that ends in ``_max`` is combined by ``max``."""


@dataclass(frozen=True, slots=True)
class Needs:
    """What an algorithm wants computed beforehand: log-probabilities of a frozen reference, a critic's values."""

    reference: bool = False
    values: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Experience:
    """One rollout step: a reward and a group number per sample, and its trained tokens laid end to end.

    ``sample_N`` says which sample a trained token belongs to (ascending); ``logprobs_N`` are the behaviour
    log-probabilities; ``reference_N`` and ``values_N`` have no elements unless the algorithm ``needs`` them. Because
    observations are not here at all, the token after an observation directly follows the last one before it: a
    recursion over ``N`` (GAE) bridges observations, and the last token of a sample is its last policy token.
    """

    rewards_S: Tensor
    groups_S: Tensor
    sample_N: Tensor
    logprobs_N: Tensor
    reference_N: Tensor
    values_N: Tensor

    def __post_init__(self) -> None:
        tokens = len(self.sample_N)
        if len(self.logprobs_N) != tokens or len(self.groups_S) != len(self.rewards_S):
            raise ValueError(
                f"expected one log-probability per trained token and one group per sample, got {len(self.logprobs_N)} "
                f"for {tokens} tokens and {len(self.groups_S)} for {len(self.rewards_S)} samples"
            )
        for name, given in (("reference", self.reference_N), ("value", self.values_N)):
            if len(given) not in (0, tokens):
                raise ValueError(f"expected no {name} or one per trained token ({tokens}), got {len(given)}")


def experience(
    samples: Sequence[Sample], *, reference_N: Tensor | None = None, values_N: Tensor | None = None
) -> Experience:
    """Lay the trained tokens of ``samples`` end to end; groups are numbered in order of first appearance.

    >>> a = Sample((1, 2, 3), (False, True, True), (0.0, -0.5, -1.0), 1.0, "nq/7")
    >>> b = Sample((1, 4, 9, 5), (False, True, False, True), (0.0, -0.1, 0.0, -0.2), 0.0, "hotpotqa/7")
    >>> e = experience([a, b])
    >>> e.sample_N.tolist(), e.groups_S.tolist()
    ([0, 0, 1, 1], [0, 1])
    """
    numbers: dict[str, int] = {}
    for sample in samples:
        numbers.setdefault(sample.group, len(numbers))
    trained = [(i, p) for i, s in enumerate(samples) for p, m in zip(s.logprobs, s.mask, strict=True) if m]
    empty = torch.zeros(0)
    return Experience(
        rewards_S=torch.tensor([s.reward for s in samples], dtype=torch.float64),
        groups_S=torch.tensor([numbers[s.group] for s in samples], dtype=torch.long),
        sample_N=torch.tensor([i for i, _ in trained], dtype=torch.long),
        logprobs_N=torch.tensor([p for _, p in trained], dtype=torch.float32),
        reference_N=empty if reference_N is None else reference_N,
        values_N=empty if values_N is None else values_N,
    )


class TokenBatch(Protocol):
    """The trained tokens of one micro-batch, as a loss sees them (``training.packing.PackedBatch`` is one).

    ``weights_N`` is the weight of each token's sample (1 unless the sample says otherwise). ``total_tokens`` counts
    the trained tokens of the whole optimiser step, all micro-batches and ranks: the denominator of every mean.
    """

    @property
    def sample_N(self) -> Tensor: ...
    @property
    def advantages_N(self) -> Tensor: ...
    @property
    def behaviour_N(self) -> Tensor: ...
    @property
    def reference_N(self) -> Tensor: ...
    @property
    def weights_N(self) -> Tensor: ...
    @property
    def total_tokens(self) -> int: ...


class PolicyOutput(Protocol):
    """What the current policy says of the same tokens, with gradients (``training.logprobs.TokenScores`` is one).

    ``values_N`` has no elements for a policy without a value head.
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

    def loss(self, batch: TokenBatch, output: PolicyOutput) -> tuple[Tensor, Metrics]:
        """The micro-batch's share of the step's loss (a scalar; shares add up to the loss), and its ``Metrics``."""
