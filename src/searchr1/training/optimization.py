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
    chunk_tokens: int = 256
    """Trained tokens whose full-vocabulary logits exist at one time."""
    kind: Literal["adamw", "adamw_8bit"] = "adamw"
    """``adamw_8bit`` keeps the two moments in 8 bits (arXiv 2110.02861): ``pip install 'searchr1[8bit]'``."""

    def __post_init__(self) -> None:
        if self.precision not in ("float32", "bfloat16"):
            raise UserError(f"precision: expected 'float32' or 'bfloat16', got {self.precision!r}")
        if self.kind not in ("adamw", "adamw_8bit"):
            raise UserError(f"optimizer.kind: expected 'adamw' or 'adamw_8bit', got {self.kind!r}")
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
        return warmed_up(self.learning_rate, update, self.warmup_updates)


@dataclass(frozen=True)
class Lora:
    """``[lora]``: an adapter (arXiv 2106.09685) is trained instead of the weights, where ``rank`` is above 0."""

    rank: int = 0
    alpha: int = 32
    """The adapter's output counts alpha / rank times."""
    layers: tuple[str, ...] = ()
    """Names of linear layers, such as ``q_proj``; none: all but the output head."""
    base_precision: Literal["float32", "bfloat16"] = "float32"
    """Of the weights that stay as they are; the adapter is float32."""

    def __post_init__(self) -> None:
        if self.rank < 0:
            raise UserError(f"lora.rank: expected at least 0, got {self.rank}")
        if not self.alpha > 0:
            raise UserError(f"lora.alpha: expected a number above 0, got {self.alpha}")
        if self.base_precision not in ("float32", "bfloat16"):
            raise UserError(f"lora.base_precision: expected 'float32' or 'bfloat16', got {self.base_precision!r}")


@dataclass(frozen=True)
class Critic:
    """``[critic]``: the value function of algorithms that learn one."""

    backbone: Literal["separate", "shared"] = "separate"
    """A model of its own that starts as a copy of the policy, or a linear head on the policy's hidden states."""
    learning_rate: float = 1e-5
    """Of the separate model, or of the shared backbone's head."""
    warmup_updates: int = 0
    max_grad_norm: float = 1.0
    alone_steps: int = 0
    """Steps at the beginning in which the critic learns and the policy does not."""

    def __post_init__(self) -> None:
        if self.backbone not in ("separate", "shared"):
            raise UserError(f"critic.backbone: expected 'separate' or 'shared', got {self.backbone!r}")
        for name in ("learning_rate", "max_grad_norm"):
            if not getattr(self, name) > 0:
                raise UserError(f"critic.{name}: expected a number above 0, got {getattr(self, name)}")
        for name in ("warmup_updates", "alone_steps"):
            if not getattr(self, name) >= 0:
                raise UserError(f"critic.{name}: expected a number of at least 0, got {getattr(self, name)}")

    def learning_rate_at(self, update: int) -> float:
        """Learning rate of update number ``update``, counted from 0."""
        return warmed_up(self.learning_rate, update, self.warmup_updates)


def warmed_up(rate: float, update: int, warmup_updates: int) -> float:
    """Linear warm-up to ``rate``, which then stays."""
    return rate * min(1.0, (update + 1) / max(1, warmup_updates))
