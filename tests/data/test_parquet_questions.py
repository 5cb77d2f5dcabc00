import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from searchr1.data.questions import read_questions
from searchr1.errors import UserError
from searchr1.types import Question

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

PROMPT = "Answer the given question. For example, <answer> Beijing </answer>. Question: who wrote dune?\n"


def row(source: str = "nq", index: int = 0, **changes: Any) -> dict[str, Any]:
    """A row as Search-R1's scripts write it."""
    return {
        "data_source": source,
        "prompt": [{"role": "user", "content": PROMPT}],
        "ability": "fact-reasoning",
        "reward_model": {"style": "rule", "ground_truth": {"target": ["Frank Herbert", "Herbert"]}},
        "extra_info": {"split": "train", "index": index},
    } | changes


def write(path: Path, *rows: dict[str, Any]) -> Path:
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    return path


def test_question_from_the_prompt_and_an_id_that_no_other_dataset_has(tmp_path: Path) -> None:
    path = write(tmp_path / "train.parquet", row("nq"), row("hotpotqa"), row("hotpotqa", 1))
    answers = ("Frank Herbert", "Herbert")
    assert read_questions(path) == [
        Question("nq-train-0", "who wrote dune?", answers, "nq"),
        Question("hotpotqa-train-0", "who wrote dune?", answers, "hotpotqa"),
        Question("hotpotqa-train-1", "who wrote dune?", answers, "hotpotqa"),
    ]
    assert len(read_questions(path, limit=2)) == 2


def test_a_question_column_goes_first(tmp_path: Path) -> None:
    path = write(tmp_path / "q.parquet", row(question="Who? Question: me"))
    assert read_questions(path)[0].text == "Who? Question: me"


def test_last_message_and_last_marker_count(tmp_path: Path) -> None:
    prompt = [{"role": "system", "content": "Question: no"}, {"role": "user", "content": "Question: a Question: b? "}]
    assert read_questions(write(tmp_path / "q.parquet", row(prompt=prompt)))[0].text == "b?"


def test_a_single_target(tmp_path: Path) -> None:
    single = row(reward_model={"style": "rule", "ground_truth": {"target": "Herbert"}})
    assert read_questions(write(tmp_path / "q.parquet", single))[0].answers == ("Herbert",)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(index=0), r"q\.parquet:2: id 'nq-train-0' was used before at .*q\.parquet:1"),
        (row(index=1, data_source=None), r"q\.parquet:2: missing data_source; expected the row schema of veRL"),
        (row(index=1, extra_info=None), r"q\.parquet:2: missing extra_info\.split"),
        (row(index=1, reward_model=None), r"q\.parquet:2: missing reward_model\.ground_truth\.target"),
        (
            row(index=1, reward_model={"style": "rule", "ground_truth": {"target": []}}),
            r"q\.parquet:2: 'answers': expected at least one answer",
        ),
        (
            row(index=1, prompt=[{"role": "user", "content": "who?"}]),
            r"q\.parquet:2: expected a question column, or a prompt that holds 'Question:'",
        ),
        (row(index=1, prompt=None), r"q\.parquet:2: expected a question column"),
    ],
)
def test_errors_name_the_row(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_questions(write(tmp_path / "q.parquet", row(), bad))


@pytest.mark.parametrize("column", ["data_source", "prompt", "reward_model", "extra_info"])
def test_missing_columns(tmp_path: Path, column: str) -> None:
    whole = row()
    del whole[column]
    with pytest.raises(UserError, match=rf"missing columns \['{column}'\]"):
        read_questions(write(tmp_path / "q.parquet", whole))


def test_not_a_parquet_file(tmp_path: Path) -> None:
    (tmp_path / "q.parquet").write_text("{}")
    with pytest.raises(UserError, match="expected a parquet file"):
        read_questions(tmp_path / "q.parquet")


def test_without_pyarrow_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "q.parquet", row())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"pip install searchr1\[parquet\]"):
        read_questions(path)


def test_pyarrow_is_not_imported_for_json_lines() -> None:
    code = "import sys, searchr1.data.questions; print('pyarrow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
