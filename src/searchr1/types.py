"""The one thing that flows: a question becomes a trajectory, a trajectory becomes training samples.

    Question --protocol.prompt--> token ids --engine.generate--> Completion --protocol.parse--> Action
    Search --retriever.search--> Passages --protocol.observe--> Segment(environment) ... until Answer or budget
    -> Trajectory --reward--> Scored --to_sample--> Sample --pack--> Batch --algorithm--> loss

Everything here is frozen and complete when it is made: no field waits for somebody to fill it. The standard library
only, so that any part of the package (and any tool of yours) can import it at no cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    """One question with every accepted answer.

    >>> Question("q1", "Who wrote Dune?", ("Frank Herbert", "Herbert"), "demo", {"hops": 1}).answers[0]
    'Frank Herbert'
    """

    id: str
    text: str
    answers: tuple[str, ...]
    dataset: str = "unknown"
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """``hops``, ``supporting_titles`` and whatever else the question file carries."""

    @property
    def hops(self) -> int | None:
        """How many pages must be read, where the question file says so."""
        value = self.metadata.get("hops")
        return int(value) if value is not None else None


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved passage; ``score`` is comparable only within one result list."""

    id: str
    title: str
    text: str
    score: float = 0.0

    @property
    def contents(self) -> str:
        """The wire form of Search-R1: the quoted title, a newline, the text.

        >>> Passage("1", "Dune", "A novel.").contents
        '"Dune"\\nA novel.'
        """
        return f'"{self.title}"\n{self.text}'


class Source(StrEnum):
    """Who put a token into the context."""

    PROMPT = "prompt"
    POLICY = "policy"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of tokens from one source.

    ``logprobs`` holds one behaviour log-probability per token (of the distribution that was sampled from) for
    ``policy`` segments and is empty for the others:

    >>> Segment(Source.POLICY, (5, 9), (-0.1, -1.2)).token_ids
    (5, 9)
    """

    source: Source
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        expected = len(self.token_ids) if self.source is Source.POLICY else 0
        if len(self.logprobs) != expected:
            raise ValueError(
                f"a {self.source} segment of {len(self.token_ids)} tokens needs {expected} log-probabilities, "
                f"got {len(self.logprobs)}"
            )


@dataclass(frozen=True, slots=True)
class Search:
    """The policy asked the search engine."""

    query: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy gave its final answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Invalid:
    """The policy did neither."""

    reason: str


Action = Search | Answer | Invalid


class SearchOutcome(StrEnum):
    """What became of a turn's search."""

    NONE = "none"  # the turn did not search
    FOUND = "found"
    EMPTY = "empty"  # an honest empty result: the policy sees it
    REFUSED = "refused"  # the budget was spent: the search was not executed
    FAILED = "failed"  # the engine was unavailable: never shown to the policy


@dataclass(frozen=True, slots=True)
class Turn:
    """What happened in one policy turn and the observation that followed it."""

    action: Action
    passages: tuple[Passage, ...] = ()
    search: SearchOutcome = SearchOutcome.NONE
    policy_tokens: int = 0
    environment_tokens: int = 0
    truncated: bool = False
    """True when the observation was cut to its token budget."""
    generate_seconds: float = 0.0
    search_seconds: float = 0.0
    cut: bool = False
    """True when the policy was still writing at the turn's token limit."""
    asides: tuple[tuple[Segment, ...], ...] = ()
    """What the policy was asked beside the dialogue (to read documents, for one): a context each. Never trained."""


class StopReason(StrEnum):
    """Why a trajectory ended; each is also the metric ``stop/<reason>``."""

    ANSWERED = "answered"
    OUT_OF_TURNS = "out_of_turns"  # still searching (or no forced answer turn) when the turns were spent
    OUT_OF_TOKENS = "out_of_tokens"  # the next turn would not fit the context
    NO_ACTION = "no_action"  # the last turn held neither a search nor an answer
    SEARCH_UNAVAILABLE = "search_unavailable"
    ENGINE_ERROR = "engine_error"


