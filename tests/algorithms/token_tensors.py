"""Small makers of the tensors that algorithms work on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from hypothesis import settings
from torch import Tensor

from searchr1.algorithms.base import Experience, experience
from searchr1.types import Sample

STEADY = settings(deadline=None, derandomize=True, max_examples=50)
"""The same examples every time, however busy the machine is."""


@dataclass(frozen=True)
class Tokens:
    """A ``TokenBatch`` of given values."""

    sample_N: Tensor
    advantages_N: Tensor
    behaviour_N: Tensor
    reference_N: Tensor
    weights_N: Tensor
    total_tokens: int


@dataclass(frozen=True)
class Output:
    """A ``PolicyOutput`` of given values."""

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor


def tokens(
    advantages: Sequence[float],
    behaviour: Sequence[float],
    reference: Sequence[float] = (),
    weights: Sequence[float] | None = None,
    total: int | None = None,
) -> Tokens:
    n = len(advantages)
    double = torch.float64
    return Tokens(
        sample_N=torch.arange(n),
        advantages_N=torch.tensor(advantages, dtype=double),
        behaviour_N=torch.tensor(behaviour, dtype=double),
        reference_N=torch.tensor(reference, dtype=double),
        weights_N=torch.tensor(weights if weights is not None else [1.0] * n, dtype=double),
        total_tokens=n if total is None else total,
    )


def output(logprobs: Sequence[float], entropy: Sequence[float] | None = None) -> Output:
    return Output(
        torch.tensor(logprobs, dtype=torch.float64, requires_grad=True),
        torch.tensor(entropy if entropy is not None else [0.0] * len(logprobs), dtype=torch.float64),
        torch.zeros(0),
    )


def step(rewards: Sequence[float], groups: Sequence[str], lengths: Sequence[int] | None = None) -> Experience:
    """Samples with a prompt token, ``lengths`` trained tokens each, and an observation token in the middle."""
    samples = []
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        count = lengths[i] if lengths else 1
        mask = (False, *(True,) * (count - 1), False, True)
        samples.append(Sample((7,) * len(mask), mask, tuple(-1.0 if m else 0.0 for m in mask), reward, group))
    return experience(samples)
