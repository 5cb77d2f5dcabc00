"""Whole dialogues for reward tests: text as token ids, one policy segment a turn, passages where they belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from searchr1.types import (
    Action,
    Answer,
    Passage,
    Question,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

HERBERT = Question("q", "Who wrote Dune?", ("Frank Herbert",), "demo")
HOLDS = Passage("1", "Dune", "A novel by Frank Herbert.")
OTHER = Passage("2", "Arrakis", "A desert planet.")


def decode(token_ids: Sequence[int]) -> str:
    return "".join(map(chr, token_ids))


def played(
    answer: str | None = "Frank Herbert",
    *found: Sequence[Passage],
    thought: str = "<think>so</think>",
    question: Question = HERBERT,
) -> Trajectory:
    """One search for every ``found``, then the answer, every turn opened by ``thought``."""
    segments, turns = [Segment(Source.PROMPT, (1,))], []

    def speak(text: str, action: Action, passages: Sequence[Passage], outcome: SearchOutcome) -> None:
        segments.append(Segment(Source.POLICY, tuple(map(ord, text)), (0.0,) * len(text)))
        turns.append(Turn(action, tuple(passages), outcome))

    for passages in found:
        outcome = SearchOutcome.FOUND if passages else SearchOutcome.EMPTY
        speak(f"{thought}<search>dune</search>", Search("dune"), passages, outcome)
        observation = "".join(passage.contents for passage in passages)
        segments.append(Segment(Source.ENVIRONMENT, tuple(map(ord, observation))))
    if answer is not None:
        speak(f"{thought}<answer>{answer}</answer>", Answer(answer), (), SearchOutcome.NONE)
    stop = StopReason.ANSWERED if answer is not None else StopReason.OUT_OF_TURNS
    return Trajectory(question, tuple(segments), tuple(turns), answer, stop, 0, 0)


def score(reward: Any, trajectory: Trajectory, group: Sequence[Trajectory] = ()) -> float:
    value: float = reward.score(trajectory, group)
    return value
