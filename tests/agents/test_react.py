"""ReAct over native tool calls and over its own text: the loop of Search-R1 in other words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from dialogue import BYTES, DUNE, TAGS, WHO, finds, timeless
from fake_openai import MODEL, serving

from searchr1.agents.budget import Budget
from searchr1.agents.react import React
from searchr1.engines import ENGINES
from searchr1.engines.scripted import Script, ScriptedEngine
from searchr1.engines.text_tokens import TextTokenizer
from searchr1.errors import UserError
from searchr1.ports import Dialogue, Tokenizer
from searchr1.protocols.react_text import INVALID, ReactText
from searchr1.protocols.tags import Tags
from searchr1.protocols.tool_calls import SEARCH_TOOL, ToolCalls
from searchr1.types import Answer, Invalid, Search, SearchOutcome, Source, StopReason, Trajectory

TEXT = TextTokenizer()
BUDGET = Budget(max_searches=2, top_k=2, turn_tokens=80, observation_tokens=120, context_tokens=3000)
SAYS = " one step\nAction: Search[Dune]\n"
ENDS = " found\nAction: Finish[Frank Herbert]\n"
SHOWN = 'Observation: Doc 1(Title: "Dune") By Frank Herbert.\nThought:'
CALL = '<tool_call>{"name": "search", "arguments": {"query": "Dune"}}</tool_call>'


async def play(
    script: Script, tokenizer: Tokenizer = BYTES, protocol: Dialogue | None = None, budget: Budget = BUDGET
) -> tuple[Trajectory, ScriptedEngine]:
    engine = ScriptedEngine(script, tokenizer)
    agent = React(protocol or Tags(tokenizer), tokenizer, budget)
    return timeless(await agent.run(WHO, engine=engine, retriever=finds(), seed=7)), engine


def texts(played: Trajectory, tokenizer: Tokenizer = BYTES) -> list[tuple[Source, str]]:
    return [(segment.source, tokenizer.decode(segment.token_ids)) for segment in played.segments[1:]]


async def test_thoughts_searches_and_an_answer_as_text() -> None:
    played, engine = await play([SAYS + "Observation: made up", ENDS])
    assert texts(played) == [(Source.POLICY, SAYS), (Source.ENVIRONMENT, SHOWN), (Source.POLICY, ENDS)]
    assert (played.stop, played.answer, played.searches) == (StopReason.ANSWERED, "Frank Herbert", 1)
    first, second = played.turns
    assert (first.action, first.passages, first.search) == (Search("Dune"), (DUNE,), SearchOutcome.FOUND)
    assert (first.policy_tokens, first.environment_tokens) == (len(SAYS), len(SHOWN))
    assert second.action == Answer("Frank Herbert")
    assert BYTES.decode(engine.requests[0].token_ids).endswith("Question: Who wrote Dune?\nThought:")
    assert engine.requests[1].token_ids == played.tokens[: -len(ENDS)]


async def test_native_calls_where_the_tokenizer_offers_tools() -> None:
    played, engine = await play([CALL + CALL, "Frank Herbert"], TEXT)
    assert texts(played, TEXT) == [
        (Source.POLICY, CALL),
        (Source.ENVIRONMENT, '<|tool|>Doc 1(Title: "Dune") By Frank Herbert.<|assistant|>'),
        (Source.POLICY, "Frank Herbert<|end|>"),
    ]
    assert (played.stop, played.answer, played.searches) == (StopReason.ANSWERED, "Frank Herbert", 1)
    assert engine.requests[0].token_ids == tuple(ToolCalls(TEXT).prompt(WHO.text))


@pytest.mark.parametrize(
    ("tokenizer", "says", "reason"),
    [(BYTES, "hm" * 50, "no action"), (TEXT, "<tool_call>{}</tool_call>", "a call that is not JSON")],
)
async def test_invalid_turns_use_up_the_budget(tokenizer: Tokenizer, says: str, reason: str) -> None:
    played, _ = await play([says] * 9, tokenizer)
    assert played.stop is StopReason.NO_ACTION
    assert [type(turn.action) for turn in played.turns] == [Invalid] * 3
    assert reason in str(played.turns[0].action)
    assert [turn.environment_tokens > 0 for turn in played.turns] == [True, True, False]
    if tokenizer is BYTES:
        assert texts(played)[1] == (Source.ENVIRONMENT, f"Observation: {INVALID}\nThought:")


@pytest.mark.parametrize(("tokenizer", "says"), [(BYTES, SAYS), (TEXT, CALL)])
async def test_a_search_too_many_is_refused(tokenizer: Tokenizer, says: str) -> None:
    played, _ = await play([says] * 9, tokenizer)
    assert (played.stop, played.searches) == (StopReason.OUT_OF_TURNS, 2)
    found, refused = SearchOutcome.FOUND, SearchOutcome.REFUSED
    assert [turn.search for turn in played.turns] == [found, found, refused]


async def test_without_searches_no_search_is_offered() -> None:
    played, engine = await play([ENDS], budget=replace(BUDGET, max_searches=0))
    assert played.answer == "Frank Herbert"
    assert "Search[" not in BYTES.decode(engine.requests[0].token_ids)


def test_which_dialogue_is_spoken() -> None:
    def spoken(protocol: Dialogue, tokenizer: Tokenizer) -> Dialogue:
        return React(protocol, tokenizer, BUDGET).dialogue

    assert spoken(TAGS, BYTES) == ReactText(BYTES, chat="never")
    assert spoken(Tags(TEXT), TEXT) == ToolCalls(TEXT)
    assert spoken(Tags(TEXT, chat="never"), TEXT) == ReactText(TEXT, chat="never")
    plain = TextTokenizer(chat=False)
    assert spoken(Tags(plain), plain) == ReactText(plain)
    for given in (ReactText(TEXT), ToolCalls(TEXT)):
        assert spoken(given, TEXT) is given


def test_budgets_that_cannot_hold_its_words() -> None:
    with pytest.raises(UserError, match=r"the turn budget exceeds the context: prompt \d+ \+ 3 turns x 80"):
        React(TAGS, BYTES, replace(BUDGET, context_tokens=600))
    with pytest.raises(UserError, match=r"rollout\.observation_tokens must hold the \d+ tokens of the notice"):
        React(TAGS, BYTES, replace(BUDGET, observation_tokens=60))


async def test_a_chat_server_from_question_to_answer() -> None:
    """Agent, dialogue, engine and wire together."""
    function = {"name": "search", "arguments": '{"query": "Dune"}'}
    calls: dict[str, Any] = {
        "finish_reason": "tool_calls",
        "message": {"content": None, "tool_calls": [{"id": "a1", "type": "function", "function": function}]},
    }
    with serving([calls, "<answer> Frank Herbert </answer>"]) as server:
        engine = ENGINES["openai"](MODEL, TEXT, url=server.url)
        played = await React(Tags(TEXT), TEXT, BUDGET).run(WHO, engine=engine, retriever=finds(), seed=7)
    assert (played.stop, played.answer, played.searches) == (StopReason.ANSWERED, "Frank Herbert", 1)
    assert [request["tools"] for request in server.requests] == [[SEARCH_TOOL]] * 2
    _, called, result = server.requests[1]["messages"]
    assert called["tool_calls"][0]["function"] == {"name": "search", "arguments": '{"query": "Dune"}'}
    assert result == {
        "role": "tool",
        "tool_call_id": called["tool_calls"][0]["id"],
        "content": 'Doc 1(Title: "Dune") By Frank Herbert.',
    }
