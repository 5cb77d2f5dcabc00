"""An evaluation as it is played: streamed, interrupted, taken up, given up."""

from pathlib import Path
from typing import Any

import pytest
from evaluation_parts import TableAgent, question

from searchr1.errors import EngineError, SearchUnavailable
from searchr1.evaluation.evaluate import question_seed
from searchr1.evaluation.folder import EvaluationFolder, read_predictions
from searchr1.evaluation.play import IN_A_ROW, Session, play
from searchr1.retrieval.dictionary import DictionaryRetriever
from searchr1.types import StopReason

QUESTIONS = [question(f"q{n}", "ab"[n % 2]) for n in range(7)]


class CountingEngine:
    def __init__(self) -> None:
        self.tokens = 100.0

    def counts(self) -> dict[str, float]:
        self.tokens += 1
        return {"tokens": self.tokens}


def session(agent: TableAgent, **options: Any) -> Session:
    options = {"questions": QUESTIONS, "concurrency": 2, **options}
    engine: Any = options.pop("engine", "engine")
    return Session(agent=agent, engine=engine, retriever=DictionaryRetriever({}), seed=3, **options)


async def run(sitting: Session, path: Path, *, resume: bool = False) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    told: list[tuple[int, int]] = []
    settings = {"name": "demo"}
    with EvaluationFolder.resume(path, settings) if resume else EvaluationFolder.begin(path, settings) as folder:
        await play(sitting, folder, lambda done, total: told.append((done, total)))
        return folder.finish(sitting.order), told


async def test_every_question_and_sample_once_with_its_own_seed(tmp_path: Path) -> None:
    agent = TableAgent({"q1": "red fox"})
    summary, told = await run(session(agent, samples=2), tmp_path / "out")
    assert sorted(agent.asked) == sorted((q.id, question_seed(3, q, s)) for q in QUESTIONS for s in (0, 1))
    assert told == [(n, 14) for n in range(1, 15)]
    assert {name: figures["n"] for name, figures in summary["datasets"].items()} == {"a": 4, "b": 3}
    assert summary["datasets"]["b"]["exact_match"] == pytest.approx(1 / 3)


async def test_an_interrupted_evaluation_goes_on_with_what_is_missing(tmp_path: Path) -> None:
    whole, _ = await run(session(TableAgent({"q1": "red fox"})), tmp_path / "whole")
    with pytest.raises(RuntimeError, match="enough"):
        await run(session(TableAgent({"q1": "red fox"}, stop_after=4)), tmp_path / "out")
    kept = (tmp_path / "out" / "predictions.jsonl").read_text().count("\n")
    agent = TableAgent({"q1": "red fox"})
    summary, told = await run(session(agent), tmp_path / "out", resume=True)
    assert 0 < kept < 7
    assert len(agent.asked) == 7 - kept
    assert told[-1] == (7, 7)
    assert summary["datasets"] == whole["datasets"]
    rows = {row["id"]: row for row in read_predictions(tmp_path / "out")}
    assert rows == {row["id"]: row for row in read_predictions(tmp_path / "whole")}


async def test_failed_questions_are_asked_again(tmp_path: Path) -> None:
    broken = TableAgent({"q1": StopReason.SEARCH_UNAVAILABLE, "q4": StopReason.ENGINE_ERROR})
    summary, _ = await run(session(broken), tmp_path / "out")
    assert (summary["macro"]["search_failures"], summary["macro"]["engine_errors"]) == (1, 1)
    mended = TableAgent({"q1": "red fox"})
    summary, _ = await run(session(mended), tmp_path / "out", resume=True)
    assert sorted(name for name, _ in mended.asked) == ["q1", "q4"]
    assert (summary["macro"]["failed"], summary["macro"]["n"]) == (0, 7)


@pytest.mark.parametrize(
    ("stop", "error", "what"),
    [
        (StopReason.SEARCH_UNAVAILABLE, SearchUnavailable, "search engine"),
        (StopReason.ENGINE_ERROR, EngineError, "generation engine"),
    ],
)
async def test_it_gives_up_when_nothing_is_served_any_more(
    stop: StopReason, error: type[Exception], what: str, tmp_path: Path
) -> None:
    many = [question(f"q{n}") for n in range(3 * IN_A_ROW)]
    agent = TableAgent({q.id: stop for q in many[5:]})
    with pytest.raises(error, match=rf"^{IN_A_ROW} questions in a row failed \({stop}\): the {what} does not serve"):
        await run(session(agent, questions=many, concurrency=1), tmp_path / "out")
    assert len(agent.asked) == 5 + IN_A_ROW
    again = TableAgent()
    summary, _ = await run(session(again, questions=many), tmp_path / "out", resume=True)
    assert len(again.asked) == len(many) - 5
    assert summary["macro"]["failed"] == 0


async def test_what_was_used_is_counted_from_this_sitting_on(tmp_path: Path) -> None:
    summary, _ = await run(session(TableAgent(), engine=CountingEngine()), tmp_path / "out")
    assert summary["usage"]["engine"] == {"tokens": 1.0}
    assert summary["usage"]["seconds"] >= 0


async def test_the_order_is_made_once_and_not_for_every_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is as long as the evaluation: made for each of 51,713 questions, it would take longer than many answers."""
    made = []
    original = Session.order.fget
    assert original is not None

    def order(self: Session) -> Any:
        made.append(self)
        return original(self)

    monkeypatch.setattr(Session, "order", property(order))
    sitting = session(TableAgent())
    with EvaluationFolder.begin(tmp_path / "out", {"name": "demo"}) as folder:
        await play(sitting, folder, lambda done, total: None)
    assert len(made) == 1


async def test_questions_that_always_fail_do_not_keep_an_evaluation_from_its_end(tmp_path: Path) -> None:
    """More of them than give up an evaluation: asked again they fail in a row, though everything is served."""
    many = [question(f"q{n}") for n in range(3 * IN_A_ROW)]
    hopeless = {q.id: StopReason.ENGINE_ERROR for q in many[::2]}
    first, _ = await run(session(TableAgent(hopeless), questions=many, concurrency=1), tmp_path / "out")
    again = TableAgent(hopeless)
    second, _ = await run(session(again, questions=many, concurrency=1), tmp_path / "out", resume=True)
    assert len(again.asked) == len(hopeless) > IN_A_ROW
    assert second["datasets"] == first["datasets"]
    assert second["macro"]["engine_errors"] == len(hopeless)


async def test_a_second_sitting_still_gives_up_over_questions_that_were_never_asked(tmp_path: Path) -> None:
    many = [question(f"q{n}") for n in range(3 * IN_A_ROW)]
    down = {q.id: StopReason.ENGINE_ERROR for q in many}
    for asked in (IN_A_ROW, 2 * IN_A_ROW):
        agent = TableAgent(down)
        with pytest.raises(EngineError, match=f"^{IN_A_ROW} questions in a row failed"):
            await run(session(agent, questions=many, concurrency=1), tmp_path / "out", resume=asked > IN_A_ROW)
        assert len(agent.asked) == asked
