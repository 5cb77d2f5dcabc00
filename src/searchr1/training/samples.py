"""Trajectories -> training samples: the mask comes from who put each token there, and from nothing else."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch

from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.types import Sample, Scored, Source, StopReason, Trajectory


def to_sample(scored: Scored, group: str, *, mask_environment: bool = True) -> Sample:
    """The trainable view of one trajectory.

    With ``mask_environment=False`` retrieved tokens are trained too (an ablation); they carry no behaviour
    log-probability yet: see `score_environment`.
    """
    trajectory = scored.trajectory
    mask = trajectory.mask
    if not mask_environment:
        mask = tuple(s.source is not Source.PROMPT for s in trajectory.segments for _ in s.token_ids)
    return Sample(
        trajectory.tokens,
        mask,
        trajectory.logprobs,
        scored.reward,
        group,
        turn_rewards=_turn_rewards(scored),
        cut=_is_cut(trajectory),
    )


def _is_cut(trajectory: Trajectory) -> bool:
    """Whether a limit on tokens ended it: the context was full, or the policy was still writing its last turn."""
    if trajectory.stop is StopReason.OUT_OF_TOKENS:
        return True
    return trajectory.stop is StopReason.NO_ACTION and bool(trajectory.turns) and trajectory.turns[-1].cut


def _turn_rewards(scored: Scored) -> tuple[tuple[int, float], ...]:
    """What every turn earned, at the position of the last token that the policy wrote in it."""
    if not scored.turn_rewards:
        return ()
    last, position = [], 0
    for segment in scored.trajectory.segments:
        position += len(segment.token_ids)
        if segment.source is Source.POLICY:
            last.append(position - 1)
    return tuple((at, value) for at, value in zip(last, scored.turn_rewards, strict=True) if value)


def score_environment(samples: Sequence[Sample], policy: Policy, max_tokens: int) -> list[Sample]:
    """Give trained tokens that nobody sampled the current policy's log-probability, so that their ratio starts at 1.

    Tokens that were sampled keep their own.
    """
    scores = iter(policy.score(pack(samples, max_tokens=max_tokens)).tolist())
    scored = []
    for sample in samples:
        pairs = zip(sample.logprobs, sample.mask, strict=True)
        logprobs = tuple(_or_else(logprob, next(scores)) if trained else 0.0 for logprob, trained in pairs)
        scored.append(replace(sample, logprobs=logprobs))
    return scored


def _or_else(logprob: float, score: float) -> float:
    """A behaviour log-probability of exactly 0 belongs to a token that was not sampled (or was certain: the same)."""
    return logprob if logprob != 0.0 else score


def mini_batches(count: int, parts: int, seed: int) -> list[list[int]]:
    """Indices of ``count`` samples in ``parts`` random parts of equal size (at most one apart), none empty.

    >>> sorted(sum(mini_batches(5, 2, seed=1), []))
    [0, 1, 2, 3, 4]
    """
    order = list(range(count))
    random.Random(seed).shuffle(order)
    parts = min(parts, count)
    return [sorted(order[part::parts]) for part in range(parts)]


def split(samples: Sequence[Sample], values_N: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Per-trained-token values of all samples, taken apart by sample."""
    return torch.split(values_N, [sum(sample.mask) for sample in samples])


def gather(samples: Sequence[Sample], values_N: torch.Tensor, chosen: Sequence[int]) -> torch.Tensor:
    """The per-trained-token values of the ``chosen`` samples, out of those of all."""
    parts = split(samples, values_N)
    return torch.cat([parts[index] for index in chosen])
