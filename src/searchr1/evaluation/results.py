"""An evaluation folder as statistics see it: a number for every question, whatever the number of its samples."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from searchr1.errors import UserError
from searchr1.evaluation.folder import read_predictions, read_summary
from searchr1.evaluation.rows import COSTS, Row, key_of
from searchr1.evaluation.summary import SCORES

FIGURES = (*SCORES, *COSTS)
QuestionKey = tuple[str, str]
"""Data set and id."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One question's means over the samples that did not fail, in the order of `FIGURES`; None where nothing is known.

    ``identity`` is the same for the same question text and accepted answers.
    """

    identity: bytes
    samples: int
    failed: int
    figures: tuple[float | None, ...]

    def __getitem__(self, figure: str) -> float | None:
        return self.figures[FIGURES.index(figure)]

    @property
    def scored(self) -> bool:
        return self.failed < self.samples


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A finished evaluation folder. ``settings`` is empty where the folder does not say (format version 1)."""

    folder: Path
    settings: Mapping[str, Any]
    questions: Mapping[QuestionKey, Answered]

    @property
    def datasets(self) -> list[str]:
        return list(dict.fromkeys(dataset for dataset, _ in self.questions))

    @property
    def samples(self) -> int:
        """The most samples that a question has."""
        return max((answered.samples for answered in self.questions.values()), default=0)


def read_evaluation(folder: str | Path) -> Evaluation:
    """Read it. Raises UserError as `read_predictions`, and for a question (and sample) that is there twice."""
    folder = Path(folder)
    samples: dict[QuestionKey, list[Row]] = {}
    seen = set()
    for row in read_predictions(folder):
        key = key_of(row)
        if key in seen:
            raise UserError(f"{folder}: {key[0]} {key[1]!r} occurs twice; a question may be evaluated once")
        seen.add(key)
        samples.setdefault(key[:2], []).append(row)
    if not samples:
        raise UserError(f"{folder}: expected predictions, found none; evaluate again")
    questions = {key: _answered(rows, f"{folder}: {key[0]} {key[1]!r}") for key, rows in samples.items()}
    return Evaluation(folder, read_summary(folder).get("settings") or {}, questions)


def same_question(one: Answered, other: Answered, key: QuestionKey, where: str) -> None:
    """Raises UserError where an id stands for two different questions."""
    if one.identity != other.identity:
        raise UserError(
            f"{where}: {key[0]} {key[1]!r} is not the same question in both; evaluate both on the same data"
        )


def _answered(rows: Sequence[Row], place: str) -> Answered:
    identities = {_identity(row) for row in rows}
    if len(identities) > 1:
        raise UserError(f"{place}: its samples are of different questions; evaluate again")
    scored = [row for row in rows if not row["failed"]]
    figures = []
    for name in FIGURES:
        values = [float(value) for row in scored if (value := row.get(name)) is not None]
        figures.append(fmean(values) if values else None)
    return Answered(identities.pop(), len(rows), len(rows) - len(scored), tuple(figures))


def _identity(row: Row) -> bytes:
    text = "\x00".join([row["question"], *map(str, row["answers"])])
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=8).digest()
