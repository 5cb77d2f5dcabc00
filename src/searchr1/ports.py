"""The ports: what the parts of the system expect of one another.

Each has one or two methods and a fake that ships in the package (scripted engine, dictionary retriever), so anything
can be tested without a model, an index or a network. A new implementation is one file in its folder and one line in
that folder's dict; the contract suite of the port (``tests/contracts``) then covers it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from searchr1.types import Action, Answer, Completion, Observation, Passage, Question, Sampling, Search, Trajectory

if TYPE_CHECKING:
    import torch


class Tokenizer(Protocol):
    """Text to token ids and back. ``encode`` adds no special tokens; ``decode`` hides none."""

    eos_ids: tuple[int, ...]

    def encode(self, text: str) -> list[int]: ...

    def decode(self, token_ids: Sequence[int]) -> str: ...

    def chat(self, text: str, tools: Sequence[Mapping[str, Any]] = ()) -> list[int] | None:
        """Ids of ``text`` as a user message with the assistant's turn opened; None without a chat template.

        ``tools`` are offered to be called: functions as JSON schemas, in OpenAI's format.
        """

    def tool_result(self, tools: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]] | None:
        """Ids between a ``<tool_call>`` and its result, and after it; None where no tools can be offered."""


class Session(Protocol):
    """One trajectory's place in an engine: what lets it keep the key/value cache from turn to turn."""


class Engine(Protocol):
    """Samples tokens from a policy."""

    def session(self) -> AbstractContextManager[Session]:
        """Open a session; open it before the first await of a trajectory, close it (leave it) at its end."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling, *, session: Session) -> Completion:
        """Continue ``token_ids`` (the whole context). Raises ``EngineError`` when it cannot."""

    async def load(self, weights: Iterable[tuple[str, torch.Tensor]], version: int) -> None:
        """Swap in new weights; completions say the version they were sampled with."""


@dataclass(frozen=True, slots=True)
class RetrieverInfo:
    """What a retriever searches in: ``corpus_hash`` is empty where it cannot be known."""

    kind: str
    passages: int
    corpus_hash: str


@runtime_checkable
class Retriever(Protocol):
    """Finds passages."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        """At most ``k`` passages for each query, best first. Raises ``SearchUnavailable``."""

    async def info(self) -> RetrieverInfo: ...


@runtime_checkable
class Counting(Protocol):
    """A retriever that counts what it does: requests, retries, failures, cache hits, money. Wrappers pass it on."""

    def counts(self) -> Mapping[str, float]:
        """Totals since it was made, by name; names are the same in every retriever."""


class Dialogue(Protocol):
    """How model and environment talk: prompt, stops, parse, observe. One object serves every stage."""

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end a turn; the engine stops at them and keeps them."""

    def prompt(
        self,
        question: str,
        *,
        search: bool = True,
        passages: Sequence[Passage] = (),
        budget: int = 0,
        instruction: str = "",
    ) -> list[int]:
        """Token ids that open the dialogue.

        ``search=False`` asks for an answer without a search engine, from ``passages`` (cut to ``budget`` tokens) where
        there are any. ``instruction`` takes the place of the wording's own, where it has one to the policy.
        """

    def parse(self, text: str) -> Action:
        """The action in one turn's text."""

    def write(self, action: Search | Answer) -> str:
        """The text of one turn that ``parse`` reads as ``action``."""

    def observe(self, passages: Sequence[Passage], budget: int) -> Observation:
        """The passages in the wrapper, cut inside it to at most ``budget`` tokens."""

    def invalid(self) -> Observation:
        """What the policy is told after a turn that held no action."""


class Reward(Protocol):
    """Scores a trajectory; sees its whole group, so that relative rewards are possible."""

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float: ...


@runtime_checkable
class TurnReward(Protocol):
    """A reward that pays at turns rather than at the end: what was earned by which turn."""

    def score_turns(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> Sequence[float]:
        """One value for every turn of the trajectory, in their order."""


class Agent(Protocol):
    """Answers one question: one coroutine, the same for training, evaluation, ``ask`` and ``serve``."""

    async def run(self, question: Question, *, engine: Engine, retriever: Retriever, seed: int) -> Trajectory: ...
