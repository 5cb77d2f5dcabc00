"""How an update is made. No torch here: recipes are checked before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from searchr1.errors import UserError


@dataclass(frozen=True)
class Optimization:
    """How an update is made: AdamW (arXiv 1711.05101), linear warm-up, then a constant learning rate."""

    learning_rate: float = 1e-6
    warmup_updates: int = 0
    weight_decay: float = 0.01
    """Not applied to vectors (norms and biases)."""
    beta1: float = 0.9
    beta2: float = 0.999
    max_grad_norm: float = 1.0
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of the decoder's arithmetic; weights, optimiser state and the output head stay float32."""
    gradient_checkpointing: bool = False
    chunk_tokens: int = 1024
    """Trained tokens whose full-vocabulary logits exist at one time."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"precision: expected 'float32' or 'bfloat16', got {self.precision!r}")
        for name in ("learning_rate", "max_grad_norm", "chunk_tokens"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("warmup_updates", "weight_decay"):
            if not getattr(self, name) >= 0:
                raise UserError(f"{name}: expected a number of at least 0, got {getattr(self, name)}")

    def learning_rate_at(self, update: int) -> float:
        """Learning rate of update number ``update``, counted from 0.

        >>> [Optimization(learning_rate=1.0, warmup_updates=4).learning_rate_at(u) for u in (0, 1, 3, 9)]
        [0.25, 0.5, 1.0, 1.0]
        """
        return self.learning_rate * min(1.0, (update + 1) / max(1, self.warmup_updates))
