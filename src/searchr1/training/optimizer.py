"""AdamW over one module: no weight decay on vectors, gradients clipped by their global norm, a rate for every step."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from searchr1.errors import UserError
from searchr1.training.optimization import Optimization


class Schedule(Protocol):
    """What differs between a policy and its critic."""

    @property
    def max_grad_norm(self) -> float: ...

    def learning_rate_at(self, update: int) -> float: ...


class Optimizer:
    """AdamW (arXiv 1711.05101) with the moments and decay of ``[optimizer]`` and the rate of a ``Schedule``."""

    def __init__(self, module: nn.Module, options: Optimization, schedule: Schedule) -> None:
        self._schedule = schedule
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        matrices = [p for p in self._parameters if p.ndim >= 2]
        vectors = [p for p in self._parameters if p.ndim < 2]
        self.adamw: torch.optim.Optimizer = _adamw(options.kind)(
            [
                {"params": matrices, "weight_decay": options.weight_decay},
                {"params": vectors, "weight_decay": 0.0},
            ],
            lr=schedule.learning_rate_at(0),
            betas=(options.beta1, options.beta2),
        )

    def norm(self) -> Tensor:
        """Global norm of the gradients."""
        return torch.nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])

    def step(self, norm: Tensor, update: int, scale: float) -> None:
        """Clip gradients of that ``norm`` and take step number ``update`` at ``scale`` times its learning rate."""
        torch.nn.utils.clip_grads_with_norm_(self._parameters, self._schedule.max_grad_norm, norm)
        for group in self.adamw.param_groups:
            group["lr"] = scale * self._schedule.learning_rate_at(update)
        self.adamw.step()

    def clear(self) -> None:
        """Forget the gradients."""
        self.adamw.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        """The moments, for a checkpoint."""
        state: dict[str, Any] = self.adamw.state_dict()
        return state

    def load(self, state: dict[str, Any]) -> None:
        """The inverse of ``state``. Raises ``ValueError`` for that of other parameters."""
        self.adamw.load_state_dict(state)


def _adamw(kind: str) -> Callable[..., torch.optim.Optimizer]:
    if kind == "adamw":
        return partial(torch.optim.AdamW, fused=True)
    try:
        eight_bit: Callable[..., torch.optim.Optimizer] = importlib.import_module("bitsandbytes.optim").AdamW8bit
        return eight_bit
    except ImportError as error:
        raise UserError("optimizer.kind: adamw_8bit needs bitsandbytes: pip install 'searchr1[8bit]'") from error
