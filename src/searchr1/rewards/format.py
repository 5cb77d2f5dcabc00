"""The format reward: did every turn think and then act, and did the last action answer?

The roles come from the trajectory's types. Only what the policy itself sampled is held against the grammar, turn by
turn, so neither a chat template, nor an example in the prompt, nor a retrieved document can make a dialogue valid or
invalid; and a policy that writes ``<information>`` itself is malformed rather than believed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from searchr1.types import Action, Answer, Invalid, Search, Source, Trajectory

_BODY = r"(?:(?!</?(?:think|search|answer|information)>).)*"
_TURN = re.compile(rf"\s*<think>{_BODY}</think>\s*<(search|answer)>{_BODY}</\1>\s*", re.DOTALL)
_ACTIONS: dict[str, type[Action]] = {"search": Search, "answer": Answer}


@dataclass(frozen=True, slots=True)
class FormatReward:
    """1.0 for a well-formed trajectory, else 0.0; right or wrong, found or not found, does not matter.

    Well formed: an answer was executed, every turn held an action, and the text of every policy segment is
    ``<think>...</think>``, then the one ``<search>...</search>`` or ``<answer>...</answer>`` that was executed, with
    nothing but white space around them. The weights ``exact_match = 1 - x``, ``format = x`` give the four values of
    arXiv 2505.15117 (1, 1 - x, x and 0). Turns that were said beside the dialogue alone are not looked at.

    ``decode`` turns the token ids of one segment into text. Raises ValueError for an answered trajectory that has not
    exactly one policy segment for every turn: that is an agent's mistake, not the policy's.
    """

    decode: Callable[[Sequence[int]], str]

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        actions = [turn.action for turn in trajectory.turns if not turn.asides or turn.policy_tokens]
        if trajectory.answer is None or any(isinstance(action, Invalid) for action in actions):
            return 0.0
        policy = [segment for segment in trajectory.segments if segment.source is Source.POLICY]
        if len(policy) != len(actions):
            raise ValueError(
                f"question {trajectory.question.id!r}: {len(actions)} turns need as many policy segments, "
                f"got {len(policy)}"
            )
        if not isinstance(actions[-1], Answer):
            return 0.0
        texts = (self.decode(segment.token_ids) for segment in policy)
        return float(all(_well_formed(text, action) for text, action in zip(texts, actions, strict=True)))


def _well_formed(text: str, action: Action) -> bool:
    match = _TURN.fullmatch(text)
    return match is not None and isinstance(action, _ACTIONS[match[1]])
