import pytest

from searchr1.rewards.economy import EconomicalExactMatch
from searchr1.types import Answer, Question, Search, SearchOutcome, Segment, Source, StopReason, Trajectory, Turn


def trajectory(answer: str | None, *outcomes: SearchOutcome) -> Trajectory:
    turns = tuple(Turn(Search("q"), search=outcome) for outcome in outcomes)
    if answer is not None:
        turns += (Turn(Answer(answer)),)
    stop = StopReason.ANSWERED if answer is not None else StopReason.OUT_OF_TURNS
    return Trajectory(Question("q", "?", ("yes",)), (Segment(Source.PROMPT, (1,)),), turns, answer, stop, 0, 0)


@pytest.mark.parametrize(("searches", "expected"), [(0, 1.0), (1, 0.75), (2, 0.5), (4, 0.0), (9, 0.0)])
def test_a_correct_answer_is_worth_less_with_every_search_but_never_less_than_a_wrong_one(
    searches: int, expected: float
) -> None:
    found = [SearchOutcome.FOUND] * searches
    assert EconomicalExactMatch(cost=0.25).score(trajectory("Yes.", *found), []) == expected


def test_wrong_answers_cost_the_same_however_they_searched() -> None:
    reward = EconomicalExactMatch()
    wrong = [trajectory(answer, *[SearchOutcome.FOUND] * n) for answer in ("no", None) for n in range(5)]
    assert {reward.score(t, wrong) for t in wrong} == {0.0}


def test_executed_searches_are_paid_for_and_refused_ones_are_not() -> None:
    reward = EconomicalExactMatch(cost=0.15)
    outcomes = (SearchOutcome.FOUND, SearchOutcome.EMPTY, SearchOutcome.REFUSED, SearchOutcome.FAILED)
    assert reward.score(trajectory("yes", *outcomes), []) == pytest.approx(0.7)


@pytest.mark.parametrize("cost", [-0.1, 1.0, float("nan")])
def test_cost_must_leave_something(cost: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        EconomicalExactMatch(cost=cost)
