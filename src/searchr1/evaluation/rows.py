"""One line of an evaluation: what a trajectory says of its question, and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import UnionType
from typing import Any

from searchr1.errors import UserError
from searchr1.rewards import DIAGNOSTICS
from searchr1.rewards.text import holds_answer, normalize
from searchr1.types import Passage, Scored, Search, SearchOutcome, Segment, Source, Trajectory

Row = dict[str, Any]
Key = tuple[str, str, int]
"""Data set, id and number of the sample: what a row is the only one of."""
EXECUTED = (SearchOutcome.FOUND, SearchOutcome.EMPTY)
COSTS = ("searches", "policy_tokens", "retrieved_tokens", "prompt_tokens", "seconds", "search_seconds")
"""Numbers of a row that say what the answer cost."""


def prediction_row(item: Scored, *, sample: int = 0, shown: Callable[[Sequence[Passage]], int] = len) -> Row:
    """One line of ``predictions.jsonl``. The scores of a failed trajectory are null: it has none.

    ``sample`` counts the trajectories of one question. ``shown`` is how many tokens the policy reads of the passages of
    one search. ``prompt_tokens`` adds up the contexts of all of the policy's turns, as a server without a cache reads
    them. ``answer_retrieved`` says whether a passage that was found holds an accepted answer; null where nothing was
    searched, and for yes and no.
    """
    trajectory, question = item.trajectory, item.trajectory.question
    executed = [turn for turn in trajectory.turns if turn.search in EXECUTED]
    return {
        "id": question.id,
        "dataset": question.dataset,
        "question": question.text,
        "answers": list(question.answers),
        "sample": sample,
        "prediction": trajectory.answer,
        "stop": str(trajectory.stop),
        "searches": trajectory.searches,
        "queries": [turn.action.query for turn in executed if isinstance(turn.action, Search)],
        **{name: None if trajectory.failed else item.components[name] for name in DIAGNOSTICS},
        "failed": trajectory.failed,
        "seed": trajectory.seed,
        "policy_tokens": sum(_count(context, Source.POLICY) for context in trajectory.contexts),
        "retrieved_tokens": sum(shown(turn.passages) for turn in executed if turn.passages),
        "prompt_tokens": sum(_read(context) for context in trajectory.contexts),
        "seconds": round(sum(turn.generate_seconds + turn.search_seconds for turn in trajectory.turns), 4),
        "search_seconds": round(sum(turn.search_seconds for turn in trajectory.turns), 4),
        "answer_retrieved": answer_retrieved(trajectory),
    }


def answer_retrieved(trajectory: Trajectory) -> bool | None:
    """Whether a passage that was found holds an accepted answer in whole words; None where that says nothing."""
    answers = trajectory.question.answers
    found = [passage for turn in trajectory.turns for passage in turn.passages]
    if not trajectory.searches or {normalize(text) for text in answers} <= {"yes", "no", ""}:
        return None
    return any(holds_answer(passage, answers) for passage in found)


def key_of(row: Row) -> Key:
    return row["dataset"], row["id"], row.get("sample", 0)


def checked_row(row: Row, place: str) -> Row:
    """``row`` if it has what makes it comparable.

    That is its question (``id``, ``dataset``, ``question``, ``answers``), ``failed``, and the number ``exact_match``
    unless it failed. Raises UserError naming ``place``.
    """
    kinds: dict[str, type | UnionType] = {"id": str, "dataset": str, "question": str, "answers": list, "failed": bool}
    if row.get("failed") is False:
        kinds["exact_match"] = int | float
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            raise UserError(f"{place}: {key!r} is missing or ill-typed, got {row.get(key)!r}; run searchr1 eval again")
    return row


def _count(context: Iterable[Segment], source: Source) -> int:
    return sum(len(segment.token_ids) for segment in context if segment.source is source)


def _read(context: Iterable[Segment]) -> int:
    """Tokens before each of the policy's turns, added up."""
    before = total = 0
    for segment in context:
        total += before if segment.source is Source.POLICY else 0
        before += len(segment.token_ids)
    return total
