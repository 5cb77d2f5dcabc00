"""Many trajectories side by side: the one driver of training, evaluation and benchmarks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.ports import Agent, Engine, Retriever
from searchr1.retrieval.counting import ASKED
from searchr1.types import Question, Trajectory


@dataclass(frozen=True, slots=True)
class Job:
    """One trajectory to play."""

    question: Question
    seed: int


async def rollout(
    jobs: Sequence[Job],
    agent: Agent,
    engine: Engine,
    retriever: Retriever,
    *,
    concurrency: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """One trajectory for every job, in the order of ``jobs``; at most ``concurrency`` under way at once.

    ``progress(done, total)`` is called after every trajectory. What an agent raises ends the rollout: the failures
    that it survives are stop reasons of a trajectory.
    """
    trajectories: dict[int, Trajectory] = {}

    def finished(index: int, trajectory: Trajectory) -> None:
        trajectories[index] = trajectory
        if progress is not None:
            progress(len(trajectories), len(jobs))

    await play_each(jobs, agent, engine, retriever, finished, concurrency=concurrency)
    return [trajectories[index] for index in range(len(jobs))]


async def play_each(
    jobs: Sequence[Job],
    agent: Agent,
    engine: Engine,
    retriever: Retriever,
    finished: Callable[[int, Trajectory], None],
    *,
    concurrency: int = 256,
) -> None:
    """`rollout` that keeps nothing: ``finished(index of the job, trajectory)`` is called as each ends."""
    if concurrency < 1:
        raise ValueError(f"concurrency must be at least 1, got {concurrency}")
    pending = iter(enumerate(jobs))

    async def work() -> None:
        for index, job in pending:  # shared: each worker takes the next job
            ASKED.set(job.question)
            finished(index, await agent.run(job.question, engine=engine, retriever=retriever, seed=job.seed))

    workers = [asyncio.create_task(work()) for _ in range(min(concurrency, len(jobs)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
