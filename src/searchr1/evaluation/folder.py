"""The evaluation folder: predictions that are on disk as soon as they are made, and a summary at the end.

    evaluation.json      how it is made (settings), and the state of the work: written first
    predictions.jsonl    a line for every question (and sample), in the order in which they came
    summary.json         figures: written last; where it is, the folder is complete

A killed evaluation goes on with the questions that have no line yet, and asks again those that failed through no
fault of the policy. Parts of one evaluation (``--part 1/4``) are folders of their own; `merge` makes one of them.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from searchr1.changes import refuse_changes
from searchr1.data.jsonl import encode, read_rows, replacing, write_rows
from searchr1.errors import UserError
from searchr1.evaluation.rows import Key, Row, checked_row, key_of
from searchr1.evaluation.summary import summarize

FORMAT = {"format": "searchr1-evaluation", "version": 2}
_READABLE = (1, 2)
_PLACES = frozenset({"name", "retriever.spec"})
"""Settings that only say where something is, or what it is called."""
HEAD, PREDICTIONS, SUMMARY, LOCK = "evaluation.json", "predictions.jsonl", "summary.json", ".lock"
_CHARGED, _COUNTED = ("prompt_tokens", "completion_tokens"), ("prompt_tokens", "policy_tokens")
Usage = dict[str, Any]
"""Totals of the whole evaluation: ``seconds`` of work, and what ``search`` and ``engine`` count."""


class EvaluationFolder:
    """``begin`` or ``resume`` it, ``append`` rows, ``finish`` it; one process at a time.

    ``rows`` are those of questions that need not be asked again, ``failed_before`` the questions that must.
    """

    def __init__(
        self,
        path: Path,
        settings: Mapping[str, Any],
        lock: IO[bytes],
        rows: Sequence[Row],
        failed_before: Iterable[Key] = (),
    ) -> None:
        self.path = path
        self.settings = dict(settings)
        self.rows = list(rows)
        self.failed_before = frozenset(failed_before)
        self._lock = lock
        self._stream = (path / PREDICTIONS).open("ab")
        self._before = _read_head(path).get("usage", {})

    @classmethod
    def begin(cls, path: str | Path, settings: Mapping[str, Any]) -> EvaluationFolder:
        """A new folder. Raises ``UserError`` where there is something already."""
        path = Path(path)
        refuse_occupied(path)
        path.mkdir(parents=True, exist_ok=True)
        lock = locked(path)
        try:
            refuse_occupied(path)  # again: until it was locked, another process could begin and even end here
            _write_head(path, settings, {})
        except BaseException:  # whatever it was: the folder must not stay locked
            lock.close()
            raise
        return cls(path, settings, lock, [])

    @classmethod
    def resume(cls, path: str | Path, settings: Mapping[str, Any]) -> EvaluationFolder:
        """Go on with a folder. What a kill left of a line is removed, and so are the rows of failures.

        Raises ``UserError`` where there is none, and where it was begun with other settings.
        """
        path = Path(path)
        if not (path / HEAD).is_file():
            raise UserError(f"{path}: expected an evaluation that was begun before, found none; start without --resume")
        lock = locked(path)
        try:
            refuse_changes(path, _read_head(path)["settings"], settings, _PLACES | {"price"})
            written = _whole_rows(path)
            rows = [row for row in written if not row["failed"]]
            (path / SUMMARY).unlink(missing_ok=True)
            write_rows(path / PREDICTIONS, rows)
        except BaseException:  # whatever it was: the folder must not stay locked
            lock.close()
            raise
        return cls(path, settings, lock, rows, (key_of(row) for row in written if row["failed"]))

    @property
    def done(self) -> set[Key]:
        """Questions and samples that have a row."""
        return {key_of(row) for row in self.rows}

    def append(self, row: Row) -> None:
        """Add a row: it survives a kill of this process."""
        self._stream.write(encode(row) + b"\n")
        self._stream.flush()
        self.rows.append(row)

    def used(self, usage: Usage) -> None:
        """Note what was used since this object was made; what earlier ones noted is added."""
        _write_head(self.path, self.settings, add_usage(self._before, usage))

    def finish(self, order: Mapping[Key, int] | None = None) -> dict[str, Any]:
        """Write and return the summary. ``order`` puts the data sets into the order of the questions."""
        rows = sorted(self.rows, key=lambda row: order.get(key_of(row), 0)) if order else self.rows
        usage = _read_head(self.path).get("usage", {})
        summary = {**FORMAT, "settings": self.settings, **summarize(rows)}
        summary["usage"] = _rates(usage, rows, self.settings.get("price"))
        with replacing(self.path / SUMMARY) as stream:
            stream.write(encode(summary, indent=2) + b"\n")
        return summary

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stream.close()
        self._lock.close()


def refuse_occupied(path: Path) -> None:
    """Raises ``UserError`` where a new evaluation cannot be begun: something is there already."""
    if path.exists() and (not path.is_dir() or any(item.name != LOCK for item in path.iterdir())):
        if (path / HEAD).is_file() or (path / SUMMARY).is_file():
            raise UserError(f"{path}: holds an evaluation already; --resume goes on with it, or use another --out")
        raise UserError(
            f"{path}: expected a new or empty folder, it holds something else already; choose another --out"
        )


def read_predictions(folder: str | Path) -> list[Row]:
    """The rows of a finished evaluation.

    Raises UserError when the folder is not an evaluation of a format version that this code reads, when it is not
    finished, and for a row that lacks what makes it comparable (`searchr1.evaluation.rows.checked_row`).
    """
    folder = Path(folder)
    path = folder / PREDICTIONS
    if not path.is_file():
        raise UserError(f"{folder}: expected an evaluation folder, but it has no {path.name}; run searchr1 eval first")
    if (folder / HEAD).is_file() and not (folder / SUMMARY).is_file():
        raise UserError(f"{folder}: this evaluation is not finished; searchr1 eval ... --resume goes on with it")
    read_summary(folder)
    return [checked_row(row, place) for place, row in read_rows(path)]


def read_summary(folder: str | Path) -> dict[str, Any]:
    """The summary of a finished evaluation. Raises UserError; the version of the folder is looked up here."""
    path = Path(folder) / SUMMARY
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: expected the summary of a finished evaluation: {error}") from error
    known = isinstance(written, dict) and written.get("format") == FORMAT["format"]
    if not known or written.get("version") not in _READABLE:
        found = {key: written.get(key) for key in FORMAT} if isinstance(written, dict) else written
        raise UserError(f"{path}: expected {FORMAT}, got {found}; evaluate again with this version of searchr1")
    summary: dict[str, Any] = written
    return summary


def merge(parts: Sequence[str | Path], out: str | Path) -> dict[str, Any]:
    """Make one finished evaluation of all its parts; the summary. Raises UserError for parts that do not fit."""
    if not parts:
        raise UserError("expected the folders of all parts of an evaluation, got none")
    heads = {Path(part): _read_head(Path(part)).get("settings", {}) for part in parts}
    numbers: dict[tuple[int, int], Path] = {}
    first = next(iter(heads))
    for path, settings in heads.items():
        read_summary(path)
        part = settings.get("part")
        if not part:
            raise UserError(f"{path}: expected a part of an evaluation (--part 1/4), this is a whole one")
        if (number := (part[0], part[1])) in numbers:
            raise UserError(f"{path}: is part {part[0]}/{part[1]}, and so is {numbers[number]}")
        numbers[number] = path
        try:
            refuse_changes(path, heads[first], settings, _PLACES | {"part"})
        except UserError as error:
            raise UserError(f"{path} and {first} are parts of different evaluations: {error}") from error
    of = heads[first]["part"][1]
    for (k, n), path in numbers.items():
        if n != of:
            raise UserError(f"{path}: is part {k}/{n}, but {first} is one of {of}; expected the parts of one split")
    missing = [number for number in range(1, of + 1) if (number, of) not in numbers]
    if missing:
        raise UserError(f"expected {of} parts, got {len(parts)}; missing: {', '.join(f'{n}/{of}' for n in missing)}")
    usage: Usage = {}
    rows: list[Row] = []
    for _, path in sorted(numbers.items()):
        rows += read_predictions(path)  # all of them, before anything is made of them
        usage = add_usage(usage, _read_head(path).get("usage", {}))
    with EvaluationFolder.begin(out, {**heads[first], "part": None}) as folder:
        for row in rows:
            folder.append(row)
        folder.used(usage)
        return folder.finish()


def add_usage(one: Usage, other: Usage) -> Usage:
    """
    >>> add_usage({"seconds": 1.0, "search": {"requests": 2}}, {"seconds": 0.5, "search": {"requests": 1, "hits": 4}})
    {'seconds': 1.5, 'search': {'requests': 3, 'hits': 4}}
    """
    total = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            total[name] = add_usage(total.get(name, {}), value)
        else:
            total[name] = total.get(name, 0) + value
    return total


def _rates(usage: Usage, rows: Sequence[Row], price: Sequence[float] | None) -> Usage:
    """What a question, and what a right answer, took: seconds of work and, where prices are known, dollars.

    ``price`` is that of a million tokens, of prompts and of completions. They are counted by the server that charges
    for them, or else as in the rows.
    """
    right = sum(float(row["exact_match"]) for row in rows if not row["failed"])
    totals = {"seconds": usage.get("seconds", 0.0)}
    cost = usage.get("search", {}).get("cost", 0.0)
    for dollars, charged, counted in zip(price or (), _CHARGED, _COUNTED, strict=False):
        tokens = usage.get("engine", {}).get(charged) or sum(row.get(counted, 0) for row in rows)
        cost += dollars * tokens / 1e6
    if cost:
        totals["cost"] = cost
    rates = {f"{name}_per_question": total / len(rows) for name, total in totals.items()} if rows else {}
    rates |= {f"{name}_per_right_answer": total / right for name, total in totals.items()} if right else {}
    return {**usage, **({"cost": cost} if cost else {}), **rates}


def _whole_rows(path: Path) -> list[Row]:
    """The rows of an unfinished file, the last of each key; what follows the last newline was torn by a kill."""
    file = path / PREDICTIONS
    lines = file.read_bytes().split(b"\n")[:-1] if file.is_file() else []
    rows: dict[Key, Row] = {}
    for number, line in enumerate(lines, start=1):
        place = f"{file}:{number}"
        try:
            found = json.loads(line)
            if not isinstance(found, dict):
                raise ValueError(f"got {type(found).__name__}")
            row = checked_row(found, place)
        except ValueError as error:
            raise UserError(f"{place}: expected one JSON object a line: {error}; remove the line") from error
        rows[key_of(row)] = row
    return list(rows.values())


def _read_head(path: Path) -> dict[str, Any]:
    file = path / HEAD
    try:
        head = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: expected how an evaluation is made: {error}") from error
    if not isinstance(head, dict) or {key: head.get(key) for key in FORMAT} != FORMAT:
        raise UserError(f"{file}: expected {FORMAT}; evaluate again with this version of searchr1")
    return head


def _write_head(path: Path, settings: Mapping[str, Any], usage: Usage) -> None:
    with replacing(path / HEAD) as stream:
        stream.write(encode({**FORMAT, "settings": settings, "usage": usage}, indent=2) + b"\n")


def locked(path: Path) -> IO[bytes]:
    """Nobody else writes the folder until this is closed. Raises ``UserError`` where somebody does."""
    lock = (path / LOCK).open("ab")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise UserError(f"{path}: another process is writing it; wait for its end or use another --out") from None
    return lock
