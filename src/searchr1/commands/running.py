"""One training run from the command line: begin (or go on with) its folder, watch it, report it."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchr1.commands.paint import telling_pair, trajectory_text
from searchr1.commands.tables import before_after
from searchr1.console import say, stderr, stdout
from searchr1.errors import SearchR1Error, UserError

if TYPE_CHECKING:
    from searchr1.assemble import Parts
    from searchr1.config import Recipe
    from searchr1.run import RunFolder
    from searchr1.train import Trainer
    from searchr1.waiting import Monitor

FREE = frozenset({"steps", "sft.epochs", "save", "alarms", "search", "retriever.policy"})
"""Settings that may differ when a run is resumed: how long it runs, what it keeps, and what is done about alarms."""


@dataclass(frozen=True)
class Order:
    """What the user asked for: a recipe's name or file, its settings, where the run goes, by which command.

    ``recipe`` is what they make together, and ``trainer`` what the command trains with.
    """

    source: str
    settings: Sequence[str]
    recipe: Recipe
    path: Path
    command: str = "train"
    trainer: Callable[[Recipe, Parts, RunFolder, Monitor], Trainer] | None = None

    @property
    def resume_command(self) -> str:
        changed = [part for setting in self.settings for part in ("--set", setting)]
        return shlex.join(["searchr1", self.command, self.source, *changed, "--out", str(self.path), "--resume"])


def run_training(order: Order, *, resume: bool) -> RunFolder:
    """Train to the end; returns the closed run. Nothing is left behind where it could not begin.

    Raises ``SearchR1Error``, and ``KeyboardInterrupt`` that says how to go on.
    """
    existed = order.path.exists()
    run = _open_run(order, resume)
    with run:
        try:
            parts = _prepare(order, run)
        except BaseException as failure:  # whatever stopped it, Ctrl-C too: the next try must find the way free
            if not resume:
                _remove(order.path, existed)
                if isinstance(failure, KeyboardInterrupt):
                    raise KeyboardInterrupt("interrupted before training began; nothing was kept") from failure
            raise
        _train(order, run, parts)
    return run


def free_folder(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``... that holds nothing yet."""
    number, free = 2, path
    while free.exists() and (not free.is_dir() or any(free.iterdir())):
        free = path.with_name(f"{path.name}-{number}")
        number += 1
    return free


def show_results(run: RunFolder, agent: str) -> None:
    """The table of before and after, on stdout."""
    rows = run.read_eval()
    if rows:
        stdout().print(before_after(rows, agent))


def show_question(run: RunFolder) -> None:
    """One question as it was played before and after training, on stdout."""
    steps = run.trajectory_steps()
    if len(steps) < 2:
        return
    pair = telling_pair(*(run.read_trajectories(step) for step in (steps[0], steps[-1])))
    if pair is None:
        return
    from rich.padding import Padding
    from rich.rule import Rule
    from rich.text import Text

    from searchr1.console import visible

    question = pair[0]["question"]
    out = stdout()
    out.print()
    out.print(Text.assemble(("One question: ", "bold"), visible(question["question"])))
    out.print(Text(f"accepted: {', '.join(map(visible, question['answers']))}", style="dim"))
    for when, row in zip(("before", f"after {steps[-1]} steps"), pair, strict=True):
        verdict = "right" if row["components"].get("exact_match") == 1 else "wrong"
        out.print(Rule(f"{when}: {verdict}", style="dim", align="left"))
        out.print(Padding(trajectory_text(row), (0, 2)))
    out.print()


def write_page(run: RunFolder) -> None:
    from searchr1.report import write_report

    say(f"report: {write_report(run.path)}")


def peak_memory() -> str:
    """The most memory that this process had, for example ``1.2 GB``."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = peak if sys.platform == "darwin" else 1024 * peak
    return f"{size / 1e9:.1f} GB"


def _open_run(order: Order, resume: bool) -> RunFolder:
    from searchr1.run import RunFolder

    if not resume:
        return RunFolder.create(order.path, order.recipe.resolved())
    done = [row["step"] for row in RunFolder.open(order.path).read_metrics()]
    if done and done[-1] > order.recipe.steps:
        raise UserError(
            f"{order.path}: the run has {done[-1]} steps, expected steps = {done[-1]} or more, got {order.recipe.steps}"
        )
    return RunFolder.resume(order.path, order.recipe.resolved(), free=FREE)


def _prepare(order: Order, run: RunFolder) -> Parts:
    from searchr1.assemble import build_parts

    started = time.perf_counter()
    parts = build_parts(order.recipe, run.path, say)
    weights = sum(weight.numel() for weight in parts.policy.model.parameters())
    device, seconds = parts.policy.model.device.type, time.perf_counter() - started
    say(f"policy: {order.recipe.model}, {weights / 1e6:,.1f} million weights, on {device}; ready in {seconds:.0f} s")
    return parts


def _train(order: Order, run: RunFolder, parts: Parts) -> None:
    from searchr1.display import watching
    from searchr1.train import Trainer
    from searchr1.training.checkpoint import latest_checkpoint, remove_stale

    remove_stale(run.checkpoints)
    try:
        with watching(order.recipe.steps, str(order.path), imitation=order.command == "sft") as monitor:
            asyncio.run((order.trainer or Trainer)(order.recipe, parts, run, monitor).train())
    except KeyboardInterrupt as stop:
        at = f"interrupted in step {monitor.step + 1}" if monitor.step is not None else "interrupted"
        raise KeyboardInterrupt(f"{at}; --resume goes on: {order.resume_command}") from stop
    except SearchR1Error:
        kept = (
            "kept up to its last checkpoint" if latest_checkpoint(run.checkpoints) else "kept, without a checkpoint yet"
        )
        say(f"the run is {kept}; --resume goes on: {order.resume_command}")
        raise
    if monitor.step is None:
        stderr().print(f"{order.path}: all {order.recipe.steps} steps were done already")


def _remove(path: Path, existed: bool) -> None:
    """Take back a folder that was begun empty; a folder that was there before stays, empty."""
    if not existed:
        shutil.rmtree(path)
        return
    for inner in path.iterdir():
        shutil.rmtree(inner) if inner.is_dir() else inner.unlink()
