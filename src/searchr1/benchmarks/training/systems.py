"""Three ways to make one update of the same loss on the same samples: ours, the usual one, and TRL's.

The loss is GRPO's clipped surrogate, averaged over all trained tokens of the step; gradients are clipped at a norm of 1
and AdamW (fused) takes the step. Each system gets micro-batches of the same number of tokens, padding included.
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from searchr1.algorithms.grpo import GRPO
from searchr1.benchmarks.training.work import Work, build_model
from searchr1.training.optimization import Optimization
from searchr1.training.packing import pack
from searchr1.training.policy import Policy
from searchr1.types import Sample

CLIP = 0.2
RATE = 1e-6
PEERS = ("transformers", "trl")


@dataclass(frozen=True, slots=True)
class Variant:
    """How an update is computed; the weights are float32 in all of them."""

    precision: str = "float32"
    checkpointing: bool = False

    def __str__(self) -> str:
        return self.precision + (", gradient checkpointing" if self.checkpointing else "")


class System(Protocol):
    """``update`` takes one step and returns the loss before it; ``optimizer`` is what takes it."""

    optimizer: torch.optim.Optimizer

    def update(self) -> float: ...


def missing(peer: str) -> str | None:
    """Why the peer cannot be measured here, and what to do about it; None where it can."""
    absent = [m for m in ("trl", "accelerate", "datasets") if peer == "trl" and importlib.util.find_spec(m) is None]
    return f"trl: skipped, {absent[0]} is not installed: pip install 'searchr1[bench]'" if absent else None


class Ours:
    """`training.packing.pack` and `Policy.update`."""

    def __init__(self, work: Work, model: Any, variant: Variant) -> None:
        options = Optimization(
            learning_rate=RATE,
            precision="bfloat16" if variant.precision == "bfloat16" else "float32",
            gradient_checkpointing=variant.checkpointing,
        )
        self._work, self._policy = work, Policy(model, options)
        self._loss = GRPO(clip_low=CLIP, clip_high=CLIP).loss
        self.optimizer: torch.optim.Optimizer = self._policy.optimizer.adamw

    def update(self) -> float:
        work = self._work
        pairs = zip(work.samples, work.advantages, strict=True)
        advantages_N = torch.tensor([advantage for sample, advantage in pairs for _ in range(sum(sample.mask))])
        batches = pack(work.samples, advantages_N=advantages_N, max_tokens=work.micro_batch_tokens)
        return self._policy.update(batches, self._loss)["loss"]


class Padded:
    """Rows padded on the right, as they arrive; logits of all tokens over the vocabulary, log-softmax in float32."""

    def __init__(self, work: Work, model: Any, variant: Variant) -> None:
        self._work, self._model = work, model.train()
        self._low = variant.precision == "bfloat16"
        if variant.checkpointing:
            checkpoint_layers(model)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def update(self) -> float:
        work, model = self._work, self._model
        total = 0.0
        for rows in arrived(work):
            samples = [work.samples[row] for row in rows]
            ids, attended, trained, old = (t.to(model.device) for t in padded(samples))
            advantages = torch.tensor([work.advantages[row] for row in rows], device=model.device)[:, None]
            with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self._low):
                logits = model(input_ids=ids, attention_mask=attended, use_cache=False).logits[:, :-1]
            table = torch.log_softmax(logits.float(), dim=-1)
            logprobs = table.gather(-1, ids[:, 1:, None]).squeeze(-1)
            ratio = (logprobs - old[:, 1:]).exp()
            each = -torch.minimum(ratio * advantages, ratio.clamp(1 - CLIP, 1 + CLIP) * advantages)
            loss = (each * trained[:, 1:]).sum() / work.trained
            torch.autograd.backward(loss)
            total += loss.item()
        return stepped(self.optimizer, model, total)


class Trl:
    """`GRPOTrainer`'s own loss and scores, its step left out: prompts padded on the left, the rest on the right."""

    def __init__(self, work: Work, model: Any, variant: Variant) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        folder = Path(__file__).resolve().parents[2] / "models" / "atlas-base"
        tokenizer = AutoTokenizer.from_pretrained(folder)  # nothing is encoded with it
        self._device = model.device
        with tempfile.TemporaryDirectory() as temporary:
            options = GRPOConfig(
                output_dir=temporary,
                use_cpu=self._device.type == "cpu",
                bf16=variant.precision == "bfloat16",
                gradient_checkpointing=variant.checkpointing,
                gradient_checkpointing_kwargs={"use_reentrant": False},
                report_to="none",
                loss_type="dapo",
                epsilon=CLIP,
                beta=0.0,
                disable_tqdm=True,
            )
            self._trainer = GRPOTrainer(
                model=model,
                reward_funcs=lambda completions, **columns: [0.0] * len(completions),
                args=options,
                train_dataset=Dataset.from_dict({"prompt": ["?"] * 8}),
                processing_class=tokenizer,
            )
        if variant.checkpointing:  # which `train` would do
            checkpoint_layers(model)
        self._trainer.current_gradient_accumulation_steps = options.steps_per_generation
        self._work, self._model = work, model.train()
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, fused=True)

    def update(self) -> float:
        work, total = self._work, 0.0
        for rows in arrived(work, divided=True):
            loss = self._trainer._compute_loss(self._model, self._inputs(rows))
            loss.backward()
            total += loss.item()
        return stepped(self.optimizer, self._model, total)

    def _inputs(self, rows: list[int]) -> dict[str, Tensor]:
        samples = [self._work.samples[row] for row in rows]
        heads, rests = zip(*map(divide, samples), strict=True)
        flipped = [Sample(s.token_ids[::-1], s.mask[::-1], s.logprobs[::-1], 0.0, "") for s in heads]
        prompt_ids, prompt_mask, _, _ = (tensor.flip(-1) for tensor in padded(flipped))
        ids, attended, trained, old = padded(list(rests))
        inputs = {
            "prompt_ids": prompt_ids,
            "prompt_mask": prompt_mask,
            "completion_ids": ids,
            "completion_mask": attended,
            "tool_mask": trained,
            "old_per_token_logps": old,
            "advantages": torch.tensor([self._work.advantages[row] for row in rows]),
            "num_items_in_batch": torch.tensor(self._work.trained),
        }
        return {name: tensor.to(self._device) for name, tensor in inputs.items()}


