"""Playing an evaluation into its folder: what has a row already is left alone, and every answer is kept at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from searchr1.agents.rollout import Job, play_each
from searchr1.errors import EngineError, SearchR1Error, SearchUnavailable
from searchr1.evaluation.evaluate import question_seed, score_trajectories
from searchr1.evaluation.folder import EvaluationFolder
from searchr1.evaluation.rows import Key, prediction_row
from searchr1.ports import Agent, Counting, Engine, Retriever
from searchr1.retrieval.counting import since
from searchr1.types import Passage, Question, StopReason, Trajectory

IN_A_ROW = 32
"""So many failures one after the other, and none of the policy's: what serves it is down, and going on is no use."""
_NOTE_EVERY = 5.0  # seconds between notes of what was used


@dataclass(frozen=True)
class Session:
    """One sitting of an evaluation: who plays what, how often, and from which seed."""

    questions: Sequence[Question]
    agent: Agent
    engine: Engine
    retriever: Retriever
    seed: int
    samples: int = 1
    concurrency: int = 256
    shown: Callable[[Sequence[Passage]], int] = len
    """Tokens that the policy reads of the passages of one search."""

    @property
    def order(self) -> dict[Key, int]:
        """Every row that there will be, and its place."""
        keys = [(q.dataset, q.id, sample) for sample in range(self.samples) for q in self.questions]
        return {key: place for place, key in enumerate(keys)}


async def play(session: Session, folder: EvaluationFolder, progress: Callable[[int, int], None]) -> None:
    """Play what has no row yet; every row is on disk when its question is done. ``progress(done, total)`` tells.

    Raises ``SearchUnavailable`` or ``EngineError`` after `IN_A_ROW` failures one after the other; what was answered
    until then is kept. Questions that failed in an earlier sitting, too, are not counted there: those that no engine
    can answer must not keep an evaluation from its end.
    """
    by_key = {(question.dataset, question.id): question for question in session.questions}
    done, order = folder.done, session.order
    todo, total = [key for key in order if key not in done], len(order)
    jobs = []
    for dataset, identifier, sample in todo:
        question = by_key[(dataset, identifier)]
        jobs.append(Job(question, question_seed(session.seed, question, sample)))
    notes = _Notes(session, folder)
    failures = 0

    def finished(index: int, trajectory: Trajectory) -> None:
        nonlocal failures
        [scored] = score_trajectories([trajectory])
        folder.append(prediction_row(scored, sample=todo[index][2], shown=session.shown))
        notes.write(now=False)
        progress(len(folder.rows), total)
        if not trajectory.failed:
            failures = 0
        elif todo[index] not in folder.failed_before:  # else it may be the question that cannot be answered
            failures += 1
            if failures == min(IN_A_ROW, total):
                raise _down(trajectory.stop, failures)

    try:
        await play_each(
            jobs, session.agent, session.engine, session.retriever, finished, concurrency=session.concurrency
        )
    finally:
        notes.write(now=True)


class _Notes:
    """What this sitting has used so far, noted in the folder now and then."""

    def __init__(self, session: Session, folder: EvaluationFolder) -> None:
        self._session, self._folder = session, folder
        self._started = self._noted = time.monotonic()
        self._before = self._counts()

    def write(self, *, now: bool) -> None:
        moment = time.monotonic()
        if not now and moment - self._noted < _NOTE_EVERY:
            return
        self._noted = moment
        counts = self._counts()
        used = {name: since(counts[name], self._before[name]) for name in counts}
        self._folder.used({"seconds": round(moment - self._started, 3), **used})

    def _counts(self) -> dict[str, Mapping[str, Any]]:
        parts: dict[str, object] = {"search": self._session.retriever, "engine": self._session.engine}
        return {name: dict(part.counts()) for name, part in parts.items() if isinstance(part, Counting)}


def _down(stop: StopReason, failures: int) -> SearchR1Error:
    what = "search engine" if stop is StopReason.SEARCH_UNAVAILABLE else "generation engine"
    kind = SearchUnavailable if stop is StopReason.SEARCH_UNAVAILABLE else EngineError
    return kind(f"{failures} questions in a row failed ({stop}): the {what} does not serve; see to it, then --resume")
