"""Questions that two sets have in common: every similar pair, and none else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from searchr1.data.overlap import overlap, shingles
from searchr1.rewards.text import normalize
from searchr1.types import Question


def asked(*texts: str, answer: str = "x") -> list[Question]:
    return [Question(str(number), text, (answer,)) for number, text in enumerate(texts)]


def test_equal_and_near() -> None:
    a = asked("Who wrote Dune?", "when was the first novel of frank herbert ever published")
    b = asked("who wrote the dune", "who wrote dune messiah", "When was first novel of Frank Herbert published?")
    pairs = overlap(a, b, 0.6)
    assert [(p.a.id, p.b.id, p.exact, p.same_answer) for p in pairs] == [
        ("0", "0", True, True),
        ("0", "1", False, True),
        ("1", "2", False, True),
    ]
    assert [round(p.similarity, 3) for p in pairs] == [1.0, round(5 / 7, 3), round(14 / 18, 3)]


def test_the_worst_first_and_answers_compared() -> None:
    a = [*asked("one two three four"), *asked("one two three")]
    pairs = overlap(a, asked("one two three", answer="The Y"), 0.5)
    assert [(p.a.text, round(p.similarity, 2), p.same_answer) for p in pairs] == [
        ("one two three", 1.0, False),
        ("one two three four", 0.71, False),
    ]
    assert overlap(asked("a b c", answer="Y."), asked("b c", answer="the y"))[0].same_answer


def test_nothing_to_compare() -> None:
    assert overlap(asked("who"), asked("what")) == []
    assert overlap(asked("?"), asked("the")) == []
    for threshold in (0.0, 1.1, -1.0):
        with pytest.raises(ValueError, match="threshold"):
            overlap([], [], threshold)


TEXTS = st.lists(st.lists(st.sampled_from("uvwxyz"), min_size=1, max_size=7).map(" ".join), max_size=8)


@given(TEXTS, TEXTS, st.sampled_from([0.3, 0.5, 0.6, 2 / 3, 0.8, 0.9, 1.0]))
def test_the_same_as_comparing_all_with_all(left: list[str], right: list[str], threshold: float) -> None:
    expected = set()
    for i, first in enumerate(left):
        for j, second in enumerate(right):
            mine, other = shingles(normalize(first)), shingles(normalize(second))
            if len(mine & other) / len(mine | other) >= threshold:
                expected.add((str(i), str(j)))
    assert {(pair.a.id, pair.b.id) for pair in overlap(asked(*left), asked(*right), threshold)} == expected
