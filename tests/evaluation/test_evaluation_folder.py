"""The folder on disk: written line by line, taken up after a kill, merged from parts."""

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_parts import mixed, question, rows_of, trajectory
from hypothesis import given
from hypothesis import strategies as st

from searchr1.errors import UserError
from searchr1.evaluation import folder as folders
from searchr1.evaluation.folder import FORMAT, EvaluationFolder, merge, read_predictions, read_summary
from searchr1.evaluation.summary import summarize
from searchr1.types import StopReason

SETTINGS = {"name": "demo", "agent": "rag", "seed": 1, "part": None}


def written(path: Path, rows: list[dict[str, Any]], settings: dict[str, Any] | None = None) -> dict[str, Any]:
    with EvaluationFolder.begin(path, settings or SETTINGS) as folder:
        for row in rows:
            folder.append(row)
        folder.used({"seconds": 2.0, "search": {"requests": 3, "cost": 0.5}})
        return folder.finish()


def test_a_finished_folder(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    summary = written(tmp_path / "out", rows)
    figures = summarize(rows)
    usage = {"seconds": 2.0, "search": {"requests": 3, "cost": 0.5}, "cost": 0.5, "seconds_per_question": 2 / 6,
             "cost_per_question": 0.5 / 6, "seconds_per_right_answer": 1.0, "cost_per_right_answer": 0.25}  # fmt: skip
    assert summary == {**FORMAT, "settings": SETTINGS, **figures, "usage": usage}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary == read_summary(tmp_path / "out")
    assert read_predictions(tmp_path / "out") == rows
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [".lock", "evaluation.json", "predictions.jsonl", "summary.json"]


@pytest.mark.parametrize(
    ("engine", "cost"), [({}, 2 * 60 / 1e6 + 10 * 6 / 1e6), ({"prompt_tokens": 1e6, "completion_tokens": 5e5}, 7.0)]
)
def test_what_tokens_cost(engine: dict[str, float], cost: float, tmp_path: Path) -> None:
    rows = [row | {"prompt_tokens": 10, "policy_tokens": 1} for row in rows_of(mixed())]
    with EvaluationFolder.begin(tmp_path / "out", {**SETTINGS, "price": [2.0, 10.0]}) as folder:
        for row in rows:
            folder.append(row)
        folder.used({"seconds": 1.0, "engine": engine})
        usage = folder.finish()["usage"]
    assert (usage["cost"], usage["cost_per_right_answer"]) == (pytest.approx(cost), pytest.approx(cost / 2))


def test_the_order_of_the_questions_is_that_of_the_data_sets(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    with EvaluationFolder.begin(tmp_path / "out", SETTINGS) as folder:
        for row in rows:
            folder.append(row)
        order = {("b", "1", 0): 0, ("c", "1", 0): 1, **{("a", str(n), 0): n + 1 for n in range(1, 5)}}
        assert list(folder.finish(order)["datasets"]) == ["b", "c", "a"]


@given(cut=st.integers(0, 2000))
def test_a_kill_at_any_byte_loses_at_most_the_line_that_was_torn(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("torn") / "out"
    rows = [row for row in rows_of(mixed()) if not row["failed"]]
    with EvaluationFolder.begin(path, SETTINGS) as folder:
        for row in rows:
            folder.append(row)
    file = path / "predictions.jsonl"
    whole = file.read_bytes()[:cut]
    file.write_bytes(whole)
    with EvaluationFolder.resume(path, SETTINGS) as folder:
        assert folder.rows == rows[: whole.count(b"\n")]
        for row in rows[len(folder.rows) :]:
            folder.append(row)
        folder.finish()
    assert read_predictions(path) == rows


def test_resuming_forgets_failures_and_adds_up_what_was_used(tmp_path: Path) -> None:
    written(tmp_path / "out", rows_of(mixed()))
    with EvaluationFolder.resume(tmp_path / "out", {**SETTINGS, "name": "other"}) as folder:
        assert not (tmp_path / "out" / "summary.json").exists()
        assert ("a", "4", 0) not in folder.done
        assert ("c", "1", 0) not in folder.done
        assert len(folder.done) == 4
        [again] = rows_of([trajectory(question("1", "c"), "red fox")])
        folder.append(again)
        folder.used({"seconds": 1.0, "search": {"requests": 1}})
        folder.used({"seconds": 1.5, "search": {"requests": 2}})
        summary = folder.finish()
    assert summary["usage"]["seconds"] == 3.5
    assert summary["usage"]["search"] == {"requests": 5, "cost": 0.5}
    assert summary["datasets"]["c"]["exact_match"] == 1.0
    assert summary["settings"]["name"] == "other"


def test_a_line_in_the_middle_that_is_damaged_is_not_dropped_silently(tmp_path: Path) -> None:
    written(tmp_path / "out", rows_of(mixed()))
    file = tmp_path / "out" / "predictions.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text(lines[0] + lines[1][:-20] + "\n" + lines[2])
    with pytest.raises(UserError, match=r"predictions\.jsonl:2: expected one JSON object a line"):
        EvaluationFolder.resume(tmp_path / "out", SETTINGS)
    file.write_text(lines[0])
    with EvaluationFolder.resume(tmp_path / "out", SETTINGS) as folder:  # the lock was let go
        assert len(folder.rows) == 1


def test_folders_that_may_not_be_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    written(out, rows_of(mixed()))
    with pytest.raises(UserError, match="holds an evaluation already; --resume goes on with it"):
        EvaluationFolder.begin(out, SETTINGS)
    with pytest.raises(UserError, match=r"changed: seed \(1 -> 2\)"):
        EvaluationFolder.resume(out, {**SETTINGS, "seed": 2})
    with pytest.raises(UserError, match="begun before, found none"):
        EvaluationFolder.resume(tmp_path / "new", SETTINGS)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="something else"):
        EvaluationFolder.begin(tmp_path / "full", SETTINGS)
    with EvaluationFolder.resume(out, SETTINGS), pytest.raises(UserError, match="another process is writing it"):
        EvaluationFolder.resume(out, SETTINGS)


def test_folders_that_are_not_evaluations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an evaluation folder, but it has no predictions\.jsonl"):
        read_predictions(tmp_path / "nowhere")
    out = tmp_path / "out"
    written(out, rows_of(mixed()))
    (out / "summary.json").write_text('{"format": "searchr1-evaluation", "version": 3}')
    with pytest.raises(UserError, match=r"expected .*'version': 2.*, got .*'version': 3"):
        read_predictions(out)
    (out / "summary.json").unlink()
    with pytest.raises(UserError, match="is not finished; searchr1 eval"):
        read_predictions(out)
    (out / "evaluation.json").unlink()
    with pytest.raises(UserError, match="expected the summary of a finished evaluation"):
        read_predictions(out)


def test_the_first_version_is_read(tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("id", "dataset", "question", "answers", "exact_match", "failed")}
            for row in rows_of(mixed())]  # fmt: skip
    (tmp_path / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "summary.json").write_text('{"format": "searchr1-evaluation", "version": 1}')
    assert read_predictions(tmp_path) == rows


def test_parts_become_one(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    for number in (1, 2):
        written(tmp_path / str(number), rows[number - 1 :: 2], {**SETTINGS, "part": [number, 2]})
    summary = merge([tmp_path / "2", tmp_path / "1"], tmp_path / "all")
    assert {**summary, "datasets": None} == {**summary, "datasets": None, "settings": SETTINGS}
    whole = summarize(rows)
    assert {name: summary["datasets"][name] for name in sorted(summary["datasets"])} == whole["datasets"]
    assert summary["macro"] == pytest.approx(whole["macro"])
    assert summary["usage"]["search"] == {"requests": 6, "cost": 1.0}
    assert len(read_predictions(tmp_path / "all")) == 6


def test_parts_that_do_not_fit(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    one = tmp_path / "1"
    written(one, rows[::2], {**SETTINGS, "part": [1, 2]})
    with pytest.raises(UserError, match="expected 2 parts, got 1; missing: 2/2"):
        merge([one], tmp_path / "all")
    written(tmp_path / "again", rows[::2], {**SETTINGS, "part": [1, 2]})
    with pytest.raises(UserError, match="part 1/2, and so is"):
        merge([one, tmp_path / "again"], tmp_path / "all")
    written(tmp_path / "other", rows[1::2], {**SETTINGS, "part": [2, 2], "seed": 5})
    with pytest.raises(UserError, match=r"parts of different evaluations: .*seed"):
        merge([one, tmp_path / "other"], tmp_path / "all")
    written(tmp_path / "whole", rows)
    with pytest.raises(UserError, match="this is a whole one"):
        merge([one, tmp_path / "whole"], tmp_path / "all")
    with pytest.raises(UserError, match="got none"):
        merge([], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_failures_alone_have_a_summary(tmp_path: Path) -> None:
    rows = rows_of([trajectory(question("1"), None, stop=StopReason.ENGINE_ERROR)])
    summary = written(tmp_path / "out", rows)
    assert "seconds_per_right_answer" not in summary["usage"]
    assert summary["macro"]["engine_errors"] == 1


def test_parts_of_two_splits_are_not_joined(tmp_path: Path) -> None:
    """Halves and a third: the third's questions are in the halves, too."""
    rows = rows_of(mixed())
    for k, n in ((1, 2), (2, 2), (2, 3)):
        written(tmp_path / f"{k}-{n}", rows[k - 1 :: n], {**SETTINGS, "part": [k, n]})
    with pytest.raises(UserError, match=r"2-3: is part 2/3, but .*1-2 is one of 2"):
        merge([tmp_path / "1-2", tmp_path / "2-2", tmp_path / "2-3"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_nothing_is_made_of_parts_that_cannot_be_read(tmp_path: Path) -> None:
    rows = rows_of(mixed())
    for k in (1, 2):
        written(tmp_path / str(k), rows[k - 1 :: 2], {**SETTINGS, "part": [k, 2]})
    (tmp_path / "2" / "predictions.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match="'id' is missing"):
        merge([tmp_path / "1", tmp_path / "2"], tmp_path / "all")
    assert not (tmp_path / "all").exists()


def test_who_comes_second_to_an_empty_folder_does_not_begin_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process began, and even ended, between the look at the folder and the lock."""
    out, lock = tmp_path / "out", folders.locked

    def late(path: Path) -> Any:
        monkeypatch.setattr(folders, "locked", lock)
        written(path, rows_of(mixed()))
        return lock(path)

    monkeypatch.setattr(folders, "locked", late)
    with pytest.raises(UserError, match="holds an evaluation already"):
        EvaluationFolder.begin(out, SETTINGS)
    assert len(read_predictions(out)) == 6
    with EvaluationFolder.resume(out, SETTINGS) as folder:  # the lock was let go
        assert len(folder.rows) == 4


def test_a_kill_right_after_the_lock_leaves_a_folder_that_can_be_begun(tmp_path: Path) -> None:
    (tmp_path / ".lock").touch()
    assert written(tmp_path, rows_of(mixed()))["macro"]["n"] == 4


def test_a_price_is_no_reason_to_begin_anew(tmp_path: Path) -> None:
    rows = [row | {"prompt_tokens": 10, "policy_tokens": 1} for row in rows_of(mixed()) if not row["failed"]]
    written(tmp_path / "out", rows, {**SETTINGS, "price": None})
    with EvaluationFolder.resume(tmp_path / "out", {**SETTINGS, "price": [1e6, 0.0]}) as folder:
        assert folder.finish()["usage"]["cost"] == 0.5 + 40.0


def test_a_line_that_is_no_object(tmp_path: Path) -> None:
    written(tmp_path / "out", rows_of(mixed()))
    (tmp_path / "out" / "predictions.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"predictions\.jsonl:1: expected one JSON object a line: got list"):
        EvaluationFolder.resume(tmp_path / "out", SETTINGS)
