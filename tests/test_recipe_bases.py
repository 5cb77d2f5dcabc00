"""A recipe may start from another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchr1.config import load_recipe
from searchr1.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recipes are not in the working folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return tmp_path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return path


def test_tables_are_laid_over_key_by_key(folder: Path) -> None:
    own = write(folder, "own", 'base = "atlas"\nsteps = 7\n[rollout]\ntop_k = 5\n[algorithm]\nkl = "k3"\n')
    recipe, base = load_recipe(own), load_recipe("atlas")
    assert (recipe.steps, recipe.rollout.top_k, recipe.rollout.questions) == (7, 5, base.rollout.questions)
    assert recipe.algorithm == {**base.algorithm, "kl": "k3"}
    assert recipe.reward == base.reward
    assert load_recipe(own, ["steps=9"]).steps == 9


def test_the_base_may_be_a_file_beside_the_recipe_with_a_base_of_its_own(folder: Path) -> None:
    write(folder, "first", 'base = "atlas"\nsteps = 7\nseed = 3\n')
    (folder / "deeper").mkdir()
    own = write(folder / "deeper", "own", 'base = "../first.toml"\nsteps = 8\n')
    recipe = load_recipe(own)
    assert (recipe.steps, recipe.seed, recipe.rollout.group_size) == (8, 3, 8)


def test_a_reward_and_a_retriever_are_replaced_as_a_whole(folder: Path) -> None:
    write(folder, "first", 'retriever = {kind = "bm25", k1 = 1.5}\n[reward.f1]\nweight = 0.5\n[reward.format]\n')
    kept = load_recipe(write(folder, "kept", 'base = "first.toml"\n'))
    assert (set(kept.reward), kept.retriever) == ({"f1", "format"}, {"kind": "bm25", "k1": 1.5})
    own = load_recipe(write(folder, "own", 'base = "first.toml"\nretriever = {kind = "bm25"}\n[reward]\nf1 = 1.0\n'))
    assert (own.reward, own.retriever) == ({"f1": 1.0}, {"kind": "bm25"})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ('name = "rloo"', {"name": "rloo"}),
        ('name = "grpo"\nclip_high = 0.28', {"clip_low": 0.1, "kl": "k3", "name": "grpo", "clip_high": 0.28}),
        ("clip_high = 0.28", {"clip_low": 0.1, "kl": "k3", "clip_high": 0.28}),
    ],
)
def test_options_stay_with_their_algorithm(folder: Path, table: str, expected: dict[str, object]) -> None:
    write(folder, "first", '[algorithm]\nclip_low = 0.1\nkl = "k3"\n')
    own = write(folder, "own", f'base = "first.toml"\n[algorithm]\n{table}\n')
    assert load_recipe(own).algorithm == expected


def test_a_circle(folder: Path) -> None:
    write(folder, "a", 'base = "b.toml"\n')
    write(folder, "b", 'base = "c.toml"\n')
    write(folder, "c", 'base = "b.toml"\n')
    with pytest.raises(
        UserError, match=r"c\.toml: base: expected .* does not lead back here, got b\.toml -> c\.toml -> b"
    ):
        load_recipe(folder / "a.toml")
    with pytest.raises(UserError, match=r"own\.toml -> own\.toml"):
        load_recipe(write(folder, "own", 'base = "own.toml"\n'))


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ('"atlsa"', r"own\.toml: base: expected a recipe atlsa: no such file; did you mean 'atlas'\?"),
        ("3", r"own\.toml: base: expected the name or the file of a recipe, got 3"),
        ('["atlas"]', r"own\.toml: base: expected the name or the file of a recipe, got \['atlas'\]"),
    ],
)
def test_wrong_bases(folder: Path, base: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_recipe(write(folder, "own", f"base = {base}\n"))


def test_a_wrong_key_is_found_whoever_wrote_it(folder: Path) -> None:
    write(folder, "first", "[rollout]\nquestion = 3\n")
    with pytest.raises(UserError, match=r"unknown key 'rollout\.question'; did you mean 'questions'\?"):
        load_recipe(write(folder, "own", 'base = "first.toml"\nsteps = 2\n'))


def test_base_is_no_setting() -> None:
    with pytest.raises(UserError, match="unknown key 'base'"):
        load_recipe("atlas", ["base=atlas"])
