"""What one trajectory may spend, and the proof, before a run starts, that it fits the model's context."""

from __future__ import annotations

from dataclasses import dataclass

from searchr1.errors import UserError
from searchr1.types import Sampling


@dataclass(frozen=True)
class Budget:
    """Limits of one trajectory and how it is sampled. Lengths are in tokens.

    ``max_searches`` turns may search (a turn without a valid action uses one up); then, with ``forced_answer``, one
    more turn may only answer. The paper's setting is 4, 3, 500, 500 (arXiv 2503.09516, appendix B.2).
    """

    max_searches: int = 4
    top_k: int = 3
    turn_tokens: int = 500
    observation_tokens: int = 500
    context_tokens: int = 4096
    forced_answer: bool = True
    temperature: float = 1.0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("max_searches", 0), ("top_k", 1), ("turn_tokens", 1), ("context_tokens", 1)):
            if getattr(self, name) < least:
                raise UserError(f"rollout.{name} must be at least {least}, got {getattr(self, name)}")
        if self.max_searches == 0 and not self.forced_answer:
            raise UserError("rollout.max_searches = 0 needs rollout.forced_answer = true: there would be no turn at all")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise UserError(
                f"rollout: temperature must be >= 0 and 0 < top_p <= 1, got {self.temperature} and {self.top_p}"
            )

    def worst_case(self, prompt_tokens: int) -> int:
        """Tokens of the longest possible trajectory."""
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

    def sampling(self, stop: tuple[str, ...], seed: int) -> Sampling:
        return Sampling(self.turn_tokens, self.temperature, self.top_p, stop, seed)
