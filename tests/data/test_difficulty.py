"""Which questions are neither too easy nor too hard."""

from __future__ import annotations

import pytest

from searchr1.data.difficulty import Attempt, choose
from searchr1.errors import UserError
from searchr1.types import Question

QUESTIONS = [Question(str(number), f"q{number}?", ("a",), "d", {"hops": 1}) for number in range(5)]


def attempts(rates: dict[str, tuple[int, int]]) -> list[Attempt]:
    """Of ``(right, wrong)`` by id; equal ones once."""
    return [
        Attempt(("d", name), f"q{name}?", right, times, "f:1")
        for name, both in rates.items()
        for right, times in zip((True, False), both, strict=True)
        if times
    ]


def test_the_range_includes_its_ends() -> None:
    given = attempts({"0": (0, 5), "1": (1, 4), "2": (4, 1), "3": (5, 0), "9": (1, 1)})
    chosen = choose(QUESTIONS, given, 0.2, 0.8)
    assert [(question.id, question.metadata) for question in chosen.kept] == [
        ("1", {"hops": 1, "success_rate": 0.2}),
        ("2", {"hops": 1, "success_rate": 0.8}),
    ]
    assert (chosen.too_easy, chosen.too_hard, chosen.unseen, chosen.attempts, chosen.foreign) == (1, 1, 1, 20, 2)


def test_attempts_in_several_files_add_up() -> None:
    chosen = choose(QUESTIONS, [*attempts({"0": (1, 0)}), *attempts({"0": (0, 3)})], 0.25, 0.25)
    assert [question.metadata["success_rate"] for question in chosen.kept] == [0.25]


def test_another_set_with_the_same_ids_is_foreign() -> None:
    assert choose(QUESTIONS, [Attempt(("e", "0"), "q0?", True, 1, "f:1")], 0, 1).foreign == 1


def test_another_question_under_the_same_id() -> None:
    with pytest.raises(UserError, match=r"f:7: question '0' of 'd' reads 'other\?', in --data it reads 'q0\?'"):
        choose(QUESTIONS, [Attempt(("d", "0"), "other?", True, 1, "f:7")], 0, 1)


@pytest.mark.parametrize(("low", "high"), [(0.8, 0.2), (-0.1, 1), (0, 1.1), (float("nan"), 1)])
def test_impossible_ranges(low: float, high: float) -> None:
    with pytest.raises(UserError, match="expected 0 <= --min <= --max <= 1"):
        choose(QUESTIONS, [], low, high)
