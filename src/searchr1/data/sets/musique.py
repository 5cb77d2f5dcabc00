"""MuSiQue (arXiv 2108.00573), "ans" or "full": JSON lines.

{"id": "2hop__1_2", "question": "...", "answer": "...", "answer_aliases": [...], "answerable": true,
 "paragraphs": [{"title": "...", "is_supporting": true}], "question_decomposition": [{"question": "..."}]}
"""

from __future__ import annotations

from searchr1.data.jsonl import read_rows
from searchr1.data.sets.rows import NO_ANSWER, LeftOut, Rows, Source, evidence, text, texts


def read_musique(source: Source) -> Rows:
    """The questions of "full" that were made unanswerable are left out; so are those of the hidden test split."""
    for place, row in read_rows(source.path):
        identifier, question = text(row, "id", place), text(row, "question", place)
        if row.get("answerable") is False:
            yield place, LeftOut("unanswerable")
        elif row.get("answer") in (None, ""):
            yield place, NO_ANSWER
        else:
            answers = [text(row, "answer", place), *texts(row.get("answer_aliases", []), "answer_aliases", place)]
            made = {"id": identifier, "question": question, "answers": texts(answers, "answer", place)}
            yield place, {**made, **evidence({**row, "type": identifier.split("__")[0]}, place)}
