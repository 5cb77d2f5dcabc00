"""Alarms and rollbacks of a run: a list for the page, marks and dotted lines for its charts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from searchr1.run_files import Row


@dataclass(frozen=True, slots=True)
class Incident:
    """One alarm for as long as it held, or what was done about it.

    ``kind`` is ``warning``, ``critical``, ``rollback`` or ``stop``.
    """

    kind: str
    name: str
    step: int
    last: int
    """The last step in which it held."""
    metric: str
    message: str
    attempt: int
    to: int | None
    """Where a rollback went."""

    @property
    def steps(self) -> str:
        return f"{self.step:,}" if self.step == self.last else f"{self.step:,}–{self.last:,}"


def incidents(rows: Iterable[Row]) -> list[Incident]:
    """Rows of alarms.jsonl, with an alarm that held over several steps in a row told once, as it began.

    >>> row = {"name": "kl", "level": "warning", "action": "log", "metric": "train/kl", "message": "m", "attempt": 0}
    >>> [(found.step, found.last) for found in incidents([{"step": step, **row} for step in (4, 5, 9)])]
    [(4, 5), (9, 9)]
    """
    found: list[Incident] = []
    open_: dict[tuple[str, int], int] = {}
    for row in rows:
        logged = row["action"] == "log"
        new = Incident(
            kind=row["level"] if logged else row["action"],
            name=row["name"],
            step=row["step"],
            last=row["step"],
            metric=row["metric"],
            message=row["message"],
            attempt=row["attempt"],
            to=row.get("to"),
        )
        place = open_.get((new.name, new.attempt)) if logged else None
        if place is not None and found[place].last >= new.step - 1 and found[place].kind == new.kind:
            found[place] = replace(found[place], last=new.step)
            continue
        if logged:
            open_[new.name, new.attempt] = len(found)
        found.append(new)
    return found


def story(found: Iterable[Incident]) -> list[str]:
    """Sentences for the head of the page: what was done about critical alarms.

    >>> story([Incident("rollback", "reward", 57, 57, "train/exact_match", "back to step 40.", 0, 40)])
    ['Step 57: reward alarm, rolled back to step 40.']
    """
    done = {"rollback": "rolled back to step", "stop": "training stopped"}
    return [
        f"Step {item.step:,}: {item.name} alarm, {done[item.kind]}{f' {item.to:,}' if item.to is not None else ''}."
        for item in found
        if item.kind in done
    ]


def taken_back(
    rows: Iterable[Row], found: Iterable[Incident], series: Callable[[list[Row]], Row]
) -> list[dict[str, Any]]:
    """The metrics of every attempt that was rolled back: ``series`` of its rows, and the step that it went back to."""
    target = {item.attempt: item.to for item in found if item.kind == "rollback"}
    attempts: dict[int, list[Row]] = {}
    for row in rows:
        if row["file"] == "metrics.jsonl":
            kept = {key: value for key, value in row.items() if key not in ("attempt", "file")}
            attempts.setdefault(row["attempt"], []).append(kept)
    return [
        {"attempt": attempt, "to": target.get(attempt), **series(attempts[attempt])} for attempt in sorted(attempts)
    ]
