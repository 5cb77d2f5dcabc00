"""What a search engine tells beside its passages: its counts, and what must be known before its searches are merged.

Those of engines that are ``per_question`` depend on `ASKED`, the question being answered; an engine of
``one_query_a_request`` gains nothing by merging.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar

from searchr1.ports import Counting, Retriever
from searchr1.types import Question

ASKED: ContextVar[Question | None] = ContextVar("asked", default=None)
"""The question that the running trajectory answers; set by the rollout, for engines that are ``per_question``.

Oracles and simulated engines need it: they find what belongs to the question, not only what the query says.
"""


def per_question(retriever: Retriever) -> bool:
    """Whether what it finds depends on `ASKED` too, so that searches of different trajectories must not be merged."""
    return bool(getattr(retriever, "per_question", False))


def one_query_a_request(retriever: Retriever) -> bool:
    """Whether it asks for every query on its own: merged with others, a query would only share their failures."""
    return bool(getattr(retriever, "one_query_a_request", False))


def counts_of(retrievers: Iterable[Retriever]) -> dict[str, float]:
    """The sums of what the retrievers count."""
    total: dict[str, float] = {}
    for retriever in retrievers:
        for name, value in (retriever.counts() if isinstance(retriever, Counting) else {}).items():
            total[name] = total.get(name, 0.0) + value
    return total


def since(now: Mapping[str, float], before: Mapping[str, float]) -> dict[str, float]:
    """What was counted between two moments.

    >>> since({"requests": 5.0, "retries": 1.0}, {"requests": 2.0})
    {'requests': 3.0, 'retries': 1.0}
    """
    return {name: value - before.get(name, 0.0) for name, value in now.items()}
