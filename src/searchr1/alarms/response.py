"""What is done about alarms: which checkpoints are healthy, where to go back to, and when to give up.

``alarms.jsonl`` is the memory: every row says the ``attempt`` it belongs to, and a rollback's row says where it went.
What lies after that step belongs to a line of training that was given up.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from searchr1.alarms.settings import Alarms
from searchr1.alarms.watches import Alarm
from searchr1.errors import UserError

_ANOTHER_RUN = "Other settings need another run, which may start from the best: --set model=RUN/checkpoints/best."

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stability:
    """What a run must remember of its rollbacks, also across a kill (``RunFolder.stability``).

    >>> Stability.from_json({"attempt": 1, "scale": 0.5, "target": None})
    Stability(attempt=1, scale=0.5, target=None)
    """

    attempt: int = 0
    """How often the run was rolled back; rows of ``alarms.jsonl`` and ``rolled_back.jsonl`` carry it."""
    scale: float = 1.0
    """What the learning rate is multiplied by."""
    target: int | None = None
    """The step of a rollback that was decided and is not finished yet."""

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, row: Row) -> Stability:
        """Raises ``UserError`` where ``row`` was not written by ``to_json``."""
        match row:
            case {"attempt": int(attempt), "scale": float(scale), "target": (int() | None) as target}:
                return cls(attempt, scale, target)
        raise UserError(f"expected attempt, scale and target of a run's rollbacks, got {dict(row)}")


@dataclass(frozen=True, slots=True)
class Response:
    """What to do after a step, the rows of ``alarms.jsonl`` that say so, and the state to save before a rollback."""

    action: Literal["continue", "stop", "rollback"]
    rows: tuple[dict[str, Any], ...]
    state: Stability
    reason: str = ""
    """Why the run stops, for the user."""


def respond(
    fired: Sequence[Alarm], alarms: Alarms, state: Stability, *, checkpoints: Collection[int], history: Iterable[Row]
) -> Response:
    """What ``fired``, the alarms of the newest step, call for.

    ``checkpoints`` are the steps of those on disk, ``history`` the rows of ``alarms.jsonl`` before this step.

    >>> alarm = Alarm("reward", "critical", 57, "train/exact_match", 0.1, 0.3, "exact match fell")
    >>> response = respond([alarm], Alarms(), Stability(), checkpoints=[20, 30, 40, 50], history=[])
    >>> response.action, response.state, [row["action"] for row in response.rows]
    ('rollback', Stability(attempt=1, scale=0.5, target=30), ['log', 'rollback'])
    """
    rows = [_row(alarm, state, "log", alarm.message) for alarm in fired]
    critical = next((alarm for alarm in fired if alarm.level == "critical"), None)
    if critical is None or alarms.action == "log":
        return Response("continue", tuple(rows), state)
    target = None
    if alarms.action == "rollback" and state.attempt < alarms.max_rollbacks:
        target = rollback_target(checkpoints, [*history, *rows], alarms, now=critical.step)
    if target is None:
        reason = _why_stopped(critical, alarms, state)
        return Response("stop", (*rows, _row(critical, state, "stop", reason)), state, reason)
    after = Stability(state.attempt + 1, state.scale * alarms.rollback_factor, target)
    said = (
        f"back to step {target}, the last healthy checkpoint, with the learning rate times {after.scale:g} "
        f"(rollback {after.attempt} of at most {alarms.max_rollbacks})"
    )
    return Response("rollback", (*rows, _row(critical, state, "rollback", said) | {"to": target}), after)


def alarmed_steps(history: Iterable[Row], alarms: Alarms, *, critical: bool = False) -> list[int]:
    """Steps with an alarm (or a critical one) in the line of training that counts, not in what was rolled back.

    >>> rows = [{"step": step, "name": "kl", "level": "warning", "action": "log"} for step in (12, 57)]
    >>> rows += [{"step": 57, "name": "kl", "action": "rollback", "to": 40}]
    >>> alarmed_steps([*rows, {"step": 66, "name": "kl", "level": "warning", "action": "log"}], Alarms())
    [12, 66]
    """
    steps: list[int] = []
    for row in history:
        if row["action"] == "rollback":
            steps = [step for step in steps if step <= row["to"]]
        elif row["action"] == "log" and row["name"] not in alarms.ignore:
            steps += [row["step"]] if row["level"] == "critical" or not critical else []
    return steps


def healthy_checkpoints(checkpoints: Collection[int], alarmed: Iterable[int], *, now: int, confirm: int) -> list[int]:
    """Checkpoints, ascending, with no alarm at their step or in the ``confirm`` steps after it, all of them done.

    >>> healthy_checkpoints([10, 20, 30, 40, 50, 60], [35], now=60, confirm=10)
    [10, 20, 40, 50]
    """
    return [step for step in _quiet(checkpoints, alarmed, confirm) if now >= step + confirm]


def rollback_target(checkpoints: Collection[int], history: Iterable[Row], alarms: Alarms, *, now: int) -> int | None:
    """Where to go back to at step ``now``: the newest healthy checkpoint, or None.

    Where warnings leave none healthy, critical alarms alone count; where that does not help either, the place of the
    last rollback, which was healthy then, is tried again (with a lower rate); and at last the start, where nothing had
    gone wrong yet.

    >>> rows = [{"step": 57, "name": "kl", "action": "rollback", "to": 40}]
    >>> rows += [{"step": 46, "name": "kl", "level": "critical", "action": "log"}]
    >>> rollback_target([30, 40], rows, Alarms(), now=46), rollback_target([20, 40], rows, Alarms(), now=46)
    (40, 20)
    >>> rollback_target([0, 5, 10], rows[1:] + [{**rows[1], "step": 9}], Alarms(), now=9)
    0
    """
    there, rows = sorted(checkpoints), list(history)
    for critical in (False, True):
        alarmed = alarmed_steps(rows, alarms, critical=critical)
        if healthy := healthy_checkpoints(there, alarmed, now=now, confirm=alarms.confirm):
            return healthy[-1]
    before = [row["to"] for row in rows if row["action"] == "rollback" and row["to"] in there]
    return before[-1] if before else 0 if 0 in there else None


def worth_keeping(
    checkpoints: Collection[int], history: Iterable[Row], alarms: Alarms, *, now: int, last: int
) -> frozenset[int]:
    """The checkpoints to keep: the ``last`` newest, where a rollback would go, and the ones that are healthy next.

    The latter are one without any alarm so far, and one without a critical one: ``last`` + 3 at most, so that disks can
    be planned for. Pruned like this, a rollback finds a place wherever it would have found one without pruning.

    >>> sorted(worth_keeping([10, 20, 30, 40, 50, 60], [], Alarms(confirm=25), now=60, last=2))
    [30, 40, 50, 60]
    """
    if last < 1:
        raise ValueError(f"expected to keep at least 1 checkpoint, got {last}")
    there, rows = sorted(checkpoints), list(history)
    target = rollback_target(there, rows, alarms, now=now)
    waiting = [step for step in there if now < step + alarms.confirm]
    quiet, calm = (
        _quiet(waiting, alarmed_steps(rows, alarms, critical=critical), alarms.confirm) for critical in (False, True)
    )
    return frozenset([*there[-last:], *([] if target is None else [target]), *quiet[:1], *calm[:1]])


def _quiet(checkpoints: Iterable[int], alarmed: Iterable[int], confirm: int) -> list[int]:
    """Checkpoints, ascending, with no alarm at their step or in the ``confirm`` steps after it, so far."""
    steps = set(alarmed)
    return [step for step in sorted(checkpoints) if not any(step <= at <= step + confirm for at in steps)]


def _row(alarm: Alarm, state: Stability, action: str, message: str) -> dict[str, Any]:
    """A row of ``alarms.jsonl``: what the alarm says, and what was done."""
    value, limit = (number if math.isfinite(number) else None for number in (alarm.value, alarm.limit))
    row = dataclasses.asdict(alarm) | {"value": value, "limit": limit, "message": message}
    return row | {"action": action, "attempt": state.attempt}


def _why_stopped(alarm: Alarm, alarms: Alarms, state: Stability) -> str:
    if alarms.action == "stop":
        why = "alarms.action is 'stop'"
    elif state.attempt >= alarms.max_rollbacks:
        why = f"alarms.max_rollbacks = {alarms.max_rollbacks} rollbacks are used up"
    else:
        why = f"no healthy checkpoint to go back to (none was followed by {alarms.confirm} steps without an alarm)"
    stopped = f"step {alarm.step}: {alarm.message} The run stops: {why}."
    if alarm.name == "nonfinite":  # the same numbers would come again
        return f"{stopped} {_ANOTHER_RUN}"
    return (
        f"{stopped} To go on with --resume all the same: --set alarms.action=log, or "
        f"--set 'alarms.ignore=[\"{alarm.name}\"]'. {_ANOTHER_RUN}"
    )
