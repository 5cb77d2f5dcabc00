"""FlashRAG's JSON lines (arXiv 2405.13576), and the question files of this package.

{"id": "dev_0", "question": "who ...", "golden_answers": ["..."], "metadata": {"supporting_facts": ...}}
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from searchr1.data.jsonl import read_rows
from searchr1.data.sets.rows import NO_ANSWER, Row, Rows, Source, evidence, text, texts
from searchr1.errors import UserError

_NUMBERED = re.compile(r"(train|dev|test)_(\d+)")
_OWN = ("id", "question", "answers", "golden_answers", "metadata")


def read_flashrag(source: Source) -> Rows:
    """Ids such as ``dev_0`` number the rows of every set alike, so ``nq-dev-0`` is what becomes of them."""
    for place, row in read_rows(source.path):
        key = "golden_answers" if "golden_answers" in row else "answers"
        question = text(row, "question", place)
        answers = texts(row.get(key), key, place)
        kept = {name: value for name, value in row.items() if name not in _OWN}
        made: Row = {"question": question, "answers": answers, **kept, **evidence(_metadata(row, place), place)}
        if "id" in row:
            made["id"] = _identifier(row["id"], source.name)
        yield place, made if answers else NO_ANSWER


def _metadata(row: Mapping[str, Any], place: str) -> Mapping[str, Any]:
    metadata = row.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise UserError(f"{place}: 'metadata': expected an object, got {metadata!r:.200}")
    return {**row, **(metadata or {})}


def _identifier(value: object, name: str) -> object:
    found = _NUMBERED.fullmatch(value) if isinstance(value, str) else None
    return f"{name}-{found[1]}-{found[2]}" if found else value
