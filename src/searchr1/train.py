"""The training loop, and nothing else.

    questions -> rollout -> rewards -> samples -> advantages -> updates -> engine.load -> evaluation -> run folder

Every random choice derives from (seed, step, question, rollout, turn), so a run that was killed and resumed goes on as
if nothing had happened: the state is the step number, the weights and the optimiser.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from searchr1.agents import build_agent
from searchr1.agents.rollout import Job, rollout
from searchr1.algorithms.base import experience
from searchr1.assemble import Parts, greedy
from searchr1.config import Recipe
from searchr1.errors import EngineError, SearchBudgetSpent, SearchUnavailable
from searchr1.evaluation.evaluate import evaluate, score_trajectories
from searchr1.metrics import evaluation_rows, search_metrics, step_metrics
from searchr1.retrieval.counting import since
from searchr1.retrieval.meter import Meter
from searchr1.rewards import WeightedReward, build_reward
from searchr1.run import RunFolder
from searchr1.seeds import derive_seed
from searchr1.training.checkpoint import (
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    remove_stale,
    save_checkpoint,
)
from searchr1.training.packing import pack
from searchr1.training.samples import gather, mini_batches, score_environment, split, to_sample
from searchr1.trajectory_io import trajectory_row
from searchr1.types import Question, Scored, StopReason, Trajectory

RETRY_SECONDS = 5.0


class Monitor(Protocol):
    """Who watches the run: a live display, a log, a test."""

    def phase(self, name: str, total: int) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def stepped(self, row: Mapping[str, Any]) -> None: ...

    def evaluated(self, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def paused(self, reason: str) -> None: ...


class Silent:
    """Watches nothing."""

    def phase(self, name: str, total: int) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def stepped(self, row: Mapping[str, Any]) -> None:
        pass

    def evaluated(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def paused(self, reason: str) -> None:
        pass


@dataclass
class Trainer:
    """One run: `train` takes it from where its folder stands to the last step."""

    recipe: Recipe
    parts: Parts
    run: RunFolder
    monitor: Monitor

    def __post_init__(self) -> None:
        self.algorithm = self.recipe.build_algorithm()
        self.reward: WeightedReward = build_reward(self.recipe.reward, decode=self.parts.tokenizer.decode)
        self.search = Meter(self.parts.retriever)
        self._counted = self.search.counts()

    async def train(self) -> None:
        """Train to ``recipe.steps``. Raises ``NumericalError``; everything up to the last checkpoint is kept."""
        done = await self._restore()
        if done < 0:
            await self._evaluate_all(0)
            done = 0
        for step in range(done + 1, self.recipe.steps + 1):
            started, searched = time.perf_counter(), self.search.seconds
            scored, groups = await self._play(step)
            played = time.perf_counter()
            learned, advantages = self._learn(step, scored, groups)
            await self.parts.engine.load((), step)
            seconds = {
                "time/rollout": played - started,
                "time/search": self.search.seconds - searched,
                "time/update": time.perf_counter() - played,
                "time/step": time.perf_counter() - started,
            }
            row = {"step": step, **step_metrics(scored), **learned, **seconds}
            row |= search_metrics(self._searched())
            self.run.append_metrics(row)
            self.monitor.stepped(row)
            last = step == self.recipe.steps
            if not last and self._due(step, self.recipe.save.trajectories_every):
                self._write("train", step, scored, groups, advantages)
            if last:
                await self._evaluate_all(step)
            elif self._due(step, self.recipe.evaluation.every):
                await self._evaluate(step, self.recipe.evaluation.decodings[:1], self.recipe.evaluation.questions)
            if last or self._due(step, self.recipe.save.checkpoint_every):
                self._checkpoint(step)

    def _searched(self) -> dict[str, float]:
        """What the search engine counted since the last row: in the step, and in an evaluation before it."""
        before, self._counted = self._counted, self.search.counts()
        return since(self._counted, before)

    async def _restore(self) -> int:
        """The last step that is done; -1 when even the evaluation before training is not."""
        remove_stale(self.run.checkpoints)
        checkpoint = latest_checkpoint(self.run.checkpoints)
        if checkpoint is None:
            self.run.rewind(-1)
            return -1
        step = int(load_checkpoint(checkpoint, self.parts.policy)["step"])
        self.run.rewind(step)
        await self.parts.engine.load((), step)
        return step

    async def _play(self, step: int) -> tuple[list[Scored], list[str]]:
        """Every question of the step ``group_size`` times; rewards; the group of each trajectory."""
        size = self.recipe.rollout.group_size
        questions = questions_of(step, self.parts.train, self.recipe.rollout.questions, self.recipe.seed)
        jobs = jobs_of(step, questions, size, self.recipe.seed)
        self.monitor.phase("rollout", len(jobs))
        while True:
            played = await rollout(
                jobs,
                self.parts.agent,
                self.parts.engine,
                self.search,
                concurrency=self.recipe.engine.slots,
                progress=self.monitor.progress,
            )
            if await self._sound(played, f"step {step}"):
                break
        scored: list[Scored] = []
        for start in range(0, len(played), size):
            scored += self.reward.score_group(played[start : start + size])
        groups = [f"{job.question.dataset}/{job.question.id}/{step}/{i // size}" for i, job in enumerate(jobs)]
        return scored, groups

    async def _sound(self, played: Sequence[Trajectory], where: str) -> bool:
        """Whether few enough failed. If not, they have to be played again, and the search engine answers again."""
        stops = Counter(trajectory.stop for trajectory in played if trajectory.failed)
        failed, broken = stops.total(), stops[StopReason.ENGINE_ERROR]
        if failed <= self.recipe.rollout.max_failure_rate * len(played):
            return True
        if 2 * broken > failed:  # waiting mends a search engine, not a model
            raise EngineError(f"{broken} of {len(played)} trajectories of {where} ended in an engine error")
        reason = f"{failed} of {len(played)} trajectories of {where} failed ({StopReason.SEARCH_UNAVAILABLE})"
        while True:
            self.monitor.paused(reason)
            await asyncio.sleep(RETRY_SECONDS)
            try:
                await self.search.retry()
                return False
            except SearchBudgetSpent:
                raise
            except SearchUnavailable as error:
                reason = str(error)

    def _learn(
        self, step: int, scored: Sequence[Scored], groups: Sequence[str]
    ) -> tuple[dict[str, float], list[float | None]]:
        """All updates of one step; metrics, and the advantage of each trajectory (None where it was left out)."""
        policy, training = self.parts.policy, self.recipe.training
        kept = [i for i, item in enumerate(scored) if not item.trajectory.failed and any(item.trajectory.mask)]
        samples = [to_sample(scored[i], groups[i], mask_environment=training.mask_environment) for i in kept]
        if not training.mask_environment and samples:
            samples = score_environment(samples, policy, training.micro_batch_tokens)
        advantages: list[float | None] = [None] * len(scored)
        if not samples:
            return {"train/trained": 0.0}, advantages
        reference_N = None
        if self.algorithm.needs.reference:
            reference_N = policy.score(pack(samples, max_tokens=training.micro_batch_tokens), reference=True)
        given = experience(samples, reference_N=reference_N)
        advantages_N, keep_S = self.algorithm.advantages(given), self.algorithm.keep(given)
        for index, values in zip(kept, split(samples, advantages_N), strict=True):
            advantages[index] = float(values[0])
        chosen = [number for number in range(len(samples)) if keep_S[number]]
        learned = {samples[number].group for number in chosen}
        metrics = {
            "train/trained": float(len(chosen)),
            "train/zero_variance_groups": 1.0 - len(learned) / len({sample.group for sample in samples}),
        }
        rows = []
        for part in mini_batches(len(chosen), training.updates_per_batch, derive_seed(self.recipe.seed, step, "parts")):
            picked = [chosen[number] for number in part]
            batches = pack(
                [samples[number] for number in picked],
                advantages_N=gather(samples, advantages_N, picked),
                reference_N=None if reference_N is None else gather(samples, reference_N, picked),
                max_tokens=training.micro_batch_tokens,
            )
            rows.append(policy.update(batches, self.algorithm.loss))
        return {**_mean_rows(rows), **metrics}, advantages

    async def _evaluate_all(self, step: int) -> None:
        """The evaluations before and after training: every decoding, and once the baselines."""
        table = self.recipe.evaluation
        scored = await self._evaluate(step, table.decodings, table.final_questions)
        self._write("eval", step, scored, [item.trajectory.question.id for item in scored], [None] * len(scored))
        if step == 0:
            for name in table.baselines:
                await self._evaluate(step, ("greedy",), table.final_questions, agent=name)

    async def _evaluate(self, step: int, decodings: Sequence[str], count: int, agent: str = "") -> list[Scored]:
        """Rows of ``eval.jsonl`` for an agent (default: the trained one); what the first decoding scored."""
        questions = self.parts.test[:count]
        name = agent or self.recipe.rollout.agent
        first: list[Scored] = []
        for decoding in decodings:
            self.monitor.phase(f"evaluation: {name}, {decoding}", len(questions))
            budget = greedy(self.recipe.rollout) if decoding == "greedy" else self.recipe.rollout
            while True:
                played = await evaluate(
                    questions,
                    build_agent(name, self.parts.protocol, self.parts.tokenizer, budget),
                    self.parts.engine,
                    self.search,
                    seed=derive_seed(self.recipe.seed, "evaluation"),
                    concurrency=self.recipe.engine.slots,
                    progress=self.monitor.progress,
                )
                if await self._sound(played, f"the evaluation at step {step}"):
                    break
            scored = score_trajectories(played)
            first = first or scored
            rows = evaluation_rows(scored, step=step, agent=name, decoding=decoding)
            for row in rows:
                self.run.append_eval(row)
            self.monitor.evaluated(rows)
        return first

    def _write(
        self, kind: str, step: int, scored: Sequence[Scored], groups: Sequence[str], advantages: Sequence[float | None]
    ) -> None:
        rows = (
            trajectory_row(item, kind=kind, step=step, tokenizer=self.parts.tokenizer, advantage=advantage, group=group)
            for item, group, advantage in zip(scored, groups, advantages, strict=True)
        )
        self.run.write_trajectories(step, rows)

    def _checkpoint(self, step: int) -> None:
        self.run.checkpoints.mkdir(exist_ok=True)
        tokenizer = getattr(self.parts.tokenizer, "backend", None)
        save_checkpoint(self.run.checkpoints, step, self.parts.policy, tokenizer, {"step": step})
        prune_checkpoints(self.run.checkpoints, self.recipe.save.keep)

    @staticmethod
    def _due(step: int, every: int) -> bool:
        return every > 0 and step % every == 0


def questions_of(step: int, questions: Sequence[Question], count: int, seed: int) -> list[Question]:
    """The questions of a step: a new order of all of them in every epoch, no state to save.

    >>> pool = [Question(str(i), "?", ("a",)) for i in range(4)]
    >>> sorted(q.id for step in (1, 2) for q in questions_of(step, pool, 2, seed=0))
    ['0', '1', '2', '3']
    """
    chosen = []
    for position in range((step - 1) * count, step * count):
        epoch, place = divmod(position, len(questions))
        chosen.append(_epoch_order(len(questions), derive_seed(seed, "epoch", epoch))[place])
    return [questions[index] for index in chosen]


def jobs_of(step: int, questions: Sequence[Question], size: int, seed: int) -> list[Job]:
    """Every question ``size`` times, each with a seed of its own, also where a small pool gives a question twice."""
    jobs = []
    met: Counter[tuple[str, str]] = Counter()
    for question in questions:
        key = (question.dataset, question.id)
        first = size * met[key]
        jobs += [Job(question, derive_seed(seed, step, *key, number)) for number in range(first, first + size)]
        met[key] += 1
    return jobs


def _epoch_order(count: int, seed: int) -> list[int]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def _mean_rows(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Metrics of a step from those of its updates: means, but maxima where the name says so."""
    if not rows:
        return {}
    combined = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        combined[name] = max(values) if name.endswith("_max") else sum(values) / len(values)
    return {name if name == "learning_rate" else f"train/{name}": value for name, value in combined.items()}
