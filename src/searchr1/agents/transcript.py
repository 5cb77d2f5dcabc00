"""A trajectory in the making, shared by all agents."""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from searchr1.agents.budget import Budget
from searchr1.errors import EngineError
from searchr1.ports import Dialogue, Engine, Retriever, Session, Tokenizer
from searchr1.seeds import derive_seed
from searchr1.types import (
    Answer,
    Completion,
    FinishReason,
    Observation,
    Passage,
    Question,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

_TAG = re.compile(r"</?[a-z_]+>")


@dataclass
class Transcript:
    """Collects segments and turns; `finish` freezes them into a `Trajectory`."""

    question: Question
    seed: int
    segments: list[Segment] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    version: int | None = None

    @property
    def context(self) -> list[int]:
        return [token for segment in self.segments for token in segment.token_ids]

    @property
    def tokens(self) -> int:
        return sum(len(segment.token_ids) for segment in self.segments)

    def open(self, prompt: Sequence[int]) -> None:
        self.segments.append(Segment(Source.PROMPT, tuple(prompt)))

    def said(self, completion: Completion) -> None:
        self.segments.append(Segment(Source.POLICY, completion.token_ids, completion.logprobs))
        self.version = completion.version if self.version is None else min(self.version, completion.version)

    def told(self, observation: Observation) -> None:
        self.segments.append(Segment(Source.ENVIRONMENT, observation.token_ids))

    def finish(self, stop: StopReason) -> Trajectory:
        answers = [turn.action.text for turn in self.turns if isinstance(turn.action, Answer)]
        answer = answers[-1] if stop is StopReason.ANSWERED else None
        version = 0 if self.version is None else self.version
        return Trajectory(self.question, tuple(self.segments), tuple(self.turns), answer, stop, version, self.seed)


@dataclass(frozen=True)
class Table:
    """Where one trajectory is played: the parts an agent needs at every turn."""

    protocol: Dialogue
    tokenizer: Tokenizer
    budget: Budget
    engine: Engine
    retriever: Retriever
    session: Session

    async def speak(self, transcript: Transcript) -> Turn:
        """Sample one turn: its action, tokens and seconds; what the environment replies is added by the agent."""
        seed = derive_seed(transcript.seed, len(transcript.turns))
        completion, seconds = await self.ask(transcript.context, seed)
        transcript.said(completion)
        return Turn(
            self.protocol.parse(self.tokenizer.decode(completion.token_ids)),
            policy_tokens=len(completion.token_ids),
            generate_seconds=seconds,
            cut=completion.finish_reason is FinishReason.LENGTH,
        )

    async def ask(self, context: Sequence[int], seed: int) -> tuple[Completion, float]:
        """One completion of any context, and the seconds that it took."""
        started = time.perf_counter()
        sampling = self.budget.sampling(self.protocol.stops, seed)
        completion = await self.engine.generate(context, sampling, session=self.session)
        return completion, time.perf_counter() - started

    def text(self, completion: Completion) -> str:
        """What was said, without the end of the sequence."""
        ended = completion.finish_reason is FinishReason.EOS
        return self.tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids)

    async def search(self, query: str) -> tuple[list[Passage], SearchOutcome, float]:
        """The passages for one query. Raises ``SearchUnavailable``."""
        started = time.perf_counter()
        [passages] = await self.retriever.search([query], self.budget.top_k)
        outcome = SearchOutcome.FOUND if passages else SearchOutcome.EMPTY
        return passages, outcome, time.perf_counter() - started

    def tell(self, transcript: Transcript, observation: Observation) -> int:
        """Add an observation; its tokens, or 0 where it does not fit the context and is left out."""
        if not self.fits(transcript, len(observation.token_ids)):
            return 0
        transcript.told(observation)
        return len(observation.token_ids)

    def fits(self, transcript: Transcript, tokens: int) -> bool:
        """Whether so many more tokens fit the context."""
        return transcript.tokens + tokens <= self.budget.context_tokens


class Seated(Protocol):
    """What every agent has."""

    @property
    def protocol(self) -> Dialogue: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    @property
    def budget(self) -> Budget: ...


async def play_out(
    agent: Seated,
    play: Callable[[Table, Transcript], Awaitable[StopReason]],
    question: Question,
    *,
    engine: Engine,
    retriever: Retriever,
    seed: int,
) -> Trajectory:
    """One trajectory: ``play`` it in a session of its own; an engine that fails ends it with that reason."""
    transcript = Transcript(question, seed)
    with engine.session() as session:
        table = Table(agent.protocol, agent.tokenizer, agent.budget, engine, retriever, session)
        try:
            return transcript.finish(await play(table, transcript))
        except EngineError:
            return transcript.finish(StopReason.ENGINE_ERROR)


def aside(prompt: Sequence[int], completion: Completion) -> tuple[Segment, ...]:
    """A context of its own, for `Turn.asides`."""
    said = Segment(Source.POLICY, completion.token_ids, completion.logprobs)
    return Segment(Source.PROMPT, tuple(prompt)), said


def plain(text: str) -> str:
    """Text without the tags of a dialogue, on one line.

    >>> plain("<think> so\\n it is </think>")
    'so it is'
    """
    return " ".join(_TAG.sub(" ", text).split())
