"""Every alarm fires on its bad history at the exact step, and never on a good one."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.alarms.settings import NAMES, Alarms
from searchr1.alarms.watches import WATCHES, Alarm, check, numerical_alarm
from searchr1.errors import NumericalError, UserError
from searchr1.run_files import finite

GOOD = {
    "train/exact_match": 0.6,
    "train/entropy": 0.5,
    "train/correct_logprob": -0.4,
    "train/searches": 1.8,
    "train/valid_actions": 0.95,
    "tokens/policy": 120.0,
    "train/kl": 0.002,
    "train/grad_norm": 0.4,
    "train/mismatch_kl": 0.0004,
    "train/mismatch_max": 1.2,
    "train/reward": 0.6,
    "train/zero_variance_groups": 0.3,
}
Row = dict[str, Any]


def history(steps: int, change: Callable[[int], Row] = lambda step: {}) -> list[Row]:
    return [{"step": step, **GOOD, **change(step)} for step in range(1, steps + 1)]


def firings(rows: list[Row], alarms: Alarms | None = None) -> list[Alarm]:
    alarms = alarms or Alarms()
    return [alarm for end in range(1, len(rows) + 1) for alarm in check(rows[:end], alarms)]


def after(step: int, **values: float) -> Callable[[int], Row]:
    """From ``step`` on, ``__`` for the slash of a name."""
    return lambda at: {name.replace("__", "/"): value for name, value in values.items()} if at >= step else {}


def test_every_alarm_has_a_name_that_can_be_ignored() -> None:
    assert tuple(WATCHES) == NAMES


@pytest.mark.parametrize(
    ("name", "level", "value", "limit", "change"),
    [
        ("reward", "critical", 0.2, 0.3, after(31, train__exact_match=0.2)),
        ("entropy", "critical", 1.6, 1.5, after(31, train__entropy=1.6)),
        ("valid_actions", "critical", 0.4, 0.475, after(31, train__valid_actions=0.4)),
        ("likelihood", "warning", -0.8, -0.55, after(31, train__correct_logprob=-0.8)),
        ("searches", "warning", 0.0, 0.18, after(31, train__searches=0.0)),
        ("signal", "warning", 1.0, 1.0, after(31, train__zero_variance_groups=1.0)),
        ("length", "warning", 400.0, 360.0, after(31, tokens__policy=400.0)),
        ("kl", "warning", 0.3, 0.1, after(31, train__kl=0.3)),
        ("grad_norm", "warning", 7.0, 6.0, after(31, train__grad_norm=7.0)),
        ("mismatch", "warning", 0.06, 0.05, after(31, train__mismatch_kl=0.06)),
        ("mismatch", "warning", 11.0, 10.0, after(31, train__mismatch_max=11.0)),
    ],
)
def test_a_bad_history_fires_when_most_of_a_window_is_bad(
    name: str, level: str, value: float, limit: float, change: Callable[[int], Row]
) -> None:
    fired = firings(history(36, change))
    assert {(alarm.name, alarm.level) for alarm in fired} == {(name, level)}
    assert [alarm.step for alarm in fired] == [33, 34, 35, 36]  # the median of five: three bad rows
    assert fired[0].value == pytest.approx(value)
    assert fired[0].limit == pytest.approx(limit)
    assert fired[0].metric in GOOD
    assert not firings(history(36, change), Alarms(ignore=(name,)))


def test_a_message_says_what_is_wrong_and_what_to_do() -> None:
    (alarm, *_) = firings(history(33, after(31, train__correct_logprob=-0.8)))
    assert alarm.message.startswith("right trajectories lost likelihood: -0.80 nats a token now, -0.40 at best")
    assert "algorithm.llds = 0.1" in alarm.message


def test_certainty_is_alarming_only_while_the_policy_gets_worse() -> None:
    sure = firings(history(36, after(31, train__entropy=0.001)))
    assert sure == []
    stuck = firings(history(36, after(31, train__entropy=0.001, train__exact_match=0.4)))
    assert [(alarm.name, alarm.step) for alarm in stuck] == [("entropy", step) for step in (33, 34, 35, 36)]
    assert stuck[0].limit == pytest.approx(0.01)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_number_that_is_not_finite_fires_at_once(value: float | None) -> None:
    rows = history(3, lambda step: {"train/loss": value} if step == 2 else {})
    (alarm,) = firings(rows)
    assert (alarm.name, alarm.level, alarm.step, alarm.metric) == ("nonfinite", "critical", 2, "train/loss")
    assert not firings(rows, Alarms(ignore=("nonfinite",)))


def test_an_error_of_the_update_is_an_alarm() -> None:
    alarm = numerical_alarm(7, NumericalError("update 6: the loss is nan; the weights were not updated"))
    assert (alarm.name, alarm.level, alarm.step) == ("nonfinite", "critical", 7)
    assert alarm.message.startswith("update 6: the loss is nan; the weights were not updated. Lower")


def test_rows_read_back_from_the_file_judge_as_those_in_memory() -> None:
    def change(step: int) -> Row:
        return {"train/exact_match": math.nan if step == 20 else 0.6 if step < 31 else 0.2}

    rows = history(36, change)
    read = [json.loads(json.dumps(finite(row))) for row in rows]
    assert [(a.name, a.step, a.message) for a in firings(rows)] == [(a.name, a.step, a.message) for a in firings(read)]
    assert [alarm.step for alarm in firings(read)] == [20, 33, 34, 35, 36]


def test_a_missing_metric_silences_its_alarm_alone() -> None:
    assert check([], Alarms()) == []
    assert firings([{"step": step} for step in range(1, 30)]) == []
    bad = history(36, after(31, train__exact_match=0.1, train__kl=0.9))
    for row in bad[30:]:
        del row["train/exact_match"]
    assert {alarm.name for alarm in firings(bad)} == {"kl"}


def test_nothing_but_nonfinite_fires_during_warmup() -> None:
    wild = history(10, lambda step: {"train/kl": 9.0, "train/mismatch_kl": 9.0})
    assert firings(wild) == []
    assert [alarm.step for alarm in firings([*wild, {**wild[-1], "step": 11}])] == [11, 11]
    assert [alarm.step for alarm in firings(wild, Alarms(warmup=3))][:2] == [4, 4]


def test_a_solved_task_teaches_nothing_and_that_is_fine() -> None:
    assert firings(history(36, after(31, train__zero_variance_groups=1.0, train__exact_match=0.95))) == []


def test_one_or_two_bad_rows_fire_nothing() -> None:
    def change(step: int) -> Row:
        spike = {"train/entropy": 5.0, "train/grad_norm": 500.0, "train/exact_match": 0.0, "train/kl": 2.0}
        return spike if step % 9 in (3, 4) else {}

    assert firings(history(60, change)) == []


def test_what_was_never_there_cannot_collapse() -> None:
    rows = history(36, lambda step: {"train/exact_match": 0.09, "train/searches": 0.4, "train/valid_actions": 0.15})
    assert firings([*rows, *({**row, "step": row["step"] + 36} for row in history(6, lambda step: {
        "train/exact_match": 0.0, "train/searches": 0.0, "train/valid_actions": 0.0}))]) == []  # fmt: skip


def test_critical_ones_come_first() -> None:
    fired = check(history(36, after(31, train__kl=0.9, train__exact_match=0.1)), Alarms())
    assert [alarm.name for alarm in fired] == ["reward", "kl"]


@given(
    st.fixed_dictionaries({name: st.floats(1e-6, 1e6) for name in GOOD}),
    st.integers(1, 40),
)
def test_a_constant_history_never_fires(values: dict[str, float], steps: int) -> None:
    values |= {"train/kl": 0.01, "train/mismatch_kl": 1e-3, "train/mismatch_max": 1.0}  # these have absolute limits,
    values |= {"train/zero_variance_groups": 0.5}  # and this one too
    assert check([{"step": step, **values} for step in range(1, steps + 1)], Alarms()) == []


@given(st.integers(0, 10**6), st.floats(0.05, 0.9), st.sampled_from([16, 64, 320]))
def test_noise_alone_never_fires(seed: int, skill: float, trajectories: int) -> None:
    """Exact match as a mean of coin tosses, everything else with a deviation of a third."""
    draw = random.Random(seed)

    def row(step: int) -> Row:
        hits = sum(draw.random() < skill for _ in range(trajectories))
        noisy = {name: value * draw.lognormvariate(0, 0.33) for name, value in GOOD.items()}
        return {"step": step, **noisy, "train/exact_match": hits / trajectories, "train/mismatch_max": 1.0}

    rows = [row(step) for step in range(1, 61)]
    assert [alarm.name for end in range(11, 61, 7) for alarm in check(rows[:end], Alarms())] == []


@given(st.integers(0, 10**6))
def test_learning_never_fires(seed: int) -> None:
    """Exact match rises, the entropy falls to almost nothing, gradients grow as samples get rarer: a healthy run."""
    draw = random.Random(seed)

    def row(step: int) -> Row:
        skill = 1 / (1 + math.exp(-(step - 30) / 8))
        return {
            "step": step,
            "train/exact_match": min(1.0, max(0.0, 0.05 + 0.85 * skill + draw.gauss(0, 0.05))),
            "train/entropy": (0.5 - 0.48 * skill) * draw.lognormvariate(0, 0.5),
            "train/correct_logprob": -(0.5 - 0.48 * skill) * draw.lognormvariate(0, 0.5),
            "train/grad_norm": (0.4 + 1.2 * skill) * draw.lognormvariate(0, 0.5),
            "train/kl": 0.002 * draw.lognormvariate(0, 1.5),
            "train/searches": 1.9 - 0.7 * skill + draw.gauss(0, 0.1),
            "tokens/policy": 22 - 3 * skill + draw.gauss(0, 1),
        }

    rows = [row(step) for step in range(1, 91)]
    assert [alarm.name for end in range(11, 91, 8) for alarm in check(rows[:end], Alarms())] == []


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ignore": ("entrpy",)}, r"alarms\.ignore: there is no alarm 'entrpy'; did you mean 'entropy'\?"),
        ({"warmup": 0}, r"alarms\.warmup: expected at least 1, got 0"),
        ({"confirm": -1}, r"alarms\.confirm: expected at least 0, got -1"),
        ({"kl": 0.0}, r"alarms\.kl: expected a number above 0, got 0\.0"),
        ({"grad_norm_rise": math.nan}, r"alarms\.grad_norm_rise: expected a number above 0, got nan"),
        ({"reward_fall": 1.0}, r"alarms\.reward_fall: expected a share between 0 and 1, got 1\.0"),
        ({"rollback_factor": 1.5}, r"alarms\.rollback_factor: expected above 0 and at most 1, got 1\.5"),
    ],
)
def test_wrong_settings_are_user_errors(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Alarms(**setting)
