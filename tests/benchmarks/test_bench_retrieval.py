import asyncio
import gzip
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from searchr1.benchmarks.retrieval import bench, growth, lexical, serving, systems
from searchr1.benchmarks.retrieval.base import Options, cpu_seconds, family, row, status_mb
from searchr1.benchmarks.retrieval.client import Job, percentile
from searchr1.benchmarks.retrieval.client import run as run_job
from searchr1.benchmarks.retrieval.corpora import Library, recombine
from searchr1.benchmarks.retrieval.growth import WIKIPEDIA, fit
from searchr1.benchmarks.retrieval.lexical import Bench, Searched
from searchr1.benchmarks.retrieval.worker import Worker
from searchr1.errors import SearchR1Error, UserError
from searchr1.retrieval.corpus import read_corpus
from searchr1.retrieval.index import build_index, open_index
from searchr1.types import Passage

KEYS = ("figure", "unit", "ours", "peer", "theirs", "ratio")
PASSAGES = 200


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("bench")


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def options(work: Path, said: list[str]) -> Callable[..., Options]:
    def made(**changes: Any) -> Options:
        usual: dict[str, Any] = {"passages": (PASSAGES,), "rounds": 1, "queries": 60, "peers": ()}
        return Options(work=work, data=work / "none", say=said.append, **{**usual, **changes})

    return made


def check(rows: list[dict[str, Any]]) -> None:
    for found in rows:
        assert tuple(found) == KEYS
        assert min(found["ours"], found["theirs"], found["ratio"]) > 0, found


def test_ratio_above_1_is_better() -> None:
    assert row("f", "ms", 2.0, "p", 6.0)["ratio"] == 3.0
    assert row("f", "1/s", 2.0, "p", 8.0, more=True)["ratio"] == 0.25


# Corpora


def test_the_generated_corpus_is_kept_and_has_questions(options: Callable[..., Options], said: list[str]) -> None:
    bench = Bench(options())
    corpus = bench.corpus(PASSAGES)
    assert corpus.label == "200 generated passages"
    assert sum(1 for _ in read_corpus(corpus.file)) == PASSAGES
    said.clear()
    assert bench.corpus(PASSAGES) == corpus
    assert said == []
    assert len(set(bench.library.questions(PASSAGES, 50))) == 50
    with pytest.raises(UserError, match="expected at least 100, got 99"):
        bench.corpus(99)


def test_real_passages_come_first_and_recombined_ones_follow(tmp_path: Path) -> None:
    real = [f'{{"id": "{i}", "title": "T{i}", "text": "One {i}. Two {i}! Three?"}}' for i in range(120)]
    (tmp_path / "merged_corpus.jsonl.gz").write_text("\n".join(real))
    asked = '{"id": "%d", "question": "Who %d?", "answers": ["x"]}'
    (tmp_path / "nq.dev.jsonl.gz").write_bytes(gzip.compress((asked % (1, 1)).encode()))
    library = Library(tmp_path / "work", tmp_path)
    small, large = (library.corpus(size, lambda line: None) for size in (110, 150))
    assert (small.label, large.label) == ("110 real passages", "150 recombined passages")
    first, pages = (list(read_corpus(corpus.file)) for corpus in (small, large))
    assert pages[:110] == first
    assert (pages[0].title, pages[0].text) == ("T0", "One 0. Two 0! Three?")
    sentences = {sentence for i in range(120) for sentence in (f"One {i}.", f"Two {i}!", "Three?")}
    assert set(pages[130].text.replace("! ", "!|").replace(". ", ".|").replace("? ", "?|").split("|")) <= sentences
    assert library.questions(150, 5) == ["Who 1?"]


def test_recombination_is_the_same_every_time() -> None:
    real = [Passage("a", "A", "One. Two."), Passage("b", "B", "Three.")]
    assert list(islice(recombine(real), 20)) == list(islice(recombine(real), 20))
    assert len({page.text for page in islice(recombine(real), 50)}) > 5


# BM25


