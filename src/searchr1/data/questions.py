"""Question files: JSON lines, and the parquet files that veRL and Search-R1 train on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from searchr1.data.jsonl import read_rows, require_file, write_rows
from searchr1.errors import UserError
from searchr1.types import Question

_OWN = ("id", "question", "answers", "dataset")


def read_questions(path: str | Path, limit: int | None = None) -> list[Question]:
    """The (first ``limit``) questions of a JSONL, JSONL.gz or parquet file, in the file's order.

    A JSONL row is ``{"id", "question", "answers": [...], "dataset"?, "supporting_titles"?, "hops"?}``; FlashRAG's
    ``golden_answers`` serves as ``answers``. ``dataset`` is the start of the file's name where a row has none
    (``nq.dev.jsonl`` -> ``nq``), and every other key is kept in ``Question.metadata``. For parquet see
    `searchr1.data.parquet`.

    Raises UserError, naming the file and the line, for a missing or broken file, a missing or ill-typed key, no
    accepted answer, an id used twice, and a file without questions.
    """
    path = require_file(path)
    if limit is not None and limit < 1:
        raise UserError(f"limit: expected at least 1 question, got {limit}; leave it out to read all")
    questions: list[Question] = []
    places: dict[str, str] = {}
    for place, row in islice(_rows(path), limit):
        question = question_from_row(row, place, default_dataset=path.name.split(".")[0])
        if question.id in places:
            raise UserError(f"{place}: id {question.id!r} was used before at {places[question.id]}; ids must be unique")
        places[question.id] = place
        questions.append(question)
    if not questions:
        raise UserError(f"{path}: expected at least one question, the file holds none")
    return questions


def write_questions(path: str | Path, questions: Iterable[Question]) -> None:
    """Write what `read_questions` reads back as equal questions; the file appears whole or not at all."""
    write_rows(path, (row_from_question(question) for question in questions))


def question_from_row(row: Mapping[str, Any], place: str, default_dataset: str = "unknown") -> Question:
    """One JSONL row as a question; ``place`` opens the message of a UserError.

    >>> question_from_row({"id": 7, "question": "Who wrote Dune?", "golden_answers": ["Herbert"], "hops": 1}, "f:1")
    Question(id='7', text='Who wrote Dune?', answers=('Herbert',), dataset='unknown', metadata={'hops': 1})
    """
    answers_key = "answers" if "answers" in row else "golden_answers"
    for key in ("id", "question", "answers"):
        if key not in row and (key != "answers" or answers_key not in row):
            raise UserError(f"{place}: missing key {key!r}; a question needs id, question and answers")
    metadata = {key: value for key, value in row.items() if key not in _OWN and key != answers_key}
    _check_metadata(metadata, place)
    return Question(
        id=_identifier(row["id"], place),
        text=_text(row["question"], "question", place),
        answers=accepted_answers(row[answers_key], answers_key, place),
        dataset=_text(row.get("dataset", default_dataset), "dataset", place),
        metadata=metadata,
    )


def row_from_question(question: Question) -> dict[str, Any]:
    """The JSONL row of a question. Raises ValueError when its metadata would overwrite a key of the question.

    >>> row_from_question(Question("7", "Who wrote Dune?", ("Herbert",), "demo", {"hops": 1}))
    {'id': '7', 'question': 'Who wrote Dune?', 'answers': ['Herbert'], 'dataset': 'demo', 'hops': 1}
    """
    clash = sorted(set(question.metadata).intersection(_OWN))
    if clash:
        raise ValueError(f"question {question.id!r}: metadata may not hold the keys {clash}, which are the question's")
    return {
        "id": question.id,
        "question": question.text,
        "answers": list(question.answers),
        "dataset": question.dataset,
        **question.metadata,
    }


def accepted_answers(value: object, key: str, place: str) -> tuple[str, ...]:
    """A non-empty list of non-blank strings, or a UserError."""
    if not isinstance(value, list) or not all(isinstance(answer, str) for answer in value):
        raise UserError(f"{place}: {key!r}: expected a list of strings, got {value!r}")
    if not value or not all(answer.strip() for answer in value):
        raise UserError(f"{place}: {key!r}: expected at least one answer and none blank, got {value!r}")
    return tuple(value)


def _rows(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if path.suffix == ".parquet":
        from searchr1.data.parquet import read_parquet_rows

        return read_parquet_rows(path)
    return read_rows(path)


def _identifier(value: object, place: str) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return _text(value, "id", place)


def _text(value: object, key: str, place: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{place}: {key!r}: expected a non-blank string, got {value!r}")
    return value


def _check_metadata(metadata: Mapping[str, Any], place: str) -> None:
    """``hops`` and ``supporting_titles`` have readers in this package, so they are checked here."""
    hops = metadata.get("hops")
    if hops is not None and (not isinstance(hops, int) or isinstance(hops, bool) or hops < 1):
        raise UserError(f"{place}: 'hops': expected a whole number of at least 1, got {hops!r}")
    titles = metadata.get("supporting_titles")
    if titles is not None and not (isinstance(titles, list) and all(isinstance(title, str) for title in titles)):
        raise UserError(f"{place}: 'supporting_titles': expected a list of strings, got {titles!r}")
