"""Training and its search engine: recorded and replayed without it, killed and restarted, out of budget."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import searchr1.waiting
from searchr1.assemble import build_parts
from searchr1.commands.running import FREE
from searchr1.config import load_recipe
from searchr1.errors import SearchBudgetSpent, UserError
from searchr1.retrieval.index import build_index, open_index
from searchr1.retrieval.serving.server import create_app, listen, server_of
from searchr1.run import RunFolder
from searchr1.sources import atlas_folder
from searchr1.train import Trainer
from searchr1.waiting import Silent

STEPS = 2
SMALL = [
    f"steps={STEPS}",
    "data.atlas_entities=300",
    "rollout.questions=3",
    "rollout.group_size=4",
    "evaluation.every=0",
    "evaluation.final_questions=3",
    "evaluation.baselines=[]",
    "engine.threads=1",
    "algorithm.drop_zero_variance=false",
    "save.checkpoint_every=1",
    "save.trajectories_every=1",
]
PATIENT = "policy={retries=12, backoff=0.1}"
HASTY = "policy={retries=0, breaker_failures=0}"


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the encyclopedia that the runs play with."""
    folder = tmp_path_factory.mktemp("atlas")
    atlas = atlas_folder(folder, load_recipe("atlas", SMALL).data, lambda text: None)
    assert atlas is not None
    build_index(atlas / "corpus.jsonl", folder / "index")
    return folder / "index"


