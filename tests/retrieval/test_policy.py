"""Every promise of the guard, by an injected clock: no test waits."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import SearchBudgetSpent, SearchUnavailable, UserError
from searchr1.retrieval.options import build_options
from searchr1.retrieval.policy import Guard, Policy, TryAgainError


class Time:
    """A clock that moves only when somebody sleeps, and a note of every sleep."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def guard(self, *, uniform: float = 0.5, **options: Any) -> Guard:
        options = {"backoff": 1.0, "breaker_failures": 0, **options}
        return Guard("host", Policy(**options), sleep=self.sleep, uniform=lambda: uniform, clock=lambda: self.now)


class Script:
    """An attempt that plays its outcomes in turn; the last one stays."""

    def __init__(self, *outcomes: Any) -> None:
        self.outcomes = list(outcomes)
        self.calls = 0

    async def __call__(self) -> Any:
        self.calls += 1
        outcome = self.outcomes.pop(0) if len(self.outcomes) > 1 else self.outcomes[0]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def held(go: asyncio.Event, result: Any = "answer") -> Callable[[], Awaitable[Any]]:
    """An attempt that ends when it is let go."""

    async def attempt() -> Any:
        await go.wait()
        if isinstance(result, BaseException):
            raise result
        return result

    return attempt


BAD = TryAgainError("busy")


async def test_the_first_answer_costs_one_request_and_no_wait() -> None:
    time = Time()
    guard = time.guard()
    assert await guard.call(Script("answer"), cost=0.5) == "answer"
    assert guard.counts() == {"requests": 1, "retries": 0, "failures": 0, "cost": 0.5}
    assert time.waits == []


@pytest.mark.parametrize(("uniform", "factor"), [(0.0, 0.5), (0.5, 1.0), (0.75, 1.25)])
async def test_retries_wait_twice_as_long_each_time_with_jitter(uniform: float, factor: float) -> None:
    time = Time()
    guard = time.guard(retries=7, backoff=2.0, uniform=uniform)
    with pytest.raises(SearchUnavailable, match=r"^host: gave up after 8 attempts: busy$"):
        await guard.call(Script(BAD), cost=0.25)
    assert time.waits == [min(2.0 * 2**i * factor, 60.0) for i in range(7)]
    assert guard.counts() == {"requests": 8, "retries": 7, "failures": 1, "cost": 2.0}


async def test_an_answer_after_failures_ends_the_waiting() -> None:
    time = Time()
    guard = time.guard()
    assert await guard.call(Script(BAD, TimeoutError(), "answer")) == "answer"
    assert time.waits == [1.0, 2.0]
    assert guard.counts() == {"requests": 3, "retries": 2, "failures": 0, "cost": 0.0}


async def test_a_wait_that_the_host_asks_for_is_the_least() -> None:
    time = Time()
    waits = [TryAgainError("x", 1.5), TryAgainError("x", 1.5), TryAgainError("x", 3600.0), "answer"]
    assert await time.guard().call(Script(*waits)) == "answer"
    assert time.waits == [1.5, 2.0, 60.0]


async def test_what_will_not_pass_is_not_tried_again() -> None:
    time = Time()
    guard, script = time.guard(), Script(SearchUnavailable("no such index"))
    with pytest.raises(SearchUnavailable, match=r"^no such index$"):
        await guard.call(script)
    assert (script.calls, time.waits, guard.counts()["failures"]) == (1, [], 1)


async def test_an_attempt_ends_after_its_timeout() -> None:
    time, go = Time(), asyncio.Event()
    guard = time.guard(timeout=0.01, retries=1)
    with pytest.raises(SearchUnavailable, match=r"^host: gave up after 2 attempts: no answer within 0.01 s$"):
        await guard.call(held(go))
    assert time.waits == [1.0]


async def test_a_mistake_in_the_program_is_not_retried_and_says_nothing_about_the_host() -> None:
    guard = Time().guard(breaker_failures=1)
    with pytest.raises(ZeroDivisionError):
        await guard.call(Script(ZeroDivisionError()))
    assert guard.healthy
    assert guard.counts() == {"requests": 1, "retries": 0, "failures": 0, "cost": 0.0}


async def fail(guard: Guard, times: int = 1) -> None:
    for _ in range(times):
        with pytest.raises(SearchUnavailable):
            await guard.call(Script(BAD))


async def test_the_breaker_opens_after_so_many_calls_in_a_row() -> None:
    time = Time()
    guard, script = time.guard(breaker_failures=3, breaker_seconds=10, retries=0), Script("answer")
    await fail(guard, 2)
    assert await guard.call(script) == "answer"  # the row begins anew
    await fail(guard, 2)
    assert guard.healthy
    await fail(guard)
    assert not guard.healthy
    before = guard.counts()
    with pytest.raises(
        SearchUnavailable, match=r"^host: not asked: its last calls all failed; it is asked again soon$"
    ):
        await guard.call(script)
    time.now += 9.99
    assert not guard.healthy
    assert (script.calls, guard.counts()) == (1, before)
    time.now += 0.02
    assert guard.healthy


