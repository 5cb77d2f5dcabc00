"""Supervised fine-tuning on trajectories: epochs of updates between two evaluations, in a run folder like any other.

    RUN/examples.json    what is learned from: counts, and a digest that a resumed run is held against

The order of every epoch derives from (seed, epoch), so a run that was killed and resumed goes on bit for bit.
"""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from searchr1.config import Recipe
from searchr1.errors import UserError
from searchr1.run_files import replacing
from searchr1.seeds import derive_seed
from searchr1.supervised.examples import Examples
from searchr1.train import Trainer
from searchr1.training.packing import pack
from searchr1.training.supervised import imitate
from searchr1.types import Sample

FORMAT = {"format": "searchr1-examples", "version": 1}


def supervised_recipe(recipe: Recipe, examples: Examples) -> Recipe:
    """The recipe of the run: as many steps as its epochs have; an algorithm that needs no models beside the policy.

    Who learned to answer directly is evaluated so.
    """
    steps = recipe.sft.epochs * steps_an_epoch(len(examples.train), recipe.sft.batch)
    recipe = replace(recipe, steps=steps, algorithm={"name": "grpo"})
    return answering(recipe) if recipe.sft.answers else recipe


def answering(recipe: Recipe) -> Recipe:
    """The same with the agent that answers without a search, which then is no baseline of itself."""
    baselines = tuple(name for name in recipe.evaluation.baselines if name != "direct")
    return replace(
        recipe,
        rollout=replace(recipe.rollout, agent="direct"),
        evaluation=replace(recipe.evaluation, baselines=baselines),
    )


def check_same(folder: Path, examples: Examples) -> None:
    """Refuse to go on with a run on other examples than it was begun with. Raises ``UserError``."""
    path = folder / "examples.json"
    if path.is_file() and json.loads(path.read_text(encoding="utf-8")) != summary(examples):
        raise UserError(f"{folder}: the trajectories changed since the run began; restore them or use another --out")


@dataclass
class SupervisedTrainer(Trainer):
    """A run of ``recipe.steps`` updates on ``examples``; evaluation, checkpoints and resuming are `Trainer`'s."""

    examples: Examples

    async def train(self) -> None:
        """Train to ``recipe.steps``. Raises ``NumericalError``; everything up to the last checkpoint is kept."""
        check_same(self.run.path, self.examples)
        with replacing(self.run.path / "examples.json") as file:
            file.write(json.dumps(summary(self.examples), indent=1).encode() + b"\n")
        done = await self.begin()
        self.monitor.phase("learning", 0)
        for step in range(done + 1, self.recipe.steps + 1):
            row = self._update(step)
            await self.parts.engine.load((), step)
            self.run.append_metrics(row)
            self.monitor.stepped(row)
            await self.conclude(step)

    def _update(self, step: int) -> dict[str, Any]:
        """One update, and at the end of an epoch the loss on what is held out; the row of ``metrics.jsonl``."""
        started = time.perf_counter()
        epoch, samples = batch_of(step, self.examples.train, self.recipe.sft.batch, self.recipe.seed)
        learned = imitate(self.parts.policy, self._packed(samples))
        updated = time.perf_counter()
        row = {"step": step, "epoch": epoch, "train/trajectories": len(samples), **_named(learned)}
        if self.examples.held_out and step % steps_an_epoch(len(self.examples.train), self.recipe.sft.batch) == 0:
            logprobs_N = self.parts.policy.score(self._packed(self.examples.held_out))
            row["validation/loss"] = -logprobs_N.double().mean().item()
        trained = [sum(sample.mask) for sample in samples]
        return {
            **row,
            "tokens/policy": fmean(trained),
            "tokens/context": fmean(len(sample.mask) for sample in samples) - fmean(trained),
            "time/update": updated - started,
            "time/step": time.perf_counter() - started,
        }

    def _packed(self, samples: Sequence[Sample]) -> list[Any]:
        return pack(samples, max_tokens=self.recipe.training.micro_batch_tokens)


def steps_an_epoch(samples: int, batch: int) -> int:
    return math.ceil(samples / batch)


def batch_of(step: int, samples: Sequence[Sample], size: int, seed: int) -> tuple[int, list[Sample]]:
    """The epoch (from 1) of a step (from 1) and its samples: each once an epoch, in an order of the epoch's own.

    >>> pool = [Sample((i,), (True,), (0.0,), 1.0, "q") for i in range(5)]
    >>> epoch = [batch_of(step, pool, 2, seed=0) for step in (1, 2, 3)]
    >>> [number for number, _ in epoch], sorted(s.token_ids[0] for _, batch in epoch for s in batch)
    ([1, 1, 1], [0, 1, 2, 3, 4])
    """
    epoch, place = divmod(step - 1, steps_an_epoch(len(samples), size))
    order = list(range(len(samples)))
    random.Random(derive_seed(seed, "sft", epoch)).shuffle(order)
    return epoch + 1, [samples[index] for index in order[place * size : (place + 1) * size]]


def _named(learned: Mapping[str, float]) -> dict[str, float]:
    return {name if name == "learning_rate" else f"train/{name}": value for name, value in learned.items()}


def summary(examples: Examples) -> dict[str, Any]:
    """What ``examples.json`` holds."""
    return {
        **FORMAT,
        "trajectories": len(examples.train),
        "held_out": len(examples.held_out),
        "policy_tokens": sum(sum(sample.mask) for sample in examples.train),
        "sha256": examples.digest,
    }
