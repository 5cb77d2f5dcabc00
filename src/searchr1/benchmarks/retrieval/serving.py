"""``POST /retrieve`` under load: our server beside the design of Search-R1's, servers and client each in a process."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from searchr1.benchmarks.retrieval.base import Row, cpu_seconds, family, load_average, one_thread, row
from searchr1.benchmarks.retrieval.client import Job, Outcome, more_files, percentile
from searchr1.benchmarks.retrieval.lexical import SIZES, Bench
from searchr1.benchmarks.retrieval.systems import missing
from searchr1.errors import SearchR1Error

CLIENTS = 64
BATCHES = {1: 1280, 32: 192, 512: 64}
"""Queries a request -> requests a round."""
BURST = 2560
TRAINING_BATCH = 512
WARM_UP = 8192
"""Queries, before anything is measured."""
_ROUNDS = 3  # at most: a round is thousands of requests
_QUEUE = 4096  # our server refuses more than 256 searches at once, by default; here it is to answer every one
_URL = re.compile(rb"http://127\.0\.0\.1:\d+")
_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; its workers are children of the process."""

    name: str
    url: str
    pid: int

    @property
    def cpu(self) -> float:
        """Processor time so far, seconds."""
        return cpu_seconds(family(self.pid))


@contextmanager
def serving(name: str, command: Sequence[str], log: Path) -> Iterator[Server]:
    """Start ``python -m COMMAND...``, which says its URL on stderr; it is ended with the block."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w+b") as said:
        process = subprocess.Popen([sys.executable, "-m", *command], stdout=said, stderr=said, env=one_thread())
        try:
            deadline = time.monotonic() + _START_SECONDS
            while not (found := _URL.search(log.read_bytes())):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SearchR1Error(f"{name} did not start; it said why in {log}")
                time.sleep(0.05)
            yield Server(name, found[0].decode(), process.pid)
        finally:
            process.terminate()
            try:
                process.wait(_START_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextmanager
def all_servers(bench: Bench, passages: int) -> Iterator[list[Server]]:
    """Ours first, then those stand-ins that can run here."""
    corpus, options = bench.corpus(passages), bench.options
    ours = str(bench.index(corpus, "ours"))
    sizes = ["--workers", str(options.workers), "--max-queue", str(_QUEUE)]
    commands = {"ours": ["searchr1.cli", "serve", "retriever", ours, "--port", "0", *sizes]}
    standin = "searchr1.benchmarks.retrieval.standin"
    if importlib.util.find_spec("fastapi") is None:
        options.say("stand-in of the original server: skipped, fastapi is not installed: pip install 'searchr1[bench]'")
    else:
        commands["FastAPI, one by one, same index"] = [standin, "tantivy", ours]
        if "lucene" in options.peers and (reason := missing("lucene", options.lucene_jar)):
            options.say(reason)
        elif "lucene" in options.peers:
            folder = str(bench.index(corpus, "lucene"))
            commands["FastAPI, one by one, Lucene"] = [standin, "lucene", folder, str(options.lucene_jar)]
    with ExitStack() as stack:
        log = options.work / "logs"
        yield [
            stack.enter_context(serving(name, command, log / f"server-{place}.log"))
            for place, (name, command) in enumerate(commands.items())
        ]


def send(job: Job) -> Outcome:
    """Run the job in a fresh client process."""
    command = [sys.executable, "-m", "searchr1.benchmarks.retrieval.client"]
    done = subprocess.run(
        command, input=json.dumps(asdict(job)), stdout=subprocess.PIPE, text=True, check=True, env=one_thread()
    )
    return Outcome(**json.loads(done.stdout))


def figure_server(bench: Bench) -> list[Row]:
    """Requests a second and the server's processor time for each, 64 clients, k = 3."""
    rows: list[Row] = []
    for passages in bench.options.passages or SIZES:
        questions = bench.library.questions(passages, BURST)
        with all_servers(bench, passages) as servers:
            _warm_up(servers, questions)
            for batch, requests in BATCHES.items():
                queries = list(islice(cycle(questions), batch * requests))
                rows += _load(bench, servers, f"/retrieve, {passages:,} passages, batches of {batch}", queries, batch)
    return rows