SYSTEMS: dict[str, Callable[[Work, Any, Variant], System]] = {"ours": Ours, "transformers": Padded, "trl": Trl}
NAMES = {"transformers": "transformers, padded rows, all logits", "trl": "TRL's GRPOTrainer"}


def build(system: str, work: Work, variant: Variant, device: str = "cpu") -> System:
    return SYSTEMS[system](work, build_model(work.model).to(device), variant)


def checkpoint_layers(model: Any) -> None:
    old_name = "gradient_checkpointing_enable"  # before transformers 5.20 or so
    enable = getattr(model, "activation_checkpointing_enable", None) or getattr(model, old_name)
    enable({"use_reentrant": False})


def divide(sample: Sample) -> tuple[Sample, Sample]:
    """The prompt, and all that follows: what TRL calls a completion.

    >>> prompt, rest = divide(Sample((1, 2, 3, 4), (False, False, True, False), (0.0,) * 4, 0.0, "q"))
    >>> prompt.token_ids, rest.token_ids
    ((1, 2), (3, 4))
    """
    at = sample.mask.index(True)
    first, second = (
        Sample(sample.token_ids[part], sample.mask[part], sample.logprobs[part], 0.0, sample.group)
        for part in (slice(0, at), slice(at, None))
    )
    return first, second


def arrived(work: Work, *, divided: bool = False) -> Iterator[list[int]]:
    """Micro-batches in the order of arrival, as many samples as fit when padded to the longest of them.

    ``divided``: prompts and the rest are each padded to their own longest.
    """
    rows: list[int] = []
    longest = (0, 0)
    for row, sample in enumerate(work.samples):
        parts = [len(part.token_ids) for part in divide(sample)] if divided else [len(sample.token_ids), 0]
        wider = (max(longest[0], parts[0]), max(longest[1], parts[1]))
        if rows and sum(wider) * (len(rows) + 1) > work.micro_batch_tokens:
            yield rows
            rows, wider = [], (parts[0], parts[1])
        rows.append(row)
        longest = wider
    yield rows


def padded(samples: list[Sample]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids, attention mask, trained tokens (as 0.0 and 1.0) and behaviour, each [rows, longest], padded on the right."""
    shape = (len(samples), max(len(sample.token_ids) for sample in samples))
    ids, attended = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    trained, old = torch.zeros(shape), torch.zeros(shape)
    for row, sample in enumerate(samples):
        length = len(sample.token_ids)
        ids[row, :length] = torch.tensor(sample.token_ids)
        attended[row, :length] = 1
        trained[row, :length] = torch.tensor(sample.mask).float()
        old[row, :length] = torch.tensor(sample.logprobs)
    return ids, attended, trained, old


def stepped(optimizer: torch.optim.Optimizer, model: Any, loss: float) -> float:
    """Clip and step; the loss again."""
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss
