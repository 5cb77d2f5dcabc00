"""The policy: a causal language model, its optimiser and learning-rate schedule, and one optimiser step.

Master weights are float32 whatever the compute precision. Dropout is off for good: the log-probabilities that are
trained must be those of the distribution that was sampled from.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from searchr1.errors import NumericalError, UserError
from searchr1.tokenization import quiet
from searchr1.training.logprobs import TokenScores, check_head, policy_logprobs
from searchr1.training.optimization import Optimization
from searchr1.training.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LossFunction = Callable[[PackedBatch, TokenScores], tuple[Tensor, Mapping[str, Tensor]]]
"""A micro-batch's share of the loss, and metrics: shares to be added, or, where a name ends in ``_max``, maxima."""


class Policy:
    """A model being trained. ``updates`` counts its optimiser steps, and is all the schedule's state."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization | None = None,
        *,
        temperature: float = 1.0,
        reference: bool = False,
    ) -> None:
        """``temperature`` is the sampling temperature; ``reference=True`` keeps a frozen copy of the model as it is."""
        self.optimization = optimization or Optimization()
        self.temperature = temperature
        self.model = model
        self.updates = 0
        _disable_dropout(model)
        check_head(model)
        self.reference = _frozen_copy(model) if reference else None
        untyped: Any = model
        if self.optimization.gradient_checkpointing:
            old_name = "gradient_checkpointing_enable"  # before transformers 5.20 or so
            enable = getattr(untyped, "activation_checkpointing_enable", None) or getattr(untyped, old_name)
            enable({"use_reentrant": False})
        untyped.train()
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            [
                {
                    "params": [p for p in self._parameters if p.ndim >= 2],
                    "weight_decay": self.optimization.weight_decay,
                },
                {"params": [p for p in self._parameters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=self.optimization.learning_rate,
            betas=(self.optimization.beta1, self.optimization.beta2),
        )

    def update(self, batches: Sequence[PackedBatch], loss_function: LossFunction) -> dict[str, float]:
        """One optimiser step over micro-batches. Returns ``loss``, ``grad_norm``, ``learning_rate`` and the metrics.

        Raises ``NumericalError`` when the loss or the gradient norm is not finite: weights, optimiser and schedule
        are then as they were. ``grad_norm`` is the norm before clipping.
        """
        if not batches:
            raise ValueError("an update needs at least one micro-batch; skip the step when no sample is kept")
        self.optimizer.zero_grad(set_to_none=True)
        metrics: dict[str, Tensor] = {}
        for packed in batches:
            packed = packed.to(self.model.device)
            loss, shares = loss_function(packed, self._scores(self.model, packed))
            self._require_finite("loss", loss.detach())
            torch.autograd.backward(loss)
            for name, value in {"loss": loss.detach(), **shares}.items():
                combine = torch.maximum if name.endswith("_max") else torch.add
                metrics[name] = combine(metrics[name], value) if name in metrics else value
        rate = self.optimization.learning_rate_at(self.updates)
        norm = self._step(rate)
        return {name: float(value) for name, value in metrics.items()} | {"grad_norm": norm, "learning_rate": rate}

    @torch.no_grad()
    def score(self, batches: Sequence[PackedBatch], *, reference: bool = False) -> Tensor:
        """Log-probabilities of all trained tokens in sample order, on the CPU: float32 [N].

        ``reference=True`` asks the frozen reference instead of the current policy.
        """
        if reference and self.reference is None:
            raise ValueError("this policy keeps no reference; make it with reference=True")
        model = self.reference if reference and self.reference is not None else self.model
        scores_N = torch.empty(sum(len(packed.flat_N) for packed in batches))
        for packed in batches:
            scores = self._scores(model, packed.to(model.device), with_entropy=False)
            scores_N[packed.flat_N.cpu()] = scores.logprobs_N.float().cpu()
        return scores_N

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names and current tensors (not copies), for ``Engine.load``."""
        for name, value in self.model.state_dict().items():
            yield name, value.detach()

    def _scores(self, model: PreTrainedModel, packed: PackedBatch, *, with_entropy: bool = True) -> TokenScores:
        low = self.optimization.precision == "bfloat16"
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=low):
            return policy_logprobs(
                model,
                packed,
                temperature=self.temperature,
                chunk_tokens=self.optimization.chunk_tokens,
                with_entropy=with_entropy,
            )

    def _step(self, rate: float) -> float:
        """Clip by the global norm and step; returns the norm before clipping."""
        gradients = [p.grad for p in self._parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        self._require_finite("gradient norm", norm)
        torch.nn.utils.clip_grads_with_norm_(self._parameters, self.optimization.max_grad_norm, norm)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        return norm.item()

    def _require_finite(self, name: str, value: Tensor) -> None:
        if not math.isfinite(value.item()):
            self.optimizer.zero_grad(set_to_none=True)
            raise NumericalError(f"update {self.updates}: the {name} is {value.item()}; the weights were not updated")


def _frozen_copy(model: Any) -> PreTrainedModel:
    frozen: PreTrainedModel = copy.deepcopy(model).eval().requires_grad_(False)
    return frozen


def _disable_dropout(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            setattr(module, "attention_dropout", 0.0)  # noqa: B010


def load_model(source: str | Path, *, device: str = "cpu") -> PreTrainedModel:
    """A causal language model with float32 weights, from a Hugging Face folder or hub name.

    Raises ``UserError`` when there is none, it cannot be read, or some of its weights are not there (which
    transformers would make up at random).
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    folder = Path(source)
    if folder.exists() and not (folder / "config.json").is_file():
        raise UserError(f"model: expected a Hugging Face folder with a config.json, got {folder}")
    if not folder.exists() and (isinstance(source, Path) or str(source).count("/") != 1 or str(source)[0] in "./~"):
        raise UserError(f"model: there is no folder {source}; give a Hugging Face folder or a hub name (owner/name)")
    auto: Any = AutoModelForCausalLM
    try:
        with quiet():
            model, report = auto.from_pretrained(str(source), dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model: cannot load a model from {source}: {reason}") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(f"model: {source} lacks {len(missing)} of the model's weights, the first is {missing[0]}")
    loaded: PreTrainedModel = model.to(device)
    return loaded


def load_policy(
    source: str | Path,
    optimization: Optimization | None = None,
    *,
    temperature: float = 1.0,
    reference: bool = False,
    device: str = "cpu",
) -> Policy:
    """A ``Policy`` of ``load_model(source)``."""
    model = load_model(source, device=device)
    return Policy(model, optimization, temperature=temperature, reference=reference)
