import json
from collections.abc import Iterable
from pathlib import Path

import pytest

from searchr1.errors import UserError
from searchr1.evaluation.compare import compare
from searchr1.evaluation.evaluate import score_trajectories, write_eval
from searchr1.types import Question, Segment, Source, StopReason, Trajectory

Result = tuple[str, str | None]


def folder(path: Path, results: Iterable[Result], dataset: str = "demo", text: str = "?") -> Path:
    """Results are (question id, answer); ``yes`` is right, None is a failed search."""
    trajectories = [
        Trajectory(
            Question(name, text, ("yes",), dataset),
            (Segment(Source.PROMPT, (1,)),),
            (),
            answer,
            StopReason.ANSWERED if answer is not None else StopReason.SEARCH_UNAVAILABLE,
            0,
            0,
        )
        for name, answer in results
    ]
    write_eval(path, score_trajectories(trajectories))
    return path


def answers(right: Iterable[int], n: int) -> list[Result]:
    chosen = set(right)
    return [(f"q{index}", "yes" if index in chosen else "no") for index in range(n)]


def test_above_zero_means_that_b_is_better(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", answers(range(10), 40))
    b = folder(tmp_path / "b", answers(range(24), 40)[::-1])
    result = compare(a, b)
    assert set(result) == {"n", "difference", "ci_low", "ci_high", "p_value"}
    assert result["n"] == 40
    assert result["difference"] == pytest.approx(0.35)
    assert 0 < result["ci_low"] < 0.35 < result["ci_high"] < 0.6
    assert result["p_value"] < 0.01
    assert compare(b, a)["difference"] == pytest.approx(-0.35)
    assert compare(a, a) == {"n": 40, "difference": 0.0, "ci_low": 0.0, "ci_high": 0.0, "p_value": 1.0}


def test_only_common_questions_that_failed_in_neither(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [("only a", "yes"), ("1", "no"), ("2", None), ("3", "yes")])
    b = folder(tmp_path / "b", [("3", None), ("1", "yes"), ("2", "no"), ("only b", "no")])
    assert compare(a, b) == {
        "n": 1,
        "difference": 1.0,
        "ci_low": 1.0,
        "ci_high": 1.0,
        "p_value": pytest.approx(2 / 2001),
    }


def test_nothing_to_compare(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [("1", "yes")])
    with pytest.raises(UserError, match="expected common questions, found none"):
        compare(a, folder(tmp_path / "other id", [("2", "yes")]))
    with pytest.raises(UserError, match="expected common questions, found none"):
        compare(a, folder(tmp_path / "other set", [("1", "yes")], dataset="other"))
    with pytest.raises(UserError, match="each of the 1 common questions failed in one"):
        compare(a, folder(tmp_path / "failed", [("1", None)]))


def test_one_id_for_two_questions_is_no_comparison(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", [("1", "yes")]), folder(tmp_path / "b", [("1", "yes")], text="another?")
    with pytest.raises(UserError, match="demo '1' is not the same question in both"):
        compare(a, b)


def test_a_question_twice(tmp_path: Path) -> None:
    a = folder(tmp_path / "a", [("1", "yes")])
    row = json.loads((a / "predictions.jsonl").read_text())
    (a / "predictions.jsonl").write_text(f"{json.dumps(row)}\n" * 2)
    with pytest.raises(UserError, match="demo '1' occurs twice"):
        compare(a, a)
