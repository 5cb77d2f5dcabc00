"""``demo`` and ``train``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.commands.options import RecipeName, Seed, Settings
from searchr1.console import clock, say

if TYPE_CHECKING:
    from searchr1.config import Recipe

Out = Annotated[Path | None, typer.Option("--out", metavar="RUN", help="The run folder.")]
_DEMO = "atlas"
_TRAINED, _EVALUATED = 115.0, 130.0
"""Trajectories per second that the demo's policy trains on and is evaluated with; only for what is said beforehand."""


def demo(
    out: Out = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Training steps.")] = None,
    settings: Settings = None,
    seed: Seed = None,
) -> None:
    """A small policy learns to search a made-up encyclopedia, here and now: no GPU, no download."""
    from searchr1.commands.running import (
        Order,
        free_folder,
        peak_memory,
        run_training,
        show_question,
        show_results,
        write_page,
    )
    from searchr1.config import load_recipe

    started = time.monotonic()
    given = {"steps": steps, "seed": seed}
    changes = [*(settings or []), *(f"{key}={value}" for key, value in given.items() if value is not None)]
    recipe = load_recipe(_DEMO, changes)
    path = out or free_folder(Path("runs") / "demo")
    say("searchr1 demo: a small language model learns, by reward alone, to use a search engine.", "bold")
    say(_plan(recipe, path))
    run = run_training(Order(_DEMO, changes, recipe, path), resume=False)
    show_results(run, recipe.rollout.agent)
    show_question(run)
    write_page(run)
    say(f"done in {clock(time.monotonic() - started)}, with at most {peak_memory()} of memory")


def train(
    recipe: RecipeName,
    settings: Settings = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run from its last checkpoint.")] = False,
) -> None:
    """Train a policy as a recipe says; the run folder defaults to runs/NAME."""
    from searchr1.commands.running import Order, peak_memory, run_training, show_results, write_page
    from searchr1.config import load_recipe

    started = time.monotonic()
    loaded = load_recipe(recipe, settings or [])
    path = out or Path("runs") / Path(recipe).name.removesuffix(".toml")
    run = run_training(Order(recipe, settings or [], loaded, path), resume=resume)
    show_results(run, loaded.rollout.agent)
    write_page(run)
    say(f"done in {clock(time.monotonic() - started)}, with at most {peak_memory()} of memory")


def _plan(recipe: Recipe, path: Path) -> str:
    table, tests = recipe.rollout, recipe.evaluation
    trained = recipe.steps * table.questions * table.group_size
    evaluated = tests.final_questions * (2 * len(tests.decodings) + len(tests.baselines))
    evaluated += tests.questions * (recipe.steps // tests.every if tests.every else 0)
    minutes = max(1, round((trained / _TRAINED + evaluated / _EVALUATED) / 60))
    steps, many = f"{recipe.steps} step{'s' * (recipe.steps > 1)}", f"{minutes} minute{'s' * (minutes > 1)}"
    return (
        "Generate an encyclopedia and index it; evaluate the untrained policy and its baselines; train "
        f"{steps} of {table.questions} questions x {table.group_size} trajectories; evaluate again.\n"
        f"This takes about {many} on two cores. Everything goes to {path}."
    )
