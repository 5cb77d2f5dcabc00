"""Which folders are one entry: seeds, budgets, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from evaluations import settings, write

from searchr1.errors import UserError
from searchr1.leaderboard.entries import read_entries


def folders(path: Path, *given: dict[str, Any] | None) -> list[Path]:
    return [write(path / f"run{place}", [1, 0], one) for place, one in enumerate(given)]


def test_seeds_of_one_thing_are_one_entry(tmp_path: Path) -> None:
    paths = folders(
        tmp_path,
        settings("GRPO", model="runs/grpo/seed-0", weights="a"),
        settings("RAG", agent="rag"),
        settings("GRPO", model="runs/grpo/seed-1", weights="b", questions={"n": 2, "hash": "other"}),
        settings("GRPO", model="runs/grpo/seed-1", weights="b", seed=5),
    )
    first, second = read_entries(paths)
    assert (first.name, [seed.folder for seed in first.seeds]) == ("GRPO", [paths[0], paths[2], paths[3]])
    assert (second.name, len(second.seeds)) == ("RAG", 1)


def test_search_budgets_are_entries_of_one_family(tmp_path: Path) -> None:
    paths = folders(
        tmp_path,
        settings("PPO", max_searches=4),
        settings("PPO", max_searches=1),
        settings("PPO, none", max_searches=0),
        settings("Other", top_k=5),
    )
    entries = read_entries(paths)
    assert [entry.name for entry in entries] == ["PPO, budget 1", "PPO, budget 4", "PPO, none", "Other"]
    assert entries[0].family == entries[1].family == entries[2].family != entries[3].family
    assert [entry.max_searches for entry in entries] == [1, 4, 0, 4]


def test_old_folders_have_their_own_names(tmp_path: Path) -> None:
    one, two = read_entries(folders(tmp_path, None, None))
    assert (one.name, two.name, one.max_searches) == ("run0", "run1", None)
    (tmp_path / "b").mkdir()
    twin = write(tmp_path / "b" / "run0", [1], None)
    with pytest.raises(UserError, match="both are named 'run0' and one does not say how it was made"):
        read_entries([tmp_path / "run0", twin])


def test_another_setting_may_name_the_entries(tmp_path: Path) -> None:
    paths = folders(tmp_path, settings("x", model="m1"), settings("y", model="m2"))
    assert [entry.name for entry in read_entries(paths, "model")] == ["m1", "m2"]
    assert [entry.name for entry in read_entries(paths[:1], "retriever.kind")] == ["bm25"]
    with pytest.raises(UserError, match="--group modle: there is no such setting; it has agent, control"):
        read_entries(paths, "modle")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"decoding": "sampled"}, "both are named 'A', but they differ in decoding (greedy and sampled); give"),
        ({"model": "runs/b"}, "they differ in model (runs/a and runs/b); give them different names"),
        ({"retriever": None}, "they differ in retriever.kind (bm25 and None); "),
        ({"agent": "a", "top_k": 1, "decoding": "x", "control": "y", "samples": 2}, "decoding (greedy and x)"),
        ({}, "both are 'A' with the same model and seed; a seed counts once"),
    ],
)
def test_one_name_for_two_things(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    paths = folders(tmp_path, settings("A"), settings("A", **changes))
    with pytest.raises(UserError, match=re.escape(message)):
        read_entries(paths)


def test_a_folder_twice(tmp_path: Path) -> None:
    (path,) = folders(tmp_path, settings("A"))
    with pytest.raises(UserError, match="named twice"):
        read_entries([path, tmp_path / "." / "run0"])
