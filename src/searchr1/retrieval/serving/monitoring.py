"""What the search server counts, as Prometheus reads it.

With several workers the numbers lie in files that all of them map (the multiprocess mode of prometheus_client, switched
on by ``PROMETHEUS_MULTIPROC_DIR``), so that whichever worker answers ``GET /metrics`` answers for all.
"""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
CONTENT_TYPE = CONTENT_TYPE_LATEST
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
_OTHER = "other"


class Monitor:
    """The figures of one app. Requests for any path but ``paths`` are counted together as "other"."""

    def __init__(self, paths: frozenset[str]) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._paths = paths
        self._requests = Counter("searchr1_requests", "Requests, by answer.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "searchr1_request_seconds",
            "From a request's first line to the end of its answer.",
            ["path"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self.queries = Counter("searchr1_queries", "Queries that were searched for.", registry=registry)
        self.in_flight = Gauge(
            "searchr1_searches_in_flight",
            "Requests whose search is under way.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self.refused = Counter(
            "searchr1_refused", "Requests refused because too many searches were under way.", registry=registry
        )
        self.errors = Counter(
            "searchr1_errors", "Requests that failed: the search engine's fault or ours.", registry=registry
        )
        self._children: dict[tuple[str, int], Counter] = {}  # looking a child up costs more than counting
        self._timers: dict[str, Histogram] = {}

    def answered(self, path: str, status: int, seconds: float) -> None:
        """One request was answered."""
        if path not in self._paths:
            path = _OTHER
        child = self._children.get((path, status))
        if child is None:
            child = self._children[path, status] = self._requests.labels(path, str(status))
        child.inc()
        timer = self._timers.get(path)
        if timer is None:
            timer = self._timers[path] = self._seconds.labels(path)
        timer.observe(seconds)

    def text(self) -> bytes:
        """The page that Prometheus reads, of all workers."""
        if FOLDER_VARIABLE not in os.environ:
            return generate_latest(self._registry)
        everybody = CollectorRegistry()
        MultiProcessCollector(everybody)  # type: ignore[no-untyped-call]
        return generate_latest(everybody)


def forget_dead_workers() -> None:
    """What a killed worker had in flight is in flight no more. What it counted stays counted."""
    for file in Path(os.environ[FOLDER_VARIABLE]).glob("gauge_live*_*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
