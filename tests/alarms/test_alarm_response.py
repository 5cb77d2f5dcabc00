"""What is done about alarms: health of checkpoints, where a rollback goes, what is kept, and when a run gives up."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.alarms.response import (
    Response,
    Stability,
    alarmed_steps,
    healthy_checkpoints,
    respond,
    rollback_target,
    worth_keeping,
)
from searchr1.alarms.settings import Alarms
from searchr1.alarms.watches import Alarm, numerical_alarm
from searchr1.errors import NumericalError, UserError

Row = dict[str, Any]


def critical(step: int) -> Alarm:
    return Alarm("reward", "critical", step, "train/exact_match", 0.1, 0.3, "exact match fell.")


def warning(step: int) -> Alarm:
    return Alarm("kl", "warning", step, "train/kl", 0.3, 0.2, "too far.")


def logged(step: int, name: str = "reward", attempt: int = 0) -> Row:
    level = "critical" if name == "reward" else "warning"
    return {"step": step, "name": name, "level": level, "action": "log", "attempt": attempt}


def rolled(step: int, to: int, attempt: int = 0) -> Row:
    return {"step": step, "name": "reward", "action": "rollback", "to": to, "attempt": attempt}


def answer(fired: list[Alarm], state: Stability | None = None, *, checkpoints: list[int], **settings: Any) -> Response:
    history = settings.pop("history", [])
    return respond(fired, Alarms(**settings), state or Stability(), checkpoints=checkpoints, history=history)


def test_a_checkpoint_is_healthy_when_the_steps_after_it_were_quiet() -> None:
    steps = [10, 20, 30, 40, 50]
    assert healthy_checkpoints(steps, [], now=50, confirm=20) == [10, 20, 30]
    assert healthy_checkpoints(steps, [45], now=50, confirm=20) == [10, 20]
    assert healthy_checkpoints(steps, [30], now=50, confirm=20) == []  # 20 steps after 10; at 30 itself
    assert healthy_checkpoints(steps, [31], now=50, confirm=20) == [10]
    assert healthy_checkpoints(steps, [31], now=50, confirm=10) == [10, 20, 40]
    assert healthy_checkpoints(steps, [], now=50, confirm=0) == steps


def test_what_a_rollback_took_back_alarms_no_more() -> None:
    history = [logged(12, "kl"), logged(55, "kl"), logged(57), rolled(57, 40), logged(61, attempt=1)]
    assert alarmed_steps(history, Alarms()) == [12, 61]
    assert alarmed_steps(history, Alarms(), critical=True) == [61]
    assert alarmed_steps(history, Alarms(ignore=("reward",))) == [12]


def test_the_newest_healthy_checkpoint_is_the_target() -> None:
    settings = Alarms(confirm=10)
    assert rollback_target([10, 20, 30, 40], [logged(45)], settings, now=45) == 30
    assert rollback_target([10, 20, 30, 40], [logged(35), logged(45)], settings, now=45) == 20
    assert rollback_target([30, 40], [logged(35), logged(45)], settings, now=45) is None
    assert rollback_target([30, 40], [logged(35), logged(45)], Alarms(confirm=10, ignore=("reward",)), now=45) == 30


def test_warnings_count_while_a_quiet_checkpoint_is_left() -> None:
    settings = Alarms(confirm=10)
    warned = [*(logged(step, "likelihood") for step in range(25, 46)), logged(45)]
    assert rollback_target([10, 20, 30, 40], warned, settings, now=45) == 10
    assert rollback_target([20, 30, 40], warned, settings, now=45) == 30


def test_a_second_rollback_goes_further_back_or_to_the_same_place_again() -> None:
    history = [logged(57), rolled(57, 40), logged(46, attempt=1)]
    settings = Alarms(confirm=10)
    assert rollback_target([20, 40], history, settings, now=46) == 20  # 46 is within ten steps of 40
    assert rollback_target([40], history, settings, now=46) == 40  # nothing else, and 40 was healthy once
    assert rollback_target([40, 50], [*history[:2], logged(66, attempt=1)], settings, now=66) == 50
    assert rollback_target([], history, settings, now=46) is None


def test_a_collapse_before_anything_was_confirmed_goes_back_to_the_start() -> None:
    early = [logged(11)]
    settings = Alarms(confirm=10)
    assert rollback_target([0, 5, 10], early, settings, now=11) == 0
    assert rollback_target([0, 5, 10], [logged(3), *early], settings, now=11) == 0  # alarmed itself, and all the same
    assert rollback_target([5, 10], [logged(12)], settings, now=12) is None
    assert worth_keeping([0, 5, 10], early, settings, now=11, last=1) == {0, 10}


def test_warnings_are_noted_and_nothing_else_happens() -> None:
    response = answer([warning(9)], checkpoints=[])
    assert (response.action, response.state) == ("continue", Stability())
    assert response.rows == (
        {"name": "kl", "level": "warning", "step": 9, "metric": "train/kl", "value": 0.3, "limit": 0.2,
         "message": "too far.", "action": "log", "attempt": 0},
    )  # fmt: skip
    assert answer([], checkpoints=[]).rows == ()


def test_a_rollback_lowers_the_rate_and_begins_an_attempt() -> None:
    before = Stability(1, 0.5)
    response = answer([critical(57), warning(57)], before, checkpoints=[10, 20, 30, 40, 50])
    assert response.action == "rollback"
    assert response.state == Stability(2, 0.25, target=30)
    assert [(row["name"], row["action"], row["attempt"]) for row in response.rows] == [
        ("reward", "log", 1),
        ("kl", "log", 1),
        ("reward", "rollback", 1),
    ]
    assert response.rows[-1]["to"] == 30
    assert response.rows[-1]["message"] == (
        "back to step 30, the last healthy checkpoint, with the learning rate times 0.25 (rollback 2 of at most 3)"
    )


@pytest.mark.parametrize(
    ("state", "checkpoints", "settings", "why"),
    [
        (Stability(), [10, 20], {"action": "stop"}, "alarms.action is 'stop'"),
        (Stability(3, 0.125), [10, 20], {}, "alarms.max_rollbacks = 3 rollbacks are used up"),
        (
            Stability(),
            [50],
            {},
            "no healthy checkpoint to go back to (none was followed by 20 steps without an alarm)",
        ),
        (Stability(), [], {"max_rollbacks": 0}, "alarms.max_rollbacks = 0 rollbacks are used up"),
    ],
)
def test_where_it_cannot_go_back_the_run_stops_and_says_why(
    state: Stability, checkpoints: list[int], settings: dict[str, Any], why: str
) -> None:
    response = answer([critical(57)], state, checkpoints=checkpoints, **settings)
    assert (response.action, response.state) == ("stop", state)
    assert response.reason.startswith(f"step 57: exact match fell. The run stops: {why}.")
    assert "--set alarms.action=log" in response.reason
    assert [row["action"] for row in response.rows] == ["log", "stop"]


def test_log_only_logs() -> None:
    response = answer([critical(57)], checkpoints=[10], action="log")
    assert (response.action, [row["action"] for row in response.rows]) == ("continue", ["log"])


def test_rows_are_json_also_for_numbers_that_are_not_finite() -> None:
    response = answer([numerical_alarm(5, NumericalError("the loss is nan"))], checkpoints=[])
    assert json.loads(json.dumps(response.rows, allow_nan=False))[0]["value"] is None
    assert math.isnan(numerical_alarm(5, NumericalError("x")).value)


def test_the_state_survives_json() -> None:
    for state in (Stability(), Stability(2, 0.25), Stability(1, 0.5, 40)):
        assert Stability.from_json(json.loads(json.dumps(state.to_json()))) == state
    with pytest.raises(UserError, match="expected attempt, scale and target of a run's rollbacks"):
        Stability.from_json({"attempt": 1})


def test_what_is_kept() -> None:
    settings = Alarms(confirm=25)
    steps = [10, 20, 30, 40, 50, 60]
    assert worth_keeping(steps, [], settings, now=60, last=1) == {30, 40, 60}  # healthy: 30; next: 40
    assert worth_keeping(steps, [logged(58)], settings, now=60, last=1) == {30, 60}
    assert worth_keeping([10], [], settings, now=10, last=3) == {10}
    assert worth_keeping([], [], settings, now=10, last=1) == set()
    with pytest.raises(ValueError, match="at least 1 checkpoint, got 0"):
        worth_keeping(steps, [], settings, now=60, last=0)


@given(
    every=st.integers(3, 20),
    confirm=st.integers(0, 50),
    last=st.integers(1, 4),
    warnings=st.sets(st.integers(1, 120)),
    criticals=st.sets(st.integers(1, 120)),
)
def test_pruning_never_costs_the_place_to_go_back_to(
    every: int, confirm: int, last: int, warnings: set[int], criticals: set[int]
) -> None:
    """Pruned step by step, as in a run, a rollback finds a place wherever there ever was one; quiet, hardly older."""
    settings, kept, everything = Alarms(confirm=confirm), set[int](), list[int]()
    for now in range(every, 121, every):
        history = [logged(step, "kl") for step in sorted(warnings) if step <= now]
        history += [logged(step) for step in sorted(criticals) if step <= now]
        everything.append(now)
        kept = set(worth_keeping([*kept, now], history, settings, now=now, last=last))
        assert len(kept) <= last + 3
        best = rollback_target(everything, history, settings, now=now)
        found = rollback_target(kept, history, settings, now=now)
        assert (best is None) == (found is None)
        if best is not None and found is not None and not warnings:
            assert 0 <= best - found <= confirm + every


def test_how_to_go_on_is_said_where_going_on_helps() -> None:
    """Numbers that were not finite come again; an alarm about a trend can be told to be quiet."""
    stop = Alarms(action="stop")
    numbers = respond(
        [numerical_alarm(7, NumericalError("the loss is nan"))], stop, Stability(), checkpoints=[], history=[]
    )
    assert "--resume" not in numbers.reason
    assert numbers.reason.endswith("another run, which may start from the best: --set model=RUN/checkpoints/best.")
    trend = respond([critical(7)], stop, Stability(), checkpoints=[], history=[])
    assert "--resume all the same: --set alarms.action=log" in trend.reason
