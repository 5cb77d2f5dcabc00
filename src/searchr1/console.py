"""What every command says and how: results on stdout, progress and errors on stderr, one line an error."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

Progress = Callable[[int, int | None], None]
PIPE_WIDTH = 110
"""Columns where the output is not a terminal."""
_PLAIN_EVERY = 10.0  # seconds between lines of progress where there is no terminal
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")


@cache
def stdout() -> Console:
    return _console(stderr=False)


@cache
def stderr() -> Console:
    return _console(stderr=True)


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = PIPE_WIDTH
    return console


def say(text: str = "", style: str = "") -> None:
    """One line on stderr, never wrapped."""
    stderr().print(text, style=style or None, soft_wrap=True)


def error(text: object) -> None:
    """``error: ...`` on stderr: exactly one line, whatever the message holds."""
    from rich.text import Text

    line = " ".join(visible(str(text)).split())
    stderr().print(Text.assemble(("error:", "bold red"), f" {line}"), soft_wrap=True)


def print_json(value: object) -> None:
    """ASCII, so that nothing a model or a corpus holds can fail to be encoded or reach a terminal raw."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def visible(text: str) -> str:
    """Models and corpora are hostile: no control or direction character of theirs may reach the terminal.

    >>> visible("\\x1b[2Jgone" + chr(0x202E))
    '�[2Jgone�'
    """
    return _CONTROL.sub("\ufffd", text).encode(errors="replace").decode()


def percent(value: float | None) -> str:
    """
    >>> percent(0.4321), percent(None)
    ('43.2%', '-')
    """
    return "-" if value is None else f"{100 * value:.1f}%"


def interval(row: dict[str, Any]) -> str:
    """Exact match with its 95% interval.

    >>> interval({"exact_match": 0.432, "ci_low": 0.4, "ci_high": 0.5})
    '43.2% [40.0, 50.0]'
    """
    if row.get("exact_match") is None:
        return "-"
    return f"{percent(row['exact_match'])} [{100 * row['ci_low']:.1f}, {100 * row['ci_high']:.1f}]"


def decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def clock(seconds: float) -> str:
    """
    >>> clock(7), clock(247), clock(7325)
    ('0:07', '4:07', '2:02:05')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def silence_libraries() -> None:
    """No progress bars and warnings of transformers between ours; call it before anything imports transformers."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def progress(title: str, unit: str = "", already: int = 0) -> Iterator[Progress]:
    """A bar with rate and time left on a terminal, else a line now and then; call what you get with (done, total).

    ``already`` of what is done were done before this: they say nothing of the rate.
    """
    if stderr().is_terminal:
        with _bar(title, unit, already) as advance:
            yield advance
        return
    started = said = time.monotonic()

    def advance_plain(done: int, total: int | None) -> None:
        nonlocal said
        now = time.monotonic()
        if done != total and now - said < _PLAIN_EVERY:
            return
        said = now
        rate = (done - already) / max(now - started, 1e-9)
        of = f" of {total:,}" if total else ""
        left = f", {clock((total - done) / rate)} left" if total and done < total and rate else ""
        say(f"{title}: {done:,}{of}{f' {unit}' if unit else ''} ({rate:,.1f}/s{left})")

    yield advance_plain


@contextmanager
def _bar(title: str, unit: str, already: int) -> Iterator[Progress]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit} {{task.fields[rate]}}".strip(), style="dim"),
        TimeRemainingColumn(compact=True),
        TextColumn("left", style="dim"),
    )
    with Bar(*columns, console=stderr(), transient=True) as bar:
        task = bar.add_task(title, total=None, completed=already, rate="")
        started = time.monotonic()

        def advance(done: int, total: int | None) -> None:
            rate = (done - already) / max(time.monotonic() - started, 1e-9)
            bar.update(task, completed=done, total=total, rate=f"{rate:,.1f}/s")

        yield advance
