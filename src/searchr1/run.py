"""The run folder: everything one run leaves behind, in versioned files.

    RUN/config.json                   the resolved settings
    RUN/metrics.jsonl                 one row a training step
    RUN/eval.jsonl                    one row an evaluated (step, agent, decoding, dataset)
    RUN/alarms.jsonl                  one row an alarm, and one for what was done about it
    RUN/rolled_back.jsonl             rows of metrics and eval that a rollback took back, with their attempt
    RUN/stability.json                rollbacks so far, the factor of the learning rate, a rollback in progress
    RUN/trajectories/step-N.jsonl.gz  every token of the trajectories of step N
    RUN/trajectories/attempt-A/       the same, of an attempt that was rolled back
    RUN/checkpoints/step-N/           weights and training state (written by ``training``)
    RUN/report.html                   written by ``report``

Rows reach the disk before ``append_*`` returns, whole files are written beside their name and renamed, and one process
at a time may write. A kill at any moment therefore costs at most a torn last line, which readers skip and ``rewind``
removes. Save a step's checkpoint after its rows: then ``rewind(N)`` and the steps that follow leave the same bytes as
a run that was never interrupted (``time/*`` apart).
"""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from searchr1 import __version__
from searchr1.alarms.response import Stability
from searchr1.changes import refuse_changes
from searchr1.errors import UserError
from searchr1.run_files import (
    VERSION,
    Row,
    add_rows,
    check_format,
    complete_lines,
    encode_header,
    encode_line,
    finite,
    keep_rows,
    parse_object,
    parse_rows,
    replacing,
    unpacked,
)

TRAJECTORIES = "searchr1-trajectories"
"""The format of trajectory files."""
_RUN, _STABILITY = "searchr1-run", "searchr1-stability"
_JSONL = {
    "metrics.jsonl": "searchr1-metrics",
    "eval.jsonl": "searchr1-eval",
    "alarms.jsonl": "searchr1-alarms",
    "rolled_back.jsonl": "searchr1-rolled-back",
}
_TAKEN_BACK = ("metrics.jsonl", "eval.jsonl")
"""What belongs to a line of training: a rollback takes back its rows."""
_STEP_FILE = re.compile(r"step-(\d+)\.jsonl\.gz")
_EMPTY_RUN = {".lock", "config.json.tmp"}  # what a kill inside ``create`` may leave


