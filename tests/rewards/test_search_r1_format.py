"""The format reward of Search-R1 v0.3 and of its second paper, branch by branch."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from reward_dialogues import HOLDS, OTHER, decode, played, score

from searchr1.rewards.search_r1_format import SearchR1Format
from searchr1.types import Passage, Question

RIGHT, WRONG = "frank herbert", "Asimov"
WITH_RETRIEVAL = SearchR1Format(decode, retrieval=0.1)


@pytest.mark.parametrize(
    ("answer", "valid", "found", "plain", "paid"),
    [
        (RIGHT, True, True, 1.0, 1.0),
        (RIGHT, True, False, 1.0, 1.0),
        (RIGHT, False, True, 0.8, 0.8),
        (RIGHT, False, False, 0.8, 0.8),
        (WRONG, True, True, 0.2, 0.30000000000000004),
        (WRONG, True, False, 0.2, 0.2),
        (WRONG, False, True, 0.1, 0.1),
        (WRONG, False, False, 0.1, 0.1),
        (None, True, True, 0.0, 0.0),  # every turn is well formed, but nothing was answered
        (None, False, False, 0.0, 0.0),
    ],
)
def test_the_branches_of_version_0_3(answer: str | None, valid: bool, found: bool, plain: float, paid: float) -> None:
    """The scripts' values, without a retrieval score as they are and with the one that their comments name."""
    trajectory = played(answer, [HOLDS if found else OTHER], thought="<think>so</think>" if valid else "so")
    assert score(SearchR1Format(decode), trajectory) == plain
    assert score(WITH_RETRIEVAL, trajectory) == paid


@pytest.mark.parametrize("share", [0.2, 0.4])
def test_the_equation_of_the_second_paper(share: float) -> None:
    reward = SearchR1Format(decode, structure=share, final=0.0, retrieval=0.1)
    broken = "no thought "
    values = [
        score(reward, trajectory)
        for trajectory in (played(RIGHT), played(RIGHT, thought=broken), played(WRONG), played(WRONG, thought=broken))
    ]
    assert values == [1.0, 1.0 - share, share, 0.0]
    assert score(reward, played(WRONG, [HOLDS])) == share + 0.1
    assert score(reward, played(WRONG, [HOLDS], thought=broken)) == 0.0


@pytest.mark.parametrize(
    ("thought", "expected"),
    [
        ("<think>Dune is by Frank Herbert</think>", 0.2),
        ("<think><information>by Frank Herbert</information></think>", 0.1),
        ("<think>so</think><information>by Frank Herbert</information>", 0.1),
    ],
)
def test_what_the_policy_wrote_is_never_evidence(thought: str, expected: float) -> None:
    assert score(WITH_RETRIEVAL, played(WRONG, [OTHER], thought=thought)) == expected


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("art", "He was startled."),  # a part of a word
        ("no", "There is no such novel."),  # stands in any text
        ("---", "Nothing is left of it."),
    ],
)
def test_what_stands_in_a_passage_by_chance_is_no_evidence(answer: str, text: str) -> None:
    question = Question("q", "?", (answer,))
    assert score(WITH_RETRIEVAL, played(WRONG, [Passage("1", "Title", text)], question=question)) == 0.2


shares = st.floats(0, 1)


@given(shares, shares, shares)
def test_bounds_and_order(structure: float, final: float, retrieval: float) -> None:
    if structure + max(final, retrieval) > 1:
        with pytest.raises(ValueError, match="expected at most 1"):
            SearchR1Format(decode, structure, final, retrieval)
        return
    reward = SearchR1Format(decode, structure, final, retrieval)
    for thought in ("<think>so</think>", "so"):
        right, wrong = (
            [score(reward, played(answer, [passage], thought=thought)) for passage in (HOLDS, OTHER)]
            for answer in (RIGHT, WRONG)
        )
        assert min(*right, *wrong) >= 0
        assert max(*right, *wrong) <= 1
        assert min(right) >= max(wrong) - 1e-12


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", ["structure", "final", "retrieval"])
def test_wrong_values(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: expected a number from 0 to 1"):
        SearchR1Format(decode, **{name: value})
