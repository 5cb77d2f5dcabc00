"""Retrieval recall: how often the passages found for a raw question hold what it takes to answer it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.errors import UserError
from searchr1.evaluation.bootstrap import mean_interval
from searchr1.ports import Retriever
from searchr1.retrieval.counting import ASKED, per_question
from searchr1.retrieval.queries import check_k
from searchr1.rewards.text import holds_answer, normalize
from searchr1.types import Passage, Question


@dataclass(frozen=True, slots=True)
class _Scores:
    """One question's scores by k; None where the question does not count."""

    answer: Mapping[int, float] | None
    titles: Mapping[int, float] | None


async def recall(
    retriever: Retriever,
    questions: Sequence[Question],
    ks: Sequence[int] = (3, 5, 10),
    *,
    batch_size: int = 64,
    seed: int = 0,
    resamples: int = 2000,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Recall in the first ``k`` passages for every ``k``, with 95% intervals over the questions.

        {"n": 465, "answer_recall": {"3": {"value": 0.61, "ci_low": 0.57, "ci_high": 0.66}, ...},
         "title_recall": {...}, "all_titles_recall": {...}}

    ``answer_recall``: the share of questions of which a passage holds an accepted answer, in whole words after
    normalisation, in title or text; questions whose only answers are yes or no, or of which normalisation leaves
    nothing ("The"), do not count. ``title_recall``: the mean share of a question's ``supporting_titles`` among the
    passages' titles; ``all_titles_recall``: the share of questions with all of them there. A table without a question
    that counts is empty. An engine that is ``per_question`` is asked for one question at a time, which it may read
    (`ASKED`). Raises UserError for no questions and for a ``k`` out of range, SearchUnavailable from the
    retriever.
    """
    if not questions:
        raise UserError("recall: expected at least one question, got none")
    ks = sorted({check_k(k) for k in ks})
    if not ks:
        raise UserError("recall: expected at least one k, got none")
    scores: list[_Scores] = []
    alone = per_question(retriever)
    at_once = 1 if alone else batch_size
    for start in range(0, len(questions), at_once):
        batch = questions[start : start + at_once]
        asked = ASKED.set(batch[0] if alone else None)
        try:
            found = await retriever.search([question.text for question in batch], ks[-1])
        finally:
            ASKED.reset(asked)
        scores += [_score(question, passages, ks) for question, passages in zip(batch, found, strict=True)]
        if progress is not None:
            progress(len(scores), len(questions))

    def table(rows: Iterable[Mapping[int, float]]) -> dict[str, dict[str, float]]:
        counted = list(rows)
        return {str(k): _interval([row[k] for row in counted], seed, resamples) for k in ks} if counted else {}

    with_titles = [score.titles for score in scores if score.titles is not None]
    return {
        "n": len(questions),
        "answer_recall": table(score.answer for score in scores if score.answer is not None),
        "title_recall": table(with_titles),
        "all_titles_recall": table({k: float(share == 1.0) for k, share in row.items()} for row in with_titles),
    }


def _score(question: Question, passages: Sequence[Passage], ks: Sequence[int]) -> _Scores:
    answer = None
    if not {normalize(text) for text in question.answers} <= {"yes", "no", ""}:
        hits = [holds_answer(passage, question.answers) for passage in passages]
        answer = {k: float(any(hits[:k])) for k in ks}
    titles = None
    if gold := set(question.metadata.get("supporting_titles") or ()):
        titles = {k: len(gold & {passage.title for passage in passages[:k]}) / len(gold) for k in ks}
    return _Scores(answer, titles)


def _interval(values: Sequence[float], seed: int, resamples: int) -> dict[str, float]:
    value, low, high = mean_interval(values, seed, resamples)
    return {"value": value, "ci_low": low, "ci_high": high}
