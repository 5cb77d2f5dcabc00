"""Trajectories of a scripted policy, as rows; the tokenizer has one token a byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from searchr1.agents import build_agent
from searchr1.agents.budget import Budget
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import SearchUnavailable
from searchr1.ports import RetrieverInfo
from searchr1.protocols.tags import Tags
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.rewards import build_reward
from searchr1.tokenization import ByteTokenizer
from searchr1.trajectory_io import trajectory_row
from searchr1.types import Passage, Question, Scored, Trajectory

BYTES = ByteTokenizer()
TAGS = Tags(BYTES, "short")
BUDGET = Budget(max_searches=2, turn_tokens=120, observation_tokens=160, context_tokens=2000)
QUESTION = Question("q1", "Who wrote Dune?", ("Frank Herbert", "Herbert"), "books", {"hops": 1})
PASSAGES = [Passage("d", "Dune", "By Frank Herbert."), Passage("e", "Emma", "By Jane Austen. " * 20)]
FOUND = DictionaryRetriever({"Dune": PASSAGES[:1], "Emma": PASSAGES[1:]})
RIGHT = ["<think>hm</think><search>Dune</search>", "<answer>Herbert</answer>"]
WRONG = ["<search>Emma</search>", "<answer>Jane Austen</answer>"]
INVALID = ["I do not know", "<search>nothing</search>", "<answer> the Herbert </answer>"]


class Dead:
    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        raise SearchUnavailable("down")

    async def info(self) -> RetrieverInfo:
        return RetrieverInfo("dead", 0, "")


def play(
    script: list[str], question: Question = QUESTION, *, agent: str = "search_r1", retriever: Any = FOUND
) -> Trajectory:
    engine, made = ScriptedEngine(script, BYTES), build_agent(agent, TAGS, BYTES, BUDGET)
    return asyncio.run(made.run(question, engine=engine, retriever=retriever, seed=0))


def score(*trajectories: Trajectory) -> list[Scored]:
    return build_reward({"exact_match": 1.0}).score_group(trajectories)


def row_of(trajectory: Trajectory) -> dict[str, Any]:
    """The row as a file would give it back."""
    [item] = score(trajectory)
    row: dict[str, Any] = json.loads(
        json.dumps(trajectory_row(item, kind="sample", step=0, tokenizer=BYTES, advantage=None, group="g"))
    )
    return row


def named(name: str, **changes: Any) -> Question:
    return replace(QUESTION, id=name, **changes)
