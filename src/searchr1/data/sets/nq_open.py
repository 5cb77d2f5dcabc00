"""NQ-open (arXiv 1906.00300): JSON lines ``{"question": "who ...", "answer": ["...", "..."]}``, without ids.

Its "dev" file is what the field calls the test split of Natural Questions.
"""

from __future__ import annotations

from searchr1.data.jsonl import read_rows
from searchr1.data.sets.rows import NO_ANSWER, Rows, Source, text, texts


def read_nq_open(source: Source) -> Rows:
    for place, row in read_rows(source.path):
        question = text(row, "question", place)
        answers = texts(row.get("answer"), "answer", place)
        yield place, {"question": question, "answers": answers} if answers else NO_ANSWER
