"""Student's t, against the tables that everybody has, and verdicts counted by hand."""

from __future__ import annotations

import math

import pytest

from searchr1.studies.intervals import Interval, interval, paired, t_quantile, verdict

TABLE = {1: 12.7062, 2: 4.3027, 3: 3.1824, 4: 2.7764, 5: 2.5706, 9: 2.2622, 10: 2.2281, 30: 2.0423, 120: 1.9799}
"""Two-sided 95%, as printed at the end of every textbook."""


@pytest.mark.parametrize(("degrees", "expected"), TABLE.items())
def test_quantiles_of_the_tables(degrees: int, expected: float) -> None:
    assert t_quantile(degrees) == pytest.approx(expected, abs=6e-5)


def test_quantiles_that_have_a_closed_form() -> None:
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-9)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-9)


def test_no_degrees_of_freedom() -> None:
    with pytest.raises(ValueError, match="at least 1 degree"):
        t_quantile(0)


def test_an_interval_by_hand() -> None:
    # mean 0.6; deviations -0.1, 0, 0.1: standard deviation 0.1; 4.30265 x 0.1 / sqrt(3) = 0.248414
    found = interval([0.5, 0.6, 0.7])
    assert (found.mean, found.low, found.high, found.n) == pytest.approx((0.6, 0.351586, 0.848414, 3), abs=1e-6)
    assert interval([0.5]) == Interval(0.5, None, None, 1)
    assert interval([0.5, 0.5]) == Interval(0.5, 0.5, 0.5, 2)
    with pytest.raises(ValueError, match="no values"):
        interval([])


def test_differences_are_paired_by_seed() -> None:
    # The seeds differ a lot, the variants by 0.1, 0.1 and 0.1 + 0.03: mean 0.11, standard deviation 0.0173205
    higher, lower = {0: 0.9, 1: 0.5, 2: 0.23, 7: 0.0}, {0: 0.8, 1: 0.4, 2: 0.1, 8: 1.0}
    found = paired(higher, lower)
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(0.11), 3)
    assert (found.low, found.high) == pytest.approx((0.11 - 0.0430265, 0.11 + 0.0430265), abs=1e-6)
    assert verdict(found) == "agrees"
    assert verdict(paired(lower, higher)) == "disagrees"
    assert paired({0: 1.0}, {1: 1.0}) is None


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.01, 0.2, "agrees"),
        (-0.2, -0.01, "disagrees"),
        (-0.1, 0.3, "cannot tell"),
        (0.0, 0.3, "cannot tell"),
        (-0.3, 0.0, "cannot tell"),
        (None, None, "cannot tell"),
    ],
)
def test_verdicts(low: float | None, high: float | None, expected: str) -> None:
    assert verdict(Interval(0.1, low, high, 3)) == expected