class RunFolder:
    """One run's folder. ``create`` and ``resume`` lock it for writing until ``close``; ``open`` only reads.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as path:
    ...     with RunFolder.create(path, {"seed": 0}) as run:
    ...         run.append_metrics({"step": 1, "train/reward": 0.25})
    ...     RunFolder.open(path).read_metrics()
    [{'step': 1, 'train/reward': 0.25}]
    """

    def __init__(self, path: Path, config: Row, lock: IO[bytes] | None) -> None:
        self.path = path
        self.config = config
        self._lock = lock

    @classmethod
    def create(cls, path: str | Path, config: Mapping[str, Any]) -> RunFolder:
        """Start a run. Raises ``UserError`` where ``path`` already holds a run or anything else."""
        folder = Path(path)
        _refuse_occupied(folder)  # before the lock file, so that a refused folder stays as it was
        folder.mkdir(parents=True, exist_ok=True)
        lock = _acquire(folder)
        try:
            _refuse_occupied(folder)
            saved = _save_config(folder, config)
        except BaseException:  # whatever it was, also Ctrl-C: the folder must not stay locked
            lock.close()
            raise
        return cls(folder, saved, lock)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Read a run, finished or not."""
        folder = Path(path)
        return cls(folder, _load_config(folder), None)

    @classmethod
    def resume(cls, path: str | Path, config: Mapping[str, Any], *, free: frozenset[str] = frozenset()) -> RunFolder:
        """Go on with a run; call ``rewind`` next, with the step of the checkpoint that was loaded.

        ``free`` names the dotted keys (or whole tables) that may differ from the saved settings; any other difference
        raises ``UserError``, which names the keys.
        """
        folder = Path(path)
        _load_config(folder)  # so that no lock file appears where there is no run
        lock = _acquire(folder)
        try:
            refuse_changes(folder, _load_config(folder), config, free)
            saved = _save_config(folder, config)
        except BaseException:  # whatever it was, also Ctrl-C: the folder must not stay locked
            lock.close()
            raise
        return cls(folder, saved, lock)

    def close(self) -> None:
        """Let another process write this run."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    @property
    def checkpoints(self) -> Path:
        """The folder of ``step-N`` checkpoints; it may not exist yet."""
        return self.path / "checkpoints"

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add one step's metrics; ``row["step"]`` is the step. NaN and infinity are written as null."""
        self._append("metrics.jsonl", row)

    def append_eval(self, row: Mapping[str, Any]) -> None:
        """Add one evaluation result; ``row["step"]`` is the step it was made after (0: before training)."""
        self._append("eval.jsonl", row)

    def append_alarm(self, row: Mapping[str, Any]) -> None:
        """Add one row of `alarms.respond`: an alarm, or what was done about it."""
        self._append("alarms.jsonl", row)

    def write_trajectories(self, step: int, rows: Iterable[Mapping[str, Any]]) -> Path:
        """Write (or replace) the trajectories of ``step``; the same rows give the same bytes."""
        self._require_lock()
        target = self._trajectory_file(step)
        target.parent.mkdir(exist_ok=True)
        with replacing(target) as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
            packed.write(encode_header(TRAJECTORIES))
            for row in rows:
                packed.write(encode_line(row))
        return target

    def read_metrics(self) -> list[Row]:
        """Every complete row, oldest first; empty before the first step."""
        return self._read("metrics.jsonl")

    def read_eval(self) -> list[Row]:
        """Every complete row, oldest first; empty before the first evaluation."""
        return self._read("eval.jsonl")

    def read_alarms(self) -> list[Row]:
        """Every complete row of every attempt, oldest first; empty where no alarm ever fired."""
        return self._read("alarms.jsonl")

    def read_rolled_back(self) -> list[Row]:
        """Rows of metrics and eval that rollbacks took back: each with its ``attempt`` and the ``file`` it was in."""
        return self._read("rolled_back.jsonl")

    def stability(self) -> Stability:
        """What the run remembers of its rollbacks."""
        path = self.path / "stability.json"
        if not path.is_file():
            return Stability()
        saved = parse_object(path.read_bytes(), str(path))
        check_format(saved, _STABILITY, str(path))
        return Stability.from_json(saved)

    def save_stability(self, state: Stability) -> None:
        """With a ``target`` this decides a rollback, whatever is killed later; ``rewind`` carries it out.

        Between the two: remove the checkpoints after ``target``, load the newest that is left, rewind to its step.
        """
        self._require_lock()
        with replacing(self.path / "stability.json") as file:
            file.write(encode_line({"format": _STABILITY, "version": VERSION, **state.to_json()}))

    def trajectory_steps(self) -> list[int]:
        """The steps whose trajectories were written, ascending."""
        found = (_STEP_FILE.fullmatch(file.name) for file in (self.path / "trajectories").glob("step-*"))
        return sorted(int(match[1]) for match in found if match)

    def read_trajectories(self, step: int) -> list[Row]:
        """The rows of ``step``; ``trajectory_io.row_to_trajectory`` turns one into a trajectory."""
        return list(self.iter_trajectories(step))

    def iter_trajectories(self, step: int) -> Iterator[Row]:
        """The same, one at a time: a step of a large run does not fit the memory of a laptop."""
        path = self._trajectory_file(step)
        if not path.is_file():
            raise UserError(f"{path}: no trajectories of step {step}; there are: {self.trajectory_steps()}")
        with gzip.open(path, "rb") as packed:
            yield from parse_rows(unpacked(packed, path), path, TRAJECTORIES)

    def rewind(self, step: int) -> None:
        """Forget everything after ``step``, and torn last lines; ``rewind(-1)`` forgets the evaluation before training.

        Where a rollback was decided (``save_stability``), nothing is forgotten: rows go to ``rolled_back.jsonl``,
        trajectories to ``trajectories/attempt-A``. A kill at any moment of it loses nothing and doubles nothing; it is
        finished when the run is resumed.

        Raises ``UserError`` naming the file and line where a row before the tear is not readable.
        """
        self._require_lock()
        state = self.stability()
        given_up = None if state.target is None else state.attempt - 1
        if given_up is not None:
            self._set_aside(step, given_up)
        for name in _TAKEN_BACK:
            self._keep(name, lambda row: row["step"] <= step)
        self._keep("alarms.jsonl", lambda row: row["step"] <= step or row["attempt"] < state.attempt)
        for later in [number for number in self.trajectory_steps() if number > step]:
            if given_up is None:
                self._trajectory_file(later).unlink()
            else:
                self._trajectory_file(later).rename(self._attempt_file(later, given_up))
        for unfinished in [*self.path.glob("*.tmp"), *(self.path / "trajectories").glob("*.tmp")]:
            unfinished.unlink()
        if given_up is not None:
            self.save_stability(replace(state, target=None))

    def _set_aside(self, step: int, attempt: int) -> None:
        """Copy the rows after ``step`` to ``rolled_back.jsonl``, unless that was done before a kill."""
        if any(row["attempt"] == attempt for row in self.read_rolled_back()):
            return
        rows = [
            {"step": row["step"], "attempt": attempt, "file": name, **row}
            for name in _TAKEN_BACK
            for row in self._read(name)
            if row["step"] > step
        ]
        if rows:
            add_rows(self.path / "rolled_back.jsonl", _JSONL["rolled_back.jsonl"], rows)

    def _keep(self, name: str, wanted: Callable[[Row], bool]) -> None:
        if (self.path / name).is_file():
            keep_rows(self.path / name, _JSONL[name], wanted)

    def _attempt_file(self, step: int, attempt: int) -> Path:
        folder = self.path / "trajectories" / f"attempt-{attempt}"
        folder.mkdir(exist_ok=True)
        return folder / self._trajectory_file(step).name

    def _trajectory_file(self, step: int) -> Path:
        return self.path / "trajectories" / f"step-{step}.jsonl.gz"

    def _require_lock(self) -> None:
        if self._lock is None:
            raise RuntimeError(f"{self.path} is open for reading only; use RunFolder.create or RunFolder.resume")

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        self._require_lock()
        with (self.path / name).open("ab") as file:
            file.write(
                (b"" if file.tell() else encode_header(_JSONL[name]))
                + encode_line(finite({"step": row["step"], **row}))
            )
            file.flush()
            os.fsync(file.fileno())

    def _read(self, name: str) -> list[Row]:
        path = self.path / name
        if not path.is_file():
            return []
        return list(parse_rows(complete_lines(path), path, _JSONL[name]))


