"""The training loop, and nothing else.

    questions -> rollout -> rewards -> samples -> advantages -> updates -> engine.load -> evaluation -> run folder

Every random choice derives from (seed, step, question, rollout, turn), so a run that was killed and resumed goes on as
if nothing had happened: the state is the step number, the weights and the optimiser.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import Any

from searchr1.agents import build_agent
from searchr1.agents.rollout import Job, rollout
from searchr1.alarms.response import respond, worth_keeping
from searchr1.alarms.watches import Alarm, check, numerical_alarm
from searchr1.assemble import Parts, greedy
from searchr1.config import Recipe
from searchr1.errors import NumericalError, TrainingStopped
from searchr1.evaluation.evaluate import evaluate, score_trajectories
from searchr1.learn import Learner
from searchr1.metrics import evaluation_rows, search_metrics, step_metrics
from searchr1.retrieval.counting import since
from searchr1.retrieval.meter import Meter
from searchr1.rewards import WeightedReward, build_reward
from searchr1.run import RunFolder
from searchr1.seeds import derive_seed
from searchr1.training.best import mark_best, rate, read_best
from searchr1.training.checkpoint import (
    checkpoint_steps,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    remove_stale,
    save_checkpoint,
)
from searchr1.trajectory_io import trajectory_row
from searchr1.types import Question, Scored, Trajectory
from searchr1.waiting import Monitor, sound


@dataclass
class Trainer:
    """One run: `train` takes it from where its folder stands to the last step."""

    recipe: Recipe
    parts: Parts
    run: RunFolder
    monitor: Monitor

    def __post_init__(self) -> None:
        self.learner = Learner(self.recipe, self.parts.policy)
        self.reward: WeightedReward = build_reward(self.recipe.reward, decode=self.parts.tokenizer.decode)
        self.search = Meter(self.parts.retriever)
        self._counted = self.search.counts()
        self.rows: list[Mapping[str, Any]] = []
        """Metrics of the steps that are done, without what was rolled back."""

    async def train(self) -> None:
        """Train to ``recipe.steps``; everything up to the last checkpoint is kept, whatever is raised.

        Raises ``TrainingStopped`` where an alarm ends the run, and ``NumericalError`` where alarms only log.
        """
        done = await self.begin()
        while done < self.recipe.steps:
            done = await self._advance(done + 1)

    async def begin(self) -> int:
        """Go to where the run folder stands, or evaluate what training starts from; the last step that is done."""
        done = await self._restore()
        if done < 0:
            await self._evaluate_all(0)
            self._checkpoint(0)  # where a rollback can always go
        return max(done, 0)

    async def conclude(self, step: int) -> None:
        """What ends a step: evaluation and checkpoint, where they are due."""
        last = step == self.recipe.steps
        if last:
            await self._evaluate_all(step)
        elif self._due(step, self.recipe.evaluation.every):
            await self._evaluate(step, self.recipe.evaluation.decodings[:1], self.recipe.evaluation.questions)
        if last or self._due(step, self.recipe.save.checkpoint_every):
            self._checkpoint(step)

    async def _advance(self, step: int) -> int:
        """Do one step and what alarms call for; the last step that is done then, an earlier one after a rollback."""
        try:
            await self._step(step)
        except NumericalError as error:
            if not self._respond([numerical_alarm(step, error)]):
                raise
            return await self.begin()
        if self._respond(check(self.rows, self.recipe.alarms)):
            return await self.begin()
        await self.conclude(step)
        return step

    async def _step(self, step: int) -> None:
        """Play, learn, and write what there is to know of it."""
        started, searched = time.perf_counter(), self.search.seconds
        scored, groups = await self._play(step)
        played = time.perf_counter()
        lesson = self.learner.learn(step, scored, groups)
        await self.parts.engine.load((), step)
        seconds = {
            "time/rollout": played - started,
            "time/search": self.search.seconds - searched,
            "time/update": time.perf_counter() - played,
            "time/step": time.perf_counter() - started,
        }
        row = {"step": step, **step_metrics(scored, lesson.metrics), **seconds, **search_metrics(self._searched())}
        self.rows.append(row)
        self.run.append_metrics(row)
        self.monitor.stepped(row)
        if step < self.recipe.steps and self._due(step, self.recipe.save.trajectories_every):
            self._write("train", step, scored, groups, lesson.advantages)

    def _respond(self, fired: Sequence[Alarm]) -> bool:
        """Write down what fired and what it calls for; True where that is a rollback, which `_restore` carries out.

        Raises ``TrainingStopped`` where it is the end of the run.
        """
        if not fired:
            return False
        response = respond(
            fired,
            self.recipe.alarms,
            self.run.stability(),
            checkpoints=checkpoint_steps(self.run.checkpoints),
            history=self.run.read_alarms(),
        )
        for row in response.rows:
            self.run.append_alarm(row)
        self.monitor.alarmed(response.rows)
        if response.action == "stop":
            raise TrainingStopped(response.reason)
        if response.action == "rollback":
            self.run.save_stability(response.state)
        return response.action == "rollback"

    def _searched(self) -> dict[str, float]:
        """What the search engine counted since the last row: in the step, and in an evaluation before it."""
        before, self._counted = self._counted, self.search.counts()
        return since(self._counted, before)

    async def _restore(self) -> int:
        """The last step that is done; -1 when even the evaluation before training is not."""
        folder, stability = self.run.checkpoints, self.run.stability()
        remove_stale(folder)
        if stability.target is not None:
            prune_checkpoints(folder, [step for step in checkpoint_steps(folder) if step <= stability.target])
        self.parts.policy.rate_scale = stability.scale
        checkpoint = latest_checkpoint(folder)
        if checkpoint is None:
            self.run.rewind(-1)
            self.rows = []
            return -1
        state = load_checkpoint(checkpoint, self.parts.policy)
        step = int(state["step"])
        self.learner.restore(state["learner"])
        self.run.rewind(step)
        self.rows = [*self.run.read_metrics()]
        self._sort_checkpoints(step)
        await self.parts.engine.load((), step)
        return step

    async def _play(self, step: int) -> tuple[list[Scored], list[str]]:
        """The step's trajectories with rewards and groups; groups that teach nothing are made up for (refilled).

        Dynamic sampling (arXiv 2503.14476, section 3.2): what taught nothing is left out of the loss anyway; here new
        questions take its place, in up to ``rollout.refill`` rounds.
        """
        table, pool = self.recipe.rollout, self.parts.train
        asked = questions_of(step, pool, table.questions, self.recipe.seed)
        scored, groups = await self._round(step, asked, 0)
        for number in range(1, table.refill + 1):
            missing = table.questions - len(self.learner.informative(scored, groups))
            if missing <= 0:
                break
            more = further_questions(pool, asked, missing, derive_seed(self.recipe.seed, "refill", step, number))
            asked = [*asked, *more]
            more_scored, more_groups = await self._round(step, more, number)
            scored, groups = scored + more_scored, groups + more_groups
        return scored, groups

    async def _round(self, step: int, questions: Sequence[Question], number: int) -> tuple[list[Scored], list[str]]:
        """Each question ``group_size`` times; round 0 is the step's own, the others have seeds apart."""
        size, seed = self.recipe.rollout.group_size, self.recipe.seed
        jobs = jobs_of(step, questions, size, derive_seed(seed, "refill", number) if number else seed)
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
            scored += self.reward.score_group(played[start : start + size], step=step)
        where = f"{step}.{number}" if number else str(step)
        groups = [f"{job.question.dataset}/{job.question.id}/{where}/{i // size}" for i, job in enumerate(jobs)]
        return scored, groups

    async def _sound(self, played: Sequence[Trajectory], where: str) -> bool:
        share = self.recipe.rollout.max_failure_rate
        return await sound(played, where, share=share, search=self.search, monitor=self.monitor)

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
        folder = self.run.checkpoints
        folder.mkdir(exist_ok=True)
        tokenizer = getattr(self.parts.tokenizer, "backend", None)
        state = {"step": step, "learner": self.learner.state()}
        save_checkpoint(folder, step, self.parts.policy, tokenizer, state)
        self._sort_checkpoints(step)

    def _sort_checkpoints(self, step: int) -> None:
        """Mark the best; keep that, the newest, and those that a rollback may need. Also done for a run killed here."""
        folder, table = self.run.checkpoints, self.recipe.save
        rating = rate(
            step,
            table.best if self.recipe.evaluation.every else "reward",
            metrics=self.rows,
            evaluations=self.run.read_eval(),
            agent=self.recipe.rollout.agent,
            decoding=self.recipe.evaluation.decodings[0],
        )
        if rating is not None and rating.beats(read_best(folder)):
            mark_best(folder, rating)
        there, alarms = checkpoint_steps(folder), self.run.read_alarms()
        prune_checkpoints(folder, worth_keeping(there, alarms, self.recipe.alarms, now=step, last=table.keep))

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


def further_questions(pool: Sequence[Question], asked: Sequence[Question], count: int, seed: int) -> list[Question]:
    """``count`` random questions of ``pool``, those that were ``asked`` only where no others are left.

    >>> pool = [Question(str(i), "?", ("a",)) for i in range(4)]
    >>> sorted(q.id for q in further_questions(pool, pool[:2], 2, seed=0))
    ['2', '3']
    """
    met = {(question.dataset, question.id) for question in asked}
    order = random.Random(seed).sample(pool, len(pool))
    order.sort(key=lambda question: (question.dataset, question.id) in met)  # stable: chance decides within both
    return list(islice(cycle(order), count))


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


@lru_cache(maxsize=4)
def _epoch_order(count: int, seed: int) -> tuple[int, ...]:
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return tuple(order)
