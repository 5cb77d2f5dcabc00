"""Runs jobs, several at a time, each command in a process of its own: one that dies takes no other with it."""

from __future__ import annotations

import math
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from searchr1.errors import UserError
from searchr1.studies.definition import Command
from searchr1.studies.plan import Job, tasks

TICK = 0.25  # seconds between looks at what the processes do
AGAIN = 5.0  # seconds until a process is asked to stop again: one that is just importing may lose an interrupt

# A run ends with the study that started it, even if that is killed: then its standard input is closed.
_CHILD = """
import os, signal, threading
from searchr1.cli import main
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell's background job began the study
threading.Thread(target=lambda: (os.read(0, 1), os.kill(os.getpid(), signal.SIGINT)), daemon=True).start()
main()
"""
_COMMAND = "$ searchr1 "


@dataclass
class State:
    """Where a job stands; ``phase`` is waiting, preparing, training, evaluating, done, stopped or failed."""

    job: Job
    phase: str = "waiting"
    problem: str = ""


@dataclass
class Schedule:
    """``run`` runs ``jobs``, ``workers`` at a time; what is done already is not done again."""

    jobs: Sequence[Job]
    workers: int
    finished: Callable[[Job], object] = lambda job: None
    """Called, by the caller's thread, when a job has come to its end."""
    states: list[State] = field(init=False)

    def __post_init__(self) -> None:
        self.states = [State(job, "done" if job.done else "waiting") for job in self.jobs]
        self._stop = threading.Event()

    def run(self, watch: Callable[[], None] = lambda: None) -> None:
        """To the end of every job; ``watch`` is called about four times a second.

        On Ctrl-C the processes are asked to stop, and waited for.
        """
        waiting = [state for state in self.states if state.phase == "waiting"]
        with ThreadPoolExecutor(self.workers) as pool:
            futures = {pool.submit(self._play, state): state for state in waiting}
            try:
                while futures:
                    for future in [future for future in futures if future.done()]:
                        state = futures.pop(future)
                        future.result()
                        self.finished(state.job)
                    watch()
                    time.sleep(TICK)
                watch()
            finally:
                self._stop.set()

    def _play(self, state: State) -> None:
        try:
            for phase, command in tasks(state.job):
                if self._stop.is_set():
                    state.phase = "stopped"
                    return
                state.phase = phase
                code = self._execute(command, state.job)
                if self._stop.is_set():
                    state.phase = "stopped"
                    return
                if code != 0:
                    state.phase, state.problem = "failed", last_words(state.job.log) or f"exit code {code}"
                    return
            state.phase = "done"
        except (UserError, OSError) as error:
            state.phase, state.problem = "failed", str(error)

    def _execute(self, command: Command, job: Job) -> int:
        job.log.parent.mkdir(parents=True, exist_ok=True)
        threads = job.recipe.engine.threads
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        with job.log.open("a") as log:
            log.write(f"{_COMMAND}{shlex.join(command)}\n")
            log.flush()
            process = subprocess.Popen(
                [sys.executable, "-c", _CHILD, *command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches it through us alone, once
            )
            asked = -math.inf
            while process.poll() is None:
                if self._stop.is_set() and time.monotonic() > asked + AGAIN:
                    process.send_signal(signal.SIGINT)
                    asked = time.monotonic()
                time.sleep(TICK)
            assert process.stdin is not None
            process.stdin.close()
            return process.returncode


def last_words(log: Path) -> str:
    """The last error of the last command that a log tells of, else its last line."""
    lines = log.read_text(errors="replace").splitlines()
    starts = [place for place, line in enumerate(lines) if line.startswith(_COMMAND)]
    said = [line for line in lines[starts[-1] + 1 if starts else 0 :] if line.strip()]
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    return (errors or said or [""])[-1]
