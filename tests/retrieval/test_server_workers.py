"""Several processes behind one socket, as a user starts them."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from searchr1.retrieval.index import build_index

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the workers in /proc")
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    (folder / "corpus.jsonl").write_text('{"id": "1", "title": "Dune", "text": "A novel by Frank Herbert."}\n')
    build_index(folder / "corpus.jsonl", folder / "index")
    return folder / "index"


@contextmanager
def served(index: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The supervisor, once both its workers answer, and the URL."""
    command = [sys.executable, "-m", "searchr1.cli", "serve", "retriever", str(index), "--port", "0", "--workers", "2"]
    environment = {**os.environ, "TMPDIR": str(index.parent)}  # a killed supervisor cannot remove its figures
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        assert process.stderr is not None
        ready = process.stderr.readline()
        assert ready.startswith("1 passages at http://127.0.0.1:"), ready
        assert " in 2 processes " in ready
        yield process, ready.split()[3]
    finally:
        process.kill()
        process.communicate()


def workers(supervisor: int) -> list[int]:
    """Of the processes that it started, those that serve: they have started threads of their own."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                command = (folder / "cmdline").read_text()
            except OSError:  # it ended while we looked
                continue
            if parent == supervisor and "spawn_main" in command:
                found.append(int(folder.name))
    return sorted(found)


def runs(pid: int) -> bool:
    """Also a process that ended is there until somebody hears of it; its state is Z."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def search(url: str) -> str:
    body = json.dumps({"queries": ["herbert"], "topk": 1}).encode()
    with OPENER.open(urllib.request.Request(url + "/retrieve", body), timeout=20) as answer:
        return str(json.load(answer)["result"][0][0]["title"])


def figure(url: str, name: str) -> float:
    with OPENER.open(url + "/metrics", timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith(name))


def only(answering: int, pids: list[int], url: str) -> None:
    """A search while every other worker is stopped."""
    others = [pid for pid in pids if pid != answering]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert search(url) == "Dune"
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def test_two_workers_answer_a_killed_one_is_replaced_and_all_end_together(index: Path) -> None:
    with served(index) as (process, url):
        assert search(url) == "Dune"
        first = workers(process.pid)
        assert len(first) == 2
        for pid in first:
            only(pid, first, url)
        assert figure(url, "searchr1_queries_total") == 3  # whoever is asked answers for both
        os.kill(first[0], signal.SIGKILL)
        assert search(url) == "Dune"  # meanwhile the other one answers
        while len(second := workers(process.pid)) < 2 or first[0] in second:
            time.sleep(0.02)
        (new,) = set(second) - set(first)
        only(new, second, url)
        assert figure(url, "searchr1_queries_total") == 5  # also for the dead
        assert figure(url, "searchr1_searches_in_flight") == 0
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (0, "stopped\n")
        assert not any(map(runs, second))


def test_workers_end_with_a_supervisor_that_is_killed(index: Path) -> None:
    with served(index) as (process, url):
        assert search(url) == "Dune"
        pids = workers(process.pid)
        assert len(pids) == 2
        process.kill()
        process.wait()
        deadline = time.monotonic() + 20
        while any(map(runs, pids)):
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_workers_that_cannot_start_are_not_started_for_ever(tmp_path: Path) -> None:
    (tmp_path / "serve.py").write_text(
        "from searchr1.retrieval.serving.workers import Service, serve_workers\n"
        "if __name__ == '__main__':\n"
        "    print(serve_workers(Service('missing'), 2, port=0, ready=lambda url: None))\n"
    )
    done = subprocess.run(
        [sys.executable, "serve.py"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "False\n"
    assert "error: retriever: expected an index folder, a URL" in done.stderr
    assert "Traceback" not in done.stderr
