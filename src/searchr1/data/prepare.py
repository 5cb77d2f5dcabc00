"""A benchmark's file, in whatever format, becomes a question file of this package, checked against what is pinned."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from searchr1.data.jsonl import require_file
from searchr1.data.questions import question_from_row, write_questions
from searchr1.data.sets import BENCHMARKS, Benchmark, Split
from searchr1.data.sets.formats import FORMATS, recognise
from searchr1.data.sets.rows import LeftOut, Source
from searchr1.errors import UserError, nearest
from searchr1.types import Question


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was written. ``left_out`` counts rows by reason; ``doubts`` says what is not as it is pinned."""

    name: str
    split: str
    format: str
    questions: int
    left_out: Mapping[str, int]
    content_hash: str
    doubts: tuple[str, ...]


def choose_split(name: str, split: str | None) -> tuple[Benchmark, str, Split]:
    """The set, and the split that was asked for or that the paper tests on. Raises UserError."""
    if name not in BENCHMARKS:
        raise UserError(f"data set {name!r} is unknown{nearest(name, BENCHMARKS)}")
    benchmark = BENCHMARKS[name]
    chosen = split or benchmark.tested
    if chosen not in benchmark.splits:
        raise UserError(f"{name} has no split {chosen!r}; it has {', '.join(benchmark.splits)}")
    return benchmark, chosen, benchmark.splits[chosen]


def prepare_questions(
    name: str,
    source: Path,
    out: Path,
    *,
    split: str | None = None,
    format: str | None = None,
    aliases: Path | None = None,
    limit: int | None = None,
    strict: bool = False,
) -> Prepared:
    """Write the (first ``limit``) questions of ``source`` to ``out``, whole or not at all.

    Ids are those of the source where it has any, else ``NAME-SPLIT-ROW`` with rows counted from 0. What cannot be asked
    is left out and counted. The number of questions and, where it is pinned, their `content_hash` are checked, unless
    there is a limit: what differs is a doubt, with ``strict`` an error. Raises UserError, also for every malformed row.
    """
    benchmark, split, pinned = choose_split(name, split)
    kind = format or recognise(require_file(source))
    if kind not in FORMATS:
        raise UserError(f"format {kind!r} is unknown{nearest(kind, FORMATS)}")
    left_out: Counter[str] = Counter()
    questions = _read(Source(source, name, split, aliases), kind, benchmark, limit, left_out)
    if not questions:
        told = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items())
        raise UserError(f"{source}: expected questions of {name}, found none{f' ({told})' if told else ''}")
    found = content_hash(questions)
    doubts = [] if limit else _doubts(pinned, kind, split == benchmark.tested, len(questions), found)
    if doubts and strict:
        raise UserError(f"{name} {split}: {doubts[0]}; without --strict it is taken all the same")
    write_questions(out, questions)
    return Prepared(name, split, kind, len(questions), dict(left_out), found, tuple(doubts))


def content_hash(questions: Iterable[Question]) -> str:
    """SHA-256 (hex) over questions and answers, whatever their order, ids and format.

    A question mark at the end does not count, for Search-R1's files have one everywhere:

    >>> dune = Question("1", "who wrote dune", ("Herbert", "F. H."))
    >>> content_hash([dune]) == content_hash([Question("2", "who wrote dune?", ("F. H.", "Herbert"))])
    True
    """
    lines = sorted(
        json.dumps([question.text.strip().rstrip("?").rstrip(), sorted(set(question.answers))])
        for question in questions
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _read(source: Source, kind: str, benchmark: Benchmark, limit: int | None, left_out: Counter[str]) -> list[Question]:
    questions: list[Question] = []
    places: dict[str, str] = {}
    for number, (place, row) in enumerate(FORMATS[kind](source)):
        if isinstance(row, LeftOut):
            left_out[row.reason] += 1
            continue
        if not benchmark.mixed and row.get("dataset", source.name) != source.name:
            left_out["of another set"] += 1
            continue
        hops = {"hops": benchmark.hops} if benchmark.hops else {}
        numbered = {"id": f"{source.name}-{source.split}-{number}"}
        question = question_from_row({**numbered, **hops, **row}, place, default_dataset=source.name)
        if question.id in places:
            raise UserError(f"{place}: id {question.id!r} was used before at {places[question.id]}; ids must be unique")
        places[question.id] = place
        questions.append(question)
        if len(questions) == limit:
            break
    return questions


def _doubts(pinned: Split, kind: str, tested: bool, count: int, content: str) -> list[str]:
    doubts = []
    # The train and dev splits of the hub are cut otherwise than those of the sets' own files.
    if pinned.questions and pinned.questions != count and (tested or kind in ("flashrag", "verl")):
        doubts.append(f"expected {pinned.questions:,} questions, got {count:,}")
    elif pinned.content and pinned.content != content:
        doubts.append(f"expected content hash {pinned.content[:16]}..., got {content[:16]}...")
    return doubts
