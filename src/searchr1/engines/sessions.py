"""What the local engine keeps about a trajectory: its session, and the request it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from searchr1.engines.stops import StopRule
from searchr1.types import Completion, FinishReason, Sampling


@dataclass(eq=False, slots=True)
class Request:
    """One ``generate`` call under way."""

    prompt: tuple[int, ...]
    sampling: Sampling
    numbers: list[float]
    """One uniform number per token that may be sampled."""
    rule: StopRule
    eos_ids: frozenset[int]
    future: asyncio.Future[Completion]
    version: int
    """Of the weights that its first token was sampled with."""
    sampled: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    def append(self, token: int, logprob: float) -> FinishReason | None:
        """Take in a sampled token; why the request ends with it, or None."""
        self.sampled.append(token)
        self.logprobs.append(logprob)
        if token in self.eos_ids:
            return FinishReason.EOS
        if self.rule.completed(self.sampled):
            return FinishReason.STOP
        return FinishReason.LENGTH if len(self.sampled) == self.sampling.max_tokens else None

    def finish(self, reason: FinishReason) -> None:
        if not self.future.done():
            self.future.set_result(Completion(tuple(self.sampled), tuple(self.logprobs), reason, self.version))

    def fail(self, error: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(error)


@dataclass(eq=False, slots=True)
class LocalSession:
    """A trajectory's place in the engine.

    It is *active* while tokens are being sampled for it, *waiting* while it has a request that is not active yet, and
    otherwise *away* (searching, thinking, not started).
    """

    ids: list[int] = field(default_factory=list)
    """The tokens whose keys and values lie in its slot."""
    slot: int | None = None
    request: Request | None = None
    active: bool = False

    @property
    def waiting(self) -> bool:
        return self.request is not None and not self.active

    @property
    def away(self) -> bool:
        return self.request is None


def common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    """How many leading items two sequences share.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    if list(right[: len(left)]) == list(left):
        return len(left)
    return next(i for i, item in enumerate(left) if i == len(right) or right[i] != item)
