"""One-shot retrieval-augmented generation (arXiv 2005.11401): search the question itself, then answer."""

from __future__ import annotations

from dataclasses import dataclass

from searchr1.agents.budget import Budget
from searchr1.agents.transcript import Table, Transcript
from searchr1.errors import EngineError, SearchUnavailable
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Answer, Question, Search, SearchOutcome, StopReason, Trajectory, Turn


@dataclass(frozen=True)
class Rag:
    """Shows the passages found for the raw question in the prompt; the policy has one turn to answer."""

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        transcript = Transcript(question, seed)
        with engine.session() as session:
            table = Table(self.protocol, self.tokenizer, self.budget, engine, retriever, session)
            try:
                return transcript.finish(await self._play(table, transcript))
            except SearchUnavailable:
                return transcript.finish(StopReason.SEARCH_UNAVAILABLE)
            except EngineError:
                return transcript.finish(StopReason.ENGINE_ERROR)

    async def _play(self, table: Table, transcript: Transcript) -> StopReason:
        passages, outcome, search_seconds = await table.search(transcript.question.text)
        prompt = self.protocol.prompt(
            transcript.question.text, search=False, passages=passages, budget=self.budget.observation_tokens
        )
        transcript.open(prompt)
        if not table.room(transcript):
            return StopReason.OUT_OF_TOKENS
        action, tokens, seconds = await table.speak(transcript)
        searched = Turn(Search(transcript.question.text), tuple(passages), outcome, search_seconds=search_seconds)
        refused = SearchOutcome.REFUSED if isinstance(action, Search) else SearchOutcome.NONE
        spoke = Turn(action, search=refused, policy_tokens=tokens, generate_seconds=seconds)
        transcript.turns += [searched, spoke]
        if isinstance(action, Answer):
            return StopReason.ANSWERED
        return StopReason.OUT_OF_TURNS if isinstance(action, Search) else StopReason.NO_ACTION
