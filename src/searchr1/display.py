"""Watching a run (`train.Monitor`): a live panel on a terminal, one line a step elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from searchr1.console import clock, decimal, interval, percent, say, stderr

if TYPE_CHECKING:
    from rich.console import RenderableType

Row = Mapping[str, Any]
BLOCKS = "▁▂▃▄▅▆▇█"


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Values as blocks between their least and greatest; more than ``width`` of them become means of neighbours.

    >>> sparkline([0.0, 0.5, 1.0])
    '▁▅█'
    """
    if not values:
        return ""
    bins = min(width, len(values))
    edges = [round(place * len(values) / bins) for place in range(bins + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, span = min(means), max(max(means) - min(means), 0.05)
    return "".join(BLOCKS[min(7, int(8 * (value - low) / span))] for value in means)


class PlainDisplay:
    """One line an evaluation and one line a step, on stderr. Its time runs from the first phase called ``begins``."""

    begins = "rollout"
    header = "    step   reward   exact match   searches   entropy   seconds      left"

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step: int | None = None
        self.rows: list[Row] = []
        self.played = False
        self._started = time.monotonic()
        self._done = 0
        self._alarmed: dict[str, int] = {}

    def phase(self, name: str, total: int) -> None:
        if name == self.begins and not self.rows and not self.played:
            self.played = True
            self._started = time.monotonic()
            self._say(self.header)

    def progress(self, done: int, total: int) -> None:
        pass

    def stepped(self, row: Row) -> None:
        self.rows.append(row)
        self.step = row["step"]
        self._done += 1
        self._say(
            f"{row['step']:>4}/{self.steps:<4}{self._figures(row)}{row['time/step']:>10.1f}{clock(self.left()):>10}"
        )

    def evaluated(self, rows: Sequence[Row]) -> None:
        row = rows[-1]  # all questions
        when = f"step {row['step']}" if row["step"] else "before"
        name = f"{row['agent']}, {row['decoding']}"
        self._say(
            f"{when:>8}  {name:<20} exact match {interval(dict(row)):<22} searches {decimal(row.get('searches'))}  "
            f"({row['n']} test questions)"
        )

    def paused(self, reason: str) -> None:
        say(f"paused until the search engine answers: {reason}", "yellow")

    def alarmed(self, rows: Sequence[Row]) -> None:
        """One step's rows of alarms.jsonl: an alarm is said when it begins, what was done about it always."""
        for row in rows:
            name, step = row["name"], row["step"]
            if row["action"] == "log":
                critical = row["level"] == "critical"
                if self._alarmed.get(name) not in (step, step - 1):
                    say(f"{'ALARM' if critical else 'warning'} at step {step}: {row['message']}",
                        "bold red" if critical else "yellow")  # fmt: skip
                self._alarmed[name] = step
            elif row["action"] == "rollback":
                self.rows = [kept for kept in self.rows if kept["step"] <= row["to"]]
                self._alarmed = {}
                say(row["message"], "bold")

    def left(self) -> float:
        """Seconds left, at the pace so far; steps that were rolled back count as steps."""
        if not self._done:
            return 0.0
        steps_left: int = self.steps - (self.rows[-1]["step"] if self.rows else 0)
        return (time.monotonic() - self._started) / self._done * steps_left

    def _figures(self, row: Row) -> str:
        """The columns between the step and the time."""
        entropy = row.get("train/entropy")
        return (
            f"{row.get('train/reward', 0.0):>8.3f}"
            f"{percent(row.get('train/exact_match')):>14}{decimal(row.get('train/searches')):>11}"
            f"{'-' if entropy is None else f'{entropy:.3f}':>10}"
        )

    def _say(self, text: str) -> None:
        say(text)


class LiveDisplay(PlainDisplay):
    """A panel that is redrawn in place: where it stands, how well it does, how long it will take."""

    def __init__(self, steps: int, name: str) -> None:
        super().__init__(steps)
        self.name = name
        self._phase = ("starting", 0, 0)
        self._since = time.monotonic()
        self._tests: list[Row] = []

    def phase(self, name: str, total: int) -> None:
        if name == self.begins and not self.rows and not self.played:
            self.played = True
            self._started = time.monotonic()
        self._phase = (name, 0, total)
        self._since = time.monotonic()

    def progress(self, done: int, total: int) -> None:
        self._phase = (self._phase[0], done, total)
        if done == total and self._phase[0] == "rollout":
            self._phase = ("update", 0, 0)

    def stepped(self, row: Row) -> None:
        self.rows.append(row)
        self.step = row["step"]
        self._done += 1

    def evaluated(self, rows: Sequence[Row]) -> None:
        if rows[-1]["step"] in (0, self.steps):
            super().evaluated(rows)
        if not self._tests or rows[-1]["decoding"] == self._tests[0]["decoding"]:
            self._tests.append(rows[-1])

    def __rich__(self) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(justify="right", no_wrap=True)
        grid.add_column(no_wrap=True, overflow="ellipsis")
        for line in self._lines():
            grid.add_row(*line)
        step = self.rows[-1]["step"] if self.rows else 0
        title = Text.assemble(("searchr1", "bold"), f" {self.name}")
        return Panel(grid, title=title, title_align="left", subtitle=f"step {step} of {self.steps}", width=92)

    def _lines(self) -> Iterator[tuple[Any, Any, Any]]:
        name, done, total = self._phase
        if self.rows:
            row = self.rows[-1]
            yield "training", f"{100 * row['step'] / self.steps:.0f}%", self._bar(row["step"], self.steps, self.left())
            yield from self._learned(row)
        if self._tests:
            first, last = self._tests[0], self._tests[-1]
            then = f"before {percent(first.get('exact_match'))}" if last is not first else ""
            yield "test", percent(last.get("exact_match")), f"{last['decoding']}, step {last['step']}  {then}".strip()
        elapsed = time.monotonic() - self._since
        left = elapsed / done * (total - done) if done else 0.0
        yield "now", f"{done}/{total}" if total else "", f"{name}  {clock(left)} left" if done and left >= 1 else name

    def _learned(self, row: Row) -> Iterator[tuple[Any, Any, Any]]:
        """How well it does: the newest row, and how it came there."""
        matches = [float(r["train/exact_match"]) for r in self.rows if "train/exact_match" in r]
        yield "exact match", percent(row.get("train/exact_match")), sparkline(matches, 48)
        yield "reward", f"{row.get('train/reward', 0.0):.3f}", ""
        kinds = (
            f"{key.removeprefix('searches/').replace('hops-1', 'one-hop').replace('hops-2', 'two-hop')} {value:.2f}"
            for key, value in row.items()
            if key.startswith("searches/")
        )
        yield "searches", decimal(row.get("train/searches")), "  ".join(kinds)

    @staticmethod
    def _bar(done: int, total: int, left: float) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        line = Table.grid(padding=(0, 2))
        line.add_row(ProgressBar(total=total, completed=done, width=44), f"{clock(left)} left" if left else "")
        return line


class _Imitation:
    """The figures of supervised fine-tuning, where nothing is played and nothing rewarded."""

    begins = "learning"
    header = "    step      loss   token accuracy   held-out loss   seconds      left"
    rows: list[Row]

    def _figures(self, row: Row) -> str:
        held_out = row.get("validation/loss")
        accuracy, shown = percent(row["train/token_accuracy"]), "-" if held_out is None else f"{held_out:.3f}"
        return f"{row['train/loss']:>9.3f}{accuracy:>17}{shown:>16}"

    def _learned(self, row: Row) -> Iterator[tuple[Any, Any, Any]]:
        for key, name in (("train/loss", "loss"), ("validation/loss", "held-out loss")):
            losses = [float(r[key]) for r in self.rows if key in r]
            if losses:
                yield name, f"{losses[-1]:.3f}", sparkline(losses, 48)
        yield "token accuracy", percent(row["train/token_accuracy"]), f"epoch {row['epoch']}"


class PlainImitation(_Imitation, PlainDisplay):
    """`PlainDisplay` of supervised fine-tuning."""


class LiveImitation(_Imitation, LiveDisplay):
    """`LiveDisplay` of supervised fine-tuning."""


@contextmanager
def watching(steps: int, name: str, *, imitation: bool = False) -> Iterator[PlainDisplay]:
    """The display that fits the terminal, for the time of the block; it is a ``train.Monitor``.

    ``imitation`` shows the figures of supervised fine-tuning.
    """
    console = stderr()
    if not console.is_terminal:
        yield PlainImitation(steps) if imitation else PlainDisplay(steps)
        return
    from rich.live import Live

    display = LiveImitation(steps, name) if imitation else LiveDisplay(steps, name)
    with Live(get_renderable=display.__rich__, console=console, refresh_per_second=4, transient=True):
        yield display
