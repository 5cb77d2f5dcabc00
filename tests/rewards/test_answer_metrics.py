"""Exact match, cover match and F1 on text, and on trajectories."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.ports import Reward
from searchr1.rewards.cover_match import CoverMatch, cover_match
from searchr1.rewards.exact_match import ExactMatch, exact_match
from searchr1.rewards.f1 import F1, f1
from searchr1.rewards.text import normalize
from searchr1.types import Passage, Question, Segment, Source, StopReason, Trajectory, Turn
from searchr1.types import Search as SearchAction

TEXT = st.text(alphabet="abtheTHE .-'xé ", max_size=20)
ANSWERS = st.lists(TEXT, min_size=1, max_size=3)


@pytest.mark.parametrize(
    ("prediction", "answers", "em", "cover", "token_f1"),
    [
        ("Paris", ["Paris"], 1.0, 1.0, 1.0),
        ("  the PARIS. ", ["paris"], 1.0, 1.0, 1.0),
        ("Paris, France", ["Paris"], 0.0, 1.0, 2 / 3),
        ("Paris", ["Paris, France"], 0.0, 0.0, 2 / 3),
        ("London", ["Paris", "London"], 1.0, 1.0, 1.0),
        ("startled", ["art"], 0.0, 1.0, 0.0),
        ("Herbert Frank", ["Frank Herbert"], 0.0, 0.0, 1.0),
        ("no no no", ["no"], 0.0, 1.0, 0.5),
        ("x x y", ["x x z z"], 0.0, 0.0, 4 / 7),
        ("one two three", ["one four", "two three five"], 0.0, 0.0, 2 / 3),  # the best of the two answers
        ("", ["Paris"], 0.0, 0.0, 0.0),
        ("Paris", ["---"], 0.0, 1.0, 0.0),
        ("the", ["A"], 1.0, 1.0, 1.0),
        (None, ["Paris"], 0.0, 0.0, 0.0),
        (None, [""], 0.0, 0.0, 0.0),
        ("Paris", [], 0.0, 0.0, 0.0),
    ],
)
def test_values(prediction: str | None, answers: list[str], em: float, cover: float, token_f1: float) -> None:
    assert exact_match(prediction, answers) == em
    assert cover_match(prediction, answers) == cover
    assert f1(prediction, answers) == pytest.approx(token_f1, abs=1e-12)


@given(TEXT, TEXT)
def test_exact_match_is_symmetric_and_blind_to_normalisation(a: str, b: str) -> None:
    assert exact_match(a, [b]) == exact_match(b, [a]) == float(normalize(a) == normalize(b))
    assert exact_match(a, [a.upper()]) == 1.0


@given(TEXT, ANSWERS)
def test_exact_match_implies_the_others(prediction: str, answers: list[str]) -> None:
    assert 0.0 <= f1(prediction, answers) <= 1.0
    if exact_match(prediction, answers):
        assert f1(prediction, answers) == 1.0
        assert cover_match(prediction, answers) == 1.0


@given(TEXT, ANSWERS, TEXT)
def test_another_accepted_answer_never_lowers_a_score(prediction: str, answers: list[str], more: str) -> None:
    for metric in (exact_match, cover_match, f1):
        assert metric(prediction, [*answers, more]) >= metric(prediction, answers)


@given(TEXT, TEXT)
def test_f1_is_symmetric(a: str, b: str) -> None:
    assert f1(a, [b]) == pytest.approx(f1(b, [a]))


def trajectory(answer: str | None) -> Trajectory:
    """The gold answer stands in the passage and the answer tags in the policy's ids: neither may count."""
    turn = Turn(SearchAction("<answer>Paris</answer>"), (Passage("1", "Paris", "<answer>Paris</answer>"),))
    segments = (Segment(Source.PROMPT, (1,)), Segment(Source.POLICY, (2,), (-0.1,)))
    stop = StopReason.ANSWERED if answer is not None else StopReason.OUT_OF_TURNS
    return Trajectory(Question("q", "Capital of France?", ("Paris",)), segments, (turn,), answer, stop, 0, 0)


@pytest.mark.parametrize("reward", [ExactMatch(), CoverMatch(), F1()])
def test_rewards_see_the_executed_answer_only(reward: Reward) -> None:
    assert [reward.score(t, [t]) for t in map(trajectory, ("paris", "Lyon", None))] == [1.0, 0.0, 0.0]


def test_cover_match_reward_pays_for_a_list_of_guesses_and_exact_match_does_not() -> None:
    guesses = trajectory("Lyon, Nice or Paris")
    assert (CoverMatch().score(guesses, []), ExactMatch().score(guesses, []), F1().score(guesses, [])) == (
        1.0,
        0.0,
        0.4,
    )
