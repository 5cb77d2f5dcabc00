"""Rewards that count searches: OTC and IKEA, by the papers' formulas."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_dialogues import OTHER, decode, played, score

from searchr1.rewards.ikea import IKEA
from searchr1.rewards.otc import OTC, tool_coefficient
from searchr1.types import Trajectory


def after(searches: int, answer: str | None = "Frank Herbert") -> Trajectory:
    return played(answer, *[[OTHER]] * searches)


@pytest.mark.parametrize(
    ("searches", "expected"), [(0, 1.0), (1, math.cos(math.pi / 6)), (2, math.cos(math.pi / 4)), (4, 0.5)]
)
def test_otc_without_a_group(searches: int, expected: float) -> None:
    """cos(m pi / (2 m + c)) with the paper's c, the four searches allowed."""
    reward = OTC(form="ppo")
    assert score(reward, after(searches), [after(1)]) == pytest.approx(expected)
    assert score(OTC(form="ppo", alpha=2.0), after(searches)) == pytest.approx(2 * expected)


def test_otc_of_a_group_takes_the_fewest_searches_of_its_right_answers() -> None:
    group = [after(2), after(4), after(3), after(0, "Asimov"), after(1, None)]
    values = [score(OTC(), trajectory, group) for trajectory in group]
    # n = 2: f(4) = 2 * 2 * 4 / 6 = 8/3, sin(8/3 * pi/4); f(3) = 12/5, sin(12/5 * pi/4)
    assert values == pytest.approx([1.0, math.sin(2 * math.pi / 3), math.sin(3 * math.pi / 5), 0.0, 0.0])


def test_otc_of_a_group_in_which_nothing_had_to_be_searched() -> None:
    group = [after(0), after(1), after(4)]
    assert [score(OTC(), trajectory, group) for trajectory in group] == pytest.approx([1.0, math.sqrt(3) / 2, 0.5])


def test_otc_alone_is_the_best_of_its_group() -> None:
    assert [score(OTC(), after(3), group) for group in ([], [after(3)], [after(0, "Asimov")])] == [1.0] * 3


@given(st.integers(0, 20), st.integers(0, 20), st.floats(0.1, 50))
def test_the_coefficient_is_best_at_the_least_and_falls(least: int, more: int, smooth: float) -> None:
    here, next_one = tool_coefficient(least + more, least, smooth), tool_coefficient(least + more + 1, least, smooth)
    assert 0 < next_one < here <= 1
    assert tool_coefficient(least, least, smooth) == 1.0


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=8), st.sampled_from(["grpo", "ppo"]))
def test_otc_never_puts_a_wrong_answer_above_a_right_one(group: list[tuple[int, bool]], form: Any) -> None:
    trajectories = [after(searches, "Frank Herbert" if right else "Asimov") for searches, right in group]
    values = [score(OTC(form=form), trajectory, trajectories) for trajectory in trajectories]
    assert all((0 < value <= 1) if right else value == 0 for value, (_, right) in zip(values, group, strict=True))


@pytest.mark.parametrize(
    ("searches", "right", "wrong"), [(0, 1.6, 0.0), (1, 1.4, 0.05), (2, 1.2, 0.05), (3, 1.0, 0.05), (5, 1.0, 0.05)]
)
def test_ikea(searches: int, right: float, wrong: float) -> None:
    assert score(IKEA(decode), after(searches)) == pytest.approx(right)
    assert score(IKEA(decode), after(searches, "Asimov")) == wrong


def test_ikea_refuses_what_is_malformed_or_not_an_answer() -> None:
    assert score(IKEA(decode), played("Frank Herbert", [OTHER], thought="so")) == -1.0
    assert score(IKEA(decode), after(2, None)) == -1.0


def test_ikea_with_other_values() -> None:
    reward = IKEA(decode, known=1.0, tried=0.2, max_searches=2)
    assert [score(reward, after(n)) for n in range(4)] == [2.0, 1.5, 1.0, 1.0]
    assert score(reward, after(1, "Asimov")) == 0.2


@pytest.mark.parametrize(
    ("reward", "options", "message"),
    [
        (OTC, {"form": "both"}, "form: expected 'grpo' or 'ppo', got 'both'"),
        (OTC, {"smooth": 0.0}, "smooth: expected a finite number above 0"),
        (OTC, {"alpha": float("inf")}, "alpha: expected a finite number above 0"),
        (IKEA, {"decode": decode, "known": -1.0}, "known: expected a finite number of at least 0"),
        (IKEA, {"decode": decode, "tried": 1.5}, "tried: expected a number from 0 to 1"),
        (IKEA, {"decode": decode, "max_searches": 0}, "max_searches: expected at least 1"),
    ],
)
def test_wrong_options(reward: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        reward(**options)
