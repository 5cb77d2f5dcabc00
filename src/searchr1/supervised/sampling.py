"""Rejection sampling: questions are played, scored, and what passes a filter is kept to be learned from.

The first half of a baseline of arXiv 2503.09516 (section 5.2): five candidates a prompt, the correct ones are kept.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from searchr1.agents import build_agent
from searchr1.agents.rollout import rollout
from searchr1.assemble import Player
from searchr1.config import Recipe
from searchr1.errors import UserError, nearest
from searchr1.ports import Retriever
from searchr1.retrieval.meter import Meter
from searchr1.rewards import build_reward
from searchr1.seeds import derive_seed
from searchr1.supervised.file import KeptFile
from searchr1.train import jobs_of
from searchr1.trajectory_io import trajectory_row
from searchr1.types import Question, Scored
from searchr1.waiting import Monitor, sound

_ROUNDS = 4
"""A block of questions fills the engine so many times: large enough to keep it busy, small enough to lose to a kill."""
_AT_LEAST = re.compile(r"(\w+)>=(.+)")


@dataclass(frozen=True)
class Keep:
    """Keeps a trajectory whose ``name`` (``reward``, or one of its parts) is at least ``least``."""

    name: str
    least: float

    def __call__(self, item: Scored) -> bool:
        return (item.reward if self.name == "reward" else item.components[self.name]) >= self.least


def read_keep(text: str, reward: Mapping[str, Any]) -> Keep:
    """``all``, ``correct`` (exact match), or ``NAME>=X`` of the reward or one of its parts. Raises ``UserError``.

    >>> read_keep("correct", {"exact_match": 1.0}), read_keep("f1>=0.5", {"exact_match": 1.0})
    (Keep(name='exact_match', least=1.0), Keep(name='f1', least=0.5))
    """
    if text in ("all", "correct"):
        return Keep("reward", float("-inf")) if text == "all" else Keep("exact_match", 1.0)
    found = _AT_LEAST.fullmatch(text.replace(" ", ""))
    known = ["reward", *(part.name for part in build_reward(reward, decode=lambda ids: "").parts)]
    try:
        least = float(found[2]) if found else float("nan")
    except ValueError:
        least = float("nan")
    if found is None or least != least:
        raise UserError(f"--keep: expected all, correct or NAME>=NUMBER, for example 'reward>=0.5', got {text!r}")
    if found[1] not in known:
        raise UserError(f"--keep: a trajectory has no {found[1]!r}{nearest(found[1], known)}")
    return Keep(found[1], least)


def select(group: Sequence[Scored], keep: Keep, per_question: int | None) -> tuple[list[Scored], dict[str, int]]:
    """What is kept of one question's trajectories, in their order, and how many were left out and why.

    A failed trajectory is none of the policy's and never kept. Of equal ones the first is kept; of more than
    ``per_question``, the best rewarded.
    """
    sound = [item for item in group if not item.trajectory.failed]
    passed = [item for item in sound if keep(item)]
    first: dict[tuple[int, ...], Scored] = {}
    for item in passed:
        first.setdefault(item.trajectory.tokens, item)
    distinct = list(first.values())
    best = sorted(range(len(distinct)), key=lambda place: -distinct[place].reward)[:per_question]
    kept = [distinct[place] for place in sorted(best)]
    return kept, {
        "questions": 1,
        "questions_kept": int(bool(kept)),
        "played": len(group),
        "kept": len(kept),
        "filtered": len(sound) - len(passed),
        "duplicates": len(passed) - len(distinct),
        "surplus": len(distinct) - len(kept),
        "failed": len(group) - len(sound),
    }


def questions_to_play(questions: Sequence[Question], count: int | None, seed: int) -> list[Question]:
    """``count`` different questions (default: all) in a random order; a larger count begins with the same ones."""
    distinct = list({(question.dataset, question.id): question for question in questions}.values())
    random.Random(derive_seed(seed, "sampling")).shuffle(distinct)
    return distinct[:count]


@dataclass
class Sampler:
    """Plays questions in blocks, each from the same state of the engine, so that a file is the same after a kill."""

    recipe: Recipe
    player: Player
    retriever: Retriever
    rollouts: int
    keep: Keep
    per_question: int | None
    monitor: Monitor

    def __post_init__(self) -> None:
        self.search = Meter(self.retriever)
        table = self.recipe.rollout
        self.agent = build_agent(table.agent, self.player.protocol, self.player.tokenizer, table)
        self.reward = build_reward(self.recipe.reward, decode=self.player.tokenizer.decode)

    async def sample(self, questions: Sequence[Question], file: KeptFile) -> dict[str, int]:
        """Go on with ``file`` to its end; what was kept and left out, see `select`.

        Too many failures are waited out as in training. Raises ``EngineError`` and ``SearchBudgetSpent``; what was
        sampled until then is in the file.
        """
        size = max(1, _ROUNDS * self.recipe.engine.slots // self.rollouts)
        while file.done < len(questions):
            block = questions[file.done : file.done + size]
            counts, rows = dict(file.counts), list[Mapping[str, Any]]()
            for group in await self._play(block):
                kept, counted = select(group, self.keep, self.per_question)
                copies = Counter(item.trajectory.tokens for item in group if not item.trajectory.failed)
                rows += [self._row(item, copies[item.trajectory.tokens]) for item in kept]
                counts = {name: counts.get(name, 0) + number for name, number in counted.items()}
            file.append(rows, done=file.done + len(block), counts=counts)
        return file.counts

    async def _play(self, block: Sequence[Question]) -> list[list[Scored]]:
        """Every question of a block ``rollouts`` times, scored."""
        jobs = jobs_of(0, block, self.rollouts, self.recipe.seed)
        while True:
            await self.player.engine.load((), 0)  # nothing that an earlier block left behind
            self.monitor.phase("sampling", len(jobs))
            played = await rollout(
                jobs,
                self.agent,
                self.player.engine,
                self.search,
                concurrency=self.recipe.engine.slots,
                progress=self.monitor.progress,
            )
            share = self.recipe.rollout.max_failure_rate
            where = f"{len(block)} questions"
            if await sound(played, where, share=share, search=self.search, monitor=self.monitor):
                break
        starts = range(0, len(played), self.rollouts)
        return [self.reward.score_group(played[start : start + self.rollouts]) for start in starts]

    def _row(self, item: Scored, copies: int) -> dict[str, Any]:
        """The row without what a clock put there: the same seeds make the same file.

        ``copies`` says how many equal ones were sampled, of which the file has one.
        """
        trajectory = item.trajectory
        turns = tuple(replace(turn, generate_seconds=0.0, search_seconds=0.0) for turn in trajectory.turns)
        timeless = replace(item, trajectory=replace(trajectory, turns=turns))
        group = f"{trajectory.question.dataset}/{trajectory.question.id}"
        row = trajectory_row(
            timeless, kind="sample", step=0, tokenizer=self.player.tokenizer, advantage=None, group=group
        )
        return {**row, "copies": copies}
