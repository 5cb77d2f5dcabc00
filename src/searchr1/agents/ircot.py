"""IRCoT: retrieval interleaved with a chain of thought (arXiv 2212.10509, section 3), zero-shot.

The question is searched first. Then, in turn: the policy adds one sentence to its thoughts, from all documents found so
far (reason), and that sentence is the next query (retrieve). It ends when the policy answers, or when the searches
are spent; then a reader answers from the documents and the thoughts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from searchr1.agents.budget import Budget
from searchr1.agents.transcript import Table, Transcript, aside, plain, play_out
from searchr1.errors import SearchUnavailable
from searchr1.ports import Dialogue, Engine, Retriever, Tokenizer
from searchr1.seeds import derive_seed
from searchr1.types import (
    Answer,
    FinishReason,
    Invalid,
    Passage,
    Question,
    Search,
    SearchOutcome,
    StopReason,
    Trajectory,
    Turn,
)

REASON = (
    "You answer questions from documents that a search engine finds for your thoughts. Continue the thoughts with "
    "exactly one more sentence: what the documents say, or what has to be found out next. As soon as the documents are "
    "enough, write instead only the answer itself, without explanations, between <answer> and </answer>, for example "
    "<answer> Beijing </answer>."
)
READ = (
    "You answer questions from documents and from thoughts about them. Write only the answer itself, without "
    "explanations, between <answer> and </answer>, for example <answer> Beijing </answer>."
)
_SENTENCE = re.compile(
    r".+?(?:(?<!\b[A-Z])(?<!\b[DMJS]r)(?<!\bM[st])(?<!\bSt)(?<!\bMrs)(?<!\bvs)(?<!\bNo)[.!?](?=\s|$)|$)"
)
"""Up to the first full stop that is not that of an initial or of a title: J. R. R. Tolkien, Dr. No."""


@dataclass
class _Notes:
    """What one trajectory has found and thought."""

    thoughts: list[str] = field(default_factory=list)
    passages: dict[tuple[str, str], Passage] = field(default_factory=dict)

    def add(self, passages: Sequence[Passage]) -> None:
        self.passages |= {(passage.title, passage.text): passage for passage in passages}


@dataclass(frozen=True)
class IRCoT:
    """At most ``max_searches`` searches, the first for the question itself; ``observation_tokens`` of passages each.

    The reader is the forced answer: with ``forced_answer = false`` the last search ends it.

    Every step has a context of its own, made anew from all that was found: those of the thoughts are `Turn.asides`,
    and the dialogue is the one that ended with the answer. A turn carries the passages that were found before it was
    said, and its action is the query that follows. Raises ``UserError`` for a budget that cannot hold an observation.
    """

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    instructions: ClassVar[tuple[str, ...]] = (REASON, READ)

    def __post_init__(self) -> None:
        self.budget.check_wrapper(self.protocol)

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory:
        return await play_out(self, self._play, question, engine=engine, retriever=retriever, seed=seed)

    async def _play(self, table: Table, transcript: Transcript) -> StopReason:
        notes, query = _Notes(), transcript.question.text
        for search in range(1, self.budget.max_searches + 1):
            try:
                passages, outcome, seconds = await table.search(query)
            except SearchUnavailable:
                transcript.turns.append(Turn(Search(query), search=SearchOutcome.FAILED))
                return StopReason.SEARCH_UNAVAILABLE
            notes.add(passages)
            found = Turn(Invalid("nothing said"), tuple(passages), outcome, search_seconds=seconds)
            if search == self.budget.max_searches:
                if not self.budget.forced_answer:
                    transcript.turns.append(found)
                    return StopReason.OUT_OF_TURNS
                return await self._say(table, transcript, notes, READ, found)
            stop = await self._say(table, transcript, notes, REASON, found)
            if stop is not StopReason.NO_ACTION:
                return stop
            query = notes.thoughts[-1] or transcript.question.text
        return await self._say(table, transcript, notes, READ, Turn(Invalid("nothing said")))

    async def _say(
        self, table: Table, transcript: Transcript, notes: _Notes, instruction: str, found: Turn
    ) -> StopReason:
        """One step: it ends the dialogue with an answer (or in the last step), or adds a thought beside it."""
        prompt, truncated = self._prompt(transcript.question.text, notes, instruction)
        found = replace(found, truncated=truncated)
        if len(prompt) + self.budget.turn_tokens > self.budget.context_tokens:
            transcript.turns.append(found)
            return StopReason.OUT_OF_TOKENS
        transcript.open(prompt)
        completion, seconds = await table.ask(prompt, derive_seed(transcript.seed, len(transcript.turns)))
        text = table.text(completion)
        action = self.protocol.parse(text)
        cut = completion.finish_reason is FinishReason.LENGTH
        turn = replace(found, action=action, generate_seconds=seconds, cut=cut)
        if isinstance(action, Answer) or instruction == READ:
            transcript.said(completion)
            if isinstance(action, Search):
                action = Invalid(f"a search, where only an answer was asked for: {action.query}")
            transcript.turns.append(replace(turn, action=action, policy_tokens=len(completion.token_ids)))
            return StopReason.ANSWERED if isinstance(action, Answer) else StopReason.NO_ACTION
        transcript.segments.clear()  # this was no end: beside the dialogue
        thought = first_sentence(text)
        notes.thoughts.append(thought)
        following = Search(thought or transcript.question.text)
        transcript.turns.append(replace(turn, action=following, asides=(aside(prompt, completion),)))
        return StopReason.NO_ACTION

    def _prompt(self, question: str, notes: _Notes, instruction: str) -> tuple[list[int], bool]:
        """Question, thoughts so far and documents; and whether the documents were cut."""
        passages = list(notes.passages.values())
        room = self.budget.observation_tokens * (len(notes.thoughts) + 1)
        thoughts = [thought for thought in notes.thoughts if thought]
        asked = f"{question.strip()}\nThoughts: {' '.join(thoughts)}" if thoughts else question
        prompt = self.protocol.prompt(asked, search=False, passages=passages, budget=room, instruction=instruction)
        return prompt, bool(passages) and self.protocol.observe(passages, room).truncated


def first_sentence(text: str) -> str:
    """The first sentence of what was said, without tags; empty where nothing was.

    >>> first_sentence("<think> Dune is by Herbert. He was born in</think>")
    'Dune is by Herbert.'
    >>> first_sentence("It is by J. R. R. Tolkien. He")
    'It is by J. R. R. Tolkien.'
    """
    found = _SENTENCE.match(plain(text))
    return found[0] if found else ""
