"""What ``eval`` plays: questions, agent, engine and search engine, and the settings that decide the answers."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from searchr1.console import say
from searchr1.errors import UserError

if TYPE_CHECKING:
    from searchr1.commands.targets import Target
    from searchr1.config import Recipe
    from searchr1.evaluation.play import Session
    from searchr1.ports import Retriever as RetrieverPort
    from searchr1.types import Question

Part = tuple[int, int]
"""The k-th of n parts, from 1."""
_BUDGET = (
    "max_searches",
    "top_k",
    "turn_tokens",
    "observation_tokens",
    "context_tokens",
    "forced_answer",
    "temperature",
    "top_p",
)


def read_part(text: str | None) -> Part | None:
    """``2/4`` as (2, 4). Raises ``UserError``."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)/(\d+)", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise UserError(f"--part: expected K/N with K from 1 to N, for example 1/4, got {text!r}")
    return int(found[1]), int(found[2])


def read_price(text: str | None) -> list[float] | None:
    """``2.5,10`` as [2.5, 10.0]. Raises ``UserError``."""
    if text is None:
        return None
    try:
        dollars = [float(part) for part in text.split(",")]
    except ValueError:
        dollars = []
    if len(dollars) != 2 or not all(0 <= price < math.inf for price in dollars):
        raise UserError(f"--price: expected two amounts in dollars, IN,OUT, for example 2.5,10, got {text!r}")
    return dollars


def distinct(questions: Sequence[Question]) -> list[Question]:
    """The questions without those that another file has, too: each is asked once.

    Raises ``UserError`` where one id stands for two questions: one of them would never be asked.
    """
    found: dict[tuple[str, str], Question] = {}
    for question in questions:
        other = found.setdefault((question.dataset, question.id), question)
        if (other.text, other.answers) != (question.text, question.answers):
            raise UserError(
                f"--data: {question.dataset} {question.id!r} is two questions, {other.text!r} and {question.text!r}, "
                'or has two sets of answers; give the rows of one file another "dataset"'
            )
    once = list(found.values())
    if len(once) < len(questions):
        say(f"{len(questions) - len(once):,} questions occur in several files and are asked once", "yellow")
    return once


def pick(questions: Sequence[Question], part: Part | None) -> list[Question]:
    """Every n-th question of all. Raises ``UserError`` where that is none."""
    if part is None:
        return list(questions)
    mine = list(questions[part[0] - 1 :: part[1]])
    if not mine:
        raise UserError(f"--part {part[0]}/{part[1]}: there are only {len(questions)} questions; use fewer parts")
    return mine


def read_data(target: Target, data: list[str], limit: int | None) -> list[Question]:
    """The questions of the files that were named, or of the target's own test. Raises ``UserError``."""
    from searchr1.sources import ATLAS, load_questions

    if not data:
        if target.home is None:
            raise UserError(f"--data: {target.model} is no run of ours, so name question files, or atlas")
        test = target.recipe.data.test
        data = [test] if isinstance(test, str) else list(test)
    return load_questions([str(target.atlas() / "test.jsonl") if name == ATLAS else name for name in data], limit)


def search_engine(
    target: Target, spec: str | None, control: str, questions: Sequence[Question], seed: int
) -> RetrieverPort:
    """What is searched; nothing for an agent that never does, unless one is named. Raises ``UserError``."""
    from searchr1.evaluation.controls import controlled

    if _closed_book(target) and spec is None:
        from searchr1.retrieval.dictionary import DictionaryRetriever

        return DictionaryRetriever({})  # never asked
    return controlled(target.retriever(spec), control, questions, seed)


def open_session(
    target: Target, questions: list[Question], search: RetrieverPort, *, greedy: bool, samples: int, seed: int
) -> Session:
    """The model, loaded, and all that it is played with. Raises ``UserError``."""
    from searchr1.agents import build_agent
    from searchr1.assemble import build_player
    from searchr1.assemble import greedy as greedily
    from searchr1.evaluation.play import Session
    from searchr1.seeds import derive_seed

    recipe = target.recipe
    player = build_player(recipe, target.model, questions)
    budget: Any = greedily(recipe.rollout) if greedy else recipe.rollout
    agent = build_agent(recipe.rollout.agent, player.protocol, player.tokenizer, budget)
    dialogue = getattr(agent, "dialogue", player.protocol)  # an agent may speak another one
    return Session(
        questions,
        agent,
        player.engine,
        search,
        # as in training, so that a run's own evaluation comes out again
        seed=derive_seed(seed, "evaluation"),
        samples=samples,
        concurrency=recipe.engine.slots,
        shown=lambda passages: len(dialogue.observe(passages, budget.observation_tokens).token_ids),
    )


def settings_of(
    target: Target, session: Session, questions: Sequence[Question], spec: str | None, seed: int
) -> dict[str, Any]:
    """What decides the answers, as plain JSON; ``questions`` are those of all parts."""
    from searchr1.retrieval.spec import identity

    recipe = target.recipe
    used = None
    if not _closed_book(target):
        info = asyncio.run(session.retriever.info())
        named = spec or recipe.retriever
        found = {"kind": info.kind, "corpus_hash": info.corpus_hash, "passages": info.passages}
        used = {"spec": named, "options": json.loads(identity(named)), **found}
    lines = sorted(json.dumps([q.dataset, q.id, q.text, list(q.answers)]) for q in questions)
    resolved = recipe.resolved()
    rollout = {key: resolved["rollout"][key] for key in _BUDGET}
    return {
        "agent": recipe.rollout.agent,
        "model": target.model,
        "weights": weights_hash(target.model) if recipe.engine.name == "local" else "",
        "samples": session.samples,
        "seed": seed,
        "retriever": used,
        **rollout,
        "protocol": resolved["protocol"],
        "engine": recipe.engine.name,
        **_words_and_server(recipe),
        "questions": {"n": len(lines), "hash": hashlib.sha256("\n".join(lines).encode()).hexdigest()},
    }


def _closed_book(target: Target) -> bool:
    """Whether the agent never searches."""
    from searchr1.agents import load_agent

    return bool(getattr(load_agent(target.recipe.rollout.agent), "closed_book", False))


def _words_and_server(recipe: Recipe) -> dict[str, Any]:
    """What else decides the answers, where it is there: the prompts of the user's own files, how a server is asked.

    Not the server's address: the parts of one evaluation may ask one each.
    """
    from searchr1.protocols.tags import PROMPTS
    from searchr1.protocols.wording import load_wording

    settings: dict[str, Any] = {}
    template = recipe.protocol.prompt_template
    if template not in PROMPTS:
        words = json.dumps(load_wording(template, {}))
        settings["wording"] = hashlib.sha256(words.encode()).hexdigest()
    if recipe.engine.name == "openai":
        engine = recipe.engine
        settings["server"] = {"api": engine.api, "tokenizer": engine.tokenizer, "omit": sorted(engine.omit)}
    return settings


def weights_hash(model: str) -> str:
    """SHA-256 of the weights' files of a model folder; empty for a name on the hub."""
    from searchr1.assemble import model_path

    folder = Path(model_path(model))
    digest = hashlib.sha256()
    files = sorted(file for kind in ("*.safetensors", "*.bin") for file in folder.glob(kind)) if folder.is_dir() else []
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest() if files else ""
