"""Direct answer: one turn, no search engine (a baseline of arXiv 2503.09516, table 2)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from searchr1.agents.budget import Budget
from searchr1.agents.search_r1 import SearchR1
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Question, Trajectory


@dataclass(frozen=True)
class Direct:
    """`SearchR1` with no searches to spend: one forced answer turn."""

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        budget = replace(self.budget, max_searches=0, forced_answer=True)
        agent = SearchR1(self.protocol, self.tokenizer, budget)
        return await agent.run(question, engine=engine, retriever=retriever, seed=seed)
