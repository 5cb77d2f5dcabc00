"""Search-o1 (arXiv 2501.05366): search while reasoning, and read what was found beside the reasoning.

After every search the policy is asked, in a context of its own, to extract from the documents what helps
(*Reason-in-Documents*, section 3.4); only that goes into the dialogue. Zero-shot and, unlike the original, in the tags
of the dialogue that all agents share, not in special tokens of one model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from searchr1.agents.search_r1 import SearchR1
from searchr1.agents.transcript import Table, Transcript, aside, plain
from searchr1.errors import EngineError
from searchr1.seeds import derive_seed
from searchr1.types import Answer, Passage, Search, Source, Turn

READ = (
    "You help to reason by reading documents. Given are a question, the reasoning about it so far, the last search "
    "query and the documents that it found. Extract from the documents what helps to go on, short and exact, and write "
    "it between <answer> and </answer>; if nothing helps, write <answer> No helpful information found. </answer>."
)
NOTHING = "No helpful information found."


@dataclass(frozen=True)
class SearchO1(SearchR1):
    """`SearchR1` that reads in `Turn.asides`; the reading is as long as a turn, its documents as an observation.

    What was read stands in the dialogue as one passage with the query as its title; `Turn.passages` are those that
    were found. Where the context cannot hold the whole reasoning, reading is told its last turn alone.
    """

    instructions: ClassVar[tuple[str, ...]] = (READ,)

    async def _read(self, table: Table, transcript: Transcript, turn: Turn) -> tuple[Sequence[Passage] | None, Turn]:
        if not turn.passages or not isinstance(turn.action, Search):
            return turn.passages, turn
        query = turn.action.query
        prompt = self._prompt(transcript, query, turn.passages)
        if prompt is None:
            return None, turn
        seed = derive_seed(transcript.seed, len(transcript.turns), "reading")
        try:
            completion, seconds = await table.ask(prompt, seed)
        except EngineError:
            transcript.turns.append(turn)  # it was said and searched all the same
            raise
        text = table.text(completion)
        action = self.protocol.parse(text)
        extract = action.text if isinstance(action, Answer) else plain(text)
        read = replace(turn, asides=(aside(prompt, completion),), generate_seconds=turn.generate_seconds + seconds)
        return [Passage("extract", query, extract or NOTHING)], read

    def _prompt(self, transcript: Transcript, query: str, passages: Sequence[Passage]) -> list[int] | None:
        ends = self.tokenizer.eos_ids
        spoken = [segment.token_ids for segment in transcript.segments if segment.source is Source.POLICY]
        said = [[token for token in ids if token not in ends] for ids in spoken]
        for turns in (said, said[-1:]):
            reasoning = " ".join(plain(self.tokenizer.decode(ids)) for ids in turns)
            asked = f"{transcript.question.text.strip()}\nReasoning: {reasoning}\nSearch query: {query}"
            room = self.budget.observation_tokens
            prompt = self.protocol.prompt(asked, search=False, passages=passages, budget=room, instruction=READ)
            if len(prompt) + self.budget.turn_tokens <= self.budget.context_tokens:
                return prompt
        return None
