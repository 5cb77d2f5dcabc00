"""Every question once, in order, each with its own seed."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest
from evaluation_parts import question, trajectory

from searchr1.errors import UserError
from searchr1.evaluation.evaluate import evaluate, question_seed
from searchr1.seeds import derive_seed
from searchr1.types import Question, Trajectory


@dataclass
class SlowAgent:
    """Answers ``red fox`` to questions in ``right``, ``dog`` to others; the first question comes back last."""

    right: frozenset[str] = frozenset()
    broken: str | None = None
    running: int = 0
    most: int = 0
    cancelled: list[str] = field(default_factory=list)

    async def run(self, question: Question, *, engine: Any, retriever: Any, seed: int) -> Trajectory:
        assert (engine, retriever) == ("engine", "retriever")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(20 if question.id == "q0" else 2):
                await asyncio.sleep(0)
            if question.id == self.broken:
                raise UserError("broken")
            return trajectory(question, "red fox" if question.id in self.right else "dog", seed=seed)
        except asyncio.CancelledError:
            self.cancelled.append(question.id)
            raise
        finally:
            self.running -= 1


QUESTIONS = [question(f"q{n}") for n in range(7)]


async def run(agent: SlowAgent, concurrency: int = 3, **options: Any) -> list[Trajectory]:
    return await evaluate(QUESTIONS, agent, "engine", "retriever", concurrency=concurrency, **options)  # type: ignore[arg-type]


async def test_every_question_once_in_order_with_its_own_seed() -> None:
    seen: list[tuple[int, int]] = []
    agent = SlowAgent()
    trajectories = await run(agent, seed=5, progress=lambda done, total: seen.append((done, total)))
    assert [t.question for t in trajectories] == QUESTIONS
    assert [t.seed for t in trajectories] == [derive_seed(5, f"q{n}") for n in range(7)]
    assert seen == [(n, 7) for n in range(1, 8)]
    assert agent.most == 3


@pytest.mark.parametrize("concurrency", [1, 2, 100])
async def test_concurrency_changes_nothing(concurrency: int) -> None:
    agent = SlowAgent(frozenset({"q1", "q4"}))
    assert await run(agent, concurrency) == await run(SlowAgent(agent.right))
    assert agent.most == min(concurrency, 7)


async def test_an_agents_error_comes_out_and_ends_the_rest() -> None:
    agent = SlowAgent(broken="q1")
    with pytest.raises(UserError, match="broken"):
        await run(agent)
    assert sorted(agent.cancelled) == ["q0", "q3"]  # q2 was done, q4 was never begun
    assert agent.running == 0


async def test_nothing_to_do_and_no_room() -> None:
    assert await evaluate([], SlowAgent(), "engine", "retriever") == []  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concurrency must be at least 1, got 0"):
        await run(SlowAgent(), concurrency=0)


def test_samples_of_one_question_have_seeds_of_their_own() -> None:
    seeds = [question_seed(5, question("q1"), sample) for sample in range(3)]
    assert seeds == [derive_seed(5, "q1"), derive_seed(5, "q1", 1), derive_seed(5, "q1", 2)]
