"""Intervals over seeds and verdicts, counted by hand."""

from __future__ import annotations

import pytest

from searchr1.studies.intervals import Interval, interval, paired, verdict


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
