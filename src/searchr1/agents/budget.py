"""What one trajectory may spend, and the proof, before a run starts, that it fits the model's context."""

from __future__ import annotations

import math
from dataclasses import dataclass

from searchr1.errors import UserError
from searchr1.ports import Dialogue
from searchr1.types import Sampling


@dataclass(frozen=True)
class Budget:
    """Limits of one trajectory and how it is sampled. Lengths are in tokens.

    ``max_searches`` turns may search (a turn without a valid action uses one up); then, with ``forced_answer``, one
    more turn may only answer. The paper's setting is 4, 3, 500, 500 (arXiv 2503.09516, appendix B.2).

    >>> Budget().worst_case(prompt_tokens=200)
    4700
    """

    max_searches: int = 4
    top_k: int = 3
    turn_tokens: int = 500
    observation_tokens: int = 500
    context_tokens: int = 5120
    forced_answer: bool = True
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        least_values = {"max_searches": 0, "top_k": 1, "turn_tokens": 1, "observation_tokens": 0, "context_tokens": 1}
        for name, least in least_values.items():
            if getattr(self, name) < least:
                raise UserError(f"rollout.{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_searches == 0 and not self.forced_answer:
            raise UserError(
                "rollout.max_searches = 0 needs rollout.forced_answer = true: there would be no turn at all"
            )
        if not (math.isfinite(self.temperature) and self.temperature >= 0 and 0 < self.top_p <= 1):
            raise UserError(
                f"rollout: temperature must be >= 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}"
            )

    def worst_case(self, prompt_tokens: int) -> int:
        """Tokens of the longest possible trajectory; `check_replies` makes sure that no reply is longer."""
        turns = self.max_searches + self.forced_answer
        return prompt_tokens + turns * self.turn_tokens + self.max_searches * self.observation_tokens

    def check(self, prompt_tokens: int, model_tokens: int | None) -> None:
        """Refuse a budget that cannot hold. Raises ``UserError`` with the formula.

        ``prompt_tokens`` is the longest prompt, ``model_tokens`` the model's context length where it is known.
        """
        if model_tokens is not None and self.context_tokens > model_tokens:
            raise UserError(
                f"rollout.context_tokens = {self.context_tokens} is more than the model's context of {model_tokens} "
                f"tokens; lower it to {model_tokens} or less"
            )
        need = self.worst_case(prompt_tokens)
        if need > self.context_tokens:
            turns = self.max_searches + self.forced_answer
            raise UserError(
                f"the turn budget exceeds the context: prompt {prompt_tokens} + {turns} turns x {self.turn_tokens} + "
                f"{self.max_searches} observations x {self.observation_tokens} = {need} > rollout.context_tokens = "
                f"{self.context_tokens}; raise rollout.context_tokens (the model's limit is "
                f"{model_tokens or 'unknown'}) or lower rollout.max_searches, turn_tokens or observation_tokens"
            )

    def check_replies(self, protocol: Dialogue) -> None:
        """Refuse ``observation_tokens`` that cannot hold the least that the environment says in this dialogue.

        That is an observation's empty wrapper and the notice after an invalid turn. Raises ``UserError``.
        """
        if self.max_searches == 0:
            return
        notice = len(protocol.invalid().token_ids)
        if notice > self.observation_tokens:
            raise UserError(
                f"rollout.observation_tokens must hold the {notice} tokens of the notice after an invalid turn, got "
                f"{self.observation_tokens}; raise it"
            )
        self.check_wrapper(protocol)

    def check_wrapper(self, protocol: Dialogue) -> None:
        """Refuse ``observation_tokens`` that cannot hold an observation at all. Raises ``UserError``."""
        try:
            protocol.observe((), self.observation_tokens)
        except ValueError as error:
            raise UserError(f"rollout.observation_tokens = {self.observation_tokens}: {error}; raise it") from error

    def sampling(self, stop: tuple[str, ...], seed: int) -> Sampling:
        return Sampling(self.turn_tokens, self.temperature, self.top_p, stop, seed)
