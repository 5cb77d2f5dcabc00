"""What every agent promises; a new one is covered by its entry in ``AGENTS``."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import pytest

from searchr1.agents import AGENTS, build_agent
from searchr1.agents.budget import Budget
from searchr1.engines.scripted import Script, ScriptedEngine
from searchr1.engines.text_tokens import TextTokenizer
from searchr1.errors import SearchUnavailable
from searchr1.ports import Agent, Dialogue, Retriever, RetrieverInfo, Session
from searchr1.protocols import PROTOCOLS, build_protocol
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.rewards.format import FormatReward
from searchr1.tokenization import ByteTokenizer
from searchr1.types import FAILURES, Answer, Passage, Question, Search, Source, StopReason, Trajectory

BYTES = ByteTokenizer()
BUDGET = Budget(max_searches=2, turn_tokens=60, observation_tokens=150, context_tokens=3000)
ASKED = Question("q", "Who wrote Dune?", ("Frank Herbert",))
TAGS = build_protocol("tags", BYTES)
SEARCH = "<think> so </think><search> Dune </search>"
PAGE = Passage("1", "Dune", "By Frank Herbert.")
TOKENIZERS = {"tool_calls": TextTokenizer()}
"""Of protocols that need more than bytes."""


@pytest.fixture(params=sorted(AGENTS))
def agent(request: pytest.FixtureRequest) -> Agent:
    return build_agent(request.param, TAGS, BYTES, BUDGET)


def dialogue(agent: Agent) -> Dialogue:
    """That of an agent that speaks its own, else the one that it was given."""
    return getattr(agent, "dialogue", TAGS)


def searching(agent: Agent) -> str:
    return "<think> so </think>" + dialogue(agent).write(Search("Dune"))


def answering(agent: Agent) -> str:
    return "<think> so </think>" + dialogue(agent).write(Answer("Frank Herbert"))


class Watched(ScriptedEngine):
    """Counts open sessions and says in which order they were opened."""

    def __init__(self, script: Script) -> None:
        super().__init__(script, BYTES)
        self.open = 0

    @contextmanager
    def session(self) -> Iterator[Session]:
        self.open += 1
        try:
            with super().session() as session:
                yield session
        finally:
            self.open -= 1


class Slow(DictionaryRetriever):
    """Searches that never end until they are let go."""

    def __init__(self) -> None:
        super().__init__({}, default=[PAGE])
        self.go = asyncio.Event()

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        await self.go.wait()
        return await super().search(queries, k)


class Down:
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise SearchUnavailable("down")

    async def info(self) -> RetrieverInfo:
        raise SearchUnavailable("down")


async def run(agent: Agent, script: Script, retriever: Retriever | None = None, seed: int = 3) -> Trajectory:
    played = await agent.run(
        ASKED, engine=Watched(script), retriever=retriever or DictionaryRetriever({}, default=[PAGE]), seed=seed
    )
    turns = tuple(replace(turn, generate_seconds=0.0, search_seconds=0.0) for turn in played.turns)
    return replace(played, turns=turns)


async def test_an_answer_ends_it(agent: Agent) -> None:
    said = answering(agent)
    played = await run(agent, [said])
    assert (played.question, played.seed) == (ASKED, 3)
    assert (played.stop, played.answer) == (StopReason.ANSWERED, "Frank Herbert")
    assert [segment.source for segment in played.segments] == [Source.PROMPT, Source.POLICY]
    assert BYTES.decode(played.segments[-1].token_ids) == said
    assert played.segments[-1].logprobs == (-0.5,) * len(said)
    if dialogue(agent) is TAGS:
        assert FormatReward(BYTES.decode).score(played, [played]) == 1.0


SCRIPTS = {"searches": [SEARCH] * 9, "says nothing": ["hm"] * 9, "babbles": ["x" * 99] * 9, "falls silent": [SEARCH]}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
async def test_it_ends_with_a_reason_and_an_exact_record(agent: Agent, script: list[str]) -> None:
    played = await run(agent, [searching(agent) if said == SEARCH else said for said in script])
    policy = [segment for segment in played.segments if segment.source is Source.POLICY]
    assert played.segments[0].source is Source.PROMPT
    assert played.answer is None
    assert played.stop is not StopReason.ANSWERED
    spoken = [turn for turn in played.turns if turn.policy_tokens or not turn.asides]  # the others: beside the dialogue
    assert [len(segment.token_ids) for segment in policy] == [turn.policy_tokens for turn in spoken]
    assert played.count(Source.ENVIRONMENT) == sum(turn.environment_tokens for turn in played.turns)
    assert all(before.source is not after.source for before, after in pairwise(played.segments))
    assert FormatReward(BYTES.decode).score(played, [played]) == 0.0


async def test_the_same_seed_gives_the_same_trajectory(agent: Agent) -> None:
    assert await run(agent, [searching(agent), answering(agent)], seed=5) == await run(
        agent, [searching(agent), answering(agent)], seed=5
    )
    engines = [ScriptedEngine([answering(agent)], BYTES) for _ in range(2)]
    for seed, engine in enumerate(engines):
        await agent.run(ASKED, engine=engine, retriever=DictionaryRetriever({}), seed=seed)
    assert engines[0].requests[0].sampling.seed != engines[1].requests[0].sampling.seed


async def test_failures_are_stop_reasons_and_not_the_policys(agent: Agent) -> None:
    assert (await run(agent, [])).stop is StopReason.ENGINE_ERROR
    played = await run(agent, [searching(agent), answering(agent)], Down())
    assert played.answer is None
    assert played.stop in (StopReason.SEARCH_UNAVAILABLE, StopReason.OUT_OF_TURNS)
    assert played.failed is (played.stop in FAILURES)
    assert played.searches == 0


async def test_sessions_open_before_the_first_wait_and_close(agent: Agent) -> None:
    engine, retriever = Watched([searching(agent), answering(agent)]), Slow()
    tasks = [asyncio.create_task(agent.run(ASKED, engine=engine, retriever=retriever, seed=n)) for n in range(3)]
    await asyncio.sleep(0)
    opened = engine._sessions
    retriever.go.set()
    await asyncio.gather(*tasks)
    assert (opened, engine.open) == (3, 0)


async def test_a_cancelled_trajectory_closes_its_session(agent: Agent) -> None:
    class Stuck(Watched):
        async def generate(self, token_ids, sampling, *, session):  # type: ignore[no-untyped-def]
            await asyncio.Event().wait()

    engine = Stuck([])
    task = asyncio.create_task(agent.run(ASKED, engine=engine, retriever=DictionaryRetriever({}), seed=0))
    for _ in range(3):
        await asyncio.sleep(0)
    assert engine.open == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.open == 0


@pytest.mark.parametrize("name", sorted(AGENTS))
@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
async def test_agents_speak_every_protocol(name: str, protocol: str) -> None:
    tokenizer = TOKENIZERS.get(protocol, BYTES)
    played = await build_agent(name, build_protocol(protocol, tokenizer), tokenizer, BUDGET).run(
        ASKED, engine=ScriptedEngine(["x" * 999] * 9, tokenizer), retriever=DictionaryRetriever({}), seed=0
    )
    assert played.stop is StopReason.NO_ACTION
