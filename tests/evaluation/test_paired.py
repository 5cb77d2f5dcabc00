"""McNemar's test, detectable differences and Holm's correction against values made elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.evaluation.paired import detectable_difference, detectable_mean, holm, mcnemar


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_the_binomial_summed_up(only_a: int, only_b: int) -> None:
    trials = only_a + only_b
    tail = sum(math.comb(trials, k) for k in range(min(only_a, only_b) + 1))
    assert mcnemar(only_a, only_b) == pytest.approx(min(1.0, 2 * tail / 2**trials), rel=1e-11)
    assert mcnemar(only_a, only_b) == mcnemar(only_b, only_a)


def test_mcnemar_of_large_counts() -> None:
    # scipy.stats.binomtest(5000, 10300).pvalue and of (300, 680)
    assert mcnemar(5000, 5300) == pytest.approx(0.003215819673645259, rel=1e-9)
    assert mcnemar(300, 380) == pytest.approx(0.0024248687076998837, rel=1e-9)
    assert mcnemar(25_000, 26_713) < 1e-12
    assert mcnemar(25_856, 25_857) == 1.0
    assert mcnemar(0, 51_713) == 0.0  # 2^-51712 is less than the smallest number
    assert mcnemar(0, 1000) == pytest.approx(2.0**-999, rel=1e-9)
    with pytest.raises(ValueError, match="expected counts, got -1 and 3"):
        mcnemar(-1, 3)


@given(st.integers(20, 60_000), st.floats(0.02, 1))
def test_the_detectable_difference_solves_its_equation(n: int, discordance: float) -> None:
    found = detectable_difference(n, discordance)
    if found is None:
        assert n * discordance < 9
    else:
        need = 1.959964 * math.sqrt(discordance) + 0.841621 * math.sqrt(discordance - found**2)
        assert math.sqrt(n) * found == pytest.approx(need, rel=1e-5)


def test_the_test_finds_it_in_four_of_five() -> None:
    n, discordance = 400, 0.3
    found = detectable_difference(n, discordance)
    assert found is not None
    b, a = (discordance + found) / 2, (discordance - found) / 2
    draws = np.random.default_rng(0).multinomial(n, [a, b, 1 - discordance], size=2000)
    power = np.mean([mcnemar(int(x), int(y)) < 0.05 for x, y, _ in draws])
    assert power == pytest.approx(0.8, abs=0.04)


def test_detectable_at_the_ends() -> None:
    assert detectable_difference(100, 0.0) is None
    assert detectable_difference(3, 1.0) is None
    assert detectable_difference(7, 1.0) == pytest.approx(0.8874, abs=1e-4)
    assert detectable_difference(1, 0.5) is None
    for wrong in ((0, 0.5), (5, 1.5), (5, -0.1)):
        with pytest.raises(ValueError, match="expected questions and a share"):
            detectable_difference(*wrong)


def test_detectable_means() -> None:
    assert detectable_mean([[0.0, 1.0]]) == pytest.approx(2.801585 * 0.5, abs=1e-5)
    assert detectable_mean([[0.0, 1.0], [0.0, 1.0]]) == pytest.approx(2.801585 * 0.5 / math.sqrt(2), abs=1e-5)
    assert detectable_mean([[0.5, 0.5]]) is None
    assert detectable_mean([[0.0, 1.0], [1.0]]) is None
    with pytest.raises(ValueError, match="no sets"):
        detectable_mean([])


def test_holm_by_hand() -> None:
    assert holm([]) == []
    assert holm([0.02]) == [0.02]
    assert holm([0.04, 0.01, 0.2, 0.02]) == pytest.approx([0.08, 0.04, 0.2, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


@given(st.lists(st.floats(0, 1), max_size=8), st.randoms())
def test_holm_never_lowers_and_keeps_the_order(p_values: list[float], chance: object) -> None:
    adjusted = holm(p_values)
    assert all(p <= q <= 1 for p, q in zip(p_values, adjusted, strict=True))
    places = sorted(range(len(p_values)), key=lambda place: p_values[place])
    assert [adjusted[place] for place in places] == sorted(adjusted)
