"""pass@k and the majority vote, by counting all draws."""

from __future__ import annotations

import itertools
from statistics import fmean

import pytest
from evaluations import prediction
from hypothesis import given
from hypothesis import strategies as st

from searchr1.evaluation.bootstrap import macro_interval, mean_interval
from searchr1.evaluation.repeated import majority_vote, pass_at, repeated_figures


@given(st.lists(st.integers(0, 1), min_size=1, max_size=7), st.data())
def test_pass_at_k_is_the_share_of_draws_with_a_right_one(correct: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(correct)))
    assert pass_at(correct, k) == pytest.approx(fmean(max(draw) for draw in itertools.combinations(correct, k)))


def test_pass_at_k_of_nothing() -> None:
    for k in (0, 3):
        with pytest.raises(ValueError, match=f"expected k of 1 to 2 samples, got {k}"):
            pass_at([1, 0], k)
    with pytest.raises(ValueError, match="right \\(1\\) or wrong \\(0\\)"):
        pass_at([0.5, 1], 1)


@pytest.mark.parametrize(
    ("predictions", "correct", "expected"),
    [
        (["the Nile", "Nile!", "Amazon"], [1, 1, 0], 1.0),
        (["Nile", "Amazon", "amazon"], [1, 0, 0], 0.0),
        (["Nile", "Amazon", "Rhine"], [1, 0, 0], 1 / 3),
        (["Nile", "USA", "usa", "nile"], [1, 0, 0, 1], 0.5),
        ([None, None, " ", "Nile"], [0, 0, 0, 1], 1.0),
        ([None, ""], [0, 0], 0.0),
        ([], [], 0.0),
    ],
)
def test_majority_by_hand(predictions: list[str | None], correct: list[float], expected: float) -> None:
    assert majority_vote(predictions, correct) == pytest.approx(expected)
    assert majority_vote(predictions[::-1], correct[::-1]) == pytest.approx(expected)


def test_majority_needs_a_score_for_every_answer() -> None:
    with pytest.raises(ValueError, match="got 1 and 0"):
        majority_vote(["x"], [])


def rows(dataset: str, questions: list[list[float | None]]) -> list[dict[str, object]]:
    return [
        prediction(dataset, str(number), value, sample)
        for number, samples in enumerate(questions)
        for sample, value in enumerate(samples)
    ]


def test_the_figures_of_four_samples() -> None:
    found = repeated_figures(rows("nq", [[1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]]))
    assert list(found["pass_at"]) == ["1", "2", "4"]
    values = {k: figure["value"] for k, figure in found["pass_at"].items()}
    assert values == pytest.approx({"1": 0.75 / 3, "2": (5 / 6 + 0 + 0.5) / 3, "4": 2 / 3})
    assert found["majority"]["value"] == pytest.approx(0.5 / 3)
    expected = mean_interval([0.5, 0.0, 0.25])
    assert tuple(found["pass_at"]["1"].values()) == expected
    assert list(found["pass_at"]["1"]) == list(found["majority"]) == ["value", "ci_low", "ci_high"]


def test_failed_samples_are_left_out_and_shorten_k() -> None:
    found = repeated_figures(rows("nq", [[1, None, 0, None], [0, 1, 1, 1], [None] * 4]))
    values = {k: figure["value"] for k, figure in found["pass_at"].items()}
    assert values == pytest.approx({"1": (0.5 + 0.75) / 2, "2": 1.0, "4": 1.0})
    assert repeated_figures(rows("nq", [[None]])) == {"pass_at": {}, "majority": None}


def test_data_sets_weigh_alike() -> None:
    many, few = [[1.0, 0.0]] * 6, [[1.0, 1.0]] * 2
    found = repeated_figures(rows("nq", many) + rows("popqa", few))
    assert tuple(found["pass_at"]["1"].values()) == macro_interval([[0.5] * 6, [1.0] * 2])
    assert found["pass_at"]["1"]["value"] == 0.75


@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, None]), min_size=3, max_size=3), min_size=1), st.randoms())
def test_order_changes_nothing(questions: list[list[float | None]], chance: object) -> None:
    given_rows = rows("nq", questions)
    found = repeated_figures(given_rows)
    chance.shuffle(given_rows)  # type: ignore[attr-defined]
    again = repeated_figures(given_rows)
    assert again["majority"] == pytest.approx(found["majority"]) if found["majority"] else again == found
    assert all(again["pass_at"][k] == pytest.approx(figure) for k, figure in found["pass_at"].items())
