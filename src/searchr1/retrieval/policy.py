"""What is done when a search engine is slow, busy, down or dear: one policy, and one guard for each host.

Every engine that is reached over a network calls it through a `Guard`, so that all of them fail in the same way: with
``SearchUnavailable``, after everything the policy allows was tried.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import TypeVar

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError

_T = TypeVar("_T")
_LONGEST_WAIT = 60.0  # seconds between two attempts, whatever a server asks for


@dataclass(frozen=True, slots=True)
class Policy:
    """How hard to try, how fast and how long. Seconds, unless a name says otherwise; 0 means no limit where noted.

    >>> Policy(retries=1, timeout=5).timeout
    5
    """

    timeout: float = 30.0
    """Of one attempt, from the connection to the last byte."""
    retries: int = 5
    """Attempts after the first."""
    backoff: float = 0.5
    """Retry ``i`` (from 0) waits ``backoff * 2**i`` times a random factor from 0.5 to 1.5; 60 s at most."""
    breaker_failures: int = 3
    """Calls in a row that failed for good, after which calls fail at once; 0: never."""
    breaker_seconds: float = 10.0
    """How long they do; then one call is let through, for one attempt, to see."""
    concurrency: int = 64
    """Calls under way at one moment; more wait their turn. 0: no limit."""
    per_second: float = 0.0
    """Attempts a second; 0: no limit."""
    max_requests: int = 0
    """Attempts in all, after which ``SearchBudgetSpent`` is raised; 0: no limit."""
    max_cost: float = 0.0
    """Money in all, in the currency of the prices; 0: no limit."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "timeout" and not value > 0:
                raise UserError(f"policy.timeout: expected seconds above 0, got {value}")
            if not value >= 0:  # also what is not a number
                raise UserError(f"policy.{field.name}: expected 0 or more, got {value}")


class TryAgainError(Exception):
    """An attempt failed in a way that the next may not; ``wait`` is the least delay the host asked for, seconds."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(slots=True)
class Counts:
    """What a guard has seen."""

    requests: int = 0
    retries: int = 0
    failures: int = 0
    cost: float = 0.0


class Guard:
    """Calls one host as a policy says. ``name`` begins its error messages, for example the host's URL."""

    def __init__(
        self,
        name: str,
        policy: Policy,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        uniform: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.policy = policy
        self.done = Counts()
        self._sleep = sleep
        self._uniform = uniform
        self._clock = clock
        self._failed_in_a_row = 0
        self._open_until = 0.0
        self._probing = False
        self._next_start = 0.0
        self._slots: asyncio.Semaphore | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def healthy(self) -> bool:
        """False while calls fail at once."""
        return self._clock() >= self._open_until and not self._probing

    def counts(self) -> dict[str, float]:
        """Attempts, retries, calls that failed for good, and money, since the guard was made."""
        done = self.done
        return {"requests": done.requests, "retries": done.retries, "failures": done.failures, "cost": done.cost}

    async def call(self, attempt: Callable[[], Awaitable[_T]], *, cost: float = 0.0) -> _T:
        """The result of the first attempt that succeeds; each costs ``cost``.

        ``attempt`` raises `TryAgainError` (or ``TimeoutError``) for what may pass and ``SearchUnavailable`` for what
        will not. Raises SearchUnavailable.
        """
        self._check_health()
        async with self._slot():
            self._check_health()  # while this one waited, others may have failed
            if not self._broken:
                return await self._counted(attempt, cost, self.policy.retries)
            self._probing = True
            try:
                return await self._counted(attempt, cost, 0)
            finally:
                self._probing = False

    async def _counted(self, attempt: Callable[[], Awaitable[_T]], cost: float, retries: int) -> _T:
        """One call, and what it says about the host. A call that is cancelled, or may not be made, says nothing."""
        try:
            result = await self._persist(attempt, cost, retries)
        except SearchBudgetSpent:
            raise
        except SearchUnavailable:
            self.done.failures += 1
            self._failed_in_a_row += 1
            if self._broken:
                self._open_until = self._clock() + self.policy.breaker_seconds
            raise
        self._failed_in_a_row, self._open_until = 0, 0.0
        return result

    async def _persist(self, attempt: Callable[[], Awaitable[_T]], cost: float, retries: int) -> _T:
        for failures in range(retries + 1):
            await self._start(cost)
            try:
                async with asyncio.timeout(self.policy.timeout):
                    return await attempt()
            except TimeoutError:
                failure = TryAgainError(f"no answer within {self.policy.timeout:g} s")
            except TryAgainError as error:
                failure = error
            if failures == retries:
                tries = "1 attempt" if failures == 0 else f"{failures + 1} attempts"
                raise SearchUnavailable(f"{self.name}: gave up after {tries}: {failure}") from failure
            self.done.retries += 1
            delay = self.policy.backoff * 2**failures * (0.5 + self._uniform())
            await self._sleep(min(max(delay, failure.wait), _LONGEST_WAIT))
        raise AssertionError("unreachable: the last failure raises")

    async def _start(self, cost: float) -> None:
        """Pay for one attempt and wait for its turn."""
        done, policy = self.done, self.policy
        if policy.max_requests and done.requests >= policy.max_requests:
            raise SearchBudgetSpent(f"{self.name}: all {policy.max_requests} requests of policy.max_requests are spent")
        if policy.max_cost and done.cost + cost > policy.max_cost + 1e-9:
            raise SearchBudgetSpent(f"{self.name}: {done.cost:.4g} of policy.max_cost = {policy.max_cost:g} is spent")
        done.requests += 1
        done.cost += cost
        if policy.per_second:
            now = self._clock()
            start = max(now, self._next_start)
            self._next_start = start + 1 / policy.per_second
            if start > now:
                try:
                    await self._sleep(start - now)
                except asyncio.CancelledError:  # it was never made
                    done.requests -= 1
                    done.cost -= cost
                    raise

    @property
    def _broken(self) -> bool:
        """Whether too many calls in a row have failed."""
        return 0 < self.policy.breaker_failures <= self._failed_in_a_row

    def _check_health(self) -> None:
        if not self.healthy:
            raise SearchUnavailable(f"{self.name}: not asked: its last calls all failed; it is asked again soon")

    def _slot(self) -> AbstractAsyncContextManager[object]:
        if not self.policy.concurrency:
            return nullcontext()
        loop = asyncio.get_running_loop()
        if self._slots is None or self._loop is not loop:  # a semaphore belongs to the loop that waits for it
            self._loop, self._slots = loop, asyncio.Semaphore(self.policy.concurrency)
        return self._slots
