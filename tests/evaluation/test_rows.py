"""One line of an evaluation, exactly."""

from dataclasses import replace

import pytest
from evaluation_parts import question, rows_of, trajectory

from searchr1.errors import UserError
from searchr1.evaluation.evaluate import score_trajectories
from searchr1.evaluation.rows import answer_retrieved, checked_row, key_of, prediction_row
from searchr1.types import (
    Answer,
    Passage,
    Question,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)

FOX = Passage("1", "Fox", "A red fox.")
DOG = Passage("2", "Dog", "A dog.")


def played() -> Trajectory:
    """Two prompts of 3 tokens; the policy says 2 and 1 in the dialogue, 4 beside it."""
    aside = (Segment(Source.PROMPT, (1, 1, 1)), Segment(Source.POLICY, (2,) * 4, (0.0,) * 4))
    return Trajectory(
        question("q"),
        (
            Segment(Source.PROMPT, (1, 1, 1)),
            Segment(Source.POLICY, (2, 2), (0.0, 0.0)),
            Segment(Source.ENVIRONMENT, (3,) * 5),
            Segment(Source.POLICY, (2,), (0.0,)),
        ),
        (
            Turn(Search("fox"), (FOX, DOG), SearchOutcome.FOUND, 2, 5, False, 0.5, 0.25, False, (aside,)),
            Turn(Search("again"), (), SearchOutcome.EMPTY, generate_seconds=1.0),
            Turn(Answer("red fox"), policy_tokens=1, generate_seconds=0.125),
        ),
        "red fox",
        StopReason.ANSWERED,
        0,
        9,
    )


def test_a_row() -> None:
    [scored] = score_trajectories([played()])
    row = prediction_row(scored, sample=2, shown=lambda passages: 10 * len(passages))
    assert row == {
        "id": "q",
        "dataset": "demo",
        "question": "What is q?",
        "answers": ["red fox"],
        "sample": 2,
        "prediction": "red fox",
        "stop": "answered",
        "searches": 2,
        "queries": ["fox", "again"],
        "exact_match": 1.0,
        "cover_match": 1.0,
        "f1": 1.0,
        "failed": False,
        "seed": 9,
        "policy_tokens": 7,
        "retrieved_tokens": 20,
        "prompt_tokens": 3 + 10 + 3,
        "seconds": 1.875,
        "search_seconds": 0.25,
        "answer_retrieved": True,
    }
    assert key_of(row) == ("demo", "q", 2)
    del row["sample"]
    assert key_of(row) == ("demo", "q", 0)


def test_a_failure_has_no_scores() -> None:
    [row] = rows_of([trajectory(question("q"), None, searches=1, stop=StopReason.ENGINE_ERROR)])
    assert (row["failed"], row["exact_match"], row["cover_match"], row["f1"]) == (True, None, None, None)


def test_whether_the_answer_was_found() -> None:
    fine = played()
    assert answer_retrieved(fine) is True
    without = replace(fine, turns=(replace(fine.turns[0], passages=(DOG,)), *fine.turns[1:]))
    assert answer_retrieved(without) is False
    assert answer_retrieved(replace(fine, question=Question("q", "?", ("yes", "No")))) is None
    assert answer_retrieved(replace(fine, turns=fine.turns[2:])) is None  # nothing was searched
    nothing_found = replace(fine, turns=fine.turns[1:])
    assert answer_retrieved(nothing_found) is False


@pytest.mark.parametrize("key", ["id", "dataset", "question", "answers", "failed", "exact_match"])
def test_rows_that_cannot_be_compared(key: str) -> None:
    [row] = rows_of([played()])
    assert checked_row(row, "f:1") is row
    with pytest.raises(UserError, match=rf"^f:7: '{key}' is missing or ill-typed, got None; run searchr1 eval again$"):
        checked_row({name: value for name, value in row.items() if name != key}, "f:7")
