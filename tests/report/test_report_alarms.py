"""Alarms and rollbacks on the page: in the head, in a list, in the charts."""

from __future__ import annotations

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from synthetic_run import config, eval_rows, make_run, metrics_row, skill_at

from searchr1.alarms.response import respond
from searchr1.alarms.settings import Alarms
from searchr1.alarms.watches import check
from searchr1.report import write_report
from searchr1.report.alarms import incidents, story
from searchr1.run import RunFolder


def collapsed_run(path: Path, *, steps: int = 60, fall: int = 36) -> RunFolder:
    """A run that collapses from step ``fall`` on, until an alarm takes it back, and that then learns to the end."""
    make_run(path, steps=steps, done=fall - 1, questions=3)
    draw, settings, step = random.Random(5), Alarms(confirm=10), fall
    with RunFolder.resume(path, config(steps)) as run:
        rows = run.read_metrics()
        while step <= steps:
            attempt = run.stability().attempt
            row = metrics_row(step, steps, draw)
            if attempt == 0:
                lost = 0.72 ** (step - fall + 1)
                row |= {name: row[name] * lost for name in ("train/reward", "train/exact_match", "train/searches")}
                row |= {"train/entropy": 0.5 + 0.5 * (step - fall), "train/kl": 0.1 * (step - fall)}
            row["train/correct_logprob"] = -row["train/entropy"]
            run.append_metrics(row)
            rows.append(row)
            if step % 10 == 0:
                run.append_eval(eval_rows(step, skill_at(step, steps) * (attempt > 0))[3])
            fired = check(rows, settings)
            response = respond(fired, settings, run.stability(), checkpoints=[10, 20, 30], history=run.read_alarms())
            for noted in response.rows:
                run.append_alarm(noted)
            if response.action == "rollback" and response.state.target is not None:
                run.save_stability(response.state)
                step = response.state.target
                run.rewind(step)
                rows = run.read_metrics()
            step += 1
    return RunFolder.open(path)


class Text(HTMLParser):
    """The words of a page, and the data inside it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.words, self._tag = "", ""
        page = path.read_text(encoding="utf-8")
        self.feed(page)
        self.words = " ".join(self.words.split())
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
        assert found
        self.data: dict[str, Any] = json.loads(found[1])

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.words += " "

    def handle_data(self, data: str) -> None:
        if self._tag not in ("script", "style"):
            self.words += data


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Text:
    run = collapsed_run(tmp_path_factory.mktemp("runs") / "collapsed")
    return Text(write_report(run.path))


def test_the_head_says_what_was_done(page: Text) -> None:
    assert re.search(r"Attention\. Step 4\d: (entropy|reward) alarm, rolled back to step 20\.", page.words)


def test_the_list_tells_each_alarm_once(page: Text) -> None:
    assert "Alarms, and what was done about them." in page.words
    assert "A dotted line is what a rollback took back." in page.words
    kinds = [alarm["kind"] for alarm in page.data["alarms"]]
    assert kinds.count("rollback") == 1
    assert "critical" in kinds
    assert len(kinds) < 8
    assert "back to step 20, the last healthy checkpoint, with the learning rate times 0.5" in page.words


def test_the_charts_get_what_was_taken_back(page: Text) -> None:
    (attempt,) = page.data["rolled_back"]
    (rollback,) = [alarm for alarm in page.data["alarms"] if alarm["kind"] == "rollback"]
    assert (attempt["attempt"], attempt["to"]) == (0, rollback["to"]) == (0, 20)
    assert attempt["step"] == list(range(21, rollback["step"] + 1))
    assert attempt["train/exact_match"][-1] < 0.2
    assert not {"file", "agent"} & set(attempt)
    assert page.data["metrics"]["step"] == list(range(1, 61))
    assert min(page.data["metrics"]["train/exact_match"][40:]) > 0.5


def test_a_quiet_run_shows_nothing_of_it(tmp_path: Path) -> None:
    quiet = Text(write_report(make_run(tmp_path / "quiet", steps=3, questions=1).path))
    assert (quiet.data["alarms"], quiet.data["rolled_back"]) == ([], [])
    assert "Alarms" not in quiet.words
    assert "Attention" not in quiet.words


def row(step: int, name: str = "kl", **changes: Any) -> dict[str, Any]:
    plain = {"level": "warning", "action": "log", "metric": "train/kl", "message": "m", "attempt": 0}
    return {"step": step, "name": name, **plain, **changes}


def test_an_alarm_is_told_again_after_a_pause_and_in_another_attempt() -> None:
    rows = [
        row(4),
        row(4, "length"),
        row(5),
        row(5, "length"),
        row(9),
        row(9, action="rollback", to=3),
        row(5, attempt=1),
    ]
    found = [(item.kind, item.name, item.steps, item.attempt) for item in incidents(rows)]
    assert found == [
        ("warning", "kl", "4–5", 0),
        ("warning", "length", "4–5", 0),
        ("warning", "kl", "9", 0),
        ("rollback", "kl", "9", 0),
        ("warning", "kl", "5", 1),
    ]


def test_the_story() -> None:
    rows = [row(9), row(9, "reward", action="rollback", to=3), row(5, "entropy", action="stop", attempt=1)]
    assert story(incidents(rows)) == [
        "Step 9: reward alarm, rolled back to step 3.",
        "Step 5: entropy alarm, training stopped.",
    ]
