"""From a recipe to the objects that play and train: the one place where names become things."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchr1.agents import build_agent, load_agent
from searchr1.agents.budget import Budget
from searchr1.config import Recipe
from searchr1.engines.settings import EngineTable
from searchr1.errors import UserError
from searchr1.machine import usable_cores
from searchr1.ports import Agent, Dialogue, Engine, Retriever, Tokenizer
from searchr1.protocols import build_protocol
from searchr1.sources import check_sources, open_sources
from searchr1.training.optimization import Critic
from searchr1.types import Question

if TYPE_CHECKING:
    from searchr1.training.policy import Policy

EMBEDDED_MODELS = {"atlas-base": "models/atlas-base"}
"""Models that ship with the package."""
_SERVER_OPTIONS = ("url", "key_variable", "timeout", "retries", "api", "max_tokens_field", "omit")
"""Keys of ``[engine]`` that are options of the engine ``openai``."""
_HUB_NAME = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


@dataclass(frozen=True)
class Parts:
    """Everything one training run plays with."""

    policy: Policy
    tokenizer: Tokenizer
    protocol: Dialogue
    engine: Engine
    retriever: Retriever
    agent: Agent
    train: Sequence[Question]
    test: Sequence[Question]


@dataclass(frozen=True)
class Player:
    """What it takes to play without training."""

    tokenizer: Tokenizer
    protocol: Dialogue
    engine: Engine


def build_parts(recipe: Recipe, folder: Path, say: Callable[[str], None] = lambda text: None) -> Parts:
    """Load, generate, index and check everything that ``recipe`` names; what is made goes to ``folder``.

    ``say`` hears of everything that takes time. Raises ``UserError``; what can be known cheaply is checked first.
    """
    from searchr1.training.policy import load_policy

    check_trainable(recipe)
    if recipe.training.micro_batch_tokens < recipe.rollout.context_tokens:
        raise UserError(
            "training.micro_batch_tokens: expected room for the longest trajectory, rollout.context_tokens = "
            f"{recipe.rollout.context_tokens}, got {recipe.training.micro_batch_tokens}"
        )
    source = model_path(recipe.model)
    check_sources(recipe)
    device = prepare_torch(recipe.engine)
    tokenizer, protocol = build_dialogue(recipe, source)
    check_budget(recipe, protocol, [], context_length(source))
    sources = open_sources(recipe, folder, say)
    questions = [*sources.train, *sources.test]
    check_budget(recipe, protocol, questions, context_length(source))
    needs = recipe.build_algorithm().needs
    if not needs.values and recipe.critic != Critic():
        say(f"[critic] is not used: {recipe.algorithm.get('name', 'grpo')} has no critic")
    policy = load_policy(
        source,
        recipe.optimizer,
        temperature=recipe.rollout.temperature,
        reference=needs.reference,
        critic=recipe.critic if needs.values else None,
        lora=recipe.lora,
        device=device,
    )
    engine = build_engine(recipe, policy.model, tokenizer)
    agent = build_agent(recipe.rollout.agent, protocol, tokenizer, recipe.rollout)
    return Parts(policy, tokenizer, protocol, engine, sources.retriever, agent, sources.train, sources.test)


def check_trainable(recipe: Recipe) -> None:
    """Refuse settings that are fine for playing but not for training. Raises ``UserError``."""
    check_token_ids(recipe)
    if recipe.engine.name != "local":
        raise UserError(
            f"engine.name: training needs 'local', which shares the policy's weights, got {recipe.engine.name!r}"
        )
    if recipe.rollout.temperature == 0 or recipe.rollout.top_p != 1:
        raise UserError(
            "training needs rollout.temperature > 0 and rollout.top_p = 1: other distributions have no gradient or "
            f"no importance ratio; got {recipe.rollout.temperature} and {recipe.rollout.top_p}"
        )


def check_token_ids(recipe: Recipe) -> None:
    """Refuse an engine whose token ids are not the model's own: nothing can learn from them. Raises ``UserError``."""
    if recipe.engine.name == "openai":
        raise UserError(
            "engine.name: the engine 'openai' gives text alone, without the token ids and log-probabilities that "
            "training needs; train and sample with 'local', evaluate and ask with 'openai'"
        )


def build_player(recipe: Recipe, model: str, questions: Iterable[Question]) -> Player:
    """A model, loaded or served, that can play ``questions`` as ``recipe`` says. Raises ``UserError``."""
    if recipe.engine.name == "openai":
        return _served_player(recipe, model, questions)
    device = prepare_torch(recipe.engine)
    source = model_path(model)
    tokenizer, protocol = build_dialogue(recipe, source)
    check_budget(recipe, protocol, questions, context_length(source))
    options = {"device": device} if recipe.engine.name == "local" else {}
    return Player(tokenizer, protocol, build_engine(recipe, source, tokenizer, **options))


