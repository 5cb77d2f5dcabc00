"""Direct answer: one turn, no search engine, no reasoning (a baseline of arXiv 2503.09516, table 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from searchr1.agents.budget import Budget
from searchr1.agents.search_r1 import without_search
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Question, Trajectory

INSTRUCTION = (
    "You answer questions. Write only the answer itself, at once and without explanations, between <answer> and "
    "</answer>, for example <answer> Beijing </answer>."
)


@dataclass(frozen=True)
class Direct:
    """`SearchR1` with no searches to spend: one forced answer turn."""

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    instructions: ClassVar[tuple[str, ...]] = (INSTRUCTION,)
    closed_book: ClassVar[bool] = True

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        agent = without_search(self.protocol, self.tokenizer, self.budget, INSTRUCTION)
        return await agent.run(question, engine=engine, retriever=retriever, seed=seed)
