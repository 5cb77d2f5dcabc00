"""The policy: a causal language model, its optimiser and learning-rate schedule, and one optimiser step.

Master weights are float32 whatever the compute precision. Dropout is off for good: the log-probabilities that are
trained must be those of the distribution that was sampled from.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from searchr1.errors import NumericalError, UserError
from searchr1.tokenization import quiet
from searchr1.training.adapter import adapter_off, adapter_state, add_adapter, merged_state
from searchr1.training.attention import separate_samples
from searchr1.training.critic import ValueModel
from searchr1.training.logprobs import TokenScores, check_head, policy_logprobs
from searchr1.training.optimization import Critic, Lora, Optimization
from searchr1.training.optimizer import Optimizer
from searchr1.training.packing import PackedBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LossFunction = Callable[[PackedBatch, TokenScores], tuple[Tensor, Mapping[str, Tensor]]]
"""A micro-batch's share of the loss, and metrics: shares to be added, or, where a name ends in ``_max``, maxima."""


class Policy:
    """A model being trained, and its critic. Their counts of updates are all that their schedules depend on."""

    def __init__(
        self,
        model: PreTrainedModel,
        optimization: Optimization | None = None,
        *,
        temperature: float = 1.0,
        reference: bool = False,
        critic: Critic | None = None,
        lora: Lora | None = None,
    ) -> None:
        """``temperature`` is the sampling temperature; ``reference=True`` keeps a frozen copy of the model as it is.

        With ``lora`` of a rank above 0 the copy is not needed: the reference is the model without its adapter.
        """
        self.optimization = optimization or Optimization()
        self.temperature = temperature
        self.model = model
        self.updates, self.critic_updates = 0, 0
        self.rate_scale = 1.0
        """Factor of all learning rates, for a run that goes on more carefully after an alarm."""
        _disable_dropout(model)
        check_head(model)
        separate_samples(model)
        self.adapted = lora is not None and lora.rank > 0
        self.reference = _frozen_copy(model) if reference and not self.adapted else None
        self._has_reference = reference
        self._origin = fingerprint(model) if self.adapted or reference else ""
        if lora is not None and self.adapted:
            add_adapter(model, lora)
        untyped: Any = model
        if self.optimization.gradient_checkpointing:
            old_name = "gradient_checkpointing_enable"  # before transformers 5.20 or so
            enable = getattr(untyped, "activation_checkpointing_enable", None) or getattr(untyped, old_name)
            enable({"use_reentrant": False})
        untyped.train()
        self.optimizer = Optimizer(model, self.optimization, self.optimization)
        self.critic: ValueModel | None = None
        self.critic_optimizer: Optimizer | None = None
        if critic is not None:
            self.critic = ValueModel(model, shared=critic.backbone == "shared")
            self.critic_optimizer = Optimizer(self.critic, self.optimization, critic)

    def update(
        self, batches: Sequence[PackedBatch], loss_function: LossFunction, *, critic_alone: bool = False
    ) -> dict[str, float]:
        """One optimiser step over micro-batches. Returns ``loss``, ``grad_norm``, ``learning_rate`` and the metrics.

        ``critic_alone`` leaves the policy as it is. Raises ``NumericalError`` when the loss or a gradient norm is not
        finite: weights, optimiser and schedule are then as they were. ``grad_norm`` is the norm before clipping.
        """
        if not batches:
            raise ValueError("an update needs at least one micro-batch; skip the step when no sample is kept")
        self._clear()
        metrics: dict[str, Tensor] = {}
        for packed in batches:
            packed = packed.to(self.model.device)
            loss, shares = loss_function(packed, self._scores(self.model, packed, critic=self.critic))
            self._require_finite("loss", loss.detach())
            torch.autograd.backward(loss)
            for name, value in {"loss": loss.detach(), **shares}.items():
                combine = torch.maximum if name.endswith("_max") else torch.add
                metrics[name] = combine(metrics[name], value) if name in metrics else value
        return {name: float(value) for name, value in metrics.items()} | self._step(critic_alone)

    @torch.no_grad()
    def score(self, batches: Sequence[PackedBatch], *, reference: bool = False) -> Tensor:
        """Log-probabilities of all trained tokens in sample order, on the CPU: float32 [N].

        ``reference=True`` asks the frozen reference instead of the current policy.
        """
        if reference and not self._has_reference:
            raise ValueError("this policy keeps no reference; make it with reference=True")
        model = self.reference if reference and self.reference is not None else self.model
        with adapter_off(self.model) if reference and self.adapted else nullcontext():
            return self._over(batches, lambda packed: self._scores(model, packed, with_entropy=False).logprobs_N)

    @torch.no_grad()
    def values(self, batches: Sequence[PackedBatch]) -> Tensor:
        """The critic's values of the states before all trained tokens, in sample order, on the CPU: float32 [N]."""
        critic = self.critic
        if critic is None:
            raise ValueError("this policy has no critic; make it with critic=Critic()")
        return self._over(
            batches, lambda packed: self._scores(self.model, packed, critic=critic, with_entropy=False).values_N
        )

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Names and tensors of the plain model, for engines and checkpoints; an adapter is merged into copies."""
        state = merged_state(self.model) if self.adapted else self.model.state_dict()
        for name, value in state.items():
            yield name, value.detach()

    def training_state(self) -> dict[str, Any]:
        """Everything but the model's weights and the reference, as tensors and plain values."""
        state = {"optimizer": self.optimizer.state(), "updates": self.updates, "origin": self._origin}
        if self.adapted:
            state["adapter"] = adapter_state(self.model)
        if self.critic is not None and self.critic_optimizer is not None:
            state |= {
                "critic": self.critic.state_dict(),
                "critic_optimizer": self.critic_optimizer.state(),
                "critic_updates": self.critic_updates,
            }
        return state

    def load_training_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of ``training_state``. Raises ``ValueError`` or ``RuntimeError`` for another policy's."""
        for part, present in (("critic", self.critic is not None), ("adapter", self.adapted)):
            if present != (part in state):
                raise ValueError(f"one of the two has {part}s and the other has none")
        if self._origin and state["origin"] not in ("", self._origin):
            raise ValueError("the model that the run started from has changed since")
        if self.adapted:
            self.model.load_state_dict(state["adapter"], strict=False)
        self.optimizer.load(state["optimizer"])
        if self.critic is not None and self.critic_optimizer is not None:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimizer.load(state["critic_optimizer"])
            self.critic_updates = state["critic_updates"]
        self.updates = state["updates"]

    def _over(self, batches: Sequence[PackedBatch], scored: Callable[[PackedBatch], Tensor]) -> Tensor:
        scores_N = torch.empty(sum(len(packed.flat_N) for packed in batches))
        for packed in batches:
            scores_N[packed.flat_N.cpu()] = scored(packed.to(self.model.device)).float().cpu()
        return scores_N

    def _scores(
        self,
        model: PreTrainedModel,
        packed: PackedBatch,
        *,
        critic: ValueModel | None = None,
        with_entropy: bool = True,
    ) -> TokenScores:
        low = self.optimization.precision == "bfloat16"
        with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=low):
            return policy_logprobs(
                model,
                packed,
                temperature=self.temperature,
                chunk_tokens=self.optimization.chunk_tokens,
                with_entropy=with_entropy,
                values=None if critic is None else partial(critic, packed),
            )

    def _step(self, critic_alone: bool) -> dict[str, float]:
        """Clip and step, unless a gradient is not finite; gradient norms before clipping and the learning rate."""
        norm, rate = self.optimizer.norm(), self.rate_scale * self.optimization.learning_rate_at(self.updates)
        self._require_finite("gradient norm", norm)
        result = {"grad_norm": norm.item(), "learning_rate": rate}
        if self.critic_optimizer is not None:
            critic_norm = self.critic_optimizer.norm()
            self._require_finite("critic's gradient norm", critic_norm)
            self.critic_optimizer.step(critic_norm, self.critic_updates, self.rate_scale)
            self.critic_updates += 1
            result["critic_grad_norm"] = critic_norm.item()
        if not critic_alone:
            self.optimizer.step(norm, self.updates, self.rate_scale)
            self.updates += 1
        self._clear()
        return result

    def _clear(self) -> None:
        for optimizer in (self.optimizer, self.critic_optimizer):
            if optimizer is not None:
                optimizer.clear()

    def _require_finite(self, name: str, value: Tensor) -> None:
        if not math.isfinite(value.item()):
            self._clear()
            raise NumericalError(f"update {self.updates}: the {name} is {value.item()}; the weights were not updated")


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 of the weights, in hexadecimal."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


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
    critic: Critic | None = None,
    lora: Lora | None = None,
    device: str = "cpu",
) -> Policy:
    """A ``Policy`` of ``load_model(source)``."""
    model = load_model(source, device=device)
    return Policy(model, optimization, temperature=temperature, reference=reference, critic=critic, lora=lora)
