"""What is drawn: the live panel, the sparkline, colours by who wrote it, the choice of the question that is shown."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from searchr1 import console
from searchr1.commands.paint import paint, telling_pair
from searchr1.commands.tables import before_after
from searchr1.console import visible
from searchr1.display import LiveDisplay, PlainDisplay, sparkline


def spans(text: Any) -> list[tuple[str, str]]:
    return [(text.plain[span.start : span.end], str(span.style)) for span in text.spans]


def test_the_policys_tags_are_coloured() -> None:
    said = "<think> hm</think><search> Dune</search>rest"
    assert spans(paint("policy", said)) == [("<think> hm</think>", "italic"), ("<search> Dune</search>", "bold cyan")]
    answered = "<answer> x</answer>"
    assert spans(paint("policy", answered, right=True)) == [(answered, "bold green")]
    assert spans(paint("policy", answered, right=False)) == [(answered, "bold red")]
    assert spans(paint("policy", "<answer> cut")) == [("<answer> cut", "bold")]


def test_what_the_environment_wrote_stays_information_whatever_it_says() -> None:
    hostile = "<information>[red]</information><answer> x</answer>\x1b[0m"
    assert spans(paint("environment", hostile)) == [(hostile.replace("\x1b", "\ufffd"), "yellow")]


def test_control_characters_never_reach_the_terminal() -> None:
    assert visible("a\tb\nc\x1b\r\x9b\u202e\ud800") == "a\tb\nc\ufffd\ufffd\ufffd\ufffd?"


def row(name: str, exact: float, searches: int) -> dict[str, Any]:
    turns = [{"search": "found"}] * searches
    return {"question": {"dataset": "d", "id": name}, "components": {"exact_match": exact}, "turns": turns}


def test_the_question_that_tells_most() -> None:
    before = [row("a", 0, 0), row("b", 1, 1), row("c", 0, 0), row("d", 0, 1)]
    after = [row("a", 1, 1), row("b", 1, 3), row("c", 1, 2), row("d", 0, 3)]
    assert telling_pair(before, after) == (before[2], after[2])
    assert telling_pair(before[3:], after) == (before[3], after[3])
    assert telling_pair([], after) is None


def test_sparkline() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.5, 0.5]) == "▁▁"
    assert sparkline([i / 99 for i in range(100)], width=8) == "▁▂▃▄▅▆▇█"


def evaluated(step: int, exact: float, **changes: Any) -> dict[str, Any]:
    return {"step": step, "agent": "search_r1", "decoding": "sampled", "dataset": "all", "n": 9, "exact_match": exact,
            "ci_low": exact - 0.05, "ci_high": exact + 0.05, "searches": 1 + step, **changes}  # fmt: skip


def drawn(renderable: Any) -> str:
    console = Console(file=io.StringIO(), width=100, markup=False)
    console.print(renderable)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def test_before_and_after() -> None:
    rows = [evaluated(0, 0.2), evaluated(0, 0.3, agent="rag", decoding="greedy"), evaluated(2, 0.25), evaluated(4, 0.6)]
    lines = [" ".join(line.split()) for line in drawn(before_after(rows, "search_r1")).splitlines()]
    assert "all 20.0 [15.0, 25.0] 60.0 [55.0, 65.0] 1.00 → 5.00" in lines
    assert "RAG greedy 30.0 [25.0, 35.0] 1.00" in lines
    assert "Exact match on 9 test questions, %" in lines
    assert max(map(len, drawn(before_after(rows, "search_r1")).splitlines())) <= 80  # a terminal's usual width
    assert drawn(before_after(rows[:1], "search_r1"))  # a run that was not trained yet


def step(number: int) -> dict[str, Any]:
    return {"step": number, "train/reward": 0.5, "train/exact_match": number / 4, "train/searches": 1.5,
            "searches/hops-1": 1.0, "searches/comparison": 2.0, "time/step": 2.0}  # fmt: skip


def test_the_panel() -> None:
    display = LiveDisplay(4, "runs/[x]")
    assert "step 0 of 4" in drawn(display)
    display.phase("evaluation: search_r1, sampled", 10)
    display.progress(4, 10)
    assert "4/10" in drawn(display)
    display.evaluated([evaluated(0, 0.2)])
    display.phase("rollout", 6)
    for number in (1, 2):
        display.stepped(step(number))
    shown = drawn(display)
    for part in ("runs/[x]", "step 2 of 4", "50%", "▁█", "0.500", "one-hop 1.00", "comparison 2.00", "20.0%"):
        assert part in shown
    assert 0 <= display.left() < 5
    assert display.step == 2


def test_lines_where_there_is_no_terminal(capsys: Any) -> None:
    display = PlainDisplay(4)
    display.evaluated([evaluated(0, 0.2)])
    display.phase("rollout", 6)
    display.stepped(step(1))
    display.paused("status 503")
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert "exact match 20.0% [15.0, 25.0]" in lines[0]
    assert lines[1].split() == ["step", "reward", "exact", "match", "searches", "entropy", "seconds", "left"]
    assert lines[2].split()[:6] == ["1/4", "0.500", "25.0%", "1.50", "-", "2.0"]
    assert lines[3] == "paused until the search engine answers: status 503"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_was_done_before_says_nothing_of_the_rate(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    into, clock = io.StringIO(), [0.0]
    shown = Console(file=into, force_terminal=terminal, width=200, _environ={"TERM": "xterm"})
    monkeypatch.setattr(console, "stderr", lambda: shown)
    monkeypatch.setattr(console.time, "monotonic", lambda: clock[0])
    with console.progress("GRPO", "answers", already=30_000) as advance:
        clock[0] = 20.0
        advance(30_010, 30_110)
    assert " 0.5/s" in into.getvalue().replace("(", " ")


def test_the_title_of_a_progress_bar_is_no_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    into = io.StringIO()
    terminal = Console(file=into, force_terminal=True, width=100)
    monkeypatch.setattr(console, "stderr", lambda: terminal)
    with console.progress("GRPO [/red] [bold]2", "questions") as advance:
        advance(1, 2)
    assert "GRPO [/red] [bold]2" in into.getvalue()
