"""Small makers of the tensors that algorithms work on, all in double precision."""

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
FEW = settings(STEADY, max_examples=12)
"""For tests with many cases, each of which draws whole random steps."""


@dataclass(frozen=True)
class Tokens:
    """A ``TokenBatch`` of given values."""

    sample_N: Tensor
    action_N: Tensor
    advantages_N: Tensor
    behaviour_N: Tensor
    trainer_N: Tensor
    reference_N: Tensor
    returns_N: Tensor
    values_N: Tensor
    weights_N: Tensor
    total_tokens: int
    total_samples: int


@dataclass(frozen=True)
class Output:
    """A ``PolicyOutput`` of given values."""

    logprobs_N: Tensor
    entropy_N: Tensor
    values_N: Tensor


def double(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def tokens(
    advantages: Sequence[float],
    behaviour: Sequence[float],
    reference: Sequence[float] = (),
    weights: Sequence[float] | None = None,
    total: int | None = None,
    *,
    trainer: Sequence[float] = (),
    returns: Sequence[float] = (),
    values: Sequence[float] = (),
    samples: Sequence[int] | None = None,
    actions: Sequence[int] | None = None,
    total_samples: int | None = None,
) -> Tokens:
    """Every token a sample and an action of its own, unless ``samples`` and ``actions`` number them otherwise."""
    n = len(advantages)
    sample_N = torch.tensor(samples) if samples is not None else torch.arange(n)
    return Tokens(
        sample_N=sample_N,
        action_N=torch.tensor(actions) if actions is not None else sample_N,
        advantages_N=double(advantages),
        behaviour_N=double(behaviour),
        trainer_N=double(trainer),
        reference_N=double(reference),
        returns_N=double(returns),
        values_N=double(values),
        weights_N=double(weights if weights is not None else [1.0] * n),
        total_tokens=n if total is None else total,
        total_samples=len(sample_N.unique()) if total_samples is None else total_samples,
    )


def output(logprobs: Sequence[float], entropy: Sequence[float] | None = None, values: Sequence[float] = ()) -> Output:
    """Leaves whose gradients can be read after ``backward``."""
    filled = entropy if entropy is not None else [0.0] * len(logprobs)
    return Output(*(double(given).requires_grad_() for given in (logprobs, filled, values)))


def step(rewards: Sequence[float], groups: Sequence[str], lengths: Sequence[int] | None = None) -> Experience:
    """Samples with a prompt token, ``lengths`` trained tokens each, and an observation token in the middle."""
    samples = []
    for i, (reward, group) in enumerate(zip(rewards, groups, strict=True)):
        count = lengths[i] if lengths else 1
        mask = (False, *(True,) * (count - 1), False, True)
        samples.append(Sample((7,) * len(mask), mask, tuple(-1.0 if m else 0.0 for m in mask), reward, group))
    return experience(samples)
