"""Watching the runs of studies: a board of all of them on a terminal, a line for every event elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from searchr1.console import clock, say, stderr

if TYPE_CHECKING:
    from rich.console import RenderableType

    from searchr1.studies.schedule import State

_STYLES = {"waiting": "dim", "done": "green", "failed": "bold red", "stopped": "yellow"}
_EVERY = 60.0  # seconds between lines that say how far everything is


class Board:
    """How far every run is, and how long the rest will take at the pace so far."""

    def __init__(self, states: Sequence[State]) -> None:
        self.states = states
        self.steps = [state.job.steps_done() for state in states]
        self._first = sum(self._counted())
        self._started = time.monotonic()

    def look(self) -> None:
        """See what has happened since the last look."""
        self.steps = [
            state.job.steps_done() if state.phase not in ("waiting", "done") else steps
            for state, steps in zip(self.states, self.steps, strict=True)
        ]

    def left(self) -> float | None:
        """Seconds; None as long as nothing can be said."""
        done, total = sum(self._counted()), sum(state.job.recipe.steps for state in self._alive())
        gained = done - self._first
        return (time.monotonic() - self._started) / gained * (total - done) if gained > 0 else None

    def summary(self) -> str:
        """For example ``4 of 12 runs done, 2 at work, 0:12:40 left``."""
        count = {phase: sum(state.phase == phase for state in self.states) for phase in ("done", "failed", "waiting")}
        working = len(self.states) - sum(count.values())
        failed = f", {count['failed']} failed" if count["failed"] else ""
        left = self.left()
        return (
            f"{count['done']} of {len(self.states)} runs done{failed}, {working} at work"
            f"{'' if left is None or not working else f', {clock(left)} left'}"
        )

    def _alive(self) -> list[State]:
        return [state for state in self.states if state.phase != "failed"]

    def _counted(self) -> list[int]:
        return [
            state.job.recipe.steps if state.phase == "done" else steps
            for state, steps in zip(self.states, self.steps, strict=True)
            if state.phase != "failed"
        ]


class PlainBoard(Board):
    """Lines on stderr."""

    def __init__(self, states: Sequence[State]) -> None:
        super().__init__(states)
        self._phases = [state.phase for state in states]
        self._said = time.monotonic()
        say(self.summary())

    def look(self) -> None:
        super().look()
        for place, (state, before) in enumerate(zip(self.states, self._phases, strict=True)):
            if state.phase == before:
                continue
            self._phases[place] = state.phase
            how = f": {state.problem}" if state.problem else ""
            say(f"{state.job.name}: {state.phase}{how}")
            if state.phase in ("done", "failed"):
                self._summarize()
        if time.monotonic() - self._said >= _EVERY:
            self._summarize()

    def _summarize(self) -> None:
        self._said = time.monotonic()
        say(self.summary())


class LiveBoard(Board):
    """Variants down, seeds across, redrawn in place."""

    def __rich__(self) -> RenderableType:
        from rich.panel import Panel
        from rich.table import Table
        from rich.text import Text

        grid = Table.grid(padding=(0, 2))
        rows: dict[str, list[Text]] = {}
        for state, steps in zip(self.states, self.steps, strict=True):
            name = f"{state.job.study.name} {state.job.variant}"
            training = f"{steps}/{state.job.recipe.steps}" if state.phase == "training" else state.phase
            cell = Text(f"{state.job.seed}: {training}", style=_STYLES.get(state.phase, ""))
            rows.setdefault(name, [Text(name, style="dim")]).append(cell)
        for cells in rows.values():
            grid.add_row(*cells)
        return Panel(grid, title=Text("searchr1 study", style="bold"), title_align="left", subtitle=self.summary())


@contextmanager
def watching(states: Sequence[State]) -> Iterator[Board]:
    """The board that fits the terminal, for the time of the block."""
    console = stderr()
    if not console.is_terminal:
        yield PlainBoard(states)
        return
    from rich.live import Live

    board = LiveBoard(states)
    with Live(get_renderable=board.__rich__, console=console, refresh_per_second=2, transient=True):
        yield board
