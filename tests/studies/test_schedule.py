"""Several processes at a time, what they leave behind, and how they end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from made_runs import jobs_of, made_run, small_study

from searchr1.studies.definition import Command
from searchr1.studies.plan import Job
from searchr1.studies.schedule import Schedule, last_words

TAIL = 'prepare = [["prepare"]]'


class FakeSchedule(Schedule):
    """Every command takes a moment; ``broken`` runs fail; `train` leaves a finished run."""

    broken: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_work = 0
        self.most_at_work = 0
        self.executed: list[tuple[str, str]] = []

    def _execute(self, command: Command, job: Job) -> int:
        self.at_work += 1
        self.most_at_work = max(self.most_at_work, self.at_work)
        self.executed.append((f"{job.variant} {job.seed}", command[0]))
        time.sleep(0.05)
        self.at_work -= 1
        job.log.parent.mkdir(parents=True, exist_ok=True)
        job.log.write_text("$ searchr1 train\nstep 1\nerror: the loss is not finite\n")
        if f"{job.variant} {job.seed}" == self.broken:
            return 1
        if command[0] == "train":
            made_run(job, [0.5] * 4, [(4, 0.5)])
        return 0


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.studies.schedule.TICK", 0.005)


def test_every_job_to_its_end_two_at_a_time(tmp_path: Path) -> None:
    jobs = jobs_of(small_study(tmp_path, tail=TAIL), tmp_path / "out")
    made_run(jobs["left", 0], [0.5] * 4, [(4, 0.5)])
    ended, looks = [], []
    schedule = FakeSchedule(list(jobs.values()), 2, finished=lambda job: ended.append(job.name))
    assert [state.phase for state in schedule.states].count("done") == 1
    schedule.run(lambda: looks.append(1))
    assert {state.phase for state in schedule.states} == {"done"}
    assert schedule.most_at_work == 2
    assert len(ended) == len(set(ended)) == 5
    assert ("left 0", "train") not in schedule.executed
    assert [what for name, what in schedule.executed if name == "right 2"] == ["prepare", "train"]
    assert looks


def test_a_failure_stops_its_own_run_alone(tmp_path: Path) -> None:
    jobs = jobs_of(small_study(tmp_path, tail=TAIL), tmp_path / "out")
    schedule = FakeSchedule(list(jobs.values()), 1)
    schedule.broken = "right 0"
    schedule.run()
    assert [(s.job.name, s.problem) for s in schedule.states if s.phase == "failed"] == [
        ("sides/right/seed-0", "the loss is not finite")
    ]
    assert [what for name, what in schedule.executed if name == "right 0"] == ["prepare"]
    assert sum(state.phase == "done" for state in schedule.states) == 5


def test_what_cannot_be_begun_fails_with_its_reason(tmp_path: Path) -> None:
    jobs = jobs_of(small_study(tmp_path, tail=TAIL), tmp_path / "out", seeds=[0])
    jobs["right", 0].prepared.mkdir(parents=True)
    (jobs["right", 0].prepared / "prepared.json").write_text("[]")
    made_run(jobs["right", 0], [0.5], [])
    schedule = FakeSchedule(list(jobs.values()), 1)
    schedule.run()
    left, right = schedule.states
    assert (left.phase, right.phase) == ("done", "failed")
    assert "the run began with what other commands had prepared" in right.problem


def test_an_interrupt_waits_for_what_is_at_work_and_begins_nothing_new(tmp_path: Path) -> None:
    jobs = jobs_of(small_study(tmp_path), tmp_path / "out")
    schedule = FakeSchedule(list(jobs.values()), 2)

    def interrupt() -> None:
        if len(schedule.executed) == 2:  # both workers are at work
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        schedule.run(interrupt)
    assert schedule.at_work == 0
    assert len(schedule.executed) == 2
    assert {state.phase for state in schedule.states[:2]} == {"stopped"}


def test_a_real_process_and_its_log(tmp_path: Path) -> None:
    (job, *_) = jobs_of(small_study(tmp_path), tmp_path / "out").values()
    schedule: Any = Schedule([job], 1)
    assert schedule._execute(("data", "atlas", "--out", str(tmp_path / "made")), job) == 0
    assert (tmp_path / "made" / "corpus.jsonl").is_file()
    assert schedule._execute(("train", "atlas", "--set", "stpes=3"), job) == 2
    text = job.log.read_text()
    assert text.startswith(f"$ searchr1 data atlas --out {tmp_path}/made\n")
    assert "\n$ searchr1 train atlas --set stpes=3\n" in text
    assert last_words(job.log) == "unknown key 'stpes'; did you mean 'steps'?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$ searchr1 a\nerror: old\n$ searchr1 b\nTraceback\nOSError: full\n\n", "OSError: full"),
        ("$ searchr1 b\nerror: one\nsaid later\n", "one"),
        ("$ searchr1 b\n", ""),
        ("", ""),
    ],
)
def test_last_words(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "log").write_text(text)
    assert last_words(tmp_path / "log") == expected


DEAF = """
import signal, sys, time
heard = []
def listen(*_):
    heard.append(1)
    if len(heard) == 2:
        sys.exit(3)
signal.signal(signal.SIGINT, listen)
print("ready", flush=True)
time.sleep(60)
"""


def test_a_process_that_loses_an_interrupt_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("searchr1.studies.schedule._CHILD", DEAF)
    monkeypatch.setattr("searchr1.studies.schedule.AGAIN", 0.05)
    job = jobs_of(small_study(tmp_path), tmp_path / "out", seeds=[0])["left", 0]
    schedule = Schedule([job], 1)

    def interrupt() -> None:
        if job.log.is_file() and "ready" in job.log.read_text():
            raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        schedule.run(interrupt)
    assert time.monotonic() - started < 30
    assert [state.phase for state in schedule.states] == ["stopped"]
