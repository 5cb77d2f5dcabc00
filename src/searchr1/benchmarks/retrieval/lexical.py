"""BM25: what building and searching cost, ours beside bm25s and Lucene, each in a process of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from statistics import median

from searchr1.benchmarks.retrieval.base import LINE, Options, Row, folder_mb, load_average, row
from searchr1.benchmarks.retrieval.corpora import Corpus, Library
from searchr1.benchmarks.retrieval.systems import NAMES, WAYS, missing
from searchr1.benchmarks.retrieval.worker import Worker
from searchr1.errors import UserError
from searchr1.retrieval import bm25, index, store

SIZES = (37_000,)
K = 10
_SETTLED = 0.95  # of the cheapest pass so far: two passes in a row above it end the warm-up
_PASSES = {"lucene": 8}  # a JVM compiles what it ran thousands of times, when it finds the time
_MOST_PASSES = 20
_BUILT_BRIEFLY = 100_000  # passages: beyond that one build is steady enough


@dataclass(frozen=True, slots=True)
class Built:
    """CPU seconds of each build, the most memory and the folder's size, both in MB."""

    seconds: list[float]
    peak_mb: float
    folder_mb: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What one system took: for each way to ask, CPU ms a query in each round."""

    ways: dict[str, list[float]]
    open_ms: float
    anonymous_mb: float
    resident_mb: float
    folder_mb: float

    @property
    def best(self) -> float:
        """CPU ms a query the first way: with the text of the passages."""
        return median(next(iter(self.ways.values())))


@dataclass
class Bench:
    """One run: options, corpora, and what was measured already, which two figures may both want."""

    options: Options
    _searched: dict[int, dict[str, Searched]] = field(default_factory=dict)

    @property
    def library(self) -> Library:
        return Library(self.options.work, self.options.data)

    def systems(self) -> list[str]:
        """``ours`` and the peers that are there; says why others are not."""
        absent = {name: missing(name, self.options.lucene_jar) for name in self.options.peers}
        for reason in absent.values():
            if reason:
                self.options.say(reason)
        return ["ours", *(name for name, reason in absent.items() if reason is None)]

    def corpus(self, passages: int) -> Corpus:
        return self.library.corpus(passages, self.options.say)

    def index(self, corpus: Corpus, system: str) -> Path:
        """Where the system's index of the corpus is kept; built if it is not there yet."""
        folder = self._home(corpus, system)
        if not folder.is_dir():
            self.build(corpus, system)
        return folder

    def build(self, corpus: Corpus, system: str) -> tuple[float, float, float]:
        """CPU seconds, peak MB and MB on disk of one build in a fresh process; kept as the index of that corpus."""
        folder = self._home(corpus, system)
        scratch = folder.with_name(f"{folder.name}.{os.getpid()}.building")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.parent.mkdir(parents=True, exist_ok=True)
        with self.worker(system) as worker:
            took = worker.ask("build", corpus=str(corpus.file), folder=str(scratch))
        self.options.say(
            f"build, {corpus.label}, {NAMES[system]}: {took['cpu']:.1f} CPU s, {took['wall']:.1f} s, "
            f"{took['VmHWM']:.0f} MB; {load_average()}"
        )
        shutil.rmtree(folder, ignore_errors=True)
        scratch.rename(folder)
        return took["cpu"], took["VmHWM"], folder_mb(folder)

    @contextmanager
    def worker(self, system: str) -> Iterator[Worker]:
        jar = self.options.lucene_jar if system == "lucene" else None
        with Worker(system, jar, self.options.work / "logs" / f"{system}.log") as worker:
            yield worker

    def searched(self, passages: int) -> dict[str, Searched]:
        """What each system takes to search that corpus: rounds in turn, once all of them have settled."""
        if passages not in self._searched:
            self._searched[passages] = self._search(self.corpus(passages))
        return self._searched[passages]

    def _search(self, corpus: Corpus) -> dict[str, Searched]:
        systems = self.systems()
        folders = {system: self.index(corpus, system) for system in systems}
        warming, *parts = self._parts(corpus)
        asked = [(system, way) for system in systems for way in WAYS[system]]
        costs: dict[tuple[str, str], list[float]] = {pair: [] for pair in asked}
        opened: dict[str, float] = {}
        with ExitStack() as stack:
            workers = {system: stack.enter_context(self.worker(system)) for system in systems}
            for system, worker in workers.items():
                first = {"query": warming[0], "k": K, "way": WAYS[system][0]}
                opened[system] = 1000 * worker.ask("open", folder=str(folders[system]), **first)["wall"]
            memory = {
                system: _settle(worker, warming, WAYS[system], _PASSES.get(system, 2))
                for system, worker in workers.items()
            }
            for queries in parts:
                for system, way in asked:
                    took = workers[system].ask("search", queries=queries, k=K, way=way)
                    costs[system, way].append(1000 * took["cpu"] / len(queries))
        for (system, way), rounds in costs.items():
            shown = " ".join(f"{cost:.3f}" for cost in rounds)
            self.options.say(f"search, {corpus.label}, {NAMES[system]}, {way}: {shown} {LINE}; {load_average()}")
        return {
            system: Searched(
                {way: costs[system, way] for way in WAYS[system]},
                opened[system],
                *memory[system],
                folder_mb(folders[system]),
            )
            for system in systems
        }

    def _parts(self, corpus: Corpus) -> list[list[str]]:
        """Different questions to warm up with and for each round, so that no round finds its own answers cached."""
        rounds = self.options.rounds + 1
        found = self.library.questions(corpus.passages, rounds * self.options.queries)
        size = len(found) // rounds
        if not size:
            raise UserError(f"--rounds: expected fewer than the {len(found)} questions there are, got {rounds - 1}")
        return [found[size * part : size * (part + 1)] for part in range(rounds)]

    def _home(self, corpus: Corpus, system: str) -> Path:
        return self.options.work / "indexes" / corpus.folder.name / (_our_version() if system == "ours" else system)


