"""Weights by step, however a recipe writes them."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.rewards import build_reward
from searchr1.rewards.schedule import Schedule, parse_weight

SPELLINGS: list[Any] = [
    {"0": 1.0, "100": 0.2},
    {100: 0.2, 0: 1},
    {"100": 0.2, "0": 1.0},
    [[0, 1.0], [100, 0.2]],
    [(0, 1.0), ("100", 0.2)],
]


@pytest.mark.parametrize("value", SPELLINGS)
def test_every_spelling(value: Any) -> None:
    schedule = parse_weight(value)
    assert schedule == Schedule(((0, 1.0), (100, 0.2)))
    assert [round(schedule.at(step), 12) for step in (0, 25, 50, 99, 100, 101)] == [1.0, 0.8, 0.6, 0.208, 0.2, 0.2]


def test_it_is_constant_before_the_first_step_that_is_named() -> None:
    schedule = parse_weight([[10, 0.0], [20, 1.0], [30, -1.0]])
    assert [schedule.at(step) for step in (0, 9, 10, 15, 20, 25, 30, 99)] == [0.0, 0.0, 0.0, 0.5, 1.0, 0.0, -1.0, -1.0]


def test_a_number_is_the_weight_of_every_step() -> None:
    assert [parse_weight(3).at(step) for step in (0, 1, 10**6)] == [3.0] * 3


steps = st.dictionaries(st.integers(0, 50), st.floats(-5, 5), min_size=1, max_size=6)


@given(steps, st.integers(0, 60))
def test_it_passes_through_its_points_and_stays_between_them(points: dict[int, float], step: int) -> None:
    schedule = parse_weight({str(at): weight for at, weight in points.items()})
    assert all(schedule.at(at) == weight for at, weight in points.items())
    left = max((at for at in points if at <= step), default=min(points))
    right = min((at for at in points if at >= step), default=max(points))
    low, high = sorted((points[left], points[right]))
    assert low - 1e-9 <= schedule.at(step) <= high + 1e-9


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0.5", "expected a finite number, or steps"),
        (None, "expected a finite number, or steps"),
        (True, "expected a finite number, or steps"),
        (float("nan"), "expected a finite number, or steps"),
        ({}, "expected a finite number, or steps"),
        ([], "expected a finite number, or steps"),
        ([0, 1.0], "expected a finite number, or steps"),
        ([[0, 1.0, 2.0]], "expected a finite number, or steps"),
        ({"0": "high"}, "expected a finite number, or steps"),
        ({"0": float("inf")}, "expected a finite number, or steps"),
        ({"start": 1.0}, "steps that are whole numbers of at least 0, got 'start'"),
        ({"²": 1.0}, "steps that are whole numbers of at least 0, got '²'"),
        ([[-1, 1.0]], "steps that are whole numbers of at least 0, got -1"),
        ([[0.5, 1.0]], "steps that are whole numbers of at least 0, got 0.5"),
        ([[True, 1.0]], "steps that are whole numbers of at least 0, got True"),
        ([[5, 1.0], [5, 2.0]], "one weight a step, step 5 has two"),
        ({"5": 1.0, "05": 2.0}, "one weight a step, step 5 has two"),
    ],
)
def test_wrong_weights(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_weight(value)


def test_a_short_form_of_a_part_may_be_a_schedule() -> None:
    reward = build_reward({"f1": [[0, 1.0], [10, 0.0]]})
    assert [reward.parts[0].weight.at(step) for step in (0, 5, 10)] == [1.0, 0.5, 0.0]


def test_a_table_of_steps_is_a_weight() -> None:
    """``exact_match = {0 = 1.0, 200 = 0.5}`` needs no ``weight =``."""
    (part, *_) = build_reward({"exact_match": {"0": 1.0, "200": 0.5}}).parts
    assert [part.weight.at(step) for step in (0, 100, 200)] == [1.0, 0.75, 0.5]
