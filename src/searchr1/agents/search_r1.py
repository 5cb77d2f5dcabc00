"""Search-R1 (arXiv 2503.09516, algorithm 1): think, search as often as needed, answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from searchr1.agents.budget import Budget
from searchr1.agents.transcript import Table, Transcript, play_out
from searchr1.errors import SearchUnavailable
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.types import Answer, Passage, Question, Search, SearchOutcome, StopReason, Trajectory, Turn


@dataclass(frozen=True)
class SearchR1:
    """The agent that is trained.

    With ``budget.max_searches = 0`` it is R1 without search: the prompt does not offer a search engine. An
    ``instruction`` takes the place of the dialogue's own. Raises ``UserError`` for a budget that cannot hold what the
    environment says.
    """

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    instruction: str = ""

    def __post_init__(self) -> None:
        self.budget.check_replies(self.protocol)

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        """One trajectory. Failures of engine or retriever end it with a stop reason of their own, not an exception."""
        return await play_out(self, self._play, question, engine=engine, retriever=retriever, seed=seed)

    async def _play(self, table: Table, transcript: Transcript) -> StopReason:
        searches, text = self.budget.max_searches > 0, transcript.question.text
        transcript.open(self.protocol.prompt(text, search=searches, instruction=self.instruction))
        for _ in range(self.budget.max_searches):
            if not table.fits(transcript, self.budget.turn_tokens):
                return StopReason.OUT_OF_TOKENS
            stop = await self._reply(table, transcript, await table.speak(transcript))
            if stop is not None:
                return stop
        if not self.budget.forced_answer:
            return StopReason.OUT_OF_TURNS
        if not table.fits(transcript, self.budget.turn_tokens):
            return StopReason.OUT_OF_TOKENS
        turn = await table.speak(transcript)
        searches = isinstance(turn.action, Search)
        transcript.turns.append(replace(turn, search=SearchOutcome.REFUSED) if searches else turn)
        if isinstance(turn.action, Answer):
            return StopReason.ANSWERED
        return StopReason.OUT_OF_TURNS if searches else StopReason.NO_ACTION

    async def _reply(self, table: Table, transcript: Transcript, turn: Turn) -> StopReason | None:
        """The environment's reply to one turn; a stop reason when the trajectory ends with it."""
        if isinstance(turn.action, Answer):
            transcript.turns.append(turn)
            return StopReason.ANSWERED
        if not isinstance(turn.action, Search):
            told = table.tell(transcript, self.protocol.invalid())
            transcript.turns.append(replace(turn, environment_tokens=told))
            return None if told else StopReason.OUT_OF_TOKENS
        try:
            passages, outcome, search_seconds = await table.search(turn.action.query)
        except SearchUnavailable:
            transcript.turns.append(replace(turn, search=SearchOutcome.FAILED))
            return StopReason.SEARCH_UNAVAILABLE
        turn = replace(turn, passages=tuple(passages), search=outcome, search_seconds=search_seconds)
        shown, turn = await self._read(table, transcript, turn)
        if shown is None:
            transcript.turns.append(turn)
            return StopReason.OUT_OF_TOKENS
        observation = self.protocol.observe(shown, self.budget.observation_tokens)
        told = table.tell(transcript, observation)
        transcript.turns.append(replace(turn, environment_tokens=told, truncated=observation.truncated))
        return None if told else StopReason.OUT_OF_TOKENS

    async def _read(self, table: Table, transcript: Transcript, turn: Turn) -> tuple[Sequence[Passage] | None, Turn]:
        """What the policy is shown of what a turn found, and the turn with what that took; None: no room to read."""
        return turn.passages, turn


def without_search(protocol: Dialogue, tokenizer: Tokenizer, budget: Budget, instruction: str = "") -> SearchR1:
    """The agent with no searches to spend: one forced answer turn, whatever the budget says."""
    return SearchR1(protocol, tokenizer, replace(budget, max_searches=0, forced_answer=True), instruction)