def _warm_up(servers: list[Server], questions: list[str]) -> None:
    """A JVM compiles what it ran thousands of times; pools and workers start."""
    for server in servers:
        send(Job("load", server.url, list(islice(cycle(questions), WARM_UP)), 64, CLIENTS))


def _load(bench: Bench, servers: list[Server], label: str, queries: list[str], batch: int) -> list[Row]:
    requests = -(-len(queries) // batch)
    cpu: dict[str, list[float]] = {server.name: [] for server in servers}
    rate: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(min(bench.options.rounds, _ROUNDS)):
        for server in servers:
            before = server.cpu
            outcome = send(Job("load", server.url, queries, batch, CLIENTS))
            cpu[server.name].append(1000 * (server.cpu - before) / requests)
            rate[server.name].append(requests / outcome.wall)
            bench.options.say(
                f"{label}, {server.name}: {cpu[server.name][-1]:.2f} CPU ms/request, {rate[server.name][-1]:.0f} "
                f"requests/s, client {1000 * outcome.cpu / requests:.2f} CPU ms/request; {load_average()}"
            )
            _refuse_errors(server, outcome)
    rows: list[Row] = []
    for server in servers[1:]:
        pairs = [(median(values["ours"]), median(values[server.name])) for values in (cpu, rate)]
        rows.append(row(label, "server CPU ms/request", pairs[0][0], server.name, pairs[0][1]))
        rows.append(row(label, "requests/s", pairs[1][0], server.name, pairs[1][1], more=True))
    return rows


def figure_burst(bench: Bench) -> list[Row]:
    """2,560 queries at one moment: how many are answered, and after how long half and 99 of 100 of them are."""
    more_files()
    rows: list[Row] = []
    for passages in bench.options.passages or SIZES:
        questions = bench.library.questions(passages, BURST)
        queries = list(islice(cycle(questions), BURST))
        ways: dict[str, Job] = {
            "as requests of one": Job("burst", "", queries, 1, 0),
            f"as training sends them, {TRAINING_BATCH} a request": Job("training", "", queries, TRAINING_BATCH, 0),
        }
        with all_servers(bench, passages) as servers:
            _warm_up(servers, questions)
            for way, job in ways.items():
                label = f"burst of {BURST:,} queries, {passages:,} passages, {way}"
                rows += _burst(bench, servers, label, job)
    return rows


def _burst(bench: Bench, servers: list[Server], label: str, job: Job) -> list[Row]:
    answered: dict[str, list[float]] = {server.name: [] for server in servers}
    halves: dict[str, list[float]] = {server.name: [] for server in servers}
    nearly: dict[str, list[float]] = {server.name: [] for server in servers}
    for _ in range(min(bench.options.rounds, _ROUNDS)):
        for server in servers:
            outcome = send(Job(job.how, server.url, job.queries, job.batch, job.clients, job.k))
            p50, p99 = (1000 * percentile(outcome.latencies, share) for share in (0.5, 0.99))
            answered[server.name].append(len(job.queries) - len(outcome.errors))
            halves[server.name].append(p50)
            nearly[server.name].append(p99)
            shown = f", the first: {outcome.errors[0]}" if outcome.errors else ""
            bench.options.say(
                f"{label}, {server.name}: {len(outcome.errors)} errors{shown}, p50 {p50:.0f} ms, p99 {p99:.0f} ms; "
                f"{load_average()}"
            )
    rows: list[Row] = []
    for server in servers[1:]:
        rows += [
            row(
                f"{label}, answered",
                "queries",
                min(answered["ours"]),
                server.name,
                min(answered[server.name]),
                more=True,
            ),
            row(f"{label}, p50", "ms", median(halves["ours"]), server.name, median(halves[server.name])),
            row(f"{label}, p99", "ms", median(nearly["ours"]), server.name, median(nearly[server.name])),
        ]
    return rows


def _refuse_errors(server: Server, outcome: Outcome) -> None:
    """A figure of failed requests would mean nothing."""
    if outcome.errors:
        raise SearchR1Error(f"{server.name}: {len(outcome.errors)} requests failed, the first: {outcome.errors[0]}")
