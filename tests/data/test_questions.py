import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from searchr1.data.questions import question_from_row, read_questions, row_from_question, write_questions
from searchr1.errors import UserError
from searchr1.types import Question

ROW = {"id": "q1", "question": "Who wrote Dune?", "answers": ["Frank Herbert"], "dataset": "demo"}


def write(path: Path, *rows: Mapping[str, Any] | str) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


def test_every_key_finds_its_place(tmp_path: Path) -> None:
    extra = {"hops": 2, "supporting_titles": ["Dune"], "type": "bridge", "answer_in_corpus": True}
    path = write(tmp_path / "q.jsonl", ROW | extra, "", ROW | {"id": 2, "answers": ["a", "b"]})
    assert read_questions(path) == [
        Question("q1", "Who wrote Dune?", ("Frank Herbert",), "demo", extra),
        Question("2", "Who wrote Dune?", ("a", "b"), "demo", {}),
    ]
    assert read_questions(path)[0].hops == 2


def test_gzip_flashrag_and_the_dataset_of_the_file_name(tmp_path: Path) -> None:
    row = {"id": "test_0", "question": "q?", "golden_answers": ["x"], "metadata": {"level": "hard"}}
    path = tmp_path / "nq.dev.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(row).encode()))
    assert read_questions(path) == [Question("test_0", "q?", ("x",), "nq", {"metadata": {"level": "hard"}})]


def test_limit_reads_no_further(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", ROW, ROW | {"id": "q2"}, "not JSON")
    assert [question.id for question in read_questions(path, limit=2)] == ["q1", "q2"]
    with pytest.raises(UserError, match="limit: expected at least 1 question, got 0"):
        read_questions(path, limit=0)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"id": ', "expected one JSON object a line"),
        ("[]", "expected a JSON object, got list"),
        (without("id"), "missing key 'id'"),
        (without("question"), "missing key 'question'"),
        (without("answers"), "missing key 'answers'"),
        (ROW | {"id": None}, "'id': expected a non-blank string, got None"),
        (ROW | {"id": True}, "'id': expected a non-blank string, got True"),
        (ROW | {"question": " "}, "'question': expected a non-blank string, got ' '"),
        (ROW | {"question": ["q"]}, "'question': expected a non-blank string"),
        (ROW | {"dataset": None}, "'dataset': expected a non-blank string, got None"),
        (ROW | {"answers": "Frank Herbert"}, "'answers': expected a list of strings, got 'Frank Herbert'"),
        (ROW | {"answers": [1965]}, "'answers': expected a list of strings"),
        (ROW | {"answers": []}, "'answers': expected at least one answer and none blank"),
        (ROW | {"answers": ["a", " "]}, "'answers': expected at least one answer and none blank"),
        (ROW | {"hops": "two"}, "'hops': expected a whole number"),
        (ROW | {"hops": 0}, "'hops': expected a whole number of at least 1, got 0"),
        (ROW | {"supporting_titles": "Dune"}, "'supporting_titles': expected a list of strings"),
        (ROW | {"id": "q0"}, r"id 'q0' was used before at .*q\.jsonl:1; ids must be unique"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, row: Mapping[str, Any] | str, message: str) -> None:
    path = write(tmp_path / "q.jsonl", ROW | {"id": "q0"}, "", row)
    with pytest.raises(UserError, match=rf"q\.jsonl:3: {message}"):
        read_questions(path)


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.jsonl: expected a file, but it does not exist"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(UserError, match="expected at least one question, the file holds none"):
        read_questions(write(tmp_path / "empty.jsonl", "", "  "))


def test_metadata_cannot_overwrite_the_question() -> None:
    with pytest.raises(ValueError, match=r"metadata may not hold the keys \['answers', 'id'\]"):
        row_from_question(Question("q", "?", ("a",), "d", {"id": "other", "answers": [], "hops": 1}))


TEXT = st.text(alphabet='aZ "\\\n\u2028é漢{}:', min_size=1, max_size=8).filter(str.strip)
METADATA = st.fixed_dictionaries(
    {}, optional={"hops": st.integers(1, 4), "supporting_titles": st.lists(TEXT, max_size=2), "note": TEXT | st.none()}
)
QUESTIONS = st.lists(
    st.builds(Question, TEXT, TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple), TEXT, METADATA),
    min_size=1,
    max_size=4,
    unique_by=lambda question: question.id,
)


@settings(deadline=None)
@given(QUESTIONS, st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, questions: list[Question], suffix: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"round{suffix}"
    write_questions(path, questions)
    assert read_questions(path) == questions
    assert [question_from_row(row_from_question(question), "here") for question in questions] == questions
