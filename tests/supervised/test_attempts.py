"""How often questions were answered well, from what sampling and evaluating wrote."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from dialogues import BYTES, FOUND, RIGHT, TAGS, WRONG, Dead, named, play, row_of

from searchr1.assemble import Player
from searchr1.config import build_recipe
from searchr1.data.difficulty import Attempt
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import UserError
from searchr1.retrieval.counting import ASKED
from searchr1.supervised.attempts import predicted, sampled
from searchr1.supervised.file import KeptFile
from searchr1.supervised.sampling import Sampler, read_keep
from searchr1.waiting import Silent


def write(path: Path, *rows: dict[str, Any], sampling: dict[str, Any] | None = None) -> Path:
    header = {"format": "searchr1-trajectories", "version": 1, **({"sampling": sampling} if sampling else {})}
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in (header, *rows)).encode()))
    return path


def test_equal_trajectories_are_written_once_and_counted_all(tmp_path: Path) -> None:
    recipe = build_recipe(
        {"rollout": {"max_searches": 2, "turn_tokens": 120, "observation_tokens": 160, "context_tokens": 2000}}
    )

    def say(context: str, turn: int) -> str:
        question = ASKED.get()
        assert question is not None
        return (RIGHT if question.id == "a" else WRONG)[turn]

    questions = [named("a", text="Who wrote Dune?"), named("b", text="Who wrote Emma?")]
    player = Player(BYTES, TAGS, ScriptedEngine(say, BYTES))
    order = {"keep": "all", "per_question": None}
    with KeptFile.begin(tmp_path / "kept.jsonl.gz", order) as file:
        sampler = Sampler(recipe, player, FOUND, 3, read_keep("all", recipe.reward), None, Silent())
        counts = asyncio.run(sampler.sample(questions, file))
        file.finish()
    assert (counts["kept"], counts["duplicates"]) == (2, 4)
    found = [(attempt.key, attempt.right, attempt.times) for attempt in sampled(tmp_path / "kept.jsonl.gz")]
    assert sorted(found) == [(("books", "a"), True, 3), (("books", "b"), False, 3)]


def test_trajectories_of_a_run(tmp_path: Path) -> None:
    rows = [row_of(play(script)) for script in (RIGHT, WRONG, RIGHT)] + [row_of(play(RIGHT, retriever=Dead()))]
    path = write(tmp_path / "step-3.jsonl.gz", *rows)
    made = [Attempt(("books", "q1"), "Who wrote Dune?", right, 1, f"{path}, line {line}")
            for line, right in ((2, True), (3, False), (4, True))]  # fmt: skip
    assert list(sampled(path)) == made


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        ({"keep": "correct", "per_question": None}, "made with --keep correct; sample again with --keep all alone"),
        ({"keep": "all", "per_question": 2}, "made with --keep all and --per-question"),
    ],
)
def test_a_file_that_something_was_filtered_out_of(tmp_path: Path, sampling: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(sampled(write(tmp_path / "kept.jsonl.gz", sampling=sampling)))


def test_predictions(tmp_path: Path) -> None:
    row = {"id": "1", "dataset": "nq", "question": "who?", "exact_match": 1.0}
    rows = [row, {**row, "sample": 1, "exact_match": 0.0}, {**row, "exact_match": None, "failed": True}]
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert list(predicted(path)) == [
        Attempt(("nq", "1"), "who?", True, 1, f"{path}:1"),
        Attempt(("nq", "1"), "who?", False, 1, f"{path}:2"),
    ]


def test_rows_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text(json.dumps({"id": "1", "exact_match": 1}) + "\n")
    with pytest.raises(UserError, match=r"predictions\.jsonl:1: expected a trajectory or a prediction, its 'dataset'"):
        list(predicted(path))
    with pytest.raises(UserError, match="line 2: expected a trajectory or a prediction, its 'question' is None"):
        list(sampled(write(tmp_path / "x.jsonl.gz", {"step": 0})))
