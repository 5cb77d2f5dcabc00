"""The kinds of faiss index: what each costs, which one to take, how it is built, tuned and searched.

The figures are measured on 10,000 Wikipedia passages encoded by MiniLM (384 dimensions), one core, 500 questions:

    layout    CPU ms a query   recall@10   bytes a vector
    flat                0.30       1.000             1536
    fp16                0.18       1.000              768
    sq8                 0.25       0.992              384
    hnsw                0.06       0.962              496   efSearch 56
    ivf-sq8             0.12       0.973              392   nprobe 80 of 256
    ivf-pq              0.22       0.818              104   nprobe 112 of 256

Queries came in batches of 32; in batches of hundreds faiss scans flat by matrix products, in 0.08 ms a query. Scans
grow with the corpus; larger ones were not measured. ``hnsw`` stores its vectors as sq8 does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from searchr1.errors import UserError
from searchr1.retrieval.dense.runtimes import cpu_threads, missing
from searchr1.retrieval.dense.vectors import Floats, Vectors

LayoutName: TypeAlias = Literal["flat", "fp16", "sq8", "hnsw", "ivf-sq8", "ivf-pq"]
_SLOWEST_SCAN = 20e-3  # seconds of one core for one query; encoding it takes about 5e-3
_SCAN_SECONDS = 6e-11  # for one number of one vector
_HNSW_SECONDS = 3e-7  # for adding one number of one vector to a graph of 10,000
_IVF_SECONDS = 1e-10  # for comparing one number of a vector with a centroid
_PQ_SECONDS = 4e-6  # of training for one number of a vector
_TRAINED_ON = 64  # vectors for a centroid; faiss asks for 39 at least
_PQ_TRAINED_ON = 16_384
_PQ_CENTROIDS = 256
_NEAR_ENOUGH = 0.01
_TIE_MARGIN = 8
# Scores of one pair differ in their last bits with the batch that they are computed in. Rounded, near ties are ties.
_SCORE_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of index. ``bytes_a_vector`` and ``seconds_a_vector`` are of dimension (and number of vectors)."""

    make: Callable[[Any, int, int], Any]
    """faiss, dimension and number of vectors -> an empty index."""
    bytes_a_vector: Callable[[int], float]
    seconds_a_vector: Callable[[int, int], float]
    recall: str
    parameter: Literal["", "nprobe", "efSearch"] = ""
    """What trades speed for recall when it is searched."""


