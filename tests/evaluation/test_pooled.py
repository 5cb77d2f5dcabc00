"""Seeds x questions: by hand, and as the analysis of variance has it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.evaluation.pooled import pooled_difference, pooled_interval
from searchr1.evaluation.student import t_quantile

TABLE = [[1, 0, 1, 0], [1, 1, 1, 0]]
CELLS = st.integers(0, 1).map(float)


def test_an_interval_by_hand() -> None:
    # Questions' means 1, .5, 1, 0: variance .229167; seeds' means .5, .75: variance .03125. What is left, question by
    # question: +-.125, except the second: -+.375 -> sum of squares .375 over 3 degrees. Variances of the mean:
    questions, seeds, rest = 0.229167 / 4, 0.03125 / 2, 0.375 / 3 / 8
    variance = questions + seeds - rest
    assert seeds == rest == 0.015625  # so all of it is the questions'
    degrees = math.floor(10 * variance**2 / (questions**2 / 3 + seeds**2 / 1 + rest**2 / 3)) / 10
    half = t_quantile(degrees) * math.sqrt(variance)
    assert pooled_interval([TABLE]) == pytest.approx((0.625, 0.625 - half, 0.625 + half), abs=1e-5)


def test_seeds_that_differ_make_it_wide() -> None:
    # Three seeds, each wrong or right throughout: what is known is three values 0, 1, 1.
    table = [[0.0] * 500, [1.0] * 500, [1.0] * 500]
    mean, low, high = pooled_interval([table])
    error = math.sqrt(1 / 3) / math.sqrt(3)
    assert mean == pytest.approx(2 / 3)
    assert (high - low) / 2 == pytest.approx(t_quantile(2) * error)


def test_equal_seeds_leave_the_questions() -> None:
    values = np.random.default_rng(0).integers(0, 2, 400).astype(float)
    _, low, high = pooled_interval([[values, values, values]])
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / 20, rel=0.01)
    assert pooled_interval([[[1.0, 1.0], [1.0, 1.0]]]) == (1.0, 1.0, 1.0)


def test_a_seeds_luck_is_shared_by_the_sets() -> None:
    lucky = [[[0.0] * 50, [1.0] * 50]] * 4  # four sets do not make four times as many seeds
    assert pooled_interval(lucky) == pytest.approx(pooled_interval(lucky[:1]))


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=2, max_size=9), st.permutations(range(3)), st.randoms())
def test_order_changes_nothing(columns: list[tuple[float, ...]], seeds: list[int], chance: object) -> None:
    found = pooled_interval([np.array(columns).T.tolist()])
    chance.shuffle(columns)  # type: ignore[attr-defined]
    shuffled = np.array(columns).T[seeds]
    assert pooled_interval([shuffled.tolist()]) == pytest.approx(found)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS, CELLS, CELLS), min_size=2, max_size=9))
def test_exchange_flips_the_sign(columns: list[tuple[float, ...]]) -> None:
    table = np.array(columns).T
    a, b = table[:2].tolist(), table[2:].tolist()
    difference, low, high, p_value = pooled_difference([a], [b])
    assert pooled_difference([b], [a]) == pytest.approx((-difference, -high, -low, p_value))
    assert low <= difference <= high
    assert (p_value < 0.05) == (low > 0 or high < 0) or p_value == pytest.approx(0.05, abs=1e-3)


def test_differences_pair_the_questions_and_not_the_seeds() -> None:
    generator = np.random.default_rng(1)
    hard = generator.random(300) < 0.5
    a = np.array([hard, hard]).astype(float)
    b = a.copy()
    b[:, :20] = 1.0
    difference, low, high, p_value = pooled_difference([a.tolist()], [b.tolist()])
    assert difference == pytest.approx(float((b - a).mean()))
    assert 0 < low < difference < high
    assert p_value < 0.01
    one, _, _, alone = pooled_difference([a[:1].tolist()], [b[:1].tolist()])
    assert (one, alone) == (pytest.approx(difference), pytest.approx(p_value, rel=0.2))
    assert pooled_difference([[[0, 0]]], [[[1, 1]]]) == (1.0, 1.0, 1.0, 0.0)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="no sets"):
        pooled_interval([])
    with pytest.raises(ValueError, match="at least two seeds, got one"):
        pooled_interval([[[0, 1]]])
    with pytest.raises(ValueError, match="the same seeds in every set"):
        pooled_interval([TABLE, [[0, 1]]])
    with pytest.raises(ValueError, match="at least two questions"):
        pooled_interval([[[0], [1]]])
    with pytest.raises(ValueError, match="finite"):
        pooled_interval([[[0, math.nan], [1, 1]]])
    with pytest.raises(ValueError, match="the same questions on both sides"):
        pooled_difference([TABLE], [[[0, 1]]])
