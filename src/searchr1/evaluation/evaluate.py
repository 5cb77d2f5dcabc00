"""Evaluation: every question through an agent, and the scores of what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from searchr1.agents.rollout import Job, rollout
from searchr1.ports import Agent, Engine, Retriever
from searchr1.rewards import build_reward
from searchr1.seeds import derive_seed
from searchr1.types import Question, Scored, Trajectory


async def evaluate(
    questions: Sequence[Question],
    agent: Agent,
    engine: Engine,
    retriever: Retriever,
    *,
    seed: int = 0,
    concurrency: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> list[Trajectory]:
    """One trajectory for every question, none dropped, in the order of ``questions``.

    At most ``concurrency`` questions are under way at once; each has the seed `question_seed`, so neither concurrency
    nor order changes a result. ``progress(done, total)`` is called after every question.
    """
    jobs = [Job(question, question_seed(seed, question)) for question in questions]
    return await rollout(jobs, agent, engine, retriever, concurrency=concurrency, progress=progress)


def question_seed(seed: int, question: Question, sample: int = 0) -> int:
    """The seed of one trajectory of an evaluation, from what it is and never from when it runs."""
    return derive_seed(seed, question.id, *([sample] if sample else []))


def score_trajectories(trajectories: Sequence[Trajectory]) -> list[Scored]:
    """Trajectories with exact match as the reward, and cover match and F1 among the components."""
    return build_reward({"exact_match": 1.0}).score_group(trajectories)
