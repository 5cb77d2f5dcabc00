"""PopQA (arXiv 2212.10511) as tab-separated values, Bamboogle (arXiv 2210.03350) as comma-separated ones.

id <tab> subj <tab> prop ... s_wiki_title <tab> question <tab> possible_answers
4222362 ... George Rankin <tab> What is George Rankin's occupation? <tab> "[""politician"", ""political leader""]"

Question,,,,Answer,Answer 2
Who is the mother of the father of George Washington?,,,,Mildred Warner,Mildred Gale
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from searchr1.data.sets.rows import NO_ANSWER, Rows, Source, evidence, open_text, text, texts
from searchr1.errors import UserError


def read_popqa(source: Source) -> Rows:
    for place, row in _table(source.path, "\t", ("question", "possible_answers")):
        answers = texts(_json(row["possible_answers"], "possible_answers", place), "possible_answers", place)
        told = {"type": row.get("prop"), "s_wiki_title": row.get("s_wiki_title")}
        made = {"question": text(row, "question", place), "answers": answers, **evidence(told, place)}
        if row.get("id"):
            made["id"] = row["id"]
        yield place, made if answers else NO_ANSWER


def read_bamboogle(source: Source) -> Rows:
    for place, row in _table(source.path, ",", ("question", "answer")):
        answers = texts([value.strip() for key, value in row.items() if key.startswith("answer")], "answer", place)
        yield place, {"question": text(row, "question", place), "answers": answers} if answers else NO_ANSWER


def _table(path: Path, delimiter: str, needed: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """Every row with its place ``FILE:LINE``, by the columns' names in lower case; those without one are skipped."""
    line = 0
    try:
        with open_text(path) as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            names = [name.strip().lower() for name in next(reader, [])]
            if missing := [name for name in needed if name not in names]:
                raise UserError(f"{path}:1: missing column {missing[0]!r}; the first line names {', '.join(names)}")
            for cells in reader:
                line = reader.line_num
                if not any(cells):
                    continue
                if len(cells) != len(names):
                    raise UserError(f"{path}:{line}: expected {len(names)} columns, got {len(cells)}")
                yield f"{path}:{line}", {name: cell for name, cell in zip(names, cells, strict=True) if name}
    except csv.Error as error:
        raise UserError(f"{path}: not a table after line {line}: {error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text after line {line}: {error}") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip data after line {line}: {error}") from error


def _json(cell: str, key: str, place: str) -> object:
    try:
        return json.loads(cell)
    except json.JSONDecodeError as error:
        raise UserError(f"{place}: {key!r}: expected a JSON list of strings, got {cell!r:.200}: {error}") from error
