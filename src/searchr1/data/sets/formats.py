"""The formats of question files, and which of them a file is in."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from searchr1.data.sets.flashrag import read_flashrag
from searchr1.data.sets.hotpotqa import read_hotpotqa
from searchr1.data.sets.musique import read_musique
from searchr1.data.sets.nq_open import read_nq_open
from searchr1.data.sets.rows import Rows, Source, open_bytes
from searchr1.data.sets.tables import read_bamboogle, read_popqa
from searchr1.data.sets.triviaqa import read_triviaqa
from searchr1.errors import UserError

_HEAD = 1 << 20


def read_verl(source: Source) -> Rows:
    """The parquet files of veRL and Search-R1; see `searchr1.data.parquet`."""
    from searchr1.data.parquet import read_parquet_rows

    yield from read_parquet_rows(source.path)


FORMATS: Mapping[str, Callable[[Source], Rows]] = {
    "flashrag": read_flashrag,
    "verl": read_verl,
    "hotpotqa": read_hotpotqa,
    "2wikimultihopqa": read_hotpotqa,
    "musique": read_musique,
    "nq-open": read_nq_open,
    "popqa": read_popqa,
    "bamboogle": read_bamboogle,
    "triviaqa": read_triviaqa,
}
_ENDINGS = {".parquet": "verl", ".tsv": "popqa", ".csv": "bamboogle"}
_SIGNS = {
    "flashrag": ({"golden_answers"}, {"id", "answers"}),
    "triviaqa": ({"Data"},),
    "2wikimultihopqa": ({"_id", "evidences"},),
    "hotpotqa": ({"_id", "question"},),
    "musique": ({"paragraphs", "question_decomposition"}, {"id", "answer_aliases"}),
    "nq-open": ({"question", "answer"},),
}
"""Keys that the first object of a file has, by format; the first that fits is taken."""


def recognise(path: Path) -> str:
    """The format of a file, by the end of its name or the keys of its first row. Raises UserError."""
    ending = path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    keys = _first_keys(path)
    for name, signs in _SIGNS.items():
        if any(sign <= keys for sign in signs):
            return name
    told = f"its first row has the keys {', '.join(sorted(keys))}" if keys else "it does not begin with a JSON object"
    raise UserError(f"{path}: unknown format: {told}; name it with --format {'|'.join(FORMATS)}")


def _first_keys(path: Path) -> set[str]:
    try:
        with open_bytes(path) as file:
            head = file.read(_HEAD).decode("utf-8-sig", errors="replace").lstrip()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path}: broken gzip data: {error}; copy or download it again") from error
    begin = head.find("{") if head[:1] in ("{", "[") else -1
    if begin < 0:
        return set()
    try:
        first: dict[str, Any] = json.JSONDecoder().raw_decode(head, begin)[0]
    except json.JSONDecodeError:  # longer than what was read: TriviaQA is one object
        return {"Data"} if '"Data"' in head else set()
    return set(first)
