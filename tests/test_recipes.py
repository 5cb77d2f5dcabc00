"""Every recipe that ships can be loaded, is complete, and comes back from its resolved form."""

from __future__ import annotations

from pathlib import Path

import pytest

from searchr1.assemble import check_trainable
from searchr1.config import build_recipe, built_in_recipes, load_recipe

RECIPES = Path(__file__).parents[1] / "recipes"


def test_the_folder_is_the_packages_own() -> None:
    assert sorted(path.stem for path in RECIPES.glob("*.toml")) == built_in_recipes()


@pytest.mark.parametrize("name", built_in_recipes())
def test_every_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe == load_recipe(RECIPES / f"{name}.toml")
    check_trainable(recipe)
    assert recipe.training.micro_batch_tokens >= recipe.rollout.context_tokens
    assert build_recipe(recipe.resolved()).resolved() == recipe.resolved()


PUBLISHED = {
    # arXiv 2503.09516, appendix B.2
    "searchr1-paper": ("ppo", 500, 1e-6, 0.285, 1e-5, 0.015, 1, 100),
    "searchr1-paper-grpo": ("grpo", 500, 1e-6, 0.285, 1e-5, 0.015, 5, 100),
    "searchr1-paper-r1": ("ppo", 500, 1e-6, 0.285, 1e-5, 0.015, 1, 100),
    # the authors' scripts
    "searchr1-v0.1": ("ppo", 305, 1e-6, 0.95, 1e-5, 0.05, 1, 50),
    "searchr1-v0.1-grpo": ("grpo", 305, 1e-6, 0.95, 1e-5, 0.05, 5, 50),
    "searchr1-v0.2": ("ppo", 1005, 1e-6, 0.285, 1e-5, 0.015, 1, 100),
    "searchr1-v0.2-grpo": ("grpo", 1005, 1e-6, 0.285, 1e-5, 0.015, 5, 100),
    "searchr1-v0.3": ("ppo", 1005, 1e-6, 0.285, 1e-5, 0.015, 1, 100),
    "searchr1-v0.3-grpo": ("grpo", 1005, 5e-7, 0.285, 1e-5, 0.015, 5, 100),
}
"""Algorithm, steps, learning rate and warm-up ratio of policy and of critic, group, steps between evaluations."""
MODELS = {"searchr1-paper": "Qwen/Qwen2.5-3B", "searchr1-v0.1": "meta-llama/Llama-3.2-3B",
          "searchr1-v0.2": "Qwen/Qwen2.5-7B", "searchr1-v0.3": "Qwen/Qwen2.5-3B"}  # fmt: skip


def test_every_published_recipe_is_held_against_its_figures() -> None:
    assert set(PUBLISHED) == {name for name in built_in_recipes() if name.startswith("searchr1-")}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name: str) -> None:
    recipe = load_recipe(name)
    algorithm, steps, rate, warmup, critic_rate, critic_warmup, group, every = PUBLISHED[name]
    assert (recipe.algorithm["name"], recipe.steps, recipe.rollout.group_size) == (algorithm, steps, group)
    assert (recipe.optimizer.learning_rate, recipe.critic.learning_rate) == (rate, critic_rate)
    updates = steps * recipe.training.updates_per_batch
    for found, ratio in ((recipe.optimizer, warmup), (recipe.critic, critic_warmup)):
        assert ratio * updates - 2 < found.warmup_updates <= ratio * updates
    assert (recipe.evaluation.every, recipe.save.checkpoint_every) == (every, 100)
    assert recipe.model == next(model for prefix, model in MODELS.items() if name.startswith(prefix))
    weights = {"structure": 0.2, "final": 0.1, "retrieval": 0.0}
    assert recipe.reward == ({"search_r1_format": weights} if "v0.3" in name else {"exact_match": 1.0})


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_all_published_recipes_share(name: str) -> None:
    recipe = load_recipe(name)
    played = recipe.rollout
    assert (played.questions, recipe.training.updates_per_batch) == (512, 2)
    assert (played.max_searches, played.top_k) == (0 if name.endswith("-r1") else 4, 3)
    assert (played.turn_tokens, played.observation_tokens) == (500, 500)
    assert (played.temperature, played.top_p) == (1.0, 1.0)
    algorithm = recipe.build_algorithm()
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.kl_coefficient) == (0.2, 0.2, 0.001)
    assert algorithm.entropy_bonus == (0.001 if "-v0." in name else 0.0)
    assert algorithm.needs.reference
    if recipe.algorithm["name"] == "ppo":
        assert (algorithm.kl, algorithm.kl_in, algorithm.value_clip) == ("k1", "reward", 0.5)
        assert (algorithm.gamma, algorithm.gae_lambda, algorithm.whiten) == (1.0, 1.0, True)
    else:
        assert (algorithm.kl, algorithm.kl_in, algorithm.normalize_std) == ("k3", "loss", True)
    adam = recipe.optimizer
    assert (adam.beta1, adam.beta2, adam.weight_decay, adam.max_grad_norm) == (0.9, 0.999, 0.01, 1.0)
    assert len(recipe.data.test) == 7
    recipe.rollout.check(prompt_tokens=600, model_tokens=32768)


@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-7B-Instruct", "meta-llama/Llama-3.2-3B"])
@pytest.mark.parametrize("name", MODELS)
def test_the_model_is_one_setting(name: str, model: str) -> None:
    assert load_recipe(name, [f"model={model}"]).model == model


@pytest.mark.parametrize(
    ("name", "base", "more"),
    # nothing of the atlas can be guessed: where every reward is 0, an entropy bonus is all that would be learned
    [("atlas-r1", "atlas", ["algorithm.entropy_bonus=0.0"]), ("searchr1-paper-r1", "searchr1-paper", [])],
)
def test_r1_is_the_same_without_the_search_engine(name: str, base: str, more: list[str]) -> None:
    plain = load_recipe(base, ["rollout.max_searches=0", 'evaluation.baselines=["direct"]', *more])
    assert load_recipe(name) == plain


def test_a_setting_adds_to_the_default_reward_and_does_not_replace_it() -> None:
    assert build_recipe({}, ["reward.format.weight=0.2"]).reward == {"exact_match": 1.0, "format": {"weight": 0.2}}
    assert build_recipe({"reward": {"f1": 1.0}}).reward == {"f1": 1.0}


@pytest.mark.parametrize(
    "settings",
    [["training.mask_environment=false"], ["rollout.max_searches=0"], ["reward.format=0.2"],
     ["algorithm.name=reinforce", "data.atlas_seed=7"]],
)  # fmt: skip
def test_the_variations_that_the_readme_names(settings: list[str]) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert "demo " + " ".join(f"--set {setting}" for setting in settings) in readme
    load_recipe("atlas", settings)
