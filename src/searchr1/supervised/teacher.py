"""The direct-answer baseline (SFT in arXiv 2503.09516, table 2): gold answers, said without a search.

A teacher takes the policy's place and says the gold answer to the ordinary ``direct`` agent, so that prompt, tokens,
mask and the end of the turn are those of any other trajectory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from searchr1.agents import build_agent
from searchr1.agents.budget import Budget
from searchr1.agents.rollout import Job, rollout
from searchr1.engines.scripted import ScriptedEngine
from searchr1.ports import Dialogue, Tokenizer
from searchr1.retrieval.counting import ASKED
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.rewards import build_reward
from searchr1.types import Answer, Question, Scored

_BLOCK = 1000  # the scripted engine remembers every request


def gold_answers(
    questions: Sequence[Question],
    protocol: Dialogue,
    tokenizer: Tokenizer,
    budget: Budget,
    progress: Callable[[int, int], None] | None = None,
) -> list[Scored]:
    """One trajectory a question: the prompt without a search engine, and the first accepted answer.

    An answer that this dialogue cannot hold (longer than ``budget.turn_tokens``, or with a tag of its own in it) is
    left out.
    """
    agent = build_agent("direct", protocol, tokenizer, budget)

    def say(context: str, turn: int) -> str:
        question = ASKED.get()
        assert question is not None  # the rollout says what it asks
        return protocol.write(Answer(question.answers[0].strip()))

    scored: list[Scored] = []
    for start in range(0, len(questions), _BLOCK):
        block = questions[start : start + _BLOCK]
        engine = ScriptedEngine(say, tokenizer, logprob=0.0)
        jobs = [Job(question, 0) for question in block]
        played = asyncio.run(rollout(jobs, agent, engine, DictionaryRetriever({})))
        said = [item for item in played if item.answer == item.question.answers[0].strip()]
        scored += build_reward({"exact_match": 1.0}).score_group(said)
        if progress is not None:
            progress(start + len(block), len(questions))
    return scored
