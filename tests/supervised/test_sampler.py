"""Sampling in blocks: the same file whatever interrupts it; failures of the search engine are waited out."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from dialogues import BYTES, FOUND, RIGHT, TAGS, WRONG, named

import searchr1.waiting
from searchr1.assemble import Player
from searchr1.config import build_recipe
from searchr1.engines.scripted import ScriptedEngine
from searchr1.errors import EngineError, SearchUnavailable
from searchr1.ports import RetrieverInfo
from searchr1.retrieval.counting import ASKED
from searchr1.supervised.file import KeptFile, read_kept
from searchr1.supervised.sampling import Sampler, read_keep
from searchr1.types import Passage
from searchr1.waiting import Silent

RECIPE = build_recipe(
    {
        "rollout": {"max_searches": 2, "turn_tokens": 120, "observation_tokens": 160, "context_tokens": 2000},
        "engine": {"slots": 2},  # blocks of four questions
    }
)
QUESTIONS = [named(str(number), text=f"Who wrote number {number}?") for number in range(11)]


def say(context: str, turn: int) -> str:
    """The questions of even numbers are answered well."""
    question = ASKED.get()
    assert question is not None
    return (WRONG if int(question.id) % 2 else RIGHT)[turn]


class Flaky:
    """A search engine that fails for a number of calls."""

    def __init__(self, down: range = range(0)) -> None:
        self.down, self.calls = down, 0

    async def search(self, queries: Sequence[str], k: int) -> list[list[Passage]]:
        self.calls += 1
        if self.calls in self.down:
            raise SearchUnavailable("down for the test")
        return await FOUND.search(queries, k)

    async def info(self) -> RetrieverInfo:
        return await FOUND.info()


class Watch(Silent):
    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after, self.blocks, self.reasons = stop_after, 0, list[str]()

    def phase(self, name: str, total: int) -> None:
        self.blocks += 1
        if self.stop_after and self.blocks > self.stop_after:
            raise KeyboardInterrupt

    def paused(self, reason: str) -> None:
        self.reasons.append(reason)


def sample(path: Path, *, resume: bool = False, watch: Any = None, retriever: Any = FOUND, script: Any = say) -> Any:
    player = Player(BYTES, TAGS, ScriptedEngine(script, BYTES))
    sampler = Sampler(RECIPE, player, retriever, 2, read_keep("correct", RECIPE.reward), None, watch or Silent())
    file = KeptFile.resume(path, {}) if resume else KeptFile.begin(path, {})
    assert file is not None
    with file:
        counts = asyncio.run(sampler.sample(QUESTIONS, file))
        file.finish()
    return counts


def test_what_is_right_is_kept_once(tmp_path: Path) -> None:
    counts = sample(tmp_path / "kept.jsonl.gz")
    rows = [row for _, row in read_kept(tmp_path / "kept.jsonl.gz")]
    assert [row["question"]["id"] for row in rows] == [str(number) for number in range(0, 11, 2)]
    assert {row["group"] for row in rows} == {f"books/{number}" for number in range(0, 11, 2)}
    assert {(row["kind"], row["step"], row["reward"], row["answer"]) for row in rows} == {("sample", 0, 1.0, "Herbert")}
    assert {turn["generate_seconds"] + turn["search_seconds"] for row in rows for turn in row["turns"]} == {0.0}
    assert counts == {
        "questions": 11, "questions_kept": 6, "played": 22, "kept": 6, "filtered": 10, "duplicates": 6, "surplus": 0,
        "failed": 0,
    }  # fmt: skip


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_interrupted_and_resumed(tmp_path: Path, blocks: int) -> None:
    expected = sample(tmp_path / "whole.jsonl.gz")
    with pytest.raises(KeyboardInterrupt):
        sample(tmp_path / "kept.jsonl.gz", watch=Watch(stop_after=blocks or -1))
    watch = Watch()
    assert sample(tmp_path / "kept.jsonl.gz", resume=True, watch=watch) == expected
    assert watch.blocks == 3 - blocks
    assert (tmp_path / "kept.jsonl.gz").read_bytes() == (tmp_path / "whole.jsonl.gz").read_bytes()


def test_a_dead_search_engine_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searchr1.waiting, "RETRY_SECONDS", 0.001)
    expected = sample(tmp_path / "whole.jsonl.gz")
    watch = Watch()
    assert sample(tmp_path / "kept.jsonl.gz", watch=watch, retriever=Flaky(range(3, 30))) == expected
    assert "of 8 trajectories of 4 questions failed (search_unavailable)" in watch.reasons[0]
    assert (tmp_path / "kept.jsonl.gz").read_bytes() == (tmp_path / "whole.jsonl.gz").read_bytes()


def test_a_few_failures_are_left_out_and_counted(tmp_path: Path) -> None:
    counts = sample(tmp_path / "kept.jsonl.gz", retriever=Flaky(range(1, 2)))
    assert (counts["failed"], counts["played"], counts["filtered"]) == (1, 22, 10)
    assert counts["kept"] + counts["duplicates"] == 11


def test_an_engine_that_fails_always_ends_it(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="ended in an engine error"):
        sample(tmp_path / "kept.jsonl.gz", script=["never enough"])
    counts = sample(tmp_path / "kept.jsonl.gz", resume=True)
    assert counts["kept"] == 6