def test_bm25_and_build_beside_bm25s(
    options: Callable[..., Options], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("bm25s", "numba", "Stemmer"):
        pytest.importorskip(module, reason="needs the extra `bench`")
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")  # compiling takes ten seconds
    rows = bench.bench_retrieval(options(peers=("bm25s",)))
    check(rows)
    assert {row["peer"].split(",")[0] for row in rows} == {"bm25s (numba"}
    assert [(row["figure"], row["unit"]) for row in rows] == [
        ("build, 200 generated passages", "passages/CPU s"),
        ("build, 200 generated passages, peak memory", "MB"),
        ("build, 200 generated passages, on disk with the text", "MB"),
        ("BM25, 200 generated passages", "CPU ms/query"),
        ("BM25, 200 generated passages", "CPU ms/query"),
        ("BM25, 200 generated passages, memory of its own", "MB"),
        ("BM25, 200 generated passages, resident memory", "MB"),
        ("BM25, 200 generated passages, open and first query", "ms"),
    ]
    assert any("the passages are generated" in line for line in said)


def test_a_worker_searches_what_it_built(options: Callable[..., Options]) -> None:
    bench = Bench(options())
    corpus = bench.corpus(PASSAGES)
    folder, [query] = bench.index(corpus, "ours"), bench.library.questions(PASSAGES, 1)
    with bench.worker("ours") as worker:
        worker.ask("open", folder=str(folder), query=query, k=10, way=systems.TEXT)
        answer = worker.ask("search", queries=[query, query], k=10, way=systems.TEXT)
    [expected] = asyncio.run(open_index(folder).search([query], 10))
    assert answer["first"] == [[[passage.id, passage.score] for passage in expected]]
    assert answer["found"] == 2 * len(expected)
    assert 0 < answer["RssAnon"] < answer["VmRSS"] <= answer["VmHWM"]


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Worker("ours", None, log) as worker, pytest.raises(SearchR1Error, match=f"it said why in {log}"):
        worker.ask("open", folder=str(tmp_path / "none"), query="", k=1, way=systems.TEXT)
    assert "UserError" in log.read_text()


def test_peers_that_are_missing_are_named(
    options: Callable[..., Options], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "numba" else find("json"))
    assert Bench(options(peers=("bm25s", "lucene"))).systems() == ["ours"]
    bm25s, lucene = said
    assert bm25s == "bm25s: skipped, numba is not installed: pip install 'searchr1[bench]'"
    assert lucene.startswith("lucene: skipped, no jar: give --lucene-jar or SEARCHR1_LUCENE_JAR")


def test_wrong_options_are_refused(options: Callable[..., Options]) -> None:
    for figures, changes, message in (
        (["bm26"], {}, "there is no figure 'bm26'; did you mean 'bm25'"),
        (["bm25"], {"peers": ("lucen",)}, "there is no peer 'lucen'; did you mean 'lucene'"),
        (["bm25"], {"rounds": 0}, "--rounds: expected at least 1, got 0"),
        (["growth"], {"passages": (200, 300)}, "growth: expected at least 3 sizes, got 2"),
    ):
        with pytest.raises(UserError, match=message):
            bench.bench_retrieval(options(**changes), figures)


# Growth


def test_growth_fits_and_extrapolates(options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> None:
    def searched(bench: Bench, passages: int) -> dict[str, Searched]:
        ours = Searched({"": [passages / 1000]}, 1.0, 10.0 * passages**0.5, 1.0, 0.001 * passages)
        theirs = Searched({"": [passages / 500]}, 1.0, 100.0, 1.0, 0.002 * passages * (1 + (passages == 200) / 2))
        return {"ours": ours, "bm25s": theirs}

    pyplot = pytest.importorskip("matplotlib", reason="needs the extra `bench`")
    assert pyplot
    monkeypatch.setattr(lexical.Bench, "searched", searched)
    plot = options().work / "growth.svg"
    rows = growth.figure_growth(Bench(options(passages=(100, 200, 400), plot=plot)))
    check(rows)
    found = {row["figure"]: (row["ours"], row["theirs"]) for row in rows}
    assert found["growth, processor time, 200 generated passages"] == (0.2, 0.4)
    assert found["growth, memory of its own, fitted power of the passages"][0] == 0.5
    assert found[f"growth, processor time, extrapolated to {WIKIPEDIA:,} passages"] == (21000.0, 42000.0)
    assert found["growth, disk with the text, largest residual of the fit"][1] > 10
    assert plot.read_text().startswith("<?xml")


def test_a_power_law_is_found_in_noise() -> None:
    sizes = [100, 1000, 10_000, 100_000]
    noise = np.array([1.1, 0.9, 1.1, 0.9])
    law = fit(sizes, (3 * np.array(sizes) ** 0.7 * noise).tolist())
    assert law.exponent == pytest.approx(0.7, abs=0.03)
    assert len(law.residuals) == 4
    assert max(map(abs, law.residuals)) < 0.15


# Dense


def test_dense_at_equal_recall(options: Callable[..., Options], said: list[str]) -> None:
    for module in ("faiss", "hnswlib"):
        pytest.importorskip(module, reason="needs the extra `bench`")
    rows = bench.bench_retrieval(options(passages=(600,)), ["dense"])
    check(rows)
    units = [(row["figure"].split(" ")[1].strip(","), row["peer"].split(" ")[0], row["unit"]) for row in rows]
    assert units[:4] == [
        ("fp16", "faiss", "CPU ms/query"),
        ("fp16", "faiss", "MB/million vectors"),
        ("fp16", "hnswlib", "CPU ms/query"),
        ("fp16", "hnswlib", "MB/million vectors"),
    ]
    assert {"sq8", "hnsw", "ivf-sq8"} <= {layout for layout, _, _ in units}
    assert all("600 made-up clustered vectors" in row["figure"] for row in rows)
    assert rows[0]["peer"] == "faiss Flat, recall@10 1.000"
    assert rows[1]["theirs"] == pytest.approx(4 * 384, rel=0.01)
    assert rows[1]["ratio"] == pytest.approx(2, rel=0.01)  # half precision


def test_dense_is_skipped_without_faiss(
    options: Callable[..., Options], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert bench.bench_retrieval(options(), ["dense"]) == []
    assert "dense: skipped, faiss is not installed: pip install 'searchr1[bench]'" in said


# Servers


def test_server_and_burst_beside_the_standin(options: Callable[..., Options], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `bench`")
    monkeypatch.setattr(serving, "BATCHES", {1: 20, 8: 5})
    monkeypatch.setattr(serving, "BURST", 60)
    monkeypatch.setattr(serving, "WARM_UP", 60)
    rows = bench.bench_retrieval(options(), ["server", "burst"])
    check(rows)
    assert {row["peer"] for row in rows} == {"FastAPI, one by one, same index"}
    assert [(row["figure"], row["unit"]) for row in rows[:4]] == [
        ("/retrieve, 200 passages, batches of 1", "server CPU ms/request"),
        ("/retrieve, 200 passages, batches of 1", "requests/s"),
        ("/retrieve, 200 passages, batches of 8", "server CPU ms/request"),
        ("/retrieve, 200 passages, batches of 8", "requests/s"),
    ]
    answered = [row for row in rows if row["figure"].endswith("answered")]
    assert [(row["ours"], row["theirs"]) for row in answered] == [(60, 60)] * 2


async def test_the_standin_answers_as_ours_does(options: Callable[..., Options]) -> None:
    pytest.importorskip("fastapi", reason="needs the extra `bench`")
    from searchr1.benchmarks.retrieval.standin import create_standin, search_ours
    from searchr1.retrieval.serving.server import create_app

    bench = Bench(options())
    folder = bench.index(bench.corpus(PASSAGES), "ours")
    apps = [create_app(open_index(folder)), create_standin(search_ours(folder))]
    queries = [*bench.library.questions(PASSAGES, 5), "zzz"]
    for body in (
        {"queries": queries, "topk": 4, "return_scores": True},
        {"queries": queries, "topk": 2, "return_scores": False},
        {"queries": queries},
    ):
        answers = []
        for app in apps:
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
                answers.append((await client.post("/retrieve", json=body)).json())
        assert answers[0] == answers[1]
        assert len(answers[0]["result"]) == len(queries)


async def test_failed_requests_are_errors(tmp_path: Path) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline() not in (b"\r\n", b""):
            pass
        writer.write(b"HTTP/1.1 503 busy\r\nContent-Length: 4\r\n\r\nwait")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        outcome = await run_job(Job("burst", url, ["a", "b", "c"], 1, 0))
    assert outcome.latencies == []
    assert len(outcome.errors) == 3
    assert "503: wait" in outcome.errors[0]
    gone = await run_job(Job("load", url, ["a", "b", "c"], 2, 1))
    assert (len(gone.errors), gone.latencies) == (2, [])


def test_a_server_that_does_not_start_is_an_error(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        pytest.raises(SearchR1Error, match=f"ours did not start; it said why in {log}"),
        serving.serving("ours", ["searchr1.cli", "serve", "retriever", str(tmp_path / "none")], log),
    ):
        pass


# Measuring


def test_figures_on_the_command_line(work: Path) -> None:
    from typer.testing import CliRunner

    from searchr1.cli import app

    arguments = ["bench", "retrieval", "--figure", "growth", "--passages", "100", "200", "--work", str(work)]
    outcome = CliRunner().invoke(app, [*arguments, "--data", str(work)])
    assert outcome.exit_code == 2
    assert "growth: expected at least 3 sizes, got 2" in outcome.stderr


def test_processor_time_of_other_processes() -> None:
    code = "import time\nwhile time.process_time() < 0.2: pass\nprint(time.process_time(), flush=True)\ninput()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        own = float(child.stdout.readline())
        assert own <= cpu_seconds(family(child.pid)) < own + 0.1
        assert child.pid in family(os.getpid())
        assert 1 < status_mb(child.pid, "VmRSS") < 100
        child.communicate(b"\n")


def test_percentiles() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert percentile([7.0], 0.5) == 7.0


def test_build_index_is_what_ours_is_built_with(options: Callable[..., Options], tmp_path: Path) -> None:
    bench = Bench(options())
    corpus = bench.corpus(PASSAGES)
    manifest = build_index(corpus.file, tmp_path / "index")
    assert manifest.corpus_hash == asyncio.run(open_index(bench.index(corpus, "ours")).info()).corpus_hash
