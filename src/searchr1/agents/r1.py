"""R1: the trained policy's dialogue without a search engine (arXiv 2501.12948; a baseline of 2503.09516, table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from searchr1.agents.budget import Budget
from searchr1.agents.search_r1 import without_search
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Question, Trajectory


@dataclass(frozen=True)
class R1:
    """`SearchR1` with no searches to spend: it thinks and answers in one turn.

    The agent of a policy that was trained without search, and what any policy answers with the book closed.
    """

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    closed_book: ClassVar[bool] = True

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        agent = without_search(self.protocol, self.tokenizer, self.budget)
        return await agent.run(question, engine=engine, retriever=retriever, seed=seed)
