"""HotpotQA (arXiv 1809.09600, distractor or fullwiki) and 2WikiMultihopQA (arXiv 2011.01060): one JSON list.

    [{"_id": "5a8b", "question": "...", "answer": "yes", "type": "comparison", "level": "hard",
      "supporting_facts": [["Scott Derrickson", 0], ["Ed Wood", 0]], "context": [...]}]

2WikiMultihopQA has ``evidences`` too, and beside its files ``id_aliases.json``: JSON lines with the other names of
``answer_id``, ``{"Q_id": "Q42", "aliases": [...], "demonyms": [...]}``.
"""

from __future__ import annotations

from pathlib import Path

from searchr1.data.jsonl import read_rows
from searchr1.data.sets.rows import NO_ANSWER, Rows, Source, evidence, json_list, text, texts


def read_hotpotqa(source: Source) -> Rows:
    """Rows without an answer, as those of the hidden test split, are left out."""
    aliases = _aliases(source.aliases) if source.aliases else {}
    for place, row in json_list(source.path):
        identifier, question = text(row, "_id", place), text(row, "question", place)
        if row.get("answer") in (None, ""):
            yield place, NO_ANSWER
            continue
        answers = [text(row, "answer", place), *aliases.get(str(row.get("answer_id")), ())]
        answers = texts(answers, "answer", place)
        yield place, {"id": identifier, "question": question, "answers": answers, **evidence(row, place)}


def _aliases(path: Path) -> dict[str, list[str]]:
    return {
        text(row, "Q_id", place): texts(
            [*(row.get("aliases") or []), *(row.get("demonyms") or [])], "aliases or demonyms", place
        )
        for place, row in read_rows(path)
    }
