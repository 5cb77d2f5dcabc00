"""Dense search at equal recall: the layouts of our index beside exact faiss and hnswlib, on the same vectors."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from searchr1.benchmarks.retrieval.base import LINE, SEED, Row, load_average, one_thread, row
from searchr1.benchmarks.retrieval.lexical import Bench
from searchr1.errors import SearchR1Error
from searchr1.retrieval.corpus import read_corpus

SIZES = (10_000,)
TARGET = 0.95
_DIMENSION = 384
_NOISE = 0.7  # of a made-up vector, against its cluster's centre of length 1
_A_CLUSTER = 50  # vectors

Floats = npt.NDArray[np.floating]


def figure_dense(bench: Bench) -> list[Row]:
    """CPU time a query at recall@10 of at least 0.95, and MB for a million vectors; the model's time is not in it."""
    if importlib.util.find_spec("faiss") is None:
        bench.options.say("dense: skipped, faiss is not installed: pip install 'searchr1[bench]'")
        return []
    return [found for vectors in bench.options.passages or SIZES for found in _compared(bench, vectors)]


def _compared(bench: Bench, vectors: int) -> list[Row]:
    kind, blocks, queries = _encoded(bench, vectors) if bench.options.encoder else _made_up(bench, vectors)
    job = {
        "blocks": list(map(str, blocks)),
        "rows": vectors,
        "dimension": int(np.load(queries, mmap_mode="r").shape[1]),
        "queries": str(queries),
        "target": TARGET,
        "rounds": bench.options.rounds,
    }
    log = bench.options.work / "logs" / "nearest.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "searchr1.benchmarks.retrieval.nearest"]
    with log.open("w+") as said:
        done = subprocess.run(
            command,
            input=json.dumps(job),
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            check=False,
            env=one_thread(),
        )
    if done.returncode:
        raise SearchR1Error(f"measuring dense search failed; see {log}")
    bench.options.say(log.read_text().rstrip() or f"all reach recall@10 {TARGET}")
    found = json.loads(done.stdout)
    rows: list[Row] = []
    for engine in found:
        shown = " ".join(f"{cost:.3f}" for cost in engine["costs"])
        bench.options.say(f"dense, {vectors:,} {kind} vectors, {engine['name']}: {shown} {LINE}; {load_average()}")
    for ours in (engine for engine in found if engine["name"].startswith("ours ")):
        name = f"dense {ours['name'].removeprefix('ours ')}, recall@10 {ours['recall']:.3f}, {vectors:,} {kind} vectors"
        for peer in (engine for engine in found if not engine["name"].startswith("ours ")):
            label = f"{peer['name']}, recall@10 {peer['recall']:.3f}"
            sizes = ours["megabytes_a_million"], label, peer["megabytes_a_million"]
            rows.append(row(name, LINE, median(ours["costs"]), label, median(peer["costs"])))
            rows.append(row(name, "MB/million vectors", *sizes))
    return rows


def _encoded(bench: Bench, vectors: int) -> tuple[str, list[Path], Path]:
    """Vectors of real passages and questions by the encoder; kept, since encoding takes far longer than all else."""
    from searchr1.retrieval.dense.encoders import load_encoder
    from searchr1.retrieval.dense.vectors import embed

    corpus = bench.corpus(vectors)
    encoder = load_encoder(str(bench.options.encoder))
    bench.options.say(f"encoding {corpus.label}, unless that was done before")
    folder = bench.options.work / "vectors"
    folder.mkdir(parents=True, exist_ok=True)
    embedded = embed(folder, islice(read_corpus(corpus.file), vectors), encoder)
    queries = folder / f"{encoder.fingerprint}-{corpus.folder.name}-{bench.options.queries}.queries.npy"
    if not queries.is_file():
        np.save(queries, encoder.encode_queries(bench.library.questions(vectors, bench.options.queries)))
    return corpus.label.split()[1], list(embedded.blocks), queries


def _made_up(bench: Bench, vectors: int) -> tuple[str, list[Path], Path]:
    """Clusters of unit vectors: centres at random, members around them, queries around members."""
    folder = bench.options.work / "vectors"
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(SEED)

    def unit(rows: Floats) -> Floats:
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def around(rows: Floats) -> Floats:
        return unit(rows + _NOISE * unit(generator.standard_normal(rows.shape)))

    centres = unit(generator.standard_normal((max(1, vectors // _A_CLUSTER), _DIMENSION)))
    members = around(centres[generator.integers(len(centres), size=vectors)])
    block, queries = folder / f"made-up-{vectors}.npy", folder / f"made-up-{vectors}.queries.npy"
    np.save(block, members.astype(np.float16))
    np.save(queries, around(members[generator.integers(vectors, size=bench.options.queries)]))
    return "made-up clustered", [block], queries
