"""What one step plays: which questions, with which seeds."""

from __future__ import annotations

from searchr1.train import jobs_of, questions_of
from searchr1.types import Question

POOL = [Question(str(number), "?", ("a",), dataset) for dataset in ("nq", "hotpotqa") for number in range(3)]


def test_an_epoch_asks_every_question_once_and_the_next_in_another_order() -> None:
    epochs = [
        [question for step in steps for question in questions_of(step, POOL, 2, 0)] for steps in ((1, 2, 3), (4, 5, 6))
    ]
    for epoch in epochs:
        assert len(epoch) == 6
        assert {(question.dataset, question.id) for question in epoch} == {(q.dataset, q.id) for q in POOL}
    assert epochs[0] != epochs[1]


def test_the_questions_of_a_step_need_no_history() -> None:
    assert questions_of(5, POOL, 4, 1) == questions_of(5, POOL, 4, 1)
    assert questions_of(5, POOL, 4, 1) != questions_of(5, POOL, 4, 2)


def test_no_two_trajectories_share_a_seed() -> None:
    """Neither the same id in two data sets, nor a question that a step asks twice, nor another step."""
    seeds = [job.seed for step in (1, 2) for job in jobs_of(step, questions_of(step, POOL, 15, 0), 4, 0)]
    assert len(set(seeds)) == len(seeds) == 2 * 15 * 4


def test_a_seed_depends_on_the_question_and_not_on_its_place() -> None:
    forward, backward = jobs_of(1, POOL, 2, 0), jobs_of(1, POOL[::-1], 2, 0)
    assert {(job.question.dataset, job.question.id, job.seed) for job in forward} == {
        (job.question.dataset, job.question.id, job.seed) for job in backward
    }