def _served_player(recipe: Recipe, model: str, questions: Iterable[Question]) -> Player:
    """A player whose model is the server's: ``model`` is its name there, and nothing is loaded here but a tokenizer."""
    from searchr1.engines.openai import OpenAIEngine

    named = recipe.engine.tokenizer
    tokenizer, protocol = build_dialogue(recipe, model_path(named) if named else "")
    engine = build_engine(recipe, model, tokenizer)
    assert isinstance(engine, OpenAIEngine)
    context = asyncio.run(engine.check())
    # only real tokens can be held against the server's limit
    check_budget(recipe, protocol, questions, context if named else None)
    return Player(tokenizer, protocol, engine)


def model_path(model: str) -> str:
    """A folder or hub name: the shipped model of that name, a run's newest checkpoint, or ``model`` itself."""
    if model in EMBEDDED_MODELS:
        return str(files("searchr1") / EMBEDDED_MODELS[model])
    folder = Path(model)
    if not folder.exists() and not _HUB_NAME.fullmatch(model):
        raise UserError(f"model: expected a model folder, a run or a name on the Hugging Face hub, found no {model}")
    if is_run(folder):
        from searchr1.training.checkpoint import latest_checkpoint

        latest = latest_checkpoint(folder / "checkpoints")
        if latest is None:
            raise UserError(f"{model}: this run has no checkpoint yet; train it first, or name a model")
        return str(latest)
    return model


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is a run folder (a model folder has a ``config.json`` too)."""
    try:
        head = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(head, dict) and head.get("format") == "searchr1-run"


def prepare_torch(engine: EngineTable) -> str:
    """Set the threads and determinism of torch for this process; the device to use. Raises ``UserError``."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
    import torch

    torch.set_num_threads(engine.threads or usable_cores())
    torch.use_deterministic_algorithms(engine.deterministic, warn_only=True)
    found = "cuda" if torch.cuda.is_available() else "cpu"
    device = found if engine.device == "auto" else engine.device
    if device.split(":")[0] not in ("cpu", found):
        raise UserError(
            f"engine.device: expected auto, cpu or an available GPU, got {device!r}; torch finds {found} here"
        )
    return device


def build_dialogue(recipe: Recipe, source: str) -> tuple[Tokenizer, Dialogue]:
    """The tokenizer of a model and the dialogue in it. Raises ``UserError``.

    Bytes for a script; for a served model without ``source``, pieces of text, in messages where the server chats.
    """
    from searchr1.engines.text_tokens import TextTokenizer
    from searchr1.tokenization import ByteTokenizer, HFTokenizer

    tokenizer: Tokenizer
    if recipe.engine.name == "scripted":
        tokenizer = ByteTokenizer()
    elif recipe.engine.name == "openai" and not source:
        tokenizer = TextTokenizer(chat=recipe.engine.api == "chat")
    else:
        tokenizer = HFTokenizer(source)
    table = recipe.protocol
    return tokenizer, build_protocol(table.name, tokenizer, prompt_template=table.prompt_template, chat=table.chat)


def build_engine(recipe: Recipe, model: Any, tokenizer: Tokenizer, **options: Any) -> Engine:
    """The engine over a module, a model folder or (``scripted``) a script."""
    from searchr1.engines import ENGINES

    if recipe.engine.name == "local":
        table = recipe.engine
        options |= {"slots": table.slots, "deterministic": table.deterministic}
        options["max_length"] = recipe.rollout.context_tokens
    elif recipe.engine.name == "openai":
        table = recipe.engine
        options |= {key: getattr(table, key) for key in _SERVER_OPTIONS} | {"concurrency": table.slots}
    return ENGINES[recipe.engine.name](model, tokenizer, **options)


def check_budget(recipe: Recipe, protocol: Dialogue, questions: Iterable[Question], model_tokens: int | None) -> None:
    """Refuse a turn budget that may not fit the context (for any question). Raises ``UserError`` with the formula."""
    agent = load_agent(recipe.rollout.agent)
    search = recipe.rollout.max_searches > 0
    texts = ["", *(question.text for question in questions)]
    longest = max(
        len(protocol.prompt(text, search=search, instruction=instruction))
        for instruction in ("", *getattr(agent, "instructions", ()))
        for text in texts
    )
    recipe.rollout.check(longest, model_tokens)


def context_length(source: str) -> int | None:
    """The model's context in tokens where ``source`` is a folder whose config says, without loading the model."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: expected the config of a model in JSON: {error}") from error
    config = config.get("text_config") or config
    length = config.get("max_position_embeddings") or config.get("n_positions")
    return int(length) if length else None


def greedy(budget: Budget) -> Budget:
    """The same budget, sampled greedily."""
    return replace(budget, temperature=0.0)
