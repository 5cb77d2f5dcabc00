"""What is kept of a question's trajectories, and which questions are played."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dialogues import RIGHT, WRONG, Dead, named, play, score

from searchr1.errors import UserError
from searchr1.supervised.sampling import Keep, questions_to_play, read_keep, select
from searchr1.types import Scored

REWARD = {"exact_match": 1.0, "format": 0.2}
OTHER = [RIGHT[0], "<think>sure</think><answer>Frank Herbert</answer>"]
ALL = read_keep("all", REWARD)


@pytest.fixture(scope="module")
def group() -> list[Scored]:
    """right, wrong, right again, right in other words, failed."""
    played = [play(RIGHT), play(WRONG), play(RIGHT), play(OTHER), play(RIGHT, retriever=Dead())]
    return [replace(item, reward=reward) for item, reward in zip(score(*played), (1, 0, 1, 1.5, 9), strict=True)]


def test_filters(group: list[Scored]) -> None:
    counts = {"questions": 1, "played": 5, "failed": 1, "surplus": 0}
    assert select(group, read_keep("correct", REWARD), None) == (
        [group[0], group[3]],
        {**counts, "questions_kept": 1, "kept": 2, "filtered": 1, "duplicates": 1},
    )
    assert select(group, ALL, None)[0] == [group[0], group[1], group[3]]
    assert select(group, read_keep("reward >= 1.2", REWARD), None)[0] == [group[3]]
    assert select(group, read_keep("f1>=0.1", REWARD), None)[0] == [group[0], group[3]]
    nothing, counted = select(group, Keep("reward", 5.0), None)
    assert (nothing, counted["questions_kept"], counted["filtered"]) == ([], 0, 4)


def test_every_trajectory_is_counted_once(group: list[Scored]) -> None:
    for keep in ("all", "correct", "reward>=1.2"):
        for most in (None, 1, 2):
            kept, counts = select(group, read_keep(keep, REWARD), most)
            assert counts["kept"] == len(kept)
            assert (
                sum(counts[name] for name in ("kept", "filtered", "duplicates", "surplus", "failed"))
                == counts["played"]
            )


def test_of_too_many_the_best_stay_in_their_order(group: list[Scored]) -> None:
    assert select(group, ALL, 1)[0] == [group[3]]
    kept, counts = select(group, ALL, 2)
    assert kept == [group[0], group[3]]
    assert (counts["surplus"], counts["duplicates"]) == (1, 1)


def test_what_failed_is_never_kept_however_it_was_rewarded(group: list[Scored]) -> None:
    assert select(group[4:], ALL, None)[0] == []


@pytest.mark.parametrize("text", ["right", "reward>1", "reward>=", "reward>=much", "reward>=nan", ">=1", ""])
def test_filters_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="--keep: expected all, correct or NAME>=NUMBER"):
        read_keep(text, REWARD)


def test_a_part_that_the_reward_does_not_have() -> None:
    with pytest.raises(UserError, match=r"--keep: a trajectory has no 'formt'; did you mean 'format'\?"):
        read_keep("formt>=1", REWARD)


def test_questions_are_drawn_once_and_more_of_them_begin_with_the_same() -> None:
    pool = [named(str(number)) for number in range(50)] + [named("7", text="again"), named("7", dataset="films")]
    few, many = questions_to_play(pool, 10, seed=3), questions_to_play(pool, 20, seed=3)
    assert many[:10] == few
    assert len(questions_to_play(pool, None, seed=3)) == len(questions_to_play(pool, 99, seed=3)) == 51
    assert questions_to_play(pool, 10, seed=4) != few