async def test_retries_of_one_call_are_one_failure_of_the_breaker() -> None:
    guard = Time().guard(breaker_failures=2, retries=4)
    await fail(guard)
    assert guard.healthy
    await fail(guard)
    assert not guard.healthy


async def open_breaker(time: Time, **options: Any) -> Guard:
    """A guard whose breaker opened and whose time is over: the next call is let through to see."""
    guard = time.guard(breaker_failures=2, breaker_seconds=10, **options)
    await fail(guard, 2)
    time.now += 10
    time.waits.clear()
    return guard


async def test_one_call_is_let_through_and_closes_the_breaker() -> None:
    time, go = Time(), asyncio.Event()
    guard = await open_breaker(time)
    task = asyncio.create_task(guard.call(held(go)))
    await settle()
    time.now += 1000  # however long it takes
    other = Script("answer")
    for _ in range(3):
        assert not guard.healthy
        with pytest.raises(SearchUnavailable, match="not asked"):
            await guard.call(other)
    go.set()
    assert (await task, other.calls) == ("answer", 0)
    assert guard.healthy
    await fail(guard)  # and the row begins anew
    assert guard.healthy


async def test_the_call_that_is_let_through_is_not_retried_and_opens_the_breaker_again() -> None:
    time = Time()
    guard, script = await open_breaker(time, retries=5), Script(BAD)
    with pytest.raises(SearchUnavailable, match="gave up after 1 attempt: busy"):
        await guard.call(script)
    assert (script.calls, time.waits) == (1, [])
    time.now += 9
    assert not guard.healthy
    time.now += 1
    assert await guard.call(Script("answer")) == "answer"


async def test_a_call_that_is_let_through_and_cancelled_leaves_the_breaker_as_it_was() -> None:
    time = Time()
    guard = await open_breaker(time)
    task = asyncio.create_task(guard.call(held(asyncio.Event())))
    await settle()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert guard.healthy
    script = Script(BAD)
    with pytest.raises(SearchUnavailable):  # again one attempt, to see
        await guard.call(script)
    assert (script.calls, guard.healthy) == (1, False)


async def test_who_waits_for_a_slot_while_the_breaker_opens_is_not_asked() -> None:
    go, script = asyncio.Event(), Script("answer")
    guard = Time().guard(breaker_failures=1, concurrency=1, retries=0)
    first = asyncio.create_task(guard.call(held(go, BAD)))
    second = asyncio.create_task(guard.call(script))
    await settle()
    go.set()
    errors = await asyncio.gather(first, second, return_exceptions=True)
    assert [str(error) for error in errors] == [
        "host: gave up after 1 attempt: busy",
        "host: not asked: its last calls all failed; it is asked again soon",
    ]
    assert script.calls == 0


async def test_a_breaker_of_0_failures_never_opens() -> None:
    guard = Time().guard(breaker_failures=0, retries=0)
    await fail(guard, 50)
    assert guard.healthy


async def test_a_cancelled_call_is_no_failure_and_releases_its_slot() -> None:
    guard = Time().guard(breaker_failures=1, concurrency=1)
    running = asyncio.create_task(guard.call(held(asyncio.Event())))
    waiting = asyncio.create_task(guard.call(held(asyncio.Event())))
    await settle()
    for task in (waiting, running):
        task.cancel()
    found = await asyncio.gather(running, waiting, return_exceptions=True)
    assert all(isinstance(error, asyncio.CancelledError) for error in found)
    assert guard.healthy
    assert guard.counts()["failures"] == 0
    assert await guard.call(Script("answer")) == "answer"


@given(limit=st.integers(1, 5), calls=st.lists(st.integers(0, 4), max_size=20), cancelled=st.sets(st.integers(0, 19)))
def test_never_more_calls_at_a_time_than_allowed(limit: int, calls: list[int], cancelled: set[int]) -> None:
    """Each call takes some passes of the event loop and fails for the first so many attempts; some are cancelled."""
    guard = Time().guard(concurrency=limit, retries=2)
    now, most = 0, 0

    async def call(turns: int) -> None:
        attempts = 0

        async def attempt() -> None:
            nonlocal now, most, attempts
            now += 1
            attempts += 1
            most = max(most, now)
            try:
                for _ in range(turns):
                    await asyncio.sleep(0)
            finally:
                now -= 1
            if attempts <= turns:
                raise BAD

        await guard.call(attempt)

    async def play() -> None:
        tasks = [asyncio.create_task(call(turns)) for turns in calls]
        await asyncio.sleep(0)
        for number in cancelled & set(range(len(tasks))):
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(guard.call(Script("answer")) for _ in range(2 * limit)))

    asyncio.run(play())
    assert (now, most <= limit) == (0, True)


async def test_no_limit_of_concurrency() -> None:
    go = asyncio.Event()
    guard = Time().guard(concurrency=0)
    tasks = [asyncio.create_task(guard.call(held(go, number))) for number in range(200)]
    await settle()
    assert guard.counts()["requests"] == 200
    go.set()
    assert await asyncio.gather(*tasks) == list(range(200))


