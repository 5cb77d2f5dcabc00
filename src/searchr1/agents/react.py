"""ReAct (arXiv 2210.03629): thoughts and searches in turn, in the model's own way to call tools where it has one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from searchr1.agents.budget import Budget
from searchr1.agents.search_r1 import SearchR1
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.protocols.react_text import ReactText
from searchr1.protocols.tool_calls import SEARCH_TOOL, ToolCalls
from searchr1.types import Question, Trajectory


@dataclass(frozen=True)
class React:
    """The loop and the budget of `SearchR1` in another dialogue.

    That is ``protocol`` where it is ``tool_calls`` or ``react_text``; for any other, native tool calls where the
    tokenizer offers tools (and the chat template may be used), else ReAct's text format. Raises ``UserError`` for a
    budget that cannot hold what the environment says, and for a chat template that writes tool calls in another way.
    """

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget

    def __post_init__(self) -> None:
        self.budget.check(len(self.dialogue.prompt("")), None)
        _ = self._agent

    @cached_property
    def dialogue(self) -> Dialogue:
        """The dialogue that is spoken."""
        if isinstance(self.protocol, ToolCalls | ReactText):
            return self.protocol
        chat = getattr(self.protocol, "chat", "auto")
        if chat != "never" and self.tokenizer.tool_result([SEARCH_TOOL]) is not None:
            return ToolCalls(self.tokenizer)
        return ReactText(self.tokenizer, chat=chat)

    @cached_property
    def _agent(self) -> SearchR1:
        return SearchR1(self.dialogue, self.tokenizer, self.budget)

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        return await self._agent.run(question, engine=engine, retriever=retriever, seed=seed)
