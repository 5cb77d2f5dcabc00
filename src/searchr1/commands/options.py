"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from searchr1.agents import AGENTS

Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else there.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Seed of every random choice.")]
RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A recipe file (.toml), or a built-in one: atlas, atlas-ppo, atlas-r1, atlas-collapse, "
        "searchr1-paper[-grpo|-r1], searchr1-v0.1[-grpo], -v0.2[-grpo], -v0.3[-grpo].",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of the recipe; may be repeated."),
]
Run = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
Retriever = Annotated[
    str | None,
    typer.Option("--retriever", metavar="SPEC", help="An index folder, a URL, KIND:key=value or a .toml file."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", help="local; openai: a server at engine.url, MODEL is its name there; scripted: a JSON file."
    ),
]
Agent = Annotated[str | None, typer.Option("--agent", help=f"One of {', '.join(AGENTS)}.")]
