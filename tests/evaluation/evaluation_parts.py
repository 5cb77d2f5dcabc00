"""What the evaluation tests share: questions, trajectories made by hand, and an agent that answers from a table."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from searchr1.evaluation.evaluate import score_trajectories
from searchr1.evaluation.rows import Row, prediction_row
from searchr1.types import (
    Answer,
    Passage,
    Question,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)


def question(name: str, dataset: str = "demo") -> Question:
    return Question(name, f"What is {name}?", ("red fox",), dataset)


def trajectory(
    asked: Question, answer: str | None, searches: int = 0, stop: StopReason | None = None, seed: int = 1
) -> Trajectory:
    turns = [Turn(Search(f"{asked.id} {n}"), (Passage("p", "t", "x"),), SearchOutcome.FOUND) for n in range(searches)]
    turns.append(Turn(Search("one too many"), search=SearchOutcome.REFUSED))
    turns += [Turn(Answer(answer))] if answer is not None else []
    stop = stop or (StopReason.ANSWERED if answer is not None else StopReason.OUT_OF_TURNS)
    return Trajectory(asked, (Segment(Source.PROMPT, (1,)),), tuple(turns), answer, stop, 0, seed)


def mixed() -> list[Trajectory]:
    """Four of ``a`` (one failed), one of ``b``, one of ``c`` (failed)."""
    return [
        trajectory(question("1", "a"), "red fox", searches=2),
        trajectory(question("2", "a"), "a red dog"),
        trajectory(question("1", "b"), "the red fox!", searches=1),
        trajectory(question("3", "a"), None, searches=1),
        trajectory(question("4", "a"), None, searches=3, stop=StopReason.SEARCH_UNAVAILABLE),
        trajectory(question("1", "c"), None, stop=StopReason.ENGINE_ERROR),
    ]


def rows_of(trajectories: list[Trajectory]) -> list[Row]:
    return [prediction_row(item) for item in score_trajectories(trajectories)]


@dataclass
class TableAgent:
    """Says what the table says of a question's id (``dog`` where it says nothing); a stop reason ends it like that."""

    table: Mapping[str, str | StopReason] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    stop_after: int = 0
    """Raises RuntimeError when so many were asked."""

    async def run(self, question: Question, *, engine: Any, retriever: Any, seed: int) -> Trajectory:
        await asyncio.sleep(0)
        if self.stop_after and len(self.asked) == self.stop_after:
            raise RuntimeError("enough")
        self.asked.append((question.id, seed))
        said = self.table.get(question.id, "dog")
        if isinstance(said, StopReason):
            return trajectory(question, None, stop=said, seed=seed)
        return trajectory(question, said, seed=seed)