@contextmanager
def serving(index: Path, port: int = 0) -> Iterator[str]:
    """A server in a thread; it is gone when the block is left."""
    with listen("127.0.0.1", port) as listener:
        server = server_of(create_app(open_index(index)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Watch(Silent):
    """Remembers the pauses; calls ``at`` when the rollout of a step begins, and ``pause`` at every pause."""

    trainer: Trainer

    def __init__(
        self, at: Mapping[int, Callable[[], object]] | None = None, pause: Callable[[], object] = lambda: None
    ) -> None:
        self.at, self.pause = at or {}, pause
        self.step = 0
        self.reasons: list[str] = []

    def phase(self, name: str, total: int) -> None:
        if name == "rollout":
            self.step += 1
            self.at.get(self.step, lambda: None)()

    def paused(self, reason: str) -> None:
        self.reasons.append(reason)
        self.pause()


def train(path: Path, url: str, *overrides: str, policy: str = HASTY, watch: Watch | None = None) -> RunFolder:
    """One run over the server at ``url``, from its start or from its last checkpoint."""
    recipe = load_recipe("atlas", [*SMALL, f'retriever={{kind="http", url="{url}", {policy}}}', *overrides])
    watch = watch or Watch()
    resume = (path / "config.json").exists()
    begin = partial(RunFolder.resume, free=FREE) if resume else RunFolder.create
    with begin(path, recipe.resolved()) as folder:
        watch.trainer = Trainer(recipe, build_parts(recipe, path), folder, watch)
        asyncio.run(watch.trainer.train())
    return RunFolder.open(path)


def steady(row: Any) -> Any:
    """The row without what clocks and search engines put there."""
    if isinstance(row, dict):
        return {
            key: steady(value)
            for key, value in row.items()
            if not key.startswith(("time/", "search/")) and not key.endswith("_seconds")
        }
    return [steady(item) for item in row] if isinstance(row, list) else row


def check_same(one: RunFolder, two: RunFolder) -> None:
    """Metrics, evaluations, trajectories and weights, bit for bit."""
    assert [row["step"] for row in one.read_metrics()] == list(range(1, STEPS + 1))
    assert json.dumps(steady(one.read_metrics())) == json.dumps(steady(two.read_metrics()))
    assert steady(one.read_eval()) == steady(two.read_eval())
    assert one.trajectory_steps() == two.trajectory_steps() == list(range(STEPS + 1))
    for step in one.trajectory_steps():
        assert steady(one.read_trajectories(step)) == steady(two.read_trajectories(step))
    weights = [(run.checkpoints / f"step-{STEPS}" / "model.safetensors").read_bytes() for run in (one, two)]
    assert weights[0] == weights[1]


@dataclass
class Whole:
    """An undisturbed run, recorded; what its search engine was asked before the last step, and where it was."""

    run: RunFolder
    cache: str
    requests: float
    url: str


@pytest.fixture(scope="module")
def whole(index: Path, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    cache = f"search.cache_file={folder / 'cache.sqlite'}"
    asked: list[float] = []
    watch = Watch({STEPS: lambda: asked.append(watch.trainer.search.counts()["requests"])})
    with serving(index) as url:
        run = train(folder / "run", url, "search.cache=record", cache, watch=watch)
    return Whole(run, cache, asked[0], url)


def test_a_recorded_run_is_replayed_bit_for_bit_without_its_server(whole: Whole, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the search engine does not work"):
        train(tmp_path / "none", whole.url)  # it is gone
    strict = train(tmp_path / "strict", whole.url, "search.cache=strict", whole.cache)
    check_same(whole.run, strict)
    for row in whole.run.read_metrics():
        assert (row["search/cache_hit_rate"], row["search/cache_hits"]) == (0.0, 0)
        assert row["search/requests"] > 0
    for row in strict.read_metrics():
        assert (row["search/cache_hit_rate"], row["search/cache_misses"]) == (1.0, 0)
        assert row["search/requests"] == 0


def test_a_strict_run_that_asks_something_new_stops_and_says_so(
    whole: Whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searchr1.waiting, "RETRY_SECONDS", 0.01)
    watch = Watch()
    with pytest.raises(SearchBudgetSpent, match=r"not recorded, for 2 passages: '.*search.cache = replay searches and"):
        train(tmp_path / "strict", whole.url, "search.cache=strict", whole.cache, "seed=1", watch=watch)
    assert len(watch.reasons) == 1
    assert watch.reasons[0].endswith(" trajectories of the evaluation at step 0 failed (search_unavailable)")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


SERVER = """
import sys
from searchr1.retrieval.index import open_index
from searchr1.retrieval.serving.server import create_app, serve

serve(create_app(open_index(sys.argv[1])), port=int(sys.argv[2]), ready=lambda url: print(url, flush=True))
"""


@dataclass
class Process:
    """A server in a process of its own, always at the same address."""

    index: Path
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        command = [sys.executable, "-c", SERVER, str(self.index), str(self.port)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def wait(self) -> str:
        """Its URL, once it answers."""
        assert self.process is not None
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


@pytest.fixture
def server(index: Path) -> Iterator[Process]:
    process = Process(index)
    process.start()
    yield process
    process.kill()


def test_a_server_that_is_killed_and_restarted_is_survived_by_retries(
    whole: Whole, server: Process, tmp_path: Path
) -> None:
    def restart() -> None:
        server.kill()
        server.start()  # it takes its time; the run goes on asking

    watch = Watch({2: restart})
    run = train(tmp_path / "run", server.wait(), policy=PATIENT, watch=watch)
    check_same(whole.run, run)
    rows = run.read_metrics()
    assert watch.reasons == []
    assert [row["search/retries"] > 0 for row in rows] == [False, True]
    assert [row["search/failures"] for row in rows] == [0, 0]


def test_without_retries_training_pauses_says_so_and_goes_on(
    whole: Whole, server: Process, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searchr1.waiting, "RETRY_SECONDS", 0.01)

    def pause() -> None:
        if len(watch.reasons) == 3:
            server.start()
            server.wait()

    watch = Watch({2: server.kill}, pause)
    run = train(tmp_path / "run", server.wait(), watch=watch)
    check_same(whole.run, run)
    assert watch.reasons[0].endswith("of 12 trajectories of step 2 failed (search_unavailable)")
    assert "gave up after 1 attempt: ConnectError" in watch.reasons[1]
    assert len(watch.reasons) == 3
    assert [row["stop/search_unavailable"] for row in run.read_metrics()] == [0.0] * STEPS


def test_a_spent_budget_stops_training_and_the_run_can_be_resumed(
    whole: Whole, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searchr1.waiting, "RETRY_SECONDS", 0.01)
    allowed = int(whole.requests) + 1  # the first search of step 2 is the last
    with serving(index) as url:
        watch = Watch()
        with pytest.raises(SearchBudgetSpent, match=f"{url}: all {allowed} requests of policy.max_requests are spent"):
            train(tmp_path / "run", url, policy=f"policy={{max_requests={allowed}}}", watch=watch)
        assert len(watch.reasons) == 1
        assert watch.reasons[0].endswith("of 12 trajectories of step 2 failed (search_unavailable)")
        assert [row["step"] for row in RunFolder.open(tmp_path / "run").read_metrics()] == [1]
        check_same(whole.run, train(tmp_path / "run", url))