@cache
def _our_version() -> str:
    """The name of our index, another whenever the code that makes it is."""
    sources = [Path(str(module.__file__)).read_bytes() for module in (bm25, index, store)]
    return f"ours-{hashlib.sha256(b''.join(sources)).hexdigest()[:12]}"


def _settle(worker: Worker, queries: list[str], ways: tuple[str, ...], passes: int) -> tuple[float, float]:
    """Ask until asking gets no cheaper, at least ``passes`` times; anonymous and resident MB after it.

    The memory is that of the first way, before others were tried.
    """
    memory = (0.0, 0.0)
    for way in ways:
        cheapest, in_vain = float("inf"), 0
        for done in range(1, _MOST_PASSES + 1):
            took = worker.ask("search", queries=queries, k=K, way=way)
            in_vain = in_vain + 1 if took["cpu"] > _SETTLED * cheapest else 0
            cheapest = min(cheapest, took["cpu"])
            if done >= passes and in_vain >= 2:
                break
        if way == ways[0]:
            memory = (took["RssAnon"], took["VmRSS"])
    return memory


def figure_bm25(bench: Bench) -> list[Row]:
    """CPU time a query, memory, and the time from opening to the first answer; k = 10, one thread."""
    rows: list[Row] = []
    for passages in bench.options.passages or SIZES:
        label = bench.corpus(passages).label
        found = bench.searched(passages)
        ours = found["ours"]
        for system in list(found)[1:]:
            peer, theirs = NAMES[system], found[system]
            for way, costs in theirs.ways.items():
                rows.append(row(f"BM25, {label}", LINE, ours.best, f"{peer}, {way}", median(costs)))
            rows += [
                row(f"BM25, {label}, memory of its own", "MB", ours.anonymous_mb, peer, theirs.anonymous_mb),
                row(f"BM25, {label}, resident memory", "MB", ours.resident_mb, peer, theirs.resident_mb),
                row(f"BM25, {label}, open and first query", "ms", ours.open_ms, peer, theirs.open_ms),
            ]
    return rows


def figure_build(bench: Bench) -> list[Row]:
    """Passages indexed a CPU second, and the most memory it took; the indexes are kept for the other figures."""
    rows: list[Row] = []
    systems = bench.systems()
    for passages in bench.options.passages or SIZES:
        corpus = bench.corpus(passages)
        rounds = bench.options.rounds if passages < _BUILT_BRIEFLY else 1
        took: dict[str, list[tuple[float, float, float]]] = {system: [] for system in systems}
        for _ in range(min(rounds, 3)):
            for system in systems:
                took[system].append(bench.build(corpus, system))
        built = {
            system: Built([cpu for cpu, _, _ in builds], max(peak for _, peak, _ in builds), builds[0][2])
            for system, builds in took.items()
        }
        rate, ours = passages / median(built["ours"].seconds), built["ours"]
        for system in systems[1:]:
            peer, theirs = NAMES[system], built[system]
            speed = passages / median(theirs.seconds)
            rows += [
                row(f"build, {corpus.label}", "passages/CPU s", rate, peer, speed, more=True),
                row(f"build, {corpus.label}, peak memory", "MB", ours.peak_mb, peer, theirs.peak_mb),
                row(f"build, {corpus.label}, on disk with the text", "MB", ours.folder_mb, peer, theirs.folder_mb),
            ]
    return rows
