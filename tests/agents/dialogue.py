"""What the agent tests share: a byte-token dialogue, scripted turns, and trajectories without clock readings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from searchr1.agents import build_agent
from searchr1.agents.budget import Budget
from searchr1.engines.scripted import Script, ScriptedEngine
from searchr1.errors import SearchUnavailable
from searchr1.ports import Agent, Retriever, RetrieverInfo
from searchr1.protocols.tags import INVALID, Tags
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.tokenization import ByteTokenizer
from searchr1.types import Passage, Question, Segment, Source, Trajectory

BYTES = ByteTokenizer()
TAGS = Tags(BYTES, "short", "never")
WHO = Question("q1", "Who wrote Dune?", ("Frank Herbert",))
PROMPT = "Question: Who wrote Dune?\n"
NO_SEARCH_PROMPT = "Answer now. Question: Who wrote Dune?\n"
DUNE = Passage("1", "Dune", "By Frank Herbert.", 2.5)
DUNE_OBSERVED = '\n\n<information>Doc 1(Title: "Dune") By Frank Herbert.</information>\n\n'
NOTHING_OBSERVED = "\n\n<information></information>\n\n"
SEARCH = "<think> one step</think><search> Dune </search>"
ANSWER = "<think> found</think><answer> Frank Herbert </answer>"
SHORT = Budget(max_searches=2, top_k=2, turn_tokens=60, observation_tokens=120, context_tokens=600)


class NoSearchEngine:
    """A retriever that is down."""

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise SearchUnavailable("down")

    async def info(self) -> RetrieverInfo:
        raise SearchUnavailable("down")


def finds(passages: Mapping[str, Sequence[Passage]] | None = None) -> DictionaryRetriever:
    return DictionaryRetriever({"Dune": [DUNE], WHO.text: [DUNE]} if passages is None else passages)


def agent(name: str, budget: Budget = SHORT) -> Agent:
    return build_agent(name, TAGS, BYTES, budget)


async def play(
    name: str,
    script: Script,
    budget: Budget = SHORT,
    retriever: Retriever | None = None,
    *,
    question: Question = WHO,
    seed: int = 7,
) -> tuple[Trajectory, ScriptedEngine]:
    engine = ScriptedEngine(script, BYTES)
    played = await agent(name, budget).run(question, engine=engine, retriever=retriever or finds(), seed=seed)
    return timeless(played), engine


def timeless(trajectory: Trajectory) -> Trajectory:
    """The trajectory with all seconds (which are none below zero) set to zero."""
    assert all(turn.generate_seconds >= 0 and turn.search_seconds >= 0 for turn in trajectory.turns)
    turns = tuple(replace(turn, generate_seconds=0.0, search_seconds=0.0) for turn in trajectory.turns)
    return replace(trajectory, turns=turns)


def ids(text: str) -> tuple[int, ...]:
    """Bytes as tokens; ``$`` is the end of a sequence."""
    return tuple(256 if token == ord("$") else token for token in BYTES.encode(text))


def prompt(text: str) -> Segment:
    return Segment(Source.PROMPT, ids(text))


def said(text: str) -> Segment:
    return Segment(Source.POLICY, ids(text), (-0.5,) * len(ids(text)))


def told(text: str) -> Segment:
    return Segment(Source.ENVIRONMENT, ids(text))


NOTICE = told(INVALID)
