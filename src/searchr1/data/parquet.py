"""The parquet schema of veRL and Search-R1, read as question rows. Needs ``pip install searchr1[parquet]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from searchr1.errors import UserError

_NEEDED = ("data_source", "reward_model", "extra_info")


def read_parquet_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of `searchr1.data.questions.question_from_row`, each with its place ``FILE:ROW`` (from 1).

    The columns are ``data_source``, ``prompt`` ``[{role, content}]``, ``reward_model`` ``{ground_truth: {target}}``
    and ``extra_info`` ``{split, index}``. The question is that of the ``question`` column or, without one, what
    follows the last ``Question:`` of the prompt. ``index`` restarts in every dataset, so the id is made of all three,
    ``nq-train-17``: two datasets in one file never share an id. Raises UserError.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: reading parquet needs pyarrow; run `pip install searchr1[parquet]`") from error
    try:
        file = parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: expected a parquet file: {error}") from error
    with file:
        columns = set(file.schema_arrow.names)
        missing = [column for column in _NEEDED if column not in columns]
        if missing or not columns & {"question", "prompt"}:
            missing = missing or ["prompt"]
            raise UserError(
                f"{path}: missing columns {missing}; expected data_source, prompt, reward_model, extra_info"
            )
        read = sorted(columns & {*_NEEDED, "question", "prompt"})
        number = 0
        for batch in file.iter_batches(batch_size=4096, columns=read):
            for row in batch.to_pylist():
                number += 1
                place = f"{path}:{number}"
                yield place, question_row(row, place)


def question_row(row: Mapping[str, Any], place: str) -> dict[str, Any]:
    """One veRL row in the keys of a question file.

    >>> question_row({"data_source": "nq", "prompt": [{"role": "user", "content": "Think. Question: who?\\n"}],
    ...     "reward_model": {"ground_truth": {"target": ["me"]}}, "extra_info": {"split": "test", "index": 3}}, "f:1")
    {'id': 'nq-test-3', 'question': 'who?', 'answers': ['me'], 'dataset': 'nq'}
    """
    target = _at(row, place, "reward_model", "ground_truth", "target")
    split, index = _at(row, place, "extra_info", "split"), _at(row, place, "extra_info", "index")
    dataset = _at(row, place, "data_source")
    return {
        "id": f"{dataset}-{split}-{index}",
        "question": row["question"] if row.get("question") else _question_in_prompt(row.get("prompt"), place),
        "answers": [target] if isinstance(target, str) else target,
        "dataset": dataset,
    }


def _at(row: Mapping[str, Any], place: str, *keys: str) -> Any:
    value: Any = row
    for key in keys:
        if not isinstance(value, Mapping) or value.get(key) is None:
            raise UserError(f"{place}: missing {'.'.join(keys)}; expected the row schema of veRL")
        value = value[key]
    return value


def _question_in_prompt(prompt: object, place: str) -> str:
    messages = prompt if isinstance(prompt, list) else []
    texts = [message["content"] for message in messages if isinstance(message, Mapping) and message.get("content")]
    _, marker, question = (str(texts[-1]) if texts else "").rpartition("Question:")
    if not marker:
        raise UserError(f"{place}: expected a question column, or a prompt that holds 'Question:', got {prompt!r:.200}")
    return question.strip()
