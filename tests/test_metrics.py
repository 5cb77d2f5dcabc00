"""Rows of metrics.jsonl and eval.jsonl, value by value."""

from __future__ import annotations

from dataclasses import replace

import pytest

from searchr1.errors import UserError
from searchr1.metrics import evaluation_rows, step_metrics
from searchr1.rewards import build_reward
from searchr1.rewards.user import RESERVED
from searchr1.types import (
    Answer,
    Invalid,
    Passage,
    Question,
    Scored,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)


def scored(hops: int, right: float, searches: int, *, form: str = "x", failed: bool = False) -> Scored:
    turns = tuple(
        Turn(Search("q"), (Passage("1", "t", "x"),), SearchOutcome.FOUND, 2, 3, truncated=True, search_seconds=0.5)
        for _ in range(searches)
    )
    trajectory = Trajectory(
        Question("q", "?", ("a",), f"{hops}-set", {"hops": hops, "form": form}),
        (
            Segment(Source.PROMPT, (1,)),
            Segment(Source.POLICY, (2, 3), (-1.0, -1.0)),
            Segment(Source.ENVIRONMENT, (4,) * searches),
        ),
        (*turns, Turn(Answer("a"))),
        "a",
        StopReason.SEARCH_UNAVAILABLE if failed else StopReason.ANSWERED,
        0,
        0,
    )
    return Scored(trajectory, right / 2, {"exact_match": right, "f1": right, "cover_match": right})


BATCH = [scored(1, 1.0, 1), scored(1, 0.0, 3), scored(2, 1.0, 2, form="comparison"), scored(2, 1.0, 9, failed=True)]


def test_valid_actions_are_a_share_of_turns() -> None:
    item = scored(1, 0.0, 2)
    broken = replace(item.trajectory, turns=(*item.trajectory.turns, Turn(Invalid("neither"))))
    assert step_metrics([item], {})["train/valid_actions"] == 1.0
    assert step_metrics([replace(item, trajectory=broken)], {})["train/valid_actions"] == 0.75


def test_a_step_counts_failures_and_leaves_them_out_of_every_mean() -> None:
    row = step_metrics(BATCH, {})
    assert row["train/trajectories"] == 4
    assert row["train/reward"] == pytest.approx(1 / 3)
    assert row["train/exact_match"] == pytest.approx(2 / 3)
    assert row["train/searches"] == 2.0
    assert row["searches/hops-1"] == 2.0
    assert row["searches/comparison"] == 2.0
    assert row["exact_match/hops-1"] == 0.5
    assert (row["tokens/policy"], row["tokens/environment"]) == (2.0, 2.0)
    assert row["train/truncated_observations"] == 1.0
    assert row["stop/answered"] == 0.75
    assert row["stop/search_unavailable"] == 0.25
    assert sum(value for name, value in row.items() if name.startswith("stop/")) == 1.0


def test_what_was_learned_is_beside_what_was_played() -> None:
    assert step_metrics(BATCH, {"train/loss": 0.5})["train/loss"] == 0.5


def test_no_reward_may_have_the_name_of_a_metric() -> None:
    """Those of a step; `test_learn` knows those of learning."""
    components = set(BATCH[0].components)
    names = {name.removeprefix("train/") for name in step_metrics(BATCH, {}) if name.startswith("train/")}
    assert names - components <= RESERVED
    assert not components & RESERVED
    with pytest.raises(UserError, match=r"reward\.entropy: train/entropy is a metric already"):
        build_reward({"entropy": "mine.py:function"})


def test_turns_that_ran_into_their_limit_are_counted() -> None:
    item = scored(1, 0.0, 3)
    first, *others = item.trajectory.turns
    cut = replace(item.trajectory, turns=(replace(first, cut=True), *others))
    assert step_metrics([replace(item, trajectory=cut)], {})["train/cut_turns"] == 0.25


def test_a_step_of_failures_has_no_means() -> None:
    row = step_metrics([scored(1, 1.0, 1, failed=True)], {})
    assert "train/reward" not in row
    assert row["stop/search_unavailable"] == 1.0


def test_evaluation_has_a_row_a_dataset_and_one_for_all() -> None:
    rows = evaluation_rows(BATCH, step=3, agent="rag", decoding="greedy")
    assert [(row["dataset"], row["n"], row["failed"]) for row in rows] == [
        ("1-set", 2, 0),
        ("2-set", 1, 1),
        ("all", 3, 1),
    ]
    assert [row["exact_match"] for row in rows] == [0.5, 1.0, pytest.approx(2 / 3)]
    assert all(row["ci_low"] <= row["exact_match"] <= row["ci_high"] for row in rows)
    assert {(row["step"], row["agent"], row["decoding"]) for row in rows} == {(3, "rag", "greedy")}


def test_one_dataset_needs_no_row_for_all() -> None:
    assert [row["dataset"] for row in evaluation_rows(BATCH[:2], step=0, agent="a", decoding="sampled")] == ["1-set"]
