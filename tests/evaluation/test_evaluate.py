import asyncio
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from searchr1.errors import UserError
from searchr1.evaluation.evaluate import evaluate, read_predictions, score_trajectories, summarize, write_eval
from searchr1.seeds import derive_seed
from searchr1.types import (
    Answer,
    Passage,
    Question,
    Search,
    SearchOutcome,
    Segment,
    Source,
    StopReason,
    Trajectory,
    Turn,
)


def question(name: str, dataset: str = "demo") -> Question:
    return Question(name, f"What is {name}?", ("red fox",), dataset)


def trajectory(
    asked: Question, answer: str | None, searches: int = 0, stop: StopReason | None = None, seed: int = 1
) -> Trajectory:
    turns = [Turn(Search(f"{asked.id} {n}"), (Passage("p", "t", "x"),), SearchOutcome.FOUND) for n in range(searches)]
    turns.append(Turn(Search("one too many"), search=SearchOutcome.REFUSED))
    turns += [Turn(Answer(answer))] if answer is not None else []
    stop = stop or (StopReason.ANSWERED if answer is not None else StopReason.OUT_OF_TURNS)
    return Trajectory(asked, (Segment(Source.PROMPT, (1,)),), tuple(turns), answer, stop, 0, seed)


@dataclass
class SlowAgent:
    """Answers ``red fox`` to questions in ``right``, ``dog`` to others; the first question comes back last."""

    right: frozenset[str] = frozenset()
    broken: str | None = None
    running: int = 0
    most: int = 0
    cancelled: list[str] = field(default_factory=list)

    async def run(self, question: Question, *, engine: Any, retriever: Any, seed: int) -> Trajectory:
        assert (engine, retriever) == ("engine", "retriever")
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            for _ in range(20 if question.id == "q0" else 2):
                await asyncio.sleep(0)
            if question.id == self.broken:
                raise UserError("broken")
            return trajectory(question, "red fox" if question.id in self.right else "dog", seed=seed)
        except asyncio.CancelledError:
            self.cancelled.append(question.id)
            raise
        finally:
            self.running -= 1


QUESTIONS = [question(f"q{n}") for n in range(7)]


async def run(agent: SlowAgent, concurrency: int = 3, **options: Any) -> list[Trajectory]:
    return await evaluate(QUESTIONS, agent, "engine", "retriever", concurrency=concurrency, **options)  # type: ignore[arg-type]


async def test_every_question_once_in_order_with_its_own_seed() -> None:
    seen: list[tuple[int, int]] = []
    agent = SlowAgent()
    trajectories = await run(agent, seed=5, progress=lambda done, total: seen.append((done, total)))
    assert [t.question for t in trajectories] == QUESTIONS
    assert [t.seed for t in trajectories] == [derive_seed(5, f"q{n}") for n in range(7)]
    assert seen == [(n, 7) for n in range(1, 8)]
    assert agent.most == 3


@pytest.mark.parametrize("concurrency", [1, 2, 100])
async def test_concurrency_changes_nothing(concurrency: int) -> None:
    agent = SlowAgent(frozenset({"q1", "q4"}))
    assert await run(agent, concurrency) == await run(SlowAgent(agent.right))
    assert agent.most == min(concurrency, 7)


async def test_an_agents_error_comes_out_and_ends_the_rest() -> None:
    agent = SlowAgent(broken="q1")
    with pytest.raises(UserError, match="broken"):
        await run(agent)
    assert sorted(agent.cancelled) == ["q0", "q3"]  # q2 was done, q4 was never begun
    assert agent.running == 0


async def test_nothing_to_do_and_no_room() -> None:
    assert await evaluate([], SlowAgent(), "engine", "retriever") == []  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="concurrency must be at least 1, got 0"):
        await run(SlowAgent(), concurrency=0)


def mixed() -> list[Trajectory]:
    """Four of ``a`` (one failed), one of ``b``, one of ``c`` (failed)."""
    return [
        trajectory(question("1", "a"), "red fox", searches=2),
        trajectory(question("2", "a"), "a red dog"),
        trajectory(question("1", "b"), "the red fox!", searches=1),
        trajectory(question("3", "a"), None, searches=1),
        trajectory(question("4", "a"), None, searches=3, stop=StopReason.SEARCH_UNAVAILABLE),
        trajectory(question("1", "c"), None, stop=StopReason.ENGINE_ERROR),
    ]