def _load_config(folder: Path) -> Row:
    path = folder / "config.json"
    if not path.is_file():
        raise UserError(f"{folder}: expected a run folder, found no config.json; check the path")
    saved = parse_object(path.read_bytes(), str(path))
    check_format(saved, _RUN, str(path))
    config = saved.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{path}: expected the settings under 'config', got {type(config).__name__}")
    return config


def _save_config(folder: Path, config: Mapping[str, Any]) -> Row:
    document = {"format": _RUN, "version": VERSION, "searchr1": __version__, "config": config}
    text = json.dumps(document, indent=2, allow_nan=False) + "\n"
    with replacing(folder / "config.json") as file:
        file.write(text.encode())
    saved: Row = json.loads(text)["config"]
    return saved


def _refuse_occupied(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: expected a folder or nothing, found a file; use another --out")
    found = sorted({file.name for file in folder.glob("*")} - _EMPTY_RUN)
    if "config.json" in found:
        steps = len(RunFolder.open(folder).read_metrics())
        raise UserError(
            f"{folder}: already holds a run of {steps} steps; use another --out, or --resume to go on with it, or "
            "remove it"
        )
    if found:
        names = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
        raise UserError(f"{folder}: expected an empty folder, found {names}; use another --out, or --resume for a run")


def _acquire(folder: Path) -> IO[bytes]:
    lock = (folder / ".lock").open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(
            f"{folder}: another process is writing this run; wait for its end or use another --out"
        ) from None
    return lock