FAILURES = frozenset({StopReason.SEARCH_UNAVAILABLE, StopReason.ENGINE_ERROR})
"""Stops that are not the policy's doing: left out of the loss and of the score, and counted."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One question's whole dialogue, token by token.

    The flat views ``tokens``, ``mask`` and ``logprobs`` are derived from ``segments``, so they cannot disagree:

    >>> segments = (Segment(Source.PROMPT, (1, 2)), Segment(Source.POLICY, (3,), (-0.5,)),
    ...     Segment(Source.ENVIRONMENT, (4,)))
    >>> t = Trajectory(Question("q", "?", ("a",)), segments, (), None, StopReason.NO_ACTION, 0, 7)
    >>> t.tokens, t.mask, t.logprobs
    ((1, 2, 3, 4), (False, False, True, False), (0.0, 0.0, -0.5, 0.0))
    """

    question: Question
    segments: tuple[Segment, ...]
    turns: tuple[Turn, ...]
    answer: str | None
    """The answer the environment executed; None when the trajectory ended without one."""
    stop: StopReason
    policy_version: int
    """The oldest weights that any of its tokens was sampled with."""
    seed: int

    @property
    def tokens(self) -> tuple[int, ...]:
        return tuple(token for segment in self.segments for token in segment.token_ids)

    @property
    def mask(self) -> tuple[bool, ...]:
        """True where the policy sampled the token."""
        return tuple(s.source is Source.POLICY for s in self.segments for _ in s.token_ids)

    @property
    def logprobs(self) -> tuple[float, ...]:
        """Behaviour log-probabilities; 0.0 where the policy did not sample."""
        return tuple(p for s in self.segments for p in (s.logprobs or (0.0,) * len(s.token_ids)))

    @property
    def searches(self) -> int:
        """Searches that were executed."""
        return sum(turn.search in (SearchOutcome.FOUND, SearchOutcome.EMPTY) for turn in self.turns)

    @property
    def failed(self) -> bool:
        """True when it ended through no fault of the policy."""
        return self.stop in FAILURES

    @property
    def contexts(self) -> tuple[tuple[Segment, ...], ...]:
        """The dialogue itself and everything that was asked beside it."""
        return (self.segments, *(aside for turn in self.turns for aside in turn.asides))

    def count(self, source: Source) -> int:
        """Number of tokens from ``source`` in the dialogue itself."""
        return sum(len(s.token_ids) for s in self.segments if s.source is source)


@dataclass(frozen=True, slots=True)
class Scored:
    """A trajectory with its reward and the reward's named, unweighted parts."""

    trajectory: Trajectory
    reward: float
    components: Mapping[str, float]
    turn_rewards: tuple[float, ...] = ()
    """The part of ``reward`` that was earned at each turn; the rest is earned by the end. Empty: all of it is."""


@dataclass(frozen=True, slots=True)
class Sample:
    """The trainable view of one trajectory.

    ``mask[i]`` is True where token ``i`` is trained; ``logprobs[i]`` is its behaviour log-probability there and 0.0
    elsewhere. Samples with the same ``group`` answer the same question in the same step. ``turn_rewards`` holds
    (position, value) of the part of ``reward`` that was earned before the end; ``cut`` marks a trajectory that ended
    because the context was full.
    """

    token_ids: tuple[int, ...]
    mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    reward: float
    group: str
    weight: float = 1.0
    turn_rewards: tuple[tuple[int, float], ...] = ()
    cut: bool = False


class FinishReason(StrEnum):
    """Why a completion ended."""

    STOP = "stop"  # a stop string; the token that completes it is kept whole
    EOS = "eos"  # an end-of-sequence token; it is kept
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one completion is sampled. ``temperature=0`` is greedy, and its log-probabilities are 0.0.

    The same ``seed`` gives the same tokens whatever else the engine is doing.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine sampled: ids, one log-probability per id, why it ended, and the weights' version."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    version: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What the environment puts into the context after a turn."""

    token_ids: tuple[int, ...]
    truncated: bool = False
