"""The best checkpoint: how steps are rated, that it outlives its step, and that no kill can lose it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from small_policies import model

from searchr1.errors import UserError
from searchr1.training.best import Rating, find_checkpoint, mark_best, rate, read_best
from searchr1.training.checkpoint import (
    load_checkpoint,
    prune_checkpoints,
    remove_stale,
    save_checkpoint,
    verify_checkpoint,
)
from searchr1.training.policy import Policy


def evaluated(step: int, value: float, **changes: Any) -> dict[str, Any]:
    row = {"step": step, "agent": "search_r1", "decoding": "sampled", "dataset": "all", "exact_match": value}
    return row | {"f1": value / 2, **changes}


EVALUATIONS = [
    evaluated(10, 0.9, dataset="one-hop"),
    evaluated(10, 0.5),
    evaluated(10, 0.8, decoding="greedy"),
    evaluated(10, 0.7, agent="rag"),
    evaluated(20, 0.6, dataset="nq"),
]
METRICS = [{"step": step, "train/reward": step / 100} for step in range(1, 31)]


def rated(step: int, by: Any = "exact_match", **changes: Any) -> Rating | None:
    given: dict[str, Any] = {"agent": "search_r1", "decoding": "sampled", "metrics": METRICS}
    return rate(step, by, **{**given, "evaluations": EVALUATIONS, **changes})


def test_a_step_is_rated_by_its_evaluation_on_all_questions() -> None:
    assert rated(10) == Rating(10, "exact_match", 0.5)
    assert rated(10, decoding="greedy") == Rating(10, "exact_match", 0.8)
    assert rated(10, "f1") == Rating(10, "f1", 0.25)
    assert rated(20) == Rating(20, "exact_match", 0.6)  # of one set alone there is no row for all
    assert rated(30) is None
    assert rated(10, evaluations=[evaluated(10, 0.5, exact_match=None)]) is None  # every trajectory failed


def test_or_by_the_smoothed_reward_up_to_it() -> None:
    assert rated(20, "reward") == Rating(20, "reward", pytest.approx(0.18))
    assert rated(2, "reward") == Rating(2, "reward", pytest.approx(0.015))
    assert rated(2, "reward", metrics=[{"step": 1}, {"step": 2, "train/reward": None}]) is None


def test_only_the_better_replaces_the_best() -> None:
    best = Rating(10, "exact_match", 0.5)
    assert Rating(20, "exact_match", 0.51).beats(best)
    assert not Rating(20, "exact_match", 0.5).beats(best)
    assert Rating(20, "f1", 0.1).beats(best)  # the user changed what counts
    assert best.beats(None)


def checkpoints(folder: Path, *steps: int) -> None:
    """Folders that stand for checkpoints, each with its step in two files."""
    for step in steps:
        (folder / f"step-{step}" / "inner").mkdir(parents=True)
        for name in ("weights", "inner/state"):
            (folder / f"step-{step}" / name).write_text(str(step))


def test_the_best_outlives_its_step(tmp_path: Path) -> None:
    checkpoints(tmp_path, 10, 20)
    assert read_best(tmp_path) is None
    assert mark_best(tmp_path, Rating(10, "exact_match", 0.5)) == tmp_path / "best"
    prune_checkpoints(tmp_path, {20})
    remove_stale(tmp_path)
    assert read_best(tmp_path) == Rating(10, "exact_match", 0.5)
    assert (tmp_path / "best" / "inner" / "state").read_text() == "10"
    mark_best(tmp_path, Rating(20, "exact_match", 0.75))
    assert (read_best(tmp_path), (tmp_path / "best" / "weights").read_text()) == (Rating(20, "exact_match", 0.75), "20")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["best", "step-20"]


def test_where_the_disk_cannot_link_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: str, target: str) -> None:
        raise OSError("Operation not supported")

    checkpoints(tmp_path, 10)
    assert (tmp_path / "step-10" / "weights").stat().st_nlink == 1
    monkeypatch.setattr(os, "link", refused)
    mark_best(tmp_path, Rating(10, "f1", 0.5))
    assert (tmp_path / "best" / "weights").read_text() == "10"
    assert (tmp_path / "step-10" / "weights").stat().st_nlink == 1


def test_a_real_checkpoint_can_be_loaded_from_best(tmp_path: Path) -> None:
    policy = Policy(model())
    save_checkpoint(tmp_path, 3, policy, None, {"n": 3})
    mark_best(tmp_path, Rating(3, "reward", 0.5))
    prune_checkpoints(tmp_path, set())
    other = Policy(model(seed=5))
    assert verify_checkpoint(tmp_path / "best") == 3
    assert load_checkpoint(tmp_path / "best", other) == {"n": 3}
    assert all(torch.equal(a, b) for (_, a), (_, b) in zip(policy.weights(), other.weights(), strict=True))


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs, clean-up included."""


def test_a_kill_at_any_moment_leaves_the_old_or_the_new_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = Rating(10, "f1", 0.5), Rating(20, "f1", 0.75)
    moments, finished, seen = 0, False, set()
    while not finished:
        folder, left = tmp_path / str(moments), moments
        checkpoints(folder, 10, 20)
        mark_best(folder, old)

        def dying(real: Any) -> Any:
            def call(*given: Any, **options: Any) -> Any:
                nonlocal left
                if left <= 0:
                    raise Killed
                left -= 1
                return real(*given, **options)

            return call

        with monkeypatch.context() as patch:
            places = [(Path, "rename"), (os, "link"), (os, "unlink"), (os, "fsync"), (Path, "write_text")]
            for owner, name in [*places, (shutil, "rmtree")]:
                patch.setattr(owner, name, dying(getattr(owner, name)))
            try:
                mark_best(folder, new)
                finished = True
            except Killed:
                pass
        remove_stale(folder)
        best = read_best(folder)
        assert best in (old, new)
        assert best is not None
        assert {p.read_text() for p in (folder / "best").rglob("*") if p.name in ("weights", "state")} == {
            str(best.step)
        }
        assert not list(folder.glob("*.tmp"))
        seen.add(best.step)
        moments += 1
    assert seen == {10, 20}
    assert moments > 10


def test_checkpoints_are_found_by_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no checkpoint 'best'; there are: none yet"):
        find_checkpoint(tmp_path, "best")
    checkpoints(tmp_path, 9, 10)
    assert find_checkpoint(tmp_path, "last") == tmp_path / "step-10"
    assert find_checkpoint(tmp_path, "9") == tmp_path / "step-9"
    with pytest.raises(UserError, match="there is no checkpoint '11'; there are: 9, 10, last"):
        find_checkpoint(tmp_path, "11")
    mark_best(tmp_path, Rating(9, "f1", 0.5))
    assert find_checkpoint(tmp_path, "best") == tmp_path / "best"


def test_a_damaged_mark_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    for text in ("{oops", '{"steps": 1}'):
        (tmp_path / "best" / "best.json").write_text(text)
        with pytest.raises(UserError, match=r"best\.json: expected step, metric and value .*; remove"):
            read_best(tmp_path)
