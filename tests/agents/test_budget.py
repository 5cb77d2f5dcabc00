"""What a trajectory may spend: refused before the run, and never exceeded in it."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from dialogue import BYTES, INVALID, SHORT, TAGS, WHO, NoSearchEngine, agent
from hypothesis import given
from hypothesis import strategies as st

from searchr1.agents.budget import Budget
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import UserError
from searchr1.protocols.tags import CLOSE, OPEN
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import Passage, Sampling, Source


def test_the_formula() -> None:
    assert Budget(4, 3, 500, 400).worst_case(100) == 100 + 5 * 500 + 4 * 400
    assert Budget(4, 3, 500, 400, forced_answer=False).worst_case(100) == 100 + 4 * 500 + 4 * 400
    assert Budget(max_searches=0, turn_tokens=50).worst_case(100) == 150


def test_the_default_holds_a_prompt_of_600_tokens() -> None:
    Budget().check(600, 32_768)


def test_a_budget_beyond_the_context_is_refused_with_the_formula() -> None:
    Budget(4, 3, 500, 500, 4700).check(200, 4700)
    with pytest.raises(UserError) as refused:
        Budget(4, 3, 500, 500, 4700).check(201, 8192)
    assert str(refused.value) == (
        "the turn budget exceeds the context: prompt 201 + 5 turns x 500 + 4 observations x 500 = 4701 > "
        "rollout.context_tokens = 4700; raise rollout.context_tokens (the model's limit is 8192) or lower "
        "rollout.max_searches, turn_tokens or observation_tokens"
    )
    with pytest.raises(UserError, match=r"\(the model's limit is unknown\)"):
        Budget(4, 3, 500, 500, 4700).check(201, None)


def test_a_context_beyond_the_models_is_refused() -> None:
    Budget(context_tokens=8192).check(100, None)
    with pytest.raises(UserError) as refused:
        Budget(context_tokens=8192).check(100, 8191)
    assert str(refused.value) == (
        "rollout.context_tokens = 8192 is more than the model's context of 8191 tokens; lower it to 8191 or less"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_searches": -1}, "rollout.max_searches must be at least 0, got -1"),
        ({"top_k": 0}, "rollout.top_k must be at least 1, got 0"),
        ({"turn_tokens": 0}, "rollout.turn_tokens must be at least 1, got 0"),
        ({"observation_tokens": -1}, "rollout.observation_tokens must be at least 0, got -1"),
        ({"context_tokens": 0}, "rollout.context_tokens must be at least 1, got 0"),
        ({"max_searches": 0, "forced_answer": False}, "there would be no turn at all"),
        ({"temperature": -0.1}, "temperature must be >= 0 and 0 < top_p <= 1, got -0.1 and 1.0"),
        ({"temperature": float("nan")}, "got nan and 1.0"),
        ({"temperature": float("inf")}, "got inf and 1.0"),
        ({"top_p": 0.0}, "got 1.0 and 0.0"),
        ({"top_p": 1.01}, "got 1.0 and 1.01"),
        ({"top_p": float("nan")}, "got 1.0 and nan"),
    ],
)
def test_values_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as refused:
        Budget(**options)
    assert message in str(refused.value)


def test_observations_must_hold_what_the_environment_says() -> None:
    least = len(INVALID)
    agent("search_r1", replace(SHORT, observation_tokens=least))
    with pytest.raises(UserError) as refused:
        agent("search_r1", replace(SHORT, observation_tokens=least - 1))
    assert str(refused.value) == (
        f"rollout.observation_tokens must hold the {least} tokens of the notice after an invalid turn, got "
        f"{least - 1}; raise it"
    )
    wrapper = len(OPEN + CLOSE)
    agent("rag", replace(SHORT, observation_tokens=wrapper))
    agent("direct", replace(SHORT, observation_tokens=0))
    agent("search_r1", replace(SHORT, max_searches=0, observation_tokens=0))
    with pytest.raises(UserError) as refused:
        agent("rag", replace(SHORT, observation_tokens=wrapper - 1))
    assert str(refused.value) == (
        f"rollout.observation_tokens = {wrapper - 1}: an observation needs at least {wrapper} tokens for its wrapper, "
        f"got {wrapper - 1}; raise it"
    )


def test_sampling() -> None:
    assert Budget(turn_tokens=9, temperature=0.5, top_p=0.9).sampling(("a",), 3) == Sampling(9, 0.5, 0.9, ("a",), 3)


TEXTS = st.sampled_from(
    [
        "<search>a</search>",
        "<search>b</search>",
        "<search> </search>",
        "<answer>x</answer>",
        "hm",
        "",
        "y" * 300,
        "é" * 40,
    ]
)
RESULTS = st.dictionaries(
    st.sampled_from(["a", "b", WHO.text]),
    st.lists(st.builds(Passage, st.just("1"), st.text(max_size=9), st.text(max_size=200)), max_size=3),
)
BUDGETS = st.builds(
    Budget,
    max_searches=st.integers(0, 4),
    top_k=st.integers(1, 3),
    turn_tokens=st.integers(1, 60),
    observation_tokens=st.integers(len(INVALID), 200),
    context_tokens=st.integers(1, 1500),
)


@given(
    name=st.sampled_from(["search_r1", "direct", "rag"]),
    script=st.lists(TEXTS, max_size=6),
    results=st.none() | RESULTS,
    budget=BUDGETS,
    forced=st.booleans(),
)
def test_nothing_that_is_said_or_found_exceeds_the_budget(
    name: str, script: list[str], results: dict[str, list[Passage]] | None, budget: Budget, forced: bool
) -> None:
    """Whatever policy and search engine do, no trajectory is longer than the worst case or the context."""
    budget = replace(budget, forced_answer=forced or budget.max_searches == 0)
    retriever = NoSearchEngine() if results is None else DictionaryRetriever(results)
    engine = ScriptedEngine(script, BYTES)
    played = asyncio.run(agent(name, budget).run(WHO, engine=engine, retriever=retriever, seed=0))

    searching = name == "search_r1" and budget.max_searches > 0
    prompt = len(TAGS.prompt(WHO.text, search=searching))
    shown = budget.observation_tokens if name == "rag" else 0
    kind = replace(budget, max_searches=0, forced_answer=True) if name == "direct" else budget
    kind = replace(kind, max_searches=0, forced_answer=True) if name == "rag" else kind
    assert len(played.tokens) <= kind.worst_case(prompt + shown)
    assert len(played.tokens) <= max(budget.context_tokens, prompt + shown)
    assert len(played.turns) <= kind.max_searches + kind.forced_answer
    assert played.searches <= (1 if name == "rag" else kind.max_searches)
    assert played.count(Source.POLICY) == sum(turn.policy_tokens for turn in played.turns) == sum(played.mask)
    assert played.count(Source.ENVIRONMENT) == sum(turn.environment_tokens for turn in played.turns)
    assert [len(request.token_ids) for request in engine.requests] == sorted(len(r.token_ids) for r in engine.requests)
