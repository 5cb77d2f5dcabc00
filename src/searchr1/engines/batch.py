"""Who is in the local engine's batch: seats, admission, compaction, and the two kinds of pass over them.

Everything here is a plain call; when to make it is the engine's business (``local.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from searchr1.engines.passes import Passes
from searchr1.engines.sampling import sample
from searchr1.engines.sessions import LocalSession, Request, common_prefix
from searchr1.errors import EngineError
from searchr1.types import FinishReason


@dataclass(slots=True)
class Stats:
    """Counters since the engine was made."""

    prefilled_tokens: int = 0
    """Context tokens that were run through the model."""
    generated_tokens: int = 0
    passes: int = 0


class Batch:
    """The open sessions in the order of opening, the slots they hold, and those for whom tokens are being sampled."""

    def __init__(self, model: Any, slots: int, prefill_tokens: int) -> None:
        self.stats = Stats()
        self.version = 0
        self.open: dict[LocalSession, None] = {}
        self.active: list[LocalSession] = []
        """By slot, ascending."""
        self._slots = slots
        self._prefill_tokens = prefill_tokens
        self._passes = Passes(model, slots)
        self._seats: list[LocalSession | None] = []

    @property
    def pending(self) -> bool:
        """Whether any request is under way."""
        return bool(self.active) or any(session.request for session in self.open)

    @property
    def away(self) -> int:
        """How many open sessions have no request."""
        return sum(session.request is None for session in self.open)

    def close(self, session: LocalSession) -> None:
        self.withdraw(session)
        del self.open[session]
        if session.slot is not None:
            self._seats[session.slot] = None

    def withdraw(self, session: LocalSession) -> None:
        """Take a session's request out of the batch; what it cached stays."""
        session.request = None
        if session.active:
            session.active = False
            self.active = [other for other in self.active if other is not session]

    def forget(self) -> None:
        """Drop all that is cached; requests under way go back to waiting with the tokens they have."""
        for session in self.open:
            session.ids, session.active = [], False
        self.active = []

    def fail(self, session: LocalSession, error: Exception) -> None:
        request = _request(session)
        self.withdraw(session)
        request.fail(error)

    @torch.inference_mode()
    def admit(self) -> bool:
        """Prefill what waits, those who hold a slot first, then by opening; False when nobody could be admitted."""
        waiting = sorted((s for s in self.open if s.waiting), key=lambda session: session.slot is None)
        admitted = [session for session in waiting if self._seat(session)]
        if admitted:
            self._compact(self.active + admitted)
            for group in self._groups(admitted):
                self._run(group, self._prefill)
        return bool(admitted)

    @torch.inference_mode()
    def decode(self) -> None:
        """Sample one token for every active session."""
        if _slot(self.active[-1]) >= 1.25 * len(self.active):
            self._compact(self.active)
        self._run(self.active, self._step)

    def _seat(self, session: LocalSession) -> bool:
        if session.slot is None:
            free = next((slot for slot, holder in enumerate(self._seats) if holder is None), len(self._seats))
            if free == self._slots:
                return False
            if free == len(self._seats):
                self._seats.append(None)
                self._passes.reserve(free + 1, 1)
            self._seats[free], session.slot = session, free
        return True

    def _compact(self, running: list[LocalSession]) -> None:
        """Move ``running`` to the first slots, exchanging places with the sessions (or nobody) there."""
        count = len(running)
        taken = {_slot(session) for session in running}
        holes = [slot for slot in range(count) if slot not in taken]
        moving = [session for session in running if _slot(session) >= count]
        self._passes.swap(holes, [_slot(session) for session in moving])
        for hole, session in zip(holes, moving, strict=True):
            old, other = _slot(session), self._seats[hole]
            self._seats[hole], self._seats[old] = session, other
            session.slot = hole
            if other is not None:
                other.slot = old
        self.active.sort(key=_slot)

    def _groups(self, admitted: list[LocalSession]) -> list[list[LocalSession]]:
        """Batches of similar length; each session is cut back to what it shares with its new context."""
        fresh: dict[LocalSession, int] = {}
        for session in admitted:
            request = _request(session)
            context = [*request.prompt, *request.sampled]
            keep = min(common_prefix(session.ids, context), len(context) - 1)
            session.ids = context
            self._passes.lengths[session.slot] = keep
            fresh[session] = len(context) - keep
        groups: list[list[LocalSession]] = []
        for session in sorted(admitted, key=lambda session: -fresh[session]):
            if groups and fresh[groups[-1][0]] * (len(groups[-1]) + 1) <= self._prefill_tokens:
                groups[-1].append(session)
            else:
                groups.append([session])
        return groups

    def _prefill(self, group: list[LocalSession]) -> torch.Tensor:
        slots = [_slot(session) for session in group]
        starts = self._passes.lengths[slots].tolist()
        runs = [session.ids[start:] for session, start in zip(group, starts, strict=True)]
        logits = self._passes.prefill(slots, runs)
        for session in group:
            session.active = True
            if not _request(session).sampled:
                _request(session).version = self.version
        self.active = sorted(self.active + group, key=_slot)
        self.stats.prefilled_tokens += sum(map(len, runs))
        return logits

    def _step(self, active: list[LocalSession]) -> torch.Tensor:
        slots = [_slot(session) for session in active]
        newest = [_request(session).sampled[-1] for session in active]
        tokens = np.zeros(slots[-1] + 1, np.int64)
        tokens[slots] = newest
        logits = self._passes.decode(tokens, slots)
        for session, token in zip(active, newest, strict=True):
            session.ids.append(token)
        return logits

    def _run(self, group: list[LocalSession], run: Callable[[list[LocalSession]], torch.Tensor]) -> None:
        """Run a pass and sample from it. Whatever breaks in it fails the requests of its group, and only those."""
        requests = [_request(session) for session in group]
        try:
            logits = run(group)
            numbers = [request.numbers[len(request.sampled)] for request in requests]
            tokens, logprobs = sample(logits, [request.sampling for request in requests], numbers)
        except Exception as error:  # the engine's one boundary: these trajectories get to know, the others go on
            for session in group:
                session.ids = []
                failure = EngineError(f"a forward pass failed: {type(error).__name__}: {error}")
                failure.__cause__ = error
                self.fail(session, failure)
            return
        self.stats.passes += 1
        self.stats.generated_tokens += len(group)
        for session, request, token, logprob in zip(group, requests, tokens, logprobs, strict=True):
            if (reason := request.append(token, logprob)) is not None:
                self._finish(session, reason)

    def _finish(self, session: LocalSession, reason: FinishReason) -> None:
        request = _request(session)
        self.withdraw(session)
        request.finish(reason)


def _slot(session: LocalSession) -> int:
    assert session.slot is not None, "a running session holds a slot"
    return session.slot


def _request(session: LocalSession) -> Request:
    assert session.request is not None, "a running session has a request"
    return session.request
