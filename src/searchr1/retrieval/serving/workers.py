"""The search server as several processes that share one listening socket.

Each opens the search engine itself; an index on disk is memory-mapped, so the pages that they read are shared. The
supervisor of uvicorn starts them, starts another where one died, and stops them all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import parent_process
from typing import TypeVar

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors import Multiprocess

from searchr1.errors import SearchR1Error
from searchr1.retrieval.serving.monitoring import FOLDER_VARIABLE, forget_dead_workers
from searchr1.retrieval.serving.server import SERVER_OPTIONS, create_app, listen, url_of
from searchr1.retrieval.serving.wire import Limits
from searchr1.retrieval.spec import open_retriever

_T = TypeVar("_T")
_START_SECONDS = 30  # a worker that gives no sign of life for so long is replaced


@dataclass(frozen=True)
class Service:
    """What every worker serves. ``spec`` is as in `searchr1.retrieval.spec`."""

    spec: str
    limits: Limits = field(default_factory=Limits)
    token: str = ""

    def app(self) -> ASGIApp:
        """Raises UserError."""
        return create_app(open_retriever(self.spec), limits=self.limits, token=self.token)


def serve_workers(
    service: Service, workers: int, *, host: str = "127.0.0.1", port: int = 8000, ready: Callable[[str], None]
) -> bool:
    """Serve in ``workers`` processes until SIGINT or SIGTERM; False when they could not start, which they say.

    ``ready`` is called with the URL once the port is ours; requests wait until the first worker is up. Raises
    UserError when the address cannot be had.
    """
    with listen(host, port) as listener, tempfile.TemporaryDirectory(prefix="searchr1-metrics-") as figures:
        os.environ[FOLDER_VARIABLE] = figures
        config = uvicorn.Config(
            partial(_worker_app, service),
            factory=True,
            workers=workers,
            timeout_worker_healthcheck=_START_SECONDS,
            lifespan="off",
            **SERVER_OPTIONS,
        )
        supervisor = _Supervisor(config, [listener])
        ready(url_of(listener, host))
        supervisor.run()
    return all(process.exitcode != STARTUP_FAILURE for process in supervisor.processes)


class _Supervisor(Multiprocess):
    """uvicorn's, but one that hears at once of a worker that dies while it is being asked whether it lives.

    It asks through a pipe. As long as it holds the worker's end of the pipe too, the pipe does not close with the
    worker, and a dead one is waited for like a slow one, while nobody is replaced and nobody told to stop.
    """

    def init_processes(self) -> None:
        super().init_processes()
        self._let_go()

    def keep_subprocess_alive(self) -> None:
        super().keep_subprocess_alive()
        self._let_go()

    def _let_go(self) -> None:
        for process in self.processes:
            process.child_conn.close()


def elsewhere(work: Callable[[], _T]) -> _T:
    """What ``work`` returns or raises in a process of its own, which takes what it opened with it when it ends."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(work).result()
        except BrokenProcessPool as error:
            raise SearchR1Error("the process that opened the search engine died; is there enough memory?") from error


def _worker_app(service: Service) -> ASGIApp:
    """The app of one worker, made in its process."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    forget_dead_workers()
    try:
        return service.app()
    except SearchR1Error as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(STARTUP_FAILURE)  # the supervisor does not try this again


def _end_with_the_parent() -> None:
    """A supervisor that was killed cannot stop its workers: they would keep the port for ever."""
    if (parent := parent_process()) is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
