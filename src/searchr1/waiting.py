"""Who watches long work, and what is done when its search engine stops answering: wait, say so, play again."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from searchr1.errors import EngineError, SearchBudgetSpent, SearchUnavailable
from searchr1.retrieval.meter import Meter
from searchr1.types import StopReason, Trajectory

RETRY_SECONDS = 5.0


class Monitor(Protocol):
    """Who watches the run: a live display, a log, a test."""

    def phase(self, name: str, total: int) -> None: ...

    def progress(self, done: int, total: int) -> None: ...

    def stepped(self, row: Mapping[str, Any]) -> None: ...

    def evaluated(self, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def paused(self, reason: str) -> None: ...

    def alarmed(self, rows: Sequence[Mapping[str, Any]]) -> None: ...


class Silent:
    """Watches nothing."""

    def phase(self, name: str, total: int) -> None:
        pass

    def progress(self, done: int, total: int) -> None:
        pass

    def stepped(self, row: Mapping[str, Any]) -> None:
        pass

    def evaluated(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass

    def paused(self, reason: str) -> None:
        pass

    def alarmed(self, rows: Sequence[Mapping[str, Any]]) -> None:
        pass


async def sound(played: Sequence[Trajectory], where: str, *, share: float, search: Meter, monitor: Monitor) -> bool:
    """Whether at most ``share`` of ``played`` failed. If not, all are to be played again, and ``search`` answers again.

    ``where`` says for people what was played. Raises ``EngineError`` where not the search engine is to blame, and
    ``SearchBudgetSpent`` where waiting does not help.
    """
    stops = Counter(trajectory.stop for trajectory in played if trajectory.failed)
    failed, broken = stops.total(), stops[StopReason.ENGINE_ERROR]
    if failed <= share * len(played):
        return True
    if 2 * broken > failed:  # waiting mends a search engine, not a model
        raise EngineError(f"{broken} of {len(played)} trajectories of {where} ended in an engine error")
    reason = f"{failed} of {len(played)} trajectories of {where} failed ({StopReason.SEARCH_UNAVAILABLE})"
    while True:
        monitor.paused(reason)
        await asyncio.sleep(RETRY_SECONDS)
        try:
            await search.retry()
            return False
        except SearchBudgetSpent:
            raise
        except SearchUnavailable as error:
            reason = str(error)