async def test_attempts_keep_their_distance() -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    guard = Guard("host", Policy(per_second=4), sleep=sleep, clock=lambda: 50.0)
    await asyncio.gather(*(guard.call(Script("answer")) for _ in range(5)))
    assert waits == [0.25, 0.5, 0.75, 1.0]  # five at one moment


async def test_retries_keep_their_distance_too_and_time_that_passed_counts() -> None:
    time = Time()
    starts: list[float] = []
    guard = time.guard(per_second=0.5, backoff=0.5)

    async def attempt() -> str:
        starts.append(time.now - 1000)
        if len(starts) < 3:
            raise BAD
        return "answer"

    assert await guard.call(attempt) == "answer"
    assert starts == [0.0, 2.0, 4.0]
    assert time.waits == [0.5, 1.5, 1.0, 1.0]  # backoff, then what is left of the distance
    time.now += 10
    await guard.call(attempt)
    await guard.call(attempt)
    assert starts[3:] == [14.0, 16.0]  # a pause saves nothing up


async def test_the_budget_of_requests_is_exact_retries_included() -> None:
    guard = Time().guard(max_requests=5, retries=1, breaker_failures=1)
    assert await guard.call(Script(BAD, "answer")) == "answer"
    assert await guard.call(Script(BAD, "answer")) == "answer"
    script = Script(BAD)
    with pytest.raises(SearchBudgetSpent, match=r"^host: all 5 requests of policy.max_requests are spent$"):
        await guard.call(script)
    assert script.calls == 1  # its retry was not paid for
    for _ in range(3):
        with pytest.raises(SearchBudgetSpent):
            await guard.call(script)
    assert (script.calls, guard.counts()["requests"], guard.counts()["failures"]) == (1, 5, 0)
    assert guard.healthy  # to have no money says nothing about the host


async def test_the_budget_of_money_is_exact() -> None:
    guard, script = Time().guard(max_cost=1.0), Script("answer")
    for _ in range(10):
        await guard.call(script, cost=0.1)  # ten times 0.1 is a little less than 1 in floating point
    with pytest.raises(SearchBudgetSpent, match=r"^host: 1 of policy.max_cost = 1 is spent$"):
        await guard.call(script, cost=0.1)
    await guard.call(script, cost=0.0)  # what is free goes on
    assert (script.calls, guard.counts()["cost"]) == (11, pytest.approx(1.0))
    guard = Time().guard(max_cost=0.3)
    for _ in range(3):
        await guard.call(script, cost=0.1)  # and three times 0.1 is a little more than 0.3


async def test_the_budget_holds_for_calls_side_by_side() -> None:
    guard = Time().guard(max_requests=7, concurrency=0)
    script = Script("answer")
    found = await asyncio.gather(*(guard.call(script) for _ in range(20)), return_exceptions=True)
    assert script.calls == found.count("answer") == 7
    assert sum(isinstance(error, SearchBudgetSpent) for error in found) == 13


async def test_a_call_cancelled_before_its_turn_is_not_paid_for() -> None:
    go = asyncio.Event()

    async def sleep(seconds: float) -> None:
        await go.wait()

    guard = Guard("host", Policy(per_second=1, max_requests=2, max_cost=2.0), sleep=sleep, clock=lambda: 0.0)
    await guard.call(Script("answer"), cost=1.0)
    task = asyncio.create_task(guard.call(Script("answer"), cost=1.0))
    await settle()
    assert guard.counts()["requests"] == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert (guard.counts()["requests"], guard.counts()["cost"]) == (1, 1.0)
    go.set()
    assert await guard.call(Script("answer"), cost=1.0) == "answer"


def test_one_guard_serves_several_event_loops() -> None:
    guard = Time().guard(concurrency=1, breaker_failures=1, retries=0)

    async def crowd() -> list[str]:
        return await asyncio.gather(*(guard.call(Script("answer")) for _ in range(3)))

    async def abandon() -> None:
        """The loop ends while one call holds the slot and another waits for it."""
        tasks = [asyncio.create_task(guard.call(held(asyncio.Event()))) for _ in range(2)]
        await settle()
        assert len(tasks) == 2

    assert asyncio.run(crowd()) == ["answer"] * 3
    asyncio.run(abandon())
    assert asyncio.run(crowd()) == ["answer"] * 3
    assert guard.counts() == {"requests": 7, "retries": 0, "failures": 0, "cost": 0.0}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, -1) for name in ("retries", "backoff", "breaker_failures", "breaker_seconds", "concurrency", "per_second")]
    + [("timeout", 0), ("timeout", -1.0), ("timeout", float("nan")), ("max_requests", -1), ("max_cost", float("nan"))],
)
def test_what_makes_no_sense_is_the_users_error(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^policy.{name}: expected (0 or more|seconds above 0), got {value}$"):
        Policy(**{name: value})  # type: ignore[arg-type]


def test_a_table_is_a_policy() -> None:
    assert build_options(Policy, {"timeout": 3, "max_cost": 2}, "a test") == Policy(timeout=3, max_cost=2)
    with pytest.raises(UserError, match="option 'retry' of a test is unknown; did you mean 'retries'"):
        build_options(Policy, {"retry": 1}, "a test")