def centroids(vectors: int) -> int:
    """Inverted lists for so many vectors: four times the square root, and enough vectors to find each.

    >>> centroids(10_000), centroids(21_000_000), centroids(5)
    (256, 18330, 1)
    """
    return max(1, min(round(4 * math.sqrt(vectors)), vectors // 39))


def links(dimension: int) -> int:
    """HNSW's M: as many links as keep the graph and its 8-bit vectors within a third of what flat takes."""
    return 12 if dimension < 512 else 16


def _scalar(kind: str) -> Callable[[Any, int, int], Any]:
    def make(faiss: Any, dimension: int, vectors: int) -> Any:
        return faiss.IndexScalarQuantizer(dimension, getattr(faiss.ScalarQuantizer, kind), faiss.METRIC_INNER_PRODUCT)

    return make


def _hnsw(faiss: Any, dimension: int, vectors: int) -> Any:
    kind = faiss.ScalarQuantizer.QT_8bit
    index = faiss.IndexHNSWSQ(dimension, kind, links(dimension), faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = 200
    return index


def _ivf(codes: str) -> Callable[[Any, int, int], Any]:
    def make(faiss: Any, dimension: int, vectors: int) -> Any:
        code = f"PQ{_pq_bytes(dimension)}" if codes == "PQ" else codes
        index = faiss.index_factory(dimension, f"IVF{centroids(vectors)},{code}", faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1  # no warnings on standard error: `centroids` saw to it
        if codes == "PQ":
            index.pq.cp.min_points_per_centroid = 1
            index.do_polysemous_training = False  # minutes, for a filter that is not used here
            index.pq.cp.max_points_per_centroid = _PQ_TRAINED_ON // _PQ_CENTROIDS
        return index

    return make


def _pq_bytes(dimension: int) -> int:
    """A quarter of the dimension, or the next less that divides it.

    >>> _pq_bytes(384), _pq_bytes(50)
    (96, 10)
    """
    return next(parts for parts in range(max(1, dimension // 4), 0, -1) if dimension % parts == 0)


LAYOUTS: dict[str, Layout] = {
    "flat": Layout(lambda faiss, d, n: faiss.IndexFlatIP(d), lambda d: 4 * d, lambda d, n: 0.0, "1.00"),
    "fp16": Layout(_scalar("QT_fp16"), lambda d: 2 * d, lambda d, n: 0.0, "1.00"),
    "sq8": Layout(_scalar("QT_8bit"), lambda d: d, lambda d, n: 0.0, "0.99"),
    "hnsw": Layout(
        _hnsw,
        lambda d: d + 8 * links(d) + 16,
        lambda d, n: _HNSW_SECONDS * d * max(1.0, math.log(max(n, 2), 10_000)) * 2,
        "tuned",
        "efSearch",
    ),
    "ivf-sq8": Layout(
        _ivf("SQ8"), lambda d: d + 8, lambda d, n: _IVF_SECONDS * d * centroids(n) * 12, "tuned", "nprobe"
    ),
    "ivf-pq": Layout(
        _ivf("PQ"),
        lambda d: _pq_bytes(d) + 8,
        lambda d, n: _IVF_SECONDS * d * centroids(n) * 12 + _PQ_SECONDS * d * min(1.0, _PQ_TRAINED_ON / max(n, 1)),
        "about 0.8",
        "nprobe",
    ),
}
"""From the most exact to the smallest."""


def load_faiss() -> Any:
    """The library, with as many threads as `cpu_threads` in the calling thread. Raises UserError without it."""
    try:
        import faiss
    except ImportError as error:
        raise missing(error) from error
    faiss.omp_set_num_threads(cpu_threads())  # OpenMP keeps the number for each thread that starts work
    return faiss


def memory_of(layout: str, vectors: int, dimension: int) -> float:
    """Bytes of an index; building it takes as much, and it is mapped, not loaded, when it is searched."""
    shared = centroids(vectors) if LAYOUTS[layout].parameter == "nprobe" else 0
    shared += _PQ_CENTROIDS if layout == "ivf-pq" else 0
    return LAYOUTS[layout].bytes_a_vector(dimension) * vectors + 4 * dimension * shared


def choose(vectors: int, dimension: int, free: float) -> LayoutName:
    """The most exact layout that fits in half of ``free`` bytes and, where it scans, scans in 20 ms of one core.

    The smallest layout is taken where none fits.

    >>> choose(60_000, 384, 8e9), choose(1_000_000, 384, 8e9)
    ('flat', 'hnsw')
    >>> [choose(21_000_000, 768, free) for free in (64e9, 36e9, 8e9)]
    ['hnsw', 'ivf-sq8', 'ivf-pq']
    """
    for name, layout in LAYOUTS.items():
        fast = bool(layout.parameter) or _SCAN_SECONDS * vectors * dimension <= _SLOWEST_SCAN
        if fast and memory_of(name, vectors, dimension) <= free / 2:
            return name  # type: ignore[return-value]
    return "ivf-pq"


def choices(
    vectors: int, dimension: int, encoding_seconds: float, chosen: str
) -> Iterator[tuple[str, str, str, str, str]]:
    """What `Plan.choices` shows: one row a layout, the header first."""
    yield "layout", "memory, search", "time to build", "recall@10", ""
    for name, layout in LAYOUTS.items():
        seconds = vectors * (encoding_seconds + layout.seconds_a_vector(dimension, vectors))
        memory = memory_of(name, vectors, dimension)
        yield name, f"{memory / 1e6:,.1f} MB", _duration(seconds), layout.recall, "<- taken" if name == chosen else ""


def build_index(name: LayoutName, vectors: Vectors) -> Any:
    """A faiss index of all vectors. Raises UserError where there are too few for the layout.

    One block is in memory at a time, beside the index itself. The graph of hnsw is the same in every build only where
    one thread builds it.
    """
    faiss = load_faiss()
    if name == "ivf-pq" and len(vectors) < _PQ_CENTROIDS:
        raise UserError(f"layout: ivf-pq needs at least {_PQ_CENTROIDS} passages, got {len(vectors)}; take flat")
    index = LAYOUTS[name].make(faiss, vectors.dimension, len(vectors))
    if not index.is_trained:
        index.train(vectors.sample(max(100_000, _TRAINED_ON * centroids(len(vectors)))))
    for block in vectors:
        index.add(block)
    return index


def tune(index: Any, parameter: str, queries: Floats, truth: npt.NDArray[np.int64], target: float) -> tuple[int, float]:
    """The least value of ``parameter`` with which the recall of ``truth`` reaches ``target``, and that recall.

    Where none does, the least that comes within 0.01 of the best. Without a parameter the value is 0.
    """
    tried: list[tuple[int, float]] = []
    for value in _values(index, parameter):
        set_parameter(index, parameter, value)
        _, found = index.search(queries, truth.shape[1])
        tried.append((value, recall_of(found, truth)))
        if tried[-1][1] >= target:
            return tried[-1]
    best = max(recall for _, recall in tried)
    return next((value, recall) for value, recall in tried if recall >= best - _NEAR_ENOUGH)


def recall_of(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> float:
    """The share of the rows in ``truth`` that were found, ``[queries, k]`` both.

    >>> recall_of(np.array([[1, 2], [3, -1]]), np.array([[2, 1], [3, 4]]))
    0.75
    """
    return sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), truth.tolist(), strict=True)) / truth.size


def set_parameter(index: Any, parameter: str, value: int) -> None:
    if parameter == "nprobe":
        index.nprobe = value
    elif parameter == "efSearch":
        index.hnsw.efSearch = value


def _values(index: Any, parameter: str) -> Sequence[int]:
    """16, 20, 24, 28, 32, 40, ... : four to a doubling."""
    steps = [
        round(first * 2**power * (1 + quarter / 4)) for first in [16] for power in range(8) for quarter in range(4)
    ]
    if parameter == "nprobe":
        return [value for value in [1, 2, 3, 4, 6, 8, 12, *steps] if value < index.nlist] + [index.nlist]
    return [*steps, 4096] if parameter else [0]


def search(index: Any, queries: Floats, k: int) -> list[list[tuple[float, int]]]:
    """The best ``k`` (score, row) for each query, or fewer; equal scores are in the order of the rows.

    Reads on until no vector left could tie with the last one.
    """
    load_faiss()  # for the threads of this thread
    found: list[list[tuple[float, int]]] = [[] for _ in queries]
    pending = np.arange(len(queries))
    limit = min(k + _TIE_MARGIN, index.ntotal)
    while len(pending) and limit:
        scores, rows = index.search(queries[pending], limit)
        scores = np.round(scores.astype(np.float64), _SCORE_DIGITS)
        more = []
        for query, its_scores, its_rows in zip(pending.tolist(), scores.tolist(), rows.tolist(), strict=True):
            # -1 stands for no vector: the lists or the part of the graph that were searched held fewer
            hits = [hit for hit in zip(its_scores, its_rows, strict=True) if hit[1] >= 0]
            if len(hits) == limit < index.ntotal and limit > k and hits[-1][0] == hits[k - 1][0]:
                more.append(query)
            found[query] = sorted(hits, key=lambda hit: (-hit[0], hit[1]))[:k]
        pending = np.array(more, dtype=np.int64)
        limit = min(4 * limit, index.ntotal)
    return found


def open_file(path: Path) -> Any:
    """A faiss index, mapped into memory where its kind allows it. Raises UserError."""
    faiss = load_faiss()
    try:
        return faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
    except RuntimeError as error:
        reason = str(error).rpartition("Error: ")[2][:200]
        raise UserError(f"{path}: expected a faiss index: {reason}") from error


def _duration(seconds: float) -> str:
    """
    >>> _duration(42), _duration(5400), _duration(90_000)
    ('42 s', '90 min', '25 h')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
