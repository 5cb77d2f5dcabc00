"""Student's t, against the tables that everybody has."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.evaluation.student import t_quantile, t_tail

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}
"""Two-sided 95%, as printed at the end of every textbook."""


@pytest.mark.parametrize(("degrees", "expected"), TABLE.items())
def test_quantiles_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=6e-5)


def test_quantiles_that_have_a_closed_form() -> None:
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-9)


def test_no_degrees_of_freedom() -> None:
    for wrong in (0, 0.5, math.nan):
        with pytest.raises(ValueError, match="at least 1 degree"):
            t_quantile(wrong)
        with pytest.raises(ValueError, match="at least 1 degree"):
            t_tail(1.0, wrong)


def test_degrees_need_not_be_whole_and_the_expansion_joins_on() -> None:
    assert t_quantile(2) > t_quantile(2.5) > t_quantile(3)
    assert t_quantile(200) == pytest.approx(1.971896, abs=1e-6)  # the tables of R: qt(0.975, 200)
    assert t_quantile(200) > t_quantile(200.001) > t_quantile(200.1)
    assert t_quantile(200.001) == pytest.approx(t_quantile(200), abs=1e-6)
    assert t_quantile(1e9) == pytest.approx(1.959963985, abs=1e-8)


@given(st.floats(1, 1000))
def test_the_tail_beyond_the_quantile_is_five_percent(degrees: float) -> None:
    assert t_tail(t_quantile(degrees), degrees) == pytest.approx(0.05, abs=2e-5)
    assert t_tail(-t_quantile(degrees), degrees) == t_tail(t_quantile(degrees), degrees)


def test_tails_that_have_a_closed_form() -> None:
    assert t_tail(1.0, 1) == pytest.approx(0.5)  # Cauchy
    assert t_tail(1.0, 2) == pytest.approx(1 - 1 / math.sqrt(3))
    assert t_tail(0.0, 5) == t_tail(0.0, 5000) == 1.0
    assert t_tail(40.0, 1e6) == pytest.approx(0.0, abs=1e-12)
