"""One-shot retrieval-augmented generation (arXiv 2005.11401): search the question itself, then answer."""

from __future__ import annotations

from dataclasses import dataclass, replace

from searchr1.agents.budget import Budget
from searchr1.agents.transcript import Table, Transcript, play_out
from searchr1.errors import SearchUnavailable
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Answer, Invalid, Passage, Question, Search, SearchOutcome, StopReason, Trajectory, Turn


@dataclass(frozen=True)
class Rag:
    """Shows the passages found for the raw question in the prompt; the policy has one turn to answer.

    That one turn carries the search and its passages; with ``budget.max_searches = 0`` there is no search. The dialogue
    offers no search engine, so a search in it is an invalid action. Raises ``UserError`` for a budget that cannot hold
    an observation.
    """

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget

    def __post_init__(self) -> None:
        self.budget.check_wrapper(self.protocol)

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        return await play_out(self, self._play, question, engine=engine, retriever=retriever, seed=seed)

    async def _play(self, table: Table, transcript: Transcript) -> StopReason:
        text, room = transcript.question.text, self.budget.observation_tokens
        passages: list[Passage] = []
        outcome, search_seconds = SearchOutcome.NONE, 0.0
        try:
            if self.budget.max_searches:
                passages, outcome, search_seconds = await table.search(text)
        except SearchUnavailable:
            transcript.turns.append(Turn(Search(text), search=SearchOutcome.FAILED))
            return StopReason.SEARCH_UNAVAILABLE
        transcript.open(self.protocol.prompt(text, search=False, passages=passages, budget=room))
        truncated = self.protocol.observe(passages, room).truncated
        if not table.fits(transcript, self.budget.turn_tokens):
            transcript.turns.append(
                Turn(Search(text), tuple(passages), outcome, truncated=truncated, search_seconds=search_seconds)
            )
            return StopReason.OUT_OF_TOKENS
        said = await table.speak(transcript)
        action = said.action
        if isinstance(action, Search):
            action = Invalid(f"a search, which this dialogue does not offer: {action.query}")
        transcript.turns.append(
            replace(
                said,
                action=action,
                passages=tuple(passages),
                search=outcome,
                truncated=truncated,
                search_seconds=search_seconds,
            )
        )
        return StopReason.ANSWERED if isinstance(action, Answer) else StopReason.NO_ACTION
