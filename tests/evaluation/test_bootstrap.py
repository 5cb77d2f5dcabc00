import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.evaluation import bootstrap
from searchr1.evaluation.bootstrap import (
    macro_interval,
    mean_interval,
    paired_difference,
    paired_macro_difference,
    wilson,
)

VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)
ROUNDING = 1e-12


@settings(deadline=None)
@given(VALUES, st.integers(0, 3))
def test_interval_contains_the_mean_and_stays_within_the_values(values: list[float], seed: int) -> None:
    mean, low, high = mean_interval(values, seed, resamples=50)
    assert mean == pytest.approx(math.fsum(values) / len(values))
    assert low <= mean <= high
    least, most = (0.0, 1.0) if set(values) <= {0.0, 1.0} else (min(values), max(values))
    assert least - ROUNDING <= low
    assert high <= most + ROUNDING


@settings(deadline=None)
@given(VALUES)
def test_same_seed_same_interval_in_any_order(values: list[float]) -> None:
    assert mean_interval(values, 7, 50) == pytest.approx(mean_interval(values[::-1], 7, 50))
    assert mean_interval(values, 7, 50) == mean_interval(values, 7, 50)


def test_other_seeds_give_other_intervals() -> None:
    values = list(np.linspace(0, 1, 40))
    assert mean_interval(values, 0) != mean_interval(values, 1)


def test_binary_interval_agrees_with_the_normal_approximation() -> None:
    mean, low, high = mean_interval([1.0] * 300 + [0.0] * 700)
    half = 1.96 * math.sqrt(0.3 * 0.7 / 1000)
    assert mean == pytest.approx(0.3)
    assert (low, high) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)


def test_agrees_with_resampling_the_indices() -> None:
    values = np.random.default_rng(5).beta(0.3, 0.7, size=80)
    picks = np.random.default_rng(6).integers(0, 80, size=(20_000, 80))
    expected = np.quantile(values[picks].mean(axis=1), (0.025, 0.975))
    assert mean_interval(values.tolist(), 0, 20_000)[1:] == pytest.approx(tuple(expected), abs=0.005)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).random((300, 100)) < 0.4
    hits = [low <= 0.4 <= high for _, low, high in (mean_interval(row.astype(float), 1, 400) for row in draws)]
    assert 0.91 <= np.mean(hits) <= 0.98


def test_chunks_change_nothing_and_bound_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).random(500)
    whole = mean_interval(values, 3, 100)
    monkeypatch.setattr(bootstrap, "_CELLS", 10 * values.size)
    tracemalloc.start()
    assert mean_interval(values, 3, 100) == whole
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 500 * 100 * 8 / 2


def test_macro_interval_weighs_the_groups_alike() -> None:
    mean, low, high = macro_interval([[1.0] * 50 + [0.0] * 50, [0.0]], 0)
    assert mean == 0.25
    # Wilson's 0.4038 to 0.5962 of 50 in 100 and 0 to 0.7935 of 0 in 1, side by side
    assert (low, high) == pytest.approx((0.25 - 0.0962 / 2, 0.25 + math.hypot(0.0962, 0.7935) / 2), abs=1e-4)
    assert macro_interval([[0.0, 1.0, 1.0]]) == pytest.approx(mean_interval([0.0, 1.0, 1.0]))
    assert macro_interval([[0.5, 0.1, 0.2]]) == pytest.approx(mean_interval([0.5, 0.1, 0.2]))


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(0, 10, 0.0, 0.277533), (1, 10, 0.017876, 0.404150), (5, 10, 0.236593, 0.763407), (125, 125, 0.970184, 1.0)],
)
def test_wilson_as_others_compute_it(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-6)
    assert mean_interval([1.0] * successes + [0.0] * (n - successes))[1:] == wilson(successes, n)


def test_wilson_of_nothing() -> None:
    for wrong in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(ValueError, match="expected 0 to n successes"):
            wilson(*wrong)


def test_a_macro_difference_is_the_mean_of_the_sets_resampled_apart() -> None:
    a, b = [0.0, 1.0] * 50, [1.0, 1.0, 0.0, 1.0] * 25
    alone = paired_difference(a, b, 3, 4000)
    assert paired_macro_difference([(a, b)], 3, 4000)[:3] == pytest.approx(alone[:3], abs=0.02)
    four = paired_macro_difference([(a, b)] * 4, 3, 4000)
    assert four[0] == alone[0] == 0.25
    assert four[2] - four[1] == pytest.approx((alone[2] - alone[1]) / 2, rel=0.1)
    assert four[3] == pytest.approx(2 / 4001)
    with pytest.raises(ValueError, match="no sets"):
        paired_macro_difference([])
    with pytest.raises(ValueError, match="equal number, got 1 and 2"):
        paired_macro_difference([([1.0], [1.0, 0.0])])


def test_equal_groups_are_resampled_independently() -> None:
    group = [0.0, 1.0] * 50
    one = mean_interval(group)
    four = macro_interval([group] * 4)
    assert four[2] - four[1] == pytest.approx((one[2] - one[1]) / 2, rel=0.2)


def test_paired_difference_is_b_minus_a_and_pairs_matter() -> None:
    a = [0.0, 1.0] * 100
    b = [min(1.0, value + (index % 20 == 0)) for index, value in enumerate(a)]  # ten more right, none more wrong
    difference, low, high, p_value = paired_difference(a, b)
    assert difference == pytest.approx(0.05)
    assert 0.0 < low < 0.05 < high < 0.1
    assert p_value < 0.01
    assert paired_difference(a, list(reversed(b)))[3] > 0.1  # the same means, unpaired


def test_swapping_the_sides_changes_the_sign_only() -> None:
    generator = np.random.default_rng(2)
    a, b = generator.integers(0, 2, size=(2, 60)).astype(float)
    there, back = paired_difference(a, b, resamples=20_000), paired_difference(b, a, resamples=20_000)
    assert back[0] == -there[0]
    assert back[1:3] == pytest.approx((-there[2], -there[1]), abs=0.01)
    assert back[3] == pytest.approx(there[3], abs=0.03)


def test_p_values_at_the_ends() -> None:
    assert paired_difference([0.5] * 4, [0.5] * 4) == (0.0, 0.0, 0.0, 1.0)
    assert paired_difference([0.0] * 4, [1.0] * 4, resamples=999) == (1.0, 1.0, 1.0, 0.002)


def test_p_values_are_uniform_when_nothing_differs() -> None:
    pairs = np.random.default_rng(3).integers(0, 2, size=(300, 2, 80)).astype(float)
    p_values = np.array([paired_difference(a, b, 4, 400)[3] for a, b in pairs])
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values < 0.5) == pytest.approx(0.5, abs=0.1)


def test_wrong_input() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_interval([])
    with pytest.raises(ValueError, match="no values"):
        paired_difference([], [])
    with pytest.raises(ValueError, match="no groups"):
        macro_interval([])
    with pytest.raises(ValueError, match="no values"):
        macro_interval([[1.0], []])
    with pytest.raises(ValueError, match="finite"):
        mean_interval([0.0, math.nan])
    with pytest.raises(ValueError, match="equal number, got 1 and 2"):
        paired_difference([0.0], [0.0, 1.0])
    with pytest.raises(ValueError, match="resamples must be at least 1, got 0"):
        mean_interval([1.0], resamples=0)
