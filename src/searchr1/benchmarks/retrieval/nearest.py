"""Nearest vectors, in a process of its own: faiss as our dense index lays it out, plain faiss, and hnswlib.

``python -m searchr1.benchmarks.retrieval.nearest`` reads a job and writes what each engine took, JSON on stdin and
stdout. Every engine searches the same vectors for the same queries, in batches of `BATCH`, and what trades speed for
recall is set to the least value that reaches the target on these queries, for all of them alike.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from searchr1.benchmarks.retrieval.base import SEED
from searchr1.retrieval.dense import layouts
from searchr1.retrieval.dense.vectors import Vectors

K = 10
BATCH = 256
_HNSWLIB_LINKS = 16  # hnswlib's own default
_HNSWLIB_CONSTRUCTION = 200

_NOT_COMPARED = ("flat", "ivf-pq")  # the one is the peer, the other gives recall away for memory

Floats = npt.NDArray[np.float32]
Rows = list[list[int]]


@dataclass(frozen=True, slots=True)
class Engine:
    """``search`` finds the rows of the ``k`` nearest; ``settings`` says what was tuned to what."""

    name: str
    search: Callable[[Floats, int], Any]
    rows: Callable[[Any], Rows]
    megabytes: float
    settings: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """CPU ms a query in each round; MB for a million vectors; the share of the true ten nearest that were found."""

    name: str
    costs: list[float]
    megabytes_a_million: float
    recall: float


def measure(vectors: Vectors, queries: Floats, target: float, rounds: int) -> list[Measured]:
    """Every engine that reaches the ``target``, in interleaved rounds; ours are named ``ours LAYOUT``."""
    truth = vectors.nearest(queries, K)
    costs: dict[str, list[float]] = {}
    engines: list[tuple[Engine, float]] = []
    for engine in (*_ours(vectors, queries, truth, target), *_peers(vectors, queries, truth, target)):
        found = [
            row for start in range(0, len(queries), BATCH) for row in _found(engine, queries[start : start + BATCH])
        ]
        padded = np.array([row + [-1] * (K - len(row)) for row in found])
        recall = layouts.recall_of(padded, truth)
        if recall >= target:
            engines.append((engine, recall))
        else:
            print(f"{engine.name}{engine.settings}: left out, recall@10 {recall:.3f}", file=sys.stderr)
    for _ in range(rounds):
        for engine, _ in engines:
            before = time.process_time()
            for start in range(0, len(queries), BATCH):
                engine.search(queries[start : start + BATCH], K)
            costs.setdefault(engine.name, []).append(1000 * (time.process_time() - before) / len(queries))
    scale = 1e6 / len(vectors)
    return [
        Measured(engine.name + engine.settings, costs[engine.name], engine.megabytes * scale, recall)
        for engine, recall in engines
    ]


def _found(engine: Engine, queries: Floats) -> Rows:
    return engine.rows(engine.search(queries, K))


def _ours(vectors: Vectors, queries: Floats, truth: npt.NDArray[np.int64], target: float) -> Iterator[Engine]:
    for name, layout in layouts.LAYOUTS.items():
        if name in _NOT_COMPARED:
            continue
        index = layouts.build_index(name, vectors)  # type: ignore[arg-type]
        settings = ""
        if layout.parameter:
            value, _ = layouts.tune(index, layout.parameter, queries, truth, target)
            layouts.set_parameter(index, layout.parameter, value)
            settings = f" ({layout.parameter} {value})"

        def search(asked: Floats, k: int, index: Any = index) -> list[list[tuple[float, int]]]:
            return layouts.search(index, asked, k)

        yield Engine(f"ours {name}", search, _rows_of_hits, _faiss_megabytes(index), settings)


def _peers(vectors: Vectors, queries: Floats, truth: npt.NDArray[np.int64], target: float) -> Iterator[Engine]:
    whole = np.vstack(list(vectors))
    flat = layouts.load_faiss().IndexFlatIP(vectors.dimension)
    flat.add(whole)
    yield Engine("faiss Flat", flat.search, lambda found: found[1].tolist(), _faiss_megabytes(flat))
    if importlib.util.find_spec("hnswlib") is None:
        print("hnswlib: skipped, it is not installed: pip install 'searchr1[bench]'", file=sys.stderr)
        return
    import hnswlib

    graph = hnswlib.Index(space="ip", dim=vectors.dimension)
    graph.init_index(len(vectors), ef_construction=_HNSWLIB_CONSTRUCTION, M=_HNSWLIB_LINKS, random_seed=SEED)
    graph.set_num_threads(1)
    graph.add_items(whole)
    for width in (10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 192, 256, 512, 1024):
        graph.set_ef(width)
        if layouts.recall_of(graph.knn_query(queries, K)[0].astype(np.int64), truth) >= target:
            break
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "graph"
        graph.save_index(str(file))
        size = file.stat().st_size / 1e6
    yield Engine(
        "hnswlib", graph.knn_query, lambda found: found[0].tolist(), size, f" (M {_HNSWLIB_LINKS}, ef {width})"
    )


def _rows_of_hits(found: list[list[tuple[float, int]]]) -> Rows:
    return [[row for _, row in hits] for hits in found]


def _faiss_megabytes(index: Any) -> float:
    """What the index takes on disk, which is what it takes in memory."""
    return len(layouts.load_faiss().serialize_index(index)) / 1e6


def main() -> None:
    job: dict[str, Any] = json.load(sys.stdin)
    blocks = tuple(map(Path, job["blocks"]))
    vectors = Vectors(blocks, job["rows"], job["dimension"])
    found = measure(vectors, np.load(job["queries"]), job["target"], job["rounds"])
    print(json.dumps([asdict(measured) for measured in found]))


if __name__ == "__main__":
    main()