def test_failures_are_counted_and_left_out() -> None:
    summary = summarize(score_trajectories(mixed()))
    a, b, c, macro = (*(summary["datasets"][name] for name in "abc"), summary["macro"])
    assert list(summary["datasets"]) == ["a", "b", "c"]
    assert (a["n"], a["failed"]) == (3, 1)
    assert (a["exact_match"], a["cover_match"], a["f1"]) == pytest.approx((1 / 3, 1 / 3, 0.5))
    assert a["searches"] == 1.0
    assert 0.0 <= a["ci_low"] < 1 / 3 < a["ci_high"] <= 1.0
    assert b == {
        "n": 1, "exact_match": 1.0, "ci_low": 1.0, "ci_high": 1.0, "cover_match": 1.0, "f1": 1.0, "searches": 1.0,
        "failed": 0,
    }  # fmt: skip
    nothing = dict.fromkeys(("exact_match", "ci_low", "ci_high", "cover_match", "f1", "searches"))
    assert c == nothing | {"n": 0, "failed": 1}
    assert (macro["n"], macro["failed"]) == (4, 2)
    assert (macro["exact_match"], macro["cover_match"], macro["f1"]) == pytest.approx((2 / 3, 2 / 3, 0.75))
    assert macro["searches"] == 1.0
    assert a["ci_low"] / 2 + 0.5 == pytest.approx(macro["ci_low"])
    assert set(a) == set(b) == set(c) == set(macro)


def test_all_failed_and_nothing_at_all() -> None:
    summary = summarize(score_trajectories(mixed()[4:]))
    assert (summary["macro"]["n"], summary["macro"]["exact_match"], summary["macro"]["failed"]) == (0, None, 2)
    with pytest.raises(ValueError, match="no trajectories"):
        summarize([])


def test_the_evaluation_folder(tmp_path: Path) -> None:
    scored = score_trajectories(mixed())
    summary = write_eval(tmp_path / "out", scored)
    assert summary == {"format": "searchr1-evaluation", "version": 1, **summarize(scored)}
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == summary
    rows = read_predictions(tmp_path / "out")
    assert rows[0] == {
        "id": "1",
        "dataset": "a",
        "question": "What is 1?",
        "answers": ["red fox"],
        "prediction": "red fox",
        "stop": "answered",
        "searches": 2,
        "queries": ["1 0", "1 1"],
        "exact_match": 1.0,
        "cover_match": 1.0,
        "f1": 1.0,
        "failed": False,
        "seed": 1,
    }
    assert [row["stop"] for row in rows[3:]] == ["out_of_turns", "search_unavailable", "engine_error"]
    assert [row["exact_match"] for row in rows] == [1.0, 0.0, 1.0, 0.0, None, None]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["predictions.jsonl", "summary.json"]


def test_folders_that_are_not_evaluations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected an evaluation folder, but it has no predictions\.jsonl"):
        read_predictions(tmp_path / "nowhere")
    write_eval(tmp_path, score_trajectories(mixed()))
    rows = read_predictions(tmp_path)
    for key in ("id", "dataset", "question", "answers", "failed", "exact_match"):
        bad = {name: value for name, value in rows[0].items() if name != key}
        (tmp_path / "predictions.jsonl").write_text(json.dumps(rows[1]) + "\n" + json.dumps(bad) + "\n")
        with pytest.raises(UserError, match=rf"predictions\.jsonl:2: '{key}' is missing or ill-typed, got None"):
            read_predictions(tmp_path)
    (tmp_path / "summary.json").write_text('{"format": "searchr1-evaluation", "version": 2}')
    with pytest.raises(UserError, match=r"expected .*'version': 1.*, got .*'version': 2"):
        read_predictions(tmp_path)
    (tmp_path / "summary.json").unlink()
    with pytest.raises(UserError, match="expected the summary of a finished evaluation"):
        read_predictions(tmp_path)
