"""Many trajectories side by side: order, concurrency, progress, and what an exception does."""

import asyncio
from dataclasses import dataclass, field

import pytest
from dialogue import ANSWER, BYTES, SEARCH, agent, finds, timeless

from searchr1.agents.rollout import Job, rollout
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import UserError
from searchr1.ports import Engine, Retriever
from searchr1.types import Question, StopReason, Trajectory

JOBS = [Job(Question(f"q{n}", f"Question {n}?", ("a",)), 100 + n) for n in range(6)]


@dataclass
class Waiting:
    """An agent whose trajectory ``n`` takes ``10 * (6 - n)`` rounds of the event loop."""

    broken: str = ""
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    cancelled: list[str] = field(default_factory=list)
    most: int = 0

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        self.started.append(question.id)
        running = len(self.started) - len(self.ended) - len(self.cancelled)
        self.most = max(self.most, running)
        try:
            for _ in range(10 * (6 - int(question.id[1:]))):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.cancelled.append(question.id)
            raise
        if question.id == self.broken:
            raise UserError("broken")
        self.ended.append(question.id)
        return Trajectory(question, (), (), None, StopReason.NO_ACTION, 0, seed)


ENGINE, RETRIEVER = ScriptedEngine([], BYTES), finds()


@pytest.mark.parametrize(("concurrency", "most"), [(1, 1), (2, 2), (6, 6), (99, 6)])
async def test_results_are_in_the_order_of_the_jobs(concurrency: int, most: int) -> None:
    waiting, seen = Waiting(), []
    played = await rollout(
        JOBS, waiting, ENGINE, RETRIEVER, concurrency=concurrency, progress=lambda *counts: seen.append(counts)
    )
    assert [(t.question, t.seed) for t in played] == [(job.question, job.seed) for job in JOBS]
    assert waiting.started == [job.question.id for job in JOBS]
    assert waiting.most == most
    assert seen == [(n, 6) for n in range(1, 7)]


async def test_nothing_to_do() -> None:
    assert await rollout([], Waiting(), ENGINE, RETRIEVER) == []


async def test_an_exception_ends_the_rollout_and_cancels_the_rest() -> None:
    waiting = Waiting(broken="q2")
    with pytest.raises(UserError, match=r"^broken$"):
        await rollout(JOBS, waiting, ENGINE, RETRIEVER, concurrency=3)
    assert waiting.started == ["q0", "q1", "q2"]
    assert sorted(waiting.cancelled) == ["q0", "q1"]


async def test_cancelling_the_rollout_cancels_its_trajectories() -> None:
    waiting = Waiting()
    task = asyncio.create_task(rollout(JOBS, waiting, ENGINE, RETRIEVER, concurrency=2))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sorted(waiting.cancelled) == ["q0", "q1"]


async def test_no_room_at_all() -> None:
    with pytest.raises(ValueError, match=r"^concurrency must be at least 1, got 0$"):
        await rollout(JOBS, Waiting(), ENGINE, RETRIEVER, concurrency=0)


async def test_concurrency_changes_no_token() -> None:
    def speak(context: str, turn: int) -> str:
        return ANSWER if turn or "3?" in context else SEARCH

    played = [
        await rollout(JOBS, agent("search_r1"), ScriptedEngine(speak, BYTES), finds(), concurrency=concurrency)
        for concurrency in (1, 4)
    ]
    first, second = (list(map(timeless, trajectories)) for trajectories in played)
    assert first == second
    assert [t.searches for t in first] == [1, 1, 1, 0, 1, 1]
