"""TriviaQA (arXiv 1705.03551), as ``unfiltered-web-dev.json``: one JSON object.

    {"Data": [{"QuestionId": "tc_1", "Question": "...", "Answer": {"Value": "...", "Aliases": [...]}}]}

Its unfiltered dev file is what the field calls the test split.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from searchr1.data.sets.rows import NO_ANSWER, Rows, Source, json_rows, read_whole, text, texts
from searchr1.errors import UserError


class _File(msgspec.Struct):
    Data: list[msgspec.Raw]


def read_triviaqa(source: Source) -> Rows:
    """The accepted answers are ``Aliases``, as FlashRAG takes them; ``Value`` where there are none."""
    try:
        raws = msgspec.json.decode(read_whole(source.path), type=_File).Data
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UserError(f'{source.path}: expected one JSON object with a list "Data": {error}') from error
    for place, row in json_rows(source.path, raws):
        identifier, question, answer = text(row, "QuestionId", place), text(row, "Question", place), row.get("Answer")
        if answer is None:  # the hidden test split
            yield place, NO_ANSWER
            continue
        if not isinstance(answer, Mapping):
            raise UserError(f"{place}: 'Answer': expected an object, got {answer!r:.200}")
        answers = texts(answer.get("Aliases") or [answer.get("Value")], "Answer.Aliases", place)
        yield place, {"id": identifier, "question": question, "answers": answers} if answers else NO_ANSWER
