"""What ``eval`` and ``ask`` are pointed at: a run, a checkpoint of a run, or a model."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from searchr1.console import say
from searchr1.errors import UserError

if TYPE_CHECKING:
    from searchr1.config import Data, Recipe
    from searchr1.ports import Retriever


@dataclass(frozen=True)
class Target:
    """A model with the settings that it is played with.

    ``home`` is where its encyclopedia and its index are found or made: the run folder, or the cache; None for a model
    that has neither.
    """

    model: str
    recipe: Recipe
    home: Path | None

    def atlas(self) -> Path:
        """The encyclopedia of the run, or a cached one."""
        from searchr1.sources import atlas_folder

        home = self.home or cache_folder(self.recipe.data)
        folder = atlas_folder(home, self.recipe.data, say if not (home / "atlas").exists() else lambda text: None)
        if folder is None:
            raise UserError(f"{self.model}: its run does not use the atlas; name a question file")
        return folder

    def retriever(self, spec: str | None) -> Retriever:
        """The search engine that ``spec`` names, else that of the run. Raises ``UserError``."""
        from searchr1.retrieval.spec import built_kind
        from searchr1.sources import build_retriever, check_reachable

        if spec is None and self.home is None:
            raise UserError(
                f"--retriever: {self.model} needs one: an index folder, a URL, KIND:key=value or a .toml file"
            )
        chosen = spec or self.recipe.retriever
        if built_kind(chosen) is None:
            check_reachable(chosen, self.recipe.search)
            return build_retriever(self.recipe, None, Path(), say, chosen)
        home = self.home or cache_folder(self.recipe.data)
        corpus = self.atlas() / "corpus.jsonl" if self.recipe.data.corpus == "atlas" else Path(self.recipe.data.corpus)
        return build_retriever(self.recipe, corpus, home / "index", say, chosen)


def find_target(name: str, settings: Sequence[str] = (), checkpoint: str | None = None) -> Target:
    """The run, checkpoint or model called ``name``, with ``--set`` applied. Raises ``UserError``.

    ``checkpoint`` of a run: best, last (the default) or a step.
    """
    from searchr1.assemble import EMBEDDED_MODELS, is_run
    from searchr1.config import build_recipe, load_recipe
    from searchr1.run import RunFolder

    if name in EMBEDDED_MODELS and checkpoint is None:
        recipe = load_recipe("atlas", settings)
        return Target(name, recipe, cache_folder(recipe.data))
    folder = Path(name)
    if checkpoint is not None:
        if not is_run(folder):
            raise UserError(f"--checkpoint: expected a run folder to choose from, got {name}")
        from searchr1.training.best import find_checkpoint

        name = str(find_checkpoint(folder / "checkpoints", checkpoint))
        folder = Path(name)
    for run in (folder, folder.parent.parent if folder.parent.name == "checkpoints" else folder):
        if is_run(run):
            return Target(name, build_recipe(RunFolder.open(run).config, settings), run)
    plain = build_recipe({}, settings)
    served = plain.engine.name == "openai"  # then it is the server's name for its model, whatever it looks like
    if not served and folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(f"{name}: expected a run or a model folder, found no config.json in it; check the path")
    return Target(name, plain, None)


def cache_folder(data: Data) -> Path:
    """Where the encyclopedia of these settings is kept between commands."""
    from searchr1.data.atlas.write import FORMAT

    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    request = json.dumps([FORMAT, data.atlas_seed, data.atlas_entities, data.atlas_shares])
    return base / "searchr1" / f"atlas-{hashlib.sha256(request.encode()).hexdigest()[:12]}"
