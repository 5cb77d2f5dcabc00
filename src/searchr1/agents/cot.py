"""Chain of thought: one turn without a search engine, step by step (arXiv 2201.11903, 2205.11916)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from searchr1.agents.budget import Budget
from searchr1.agents.search_r1 import without_search
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Question, Trajectory

INSTRUCTION = (
    "You answer questions. Let us think step by step: write down the steps of your reasoning one after the other, and "
    "then only the answer itself, without explanations, between <answer> and </answer>, for example "
    "<answer> Beijing </answer>."
)


@dataclass(frozen=True)
class ChainOfThought:
    """`SearchR1` with no searches to spend and an instruction that asks for steps (zero-shot)."""

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    instructions: ClassVar[tuple[str, ...]] = (INSTRUCTION,)
    closed_book: ClassVar[bool] = True

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        agent = without_search(self.protocol, self.tokenizer, self.budget, INSTRUCTION)
        return await agent.run(question, engine=engine, retriever=retriever, seed=seed)
