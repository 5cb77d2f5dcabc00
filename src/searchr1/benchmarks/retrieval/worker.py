"""A process for one system, so that interpreters, imports, compilers and garbage do not mix.

``python -m searchr1.benchmarks.retrieval.worker SYSTEM [JAR]`` reads one JSON command a line and answers with one JSON
line. `Worker` is the other end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from searchr1.benchmarks.retrieval.base import one_thread, status_mb
from searchr1.errors import SearchR1Error


class Worker:
    """One system in its own process; a context manager. What the process says goes to ``log``."""

    def __init__(self, system: str, jar: Path | None, log: Path) -> None:
        self._name, self._log = system, log
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", __name__, system, *([str(jar)] if jar else [])]
        with log.open("ab") as said:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, env=one_thread(), text=True
            )

    def ask(self, do: str, **what: Any) -> dict[str, Any]:
        """Raises SearchR1Error when the process has died."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps({"do": do, **what}), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SearchR1Error(f"the {self._name} process ended while it was to {do}; it said why in {self._log}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def main() -> None:
    """Answers on what was standard output; whatever a library prints there goes to standard error."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from searchr1.benchmarks.retrieval.systems import SYSTEMS

    name, *jar = sys.argv[1:]
    system = SYSTEMS[name](Path(jar[0]) if jar else None)
    for line in sys.stdin:
        command = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        answer: dict[str, Any] = {}
        match command["do"]:
            case "build":
                system.build(Path(command["corpus"]), Path(command["folder"]))
            case "open":
                system.open(Path(command["folder"]))
                system.search([command["query"]], command["k"], command["way"])
            case "search":
                answer["hits"] = system.search(command["queries"], command["k"], command["way"])
        answer |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        answer |= {field: status_mb("self", field) for field in ("RssAnon", "VmRSS", "VmHWM")}
        hits = answer.pop("hits", [])
        answer |= {"found": sum(map(len, hits)), "first": hits[:1]}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
