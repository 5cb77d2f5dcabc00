"""The baselines: direct answer, and one-shot retrieval-augmented generation."""

from dataclasses import replace

import pytest
from dialogue import (
    ANSWER,
    BYTES,
    DUNE,
    DUNE_OBSERVED,
    NO_SEARCH_PROMPT,
    SEARCH,
    SHORT,
    TAGS,
    WHO,
    NoSearchEngine,
    agent,
    finds,
    ids,
    play,
    prompt,
    said,
)

from searchr1.agents import AGENTS, build_agent
from searchr1.errors import UserError
from searchr1.rewards.format import FormatReward
from searchr1.seeds import derive_seed
from searchr1.types import Answer, Invalid, Passage, Search, SearchOutcome, StopReason, Trajectory, Turn

RAG_ANSWERED = Turn(Answer("Frank Herbert"), (DUNE,), SearchOutcome.FOUND, len(ANSWER))


# --- direct


async def test_direct_answers_in_one_turn_without_searching() -> None:
    retriever = finds()
    trajectory, engine = await play("direct", [ANSWER], retriever=retriever)
    assert trajectory == Trajectory(
        WHO,
        (prompt(NO_SEARCH_PROMPT), said(ANSWER)),
        (Turn(Answer("Frank Herbert"), policy_tokens=len(ANSWER)),),
        "Frank Herbert",
        StopReason.ANSWERED,
        0,
        7,
    )
    assert retriever.calls == []
    assert [request.sampling.seed for request in engine.requests] == [derive_seed(7, 0)]
    assert FormatReward(BYTES.decode).score(trajectory, [trajectory]) == 1.0


@pytest.mark.parametrize("forced", [True, False])
async def test_direct_has_its_one_turn_whatever_the_budget(forced: bool) -> None:
    trajectory, _ = await play("direct", [SEARCH, ANSWER], replace(SHORT, forced_answer=forced))
    assert trajectory.turns == (Turn(Search("Dune"), search=SearchOutcome.REFUSED, policy_tokens=len(SEARCH)),)
    assert trajectory.stop is StopReason.OUT_OF_TURNS


# --- rag


async def test_rag_shows_what_the_question_finds_and_answers() -> None:
    retriever = finds()
    trajectory, engine = await play("rag", [ANSWER], retriever=retriever)
    assert trajectory == Trajectory(
        WHO,
        (prompt(NO_SEARCH_PROMPT + DUNE_OBSERVED), said(ANSWER)),
        (RAG_ANSWERED,),
        "Frank Herbert",
        StopReason.ANSWERED,
        0,
        7,
    )
    assert trajectory.searches == 1
    assert retriever.calls == [((WHO.text,), 2)]
    assert [(request.token_ids, request.sampling.seed) for request in engine.requests] == [
        (ids(NO_SEARCH_PROMPT + DUNE_OBSERVED), derive_seed(7, 0))
    ]
    assert FormatReward(BYTES.decode).score(trajectory, [trajectory]) == 1.0


async def test_rag_cuts_what_it_shows_to_the_observation_budget() -> None:
    long = Passage("2", "Dune", "x" * 200)
    trajectory, _ = await play("rag", [ANSWER], retriever=finds({WHO.text: [long]}))
    assert len(trajectory.segments[0].token_ids) == len(NO_SEARCH_PROMPT) + 120
    assert BYTES.decode(trajectory.segments[0].token_ids).endswith("xxx</information>\n\n")
    assert trajectory.turns == (replace(RAG_ANSWERED, passages=(long,), truncated=True),)


async def test_rag_that_finds_nothing_asks_without_passages() -> None:
    trajectory, _ = await play("rag", [ANSWER], retriever=finds({}))
    assert trajectory.segments == (prompt(NO_SEARCH_PROMPT), said(ANSWER))
    assert trajectory.turns == (replace(RAG_ANSWERED, passages=(), search=SearchOutcome.EMPTY),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [("hm", "no closing tag"), (SEARCH, "a search, which this dialogue does not offer: Dune")],
)
async def test_rag_that_does_not_answer(text: str, reason: str) -> None:
    retriever = finds()
    trajectory, _ = await play("rag", [text, ANSWER], retriever=retriever)
    tokens = 3 if text == "hm" else len(SEARCH)
    assert trajectory.turns == (replace(RAG_ANSWERED, action=Invalid(reason), policy_tokens=tokens),)
    assert (trajectory.stop, trajectory.answer, trajectory.searches) == (StopReason.NO_ACTION, None, 1)
    assert len(retriever.calls) == 1


async def test_rag_without_a_search_engine() -> None:
    trajectory, engine = await play("rag", [ANSWER], retriever=NoSearchEngine())
    failed = Turn(Search(WHO.text), search=SearchOutcome.FAILED)
    assert trajectory == Trajectory(WHO, (), (failed,), None, StopReason.SEARCH_UNAVAILABLE, 0, 7)
    assert engine.requests == []


async def test_rag_with_an_engine_that_fails() -> None:
    trajectory, _ = await play("rag", [])
    assert trajectory.segments == (prompt(NO_SEARCH_PROMPT + DUNE_OBSERVED),)
    assert trajectory.stop is StopReason.ENGINE_ERROR


async def test_rag_whose_passages_leave_no_room() -> None:
    full = len(NO_SEARCH_PROMPT + DUNE_OBSERVED) + SHORT.turn_tokens
    trajectory, engine = await play("rag", [ANSWER], replace(SHORT, context_tokens=full - 1))
    assert trajectory.turns == (Turn(Search(WHO.text), (DUNE,), SearchOutcome.FOUND),)
    assert (trajectory.stop, engine.requests) == (StopReason.OUT_OF_TOKENS, [])
    assert (await play("rag", [ANSWER], replace(SHORT, context_tokens=full)))[0].stop is StopReason.ANSWERED


# --- by name


def test_agents_are_built_by_name() -> None:
    assert {"search_r1", "direct", "cot", "rag", "ircot", "search_o1", "r1"} <= set(AGENTS)
    assert type(agent("rag")).__name__ == "Rag"
    with pytest.raises(UserError, match=r"^unknown agent 'search-r1'; did you mean 'search_r1'\?$"):
        build_agent("search-r1", TAGS, BYTES, SHORT)


async def test_rag_without_searches_answers_from_memory() -> None:
    retriever = finds()
    trajectory, _ = await play("rag", [ANSWER], replace(SHORT, max_searches=0), retriever)
    assert (retriever.calls, trajectory.searches, trajectory.answer) == ([], 0, "Frank Herbert")
    assert trajectory.segments == (prompt(NO_SEARCH_PROMPT), said(ANSWER))
