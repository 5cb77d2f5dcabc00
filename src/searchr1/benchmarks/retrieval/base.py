"""What every figure of ``bench retrieval`` shares: its options, its rows, the processes whose cost is read."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = dict[str, Any]
LINE = "CPU ms/query"
SEED = 7
PEERS = ("bm25s", "lucene")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, beside whom, on what; ``passages`` None leaves the sizes to each figure."""

    work: Path
    """Corpora and indexes are kept here and used again."""
    data: Path
    """A folder with ``merged_corpus.jsonl.gz`` and ``*.dev.jsonl.gz``; without them the atlas is generated."""
    passages: tuple[int, ...] | None = None
    peers: tuple[str, ...] = PEERS
    rounds: int = 5
    workers: int = 1
    """Processes of our server."""
    lucene_jar: Path | None = None
    encoder: str | None = None
    """Whose vectors of the corpus the dense figure searches; without it they are made up."""
    plot: Path | None = None
    queries: int = 500
    say: Callable[[str], None] = print


def row(figure: str, unit: str, ours: float, peer: str, theirs: float, *, more: bool = False) -> Row:
    """One figure beside its peer; a ratio above 1 means that ours is better (``more``: the larger one is).

    >>> row("BM25, 200 passages", "CPU ms/query", 0.2, "bm25s", 0.1)["ratio"]
    0.5
    """
    ratio = ours / theirs if more else theirs / ours
    return {
        "figure": figure,
        "unit": unit,
        "ours": float(f"{ours:.4g}"),
        "peer": peer,
        "theirs": float(f"{theirs:.4g}"),
        "ratio": float(f"{ratio:.3g}"),
    }


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes have taken so far, all threads, dead ones too, to the nanosecond.

    Linux names the clock of a process by its id: ``clock_getcpuclockid(3)``.
    """
    return sum(time.clock_gettime((~pid << 3) | 2) for pid in pids)


def family(pid: int) -> list[int]:
    """The process and its living descendants."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [pid, *(member for child in children for member in family(int(child)))]


def status_mb(pid: int | str, field: str) -> float:
    """A field of ``/proc/PID/status``, as RssAnon (now), VmRSS (now) or VmHWM (the most so far), in MB."""
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024 / 1e6
    raise KeyError(field)


def folder_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def load_average() -> str:
    return "load average " + " ".join(f"{load:.2f}" for load in os.getloadavg())


def one_thread() -> dict[str, str]:
    """The environment of a measured process: every library works with one thread."""
    threads = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(threads, "1"), "DISABLE_TQDM": "1", "PYTHONUNBUFFERED": "1"}
