"""Every recipe that ships can be loaded, is complete, and comes back from its resolved form."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchr1.config import build_recipe, built_in_recipes, load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"


def test_the_folder_is_the_packages_own() -> None:
    assert sorted(path.stem for path in RECIPES.glob("*.toml")) == built_in_recipes()


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe == load_recipe(RECIPES / f"{name}.toml")
    assert build_recipe(recipe.resolved()).resolved() == recipe.resolved()


def test_the_papers_recipe_fits_the_models_context_with_long_questions() -> None:
    recipe = load_recipe("qwen2.5-3b")
    recipe.rollout.check(prompt_tokens=600, model_tokens=32768)
    paper = recipe.rollout
    assert (paper.max_searches, paper.top_k, paper.turn_tokens, paper.observation_tokens) == (4, 3, 500, 500)
    assert recipe.build_algorithm().needs.reference


def test_a_setting_adds_to_the_default_reward_and_does_not_replace_it() -> None:
    assert build_recipe({}, ["reward.format.weight=0.2"]).reward == {"exact_match": 1.0, "format": {"weight": 0.2}}
    assert build_recipe({"reward": {"f1": 1.0}}).reward == {"f1": 1.0}


@pytest.mark.parametrize(
    "settings",
    [["training.mask_environment=false"], ["rollout.max_searches=0"], ["reward.economy.cost=0"],
     ["algorithm.name=reinforce", "data.atlas_seed=7"]],
)  # fmt: skip
def test_the_variations_that_the_readme_names(settings: list[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "demo " + " ".join(f"--set {setting}" for setting in settings) in readme
    load_recipe("atlas", settings)
