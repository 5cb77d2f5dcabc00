"""Paid for what was found: by the whole trajectory, and by the turn that found it first."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_dialogues import HERBERT, HOLDS, OTHER, played, score

from searchr1.rewards import build_reward
from searchr1.rewards.new_evidence import NewEvidence
from searchr1.rewards.retrieval import Retrieval
from searchr1.types import Passage, Question

TWO_HOPS = Question("q", "?", ("1934",), "demo", {"supporting_titles": ["Dovor", "Remo"]})
DOVOR, REMO = Passage("10", "Dovor", "A baker at Remo."), Passage("11", "Remo", "Founded in 1934.")


@pytest.mark.parametrize(
    ("found", "expected"), [([], 0.0), ([[]], 0.0), ([[OTHER]], 0.0), ([[OTHER], [OTHER, HOLDS]], 1.0)]
)
def test_the_answer_in_any_retrieved_passage(found: list[list[Passage]], expected: float) -> None:
    assert score(Retrieval(), played("Asimov", *found)) == expected
    assert score(Retrieval(), played(None, *found)) == expected


def test_the_share_of_supporting_titles() -> None:
    reward = Retrieval(titles=True)
    values = [
        score(reward, played("?", *found, question=TWO_HOPS))
        for found in ([[OTHER]], [[DOVOR, OTHER]], [[DOVOR], [DOVOR]], [[DOVOR], [REMO]])
    ]
    assert values == [0.0, 0.5, 0.5, 1.0]
    assert score(Retrieval(), played("?", [DOVOR], question=TWO_HOPS)) == 0.0
    assert score(reward, played("?", [HOLDS])) == 1.0  # no titles in the question file: the answer decides


def test_a_yes_or_no_cannot_be_found() -> None:
    question = Question("q", "?", ("Yes", "no"))
    assert score(Retrieval(), played("yes", [Passage("1", "Yes", "No, yes.")], question=question)) == 0.0


def turns(reward: NewEvidence, *found: Sequence[Passage], question: Question = TWO_HOPS) -> list[float]:
    return list(reward.score_turns(played("?", *found, question=question), ()))


def test_a_turn_is_paid_for_what_is_new_and_charged_for_what_is_not() -> None:
    reward = NewEvidence()
    assert turns(reward, [DOVOR, OTHER], [DOVOR, REMO]) == [0.5, 0.0, 0.0]  # 0.5 - half of what was found; the answer
    assert turns(reward, [DOVOR, REMO], [DOVOR, REMO]) == [1.0, -1.0, 0.0]
    assert turns(reward, [OTHER], [], [REMO]) == [0.0, 0.0, 0.5, 0.0]
    assert turns(NewEvidence(redundancy=0.5), [DOVOR], [DOVOR, REMO]) == [0.5, 0.25, 0.0]
    assert turns(NewEvidence(redundancy=0.0), [DOVOR], [DOVOR], [REMO]) == [0.5, 0.0, 0.5, 0.0]


def test_the_answer_is_what_is_new_where_the_question_file_has_no_titles() -> None:
    again = Passage("3", "Dune", "Frank Herbert again.")
    assert turns(NewEvidence(), [OTHER], [HOLDS], [again], question=HERBERT) == [0.0, 1.0, 0.0, 0.0]


def test_one_title_in_two_passages_is_one_finding() -> None:
    other_half = Passage("12", "Dovor", "More of him.")
    assert turns(NewEvidence(), [DOVOR, other_half], [Passage("13", "Dovor", "Still more.")]) == [0.5, 0.0, 0.0]


@given(st.lists(st.lists(st.sampled_from([DOVOR, REMO, OTHER, HOLDS]), max_size=3), max_size=4), st.floats(0, 2))
def test_gains_add_up_to_what_was_found(found: list[list[Passage]], redundancy: float) -> None:
    paid, charged = turns(NewEvidence(0.0), *found), turns(NewEvidence(redundancy), *found)
    whole = played("?", *found, question=TWO_HOPS)
    assert sum(paid) == score(Retrieval(titles=True), whole)
    assert all(0 <= gain <= 1 and gain - redundancy <= value <= gain for gain, value in zip(paid, charged, strict=True))
    scored = build_reward({"new_evidence": 1.0}).score_group([whole])[0]
    assert scored.turn_rewards == tuple(turns(NewEvidence(), *found))
    assert scored.reward == sum(scored.turn_rewards)


@pytest.mark.parametrize("redundancy", [-1.0, float("inf"), float("nan")])
def test_wrong_redundancy(redundancy: float) -> None:
    with pytest.raises(ValueError, match="redundancy: expected a finite number of at least 0"):
        NewEvidence(redundancy)


def test_titles_is_a_switch() -> None:
    with pytest.raises(ValueError, match="titles: expected true or false, got 'no'"):
        Retrieval(titles="no")  # type: ignore[arg-type]
