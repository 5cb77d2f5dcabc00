"""The first impression: every command is there, explains itself, and does so at once."""

from __future__ import annotations

import re
import resource
import subprocess
import sys
from typing import Any

import pytest

from searchr1.commands.options import RecipeName
from searchr1.config import built_in_recipes

COMMANDS = [
    [], ["demo"], ["train"], ["eval"], ["compare"], ["ask"], ["score"], ["report"], ["index"], ["index", "build"],
    ["index", "search"], ["index", "eval"], ["serve", "retriever"], ["data", "atlas"], ["bench", "rollout"],
    ["bench", "retrieval"], ["bench", "train"], ["sample"], ["sft"], ["study"], ["merge"], ["judge"], ["leaderboard"],
    ["data", "prepare"], ["data", "overlap"], ["data", "coverage"], ["data", "filter"],
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(searchr1: Any, command: list[str]) -> None:
    result = searchr1(*command, "--help")
    assert result.exit_code == 0
    assert f"Usage: {' '.join(['root', *command])}" in " ".join(result.stdout.split())


def test_the_help_names_every_recipe_that_there_is() -> None:
    (named,) = re.findall(r"built-in one: (.*)\.$", RecipeName.__metadata__[0].help)
    names: list[str] = []
    for entry in named.split(", "):
        word, _, endings = entry.replace("]", "").partition("[")
        full = f"searchr1{word}" if word.startswith("-v") else word
        names += [full, *(full + ending for ending in endings.split("|") if ending)]
    assert sorted(names) == built_in_recipes()


def test_help_takes_less_than_half_a_second_of_processor_time() -> None:
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    def once() -> float:
        before = used()
        subprocess.run([sys.executable, "-m", "searchr1.cli", "--help"], capture_output=True, check=True)
        return used() - before

    assert min(once() for _ in range(3)) < 0.5


@pytest.mark.parametrize("wrong", [["nonsense"], ["train"], ["train", "atlas", "--nonsense"], ["index", "build", "c"]])
def test_wrong_usage_exits_with_2(searchr1: Any, wrong: list[str]) -> None:
    result = searchr1(*wrong)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Error" in result.stderr


def test_version(searchr1: Any) -> None:
    from searchr1 import __version__

    assert searchr1("--version").stdout == f"searchr1 {__version__}\n"
