"""From a recipe to the objects that play and train: the one place where names become things."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchr1.agents import build_agent
from searchr1.agents.budget import Budget
from searchr1.config import Data, EngineTable, Recipe
from searchr1.data.questions import read_questions
from searchr1.errors import UserError
from searchr1.ports import Agent, Dialogue, Engine, Retriever, Tokenizer
from searchr1.protocols import build_protocol
from searchr1.retrieval import BACKENDS
from searchr1.types import Question

if TYPE_CHECKING:
    from searchr1.training.policy import Policy

EMBEDDED_MODELS = {"atlas-base": "models/atlas-base"}
"""Models that ship with the package."""


@dataclass(frozen=True)
class Parts:
    """Everything one run plays with."""

    policy: Policy
    tokenizer: Tokenizer
    protocol: Dialogue
    engine: Engine
    retriever: Retriever
    agent: Agent
    train: Sequence[Question]
    test: Sequence[Question]


def model_path(model: str) -> str:
    """A folder or hub name: the shipped model of that name, a run's newest checkpoint, or ``model`` itself."""
    if model in EMBEDDED_MODELS:
        return str(files("searchr1") / EMBEDDED_MODELS[model])
    folder = Path(model)
    if (folder / "checkpoints").is_dir():
        from searchr1.training.checkpoint import latest_checkpoint

        latest = latest_checkpoint(folder / "checkpoints")
        if latest is None:
            raise UserError(f"{model}: this run has no checkpoint yet; train it first, or name a model")
        return str(latest)
    return model


def prepare_torch(engine: EngineTable) -> str:
    """Set the threads and determinism of torch for this process; the device to use."""
    import torch

    torch.set_num_threads(engine.threads or len(os.sched_getaffinity(0)))
    torch.use_deterministic_algorithms(engine.deterministic, warn_only=True)
    if engine.device != "auto":
        return engine.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def atlas_folder(run: Path, data: Data) -> Path | None:
    """The encyclopedia that the recipe asks for, generated in the run folder; None when it asks for none."""
    if "atlas" not in (data.train, data.test, data.corpus):
        return None
    from searchr1.data.atlas.write import write_atlas

    folder = run / "atlas"
    write_atlas(folder, seed=data.atlas_seed, entities=data.atlas_entities, shares=data.atlas_shares)
    return folder


def load_questions(source: str | tuple[str, ...], atlas: Path | None, split: str) -> list[Question]:
    """The questions of one or several files. Raises ``UserError``."""
    names = (source,) if isinstance(source, str) else source
    found: list[Question] = []
    for name in names:
        found += read_questions(atlas / f"{split}.jsonl" if name == "atlas" and atlas else name)
    return found


def build_retriever(spec: str, corpus: Path | None, folder: Path) -> Retriever:
    """The retriever of a recipe; a kind of index is built from ``corpus`` into ``folder`` (once) and opened."""
    from searchr1.retrieval.batching import CoalescingRetriever
    from searchr1.retrieval.index import build_index, open_index
    from searchr1.retrieval.spec import open_retriever

    if spec not in BACKENDS:
        return CoalescingRetriever(open_retriever(spec))
    if corpus is None:
        raise UserError(f"retriever = {spec!r} builds an index of data.corpus, but data.corpus is empty; set it")
    if not (folder / "manifest.json").is_file():
        build_index(corpus, folder, kind=spec)
    return CoalescingRetriever(open_index(folder))


def longest_prompt(protocol: Dialogue, questions: Sequence[Question], search: bool) -> int:
    return max(len(protocol.prompt(question.text, search=search)) for question in questions)


def build_parts(recipe: Recipe, run: Path) -> Parts:
    """Load, generate, index and check everything that ``recipe`` names. Raises ``UserError``."""
    from searchr1.engines import ENGINES
    from searchr1.tokenization import HFTokenizer
    from searchr1.training.policy import load_policy

    device = prepare_torch(recipe.engine)
    source = model_path(recipe.model)
    tokenizer = HFTokenizer(source)
    protocol = build_protocol(
        recipe.protocol.name, tokenizer, prompt_template=recipe.protocol.prompt_template, chat=recipe.protocol.chat
    )
    atlas = atlas_folder(run, recipe.data)
    train = load_questions(recipe.data.train, atlas, "train")
    test = load_questions(recipe.data.test, atlas, "test")
    policy = load_policy(
        source,
        recipe.optimizer,
        temperature=recipe.rollout.temperature,
        reference=recipe.build_algorithm().needs.reference,
        device=device,
    )
    search = recipe.rollout.max_searches > 0
    recipe.rollout.check(longest_prompt(protocol, [*train, *test], search), context_length(policy.model))
    corpus = atlas / "corpus.jsonl" if recipe.data.corpus == "atlas" and atlas else _path(recipe.data.corpus)
    retriever = build_retriever(recipe.retriever, corpus, run / "index")
    options: dict[str, Any] = {"slots": recipe.engine.slots, "deterministic": recipe.engine.deterministic}
    engine = ENGINES[recipe.engine.name](policy.model, tokenizer, max_length=recipe.rollout.context_tokens, **options)
    agent = build_agent(recipe.rollout.agent, protocol, tokenizer, recipe.rollout)
    return Parts(policy, tokenizer, protocol, engine, retriever, agent, train, test)


def greedy(budget: Budget) -> Budget:
    """The same budget, sampled greedily."""
    return replace(budget, temperature=0.0)


def context_length(model: Any) -> int | None:
    """The model's context in tokens, where its config says."""
    length = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return int(length) if length else None


def _path(name: str) -> Path | None:
    return Path(name) if name else None
