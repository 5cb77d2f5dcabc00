"""The best checkpoint of a run: which it is, and how it is kept apart from the others.

    checkpoints/best/   the files of the best step so far, and best.json: step, metric, value

It is a checkpoint of its own (its files are links to the step's where the disk can link), so it outlives the pruning of
its step, and a rollback behind it: the best weights are often those just before a collapse.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from searchr1.errors import UserError
from searchr1.training.checkpoint import checkpoint_steps, flush, latest_checkpoint, replace_folder

BEST, MARK = "best", "best.json"
SMOOTHED = 5
"""Rows of metrics.jsonl whose mean reward rates a step that no evaluation does."""

Row = Mapping[str, Any]
Choice = Literal["exact_match", "f1", "reward"]


@dataclass(frozen=True, slots=True)
class Rating:
    """How good the checkpoint of ``step`` is, by ``metric``.

    >>> Rating(40, "exact_match", 0.5).beats(Rating(30, "exact_match", 0.4)), Rating(40, "f1", 0.5).beats(None)
    (True, True)
    """

    step: int
    metric: str
    value: float

    def beats(self, other: Rating | None) -> bool:
        """Whether it takes the place of ``other``: of another metric, or worse. Of two equals the earlier one stays."""
        return other is None or other.metric != self.metric or self.value > other.value


def rate(
    step: int, by: Choice, *, metrics: Sequence[Row], evaluations: Sequence[Row], agent: str, decoding: str
) -> Rating | None:
    """The rating of ``step`` ``by`` a column of its evaluation, or by the smoothed training reward; None without one.

    ``evaluations`` are rows of eval.jsonl; of ``agent`` with ``decoding``, the one over all questions counts.
    ``metrics`` are rows of metrics.jsonl.

    >>> row = {"step": 9, "agent": "search_r1", "decoding": "sampled", "dataset": "all", "exact_match": 0.25}
    >>> rate(9, "exact_match", metrics=[], evaluations=[row], agent="search_r1", decoding="sampled")
    Rating(step=9, metric='exact_match', value=0.25)
    """
    if by == "reward":
        rewards = [row.get("train/reward") for row in metrics if row["step"] <= step]
        known = [reward for reward in rewards if reward is not None][-SMOOTHED:]
        return Rating(step, by, fmean(known)) if known else None
    wanted = (step, agent, decoding)
    values = [row.get(by) for row in evaluations if (row["step"], row["agent"], row["decoding"]) == wanted]
    # the last row is that of all questions: the only one, or the one that is named so
    return None if not values or values[-1] is None else Rating(step, by, float(values[-1]))


def mark_best(folder: Path, rating: Rating) -> Path:
    """Make the checkpoint of ``rating.step`` in ``folder`` the best one: ``folder/best``, whole at every moment."""
    source, final, temporary = folder / f"step-{rating.step}", folder / BEST, folder / f"{BEST}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(source, temporary, copy_function=_link)
        (temporary / MARK).write_text(json.dumps(dataclasses.asdict(rating)) + "\n", encoding="utf-8")
        for path in [*temporary.rglob("*"), temporary]:
            flush(path)
        replace_folder(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return final


def read_best(folder: Path) -> Rating | None:
    """The rating of the best checkpoint, None where there is none. Raises ``UserError`` where it is damaged."""
    path = folder / BEST / MARK
    if not path.is_file():
        return None
    try:
        return Rating(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: expected step, metric and value ({error}); remove {path.parent}") from error


def find_checkpoint(folder: Path, which: str) -> Path:
    """The checkpoint in ``folder`` that is called ``best``, ``last`` or by its step. Raises ``UserError``."""
    steps, best = checkpoint_steps(folder), folder / BEST
    latest = latest_checkpoint(folder)
    named = {str(step): folder / f"step-{step}" for step in steps}
    named |= {"last": latest} if latest is not None else {}
    named |= {BEST: best} if best.is_dir() else {}
    if which not in named:
        raise UserError(f"{folder}: there is no checkpoint {which!r}; there are: {', '.join(named) or 'none yet'}")
    return named[which]


def _link(source: str, target: str) -> None:
    """Checkpoint files are never changed, so a link is as good as a copy; some disks cannot link."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
