"""``[engine]`` of a recipe."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from searchr1.errors import UserError


@dataclass(frozen=True)
class EngineTable:
    """``[engine]``: what samples."""

    name: str = "local"
    slots: int = 256
    deterministic: bool = True
    device: str = "auto"
    threads: int = 0
    """CPU threads of torch; 0: all cores that this process may use."""
    url: str = ""
    """Base URL of an OpenAI-compatible server, as http://127.0.0.1:8000/v1. This and what follows is for ``openai``."""
    api: Literal["chat", "completions"] = "chat"
    key_variable: str = "OPENAI_API_KEY"
    """The environment variable that holds the key."""
    tokenizer: str = ""
    """With ``completions``: the model's tokenizer (folder or hub name), for its chat template and its token counts."""
    timeout: float = 600.0
    """Seconds of one attempt."""
    retries: int = 4
    """Further attempts where one failed and the next may not."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the server calls the most tokens of a reply."""
    omit: tuple[str, ...] = ()
    """Fields that the server or the model refuses: temperature, top_p, seed, stop."""

    def __post_init__(self) -> None:
        if not 0 < self.timeout < math.inf:
            raise UserError(f"engine.timeout: expected seconds above 0, got {self.timeout}")
        if self.tokenizer and (self.name, self.api) != ("openai", "completions"):
            raise UserError(
                "engine.tokenizer: only the engine openai with engine.api=completions takes one; local models bring "
                "theirs, and chat servers are sent messages"
            )
