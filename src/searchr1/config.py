"""Recipes: TOML plus ``--set key=value`` -> validated, frozen objects.

The object that uses an option declares it: ``[rollout]`` is `Rollout`, ``[optimizer]`` is `Optimization`,
``[algorithm]`` is the algorithm's own dataclass, ``[reward.NAME]`` the reward's. An unknown key is an error that names
the nearest known one.
"""

from __future__ import annotations

import dataclasses
import tomllib
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from searchr1.agents import AGENTS
from searchr1.agents.budget import Budget
from searchr1.alarms.settings import Alarms
from searchr1.algorithms import load_algorithm
from searchr1.engines import ENGINES
from searchr1.engines.settings import EngineTable
from searchr1.errors import UserError, nearest
from searchr1.protocols import PROTOCOLS
from searchr1.rewards import build_reward
from searchr1.training.optimization import Critic, Lora, Optimization

OUTCOME = {"exact_match": 1.0}
"""The reward of a recipe that names none: exact match of the answer (arXiv 2503.09516, equation 4)."""


@dataclass(frozen=True)
class Data:
    """``[data]``. Each of the three is a file, or ``atlas``: the generated encyclopedia."""

    train: str | tuple[str, ...] = "atlas"
    """One question file or several, mixed."""
    test: str | tuple[str, ...] = "atlas"
    corpus: str = "atlas"
    """What to index when ``retriever`` is a kind of index; else what the index must have been built from, or ""."""
    atlas_seed: int = 0
    atlas_entities: int = 3000
    atlas_shares: tuple[float, float, float] = (1 / 3, 1 / 3, 1 / 3)
    """One-hop, two-hop and comparison among the training questions."""


@dataclass(frozen=True)
class Search:
    """``[search]``: what stands between the run and its search engine."""

    cache: Literal["off", "record", "replay", "strict"] = "off"
    """``record`` searches and keeps every result; ``replay`` searches only what is not kept; ``strict`` never."""
    cache_file: str = "search-cache.sqlite"
    """Where results are kept; many runs, at the same time too, may share one file."""


@dataclass(frozen=True)
class Dialogue:
    """``[protocol]``: how model and environment talk."""

    name: str = "tags"
    prompt_template: str = "standard"
    chat: Literal["auto", "always", "never"] = "auto"


@dataclass(frozen=True)
class Rollout(Budget):
    """``[rollout]``: what a trajectory may spend (`Budget`), and how many are played in a step."""

    agent: str = "search_r1"
    questions: int = 64
    group_size: int = 5
    """Trajectories of one question in one step."""
    refill: int = 0
    """Rounds in which questions that teach nothing (all rewards equal) are replaced: DAPO's dynamic sampling."""
    max_failure_rate: float = 0.2
    """Above this share of trajectories that failed through no fault of the policy, training waits for the engine."""


@dataclass(frozen=True)
class Training:
    """``[training]``: from a batch of trajectories to updates."""

    updates_per_batch: int = 1
    """Optimiser steps on one batch of trajectories, each on its own part of it."""
    micro_batch_tokens: int = 8192
    """Tokens, padding included, of one forward and backward pass."""
    mask_environment: bool = True
    """False trains retrieved tokens as if the policy had written them: an ablation (arXiv 2503.09516, section 5.4)."""


@dataclass(frozen=True)
class Supervised:
    """``[sft]``: supervised fine-tuning (``searchr1 sft``), with the learning rate of ``[optimizer]``."""

    data: tuple[str, ...] = ()
    """Files of trajectories that ``searchr1 sample`` kept."""
    answers: bool = False
    """Instead of ``data``: the gold answers of ``data.train``, said without a search."""
    epochs: int = 2
    batch: int = 64
    """Trajectories of one update."""
    held_out: float = 0.05
    """Share of the questions whose trajectories are not trained on: what ``validation/loss`` is measured on."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise UserError(f"sft.held_out: expected a share from 0 to below 1, got {self.held_out}")


@dataclass(frozen=True)
class Evaluation:
    """``[evaluation]``: on ``data.test``, before, during and after training."""

    every: int = 0
    """Steps between evaluations during training; 0: only before and after."""
    questions: int = 200
    """Questions of each evaluation during training."""
    final_questions: int = 500
    """Questions of the evaluations before and after."""
    decodings: tuple[Literal["sampled", "greedy"], ...] = ("sampled", "greedy")
    """Before and after; during training, the first alone."""
    baselines: tuple[str, ...] = ("direct", "rag")
    """Agents that are evaluated once with the untrained policy."""


@dataclass(frozen=True)
class Saving:
    """``[save]``: what goes to the run folder and how often."""

    checkpoint_every: int = 20
    keep: int = 2
    """Newest checkpoints that stay, beside the best one and those that a rollback may need (three at most)."""
    best: Literal["exact_match", "f1", "reward"] = "exact_match"
    """What the best checkpoint is best by: its evaluation, or the smoothed reward in training; the latter also where
    ``evaluation.every`` is 0."""
    trajectories_every: int = 10


@dataclass(frozen=True)
class Recipe:
    """One run, completely described."""

    seed: int = 0
    steps: int = 100
    model: str = "atlas-base"
    retriever: str | dict[str, Any] = "bm25"
    """What searches (`searchr1.retrieval.spec`), or a kind of index, with options, to build from ``data.corpus``."""
    search: Search = field(default_factory=Search)
    data: Data = field(default_factory=Data)
    protocol: Dialogue = field(default_factory=Dialogue)
    rollout: Rollout = field(default_factory=Rollout)
    reward: dict[str, Any] = field(default_factory=lambda: dict(OUTCOME))
    algorithm: dict[str, Any] = field(default_factory=lambda: {"name": "grpo"})
    optimizer: Optimization = field(default_factory=Optimization)
    critic: Critic = field(default_factory=Critic)
    lora: Lora = field(default_factory=Lora)
    training: Training = field(default_factory=Training)
    sft: Supervised = field(default_factory=Supervised)
    engine: EngineTable = field(default_factory=EngineTable)
    evaluation: Evaluation = field(default_factory=Evaluation)
    save: Saving = field(default_factory=Saving)
    alarms: Alarms = field(default_factory=Alarms)

    def __post_init__(self) -> None:
        for key, least in _LEAST.items():
            value: Any = self
            for part in key.split("."):
                value = getattr(value, part)
            if value < least:
                raise UserError(f"{key}: expected at least {least}, got {value}")
        if not self.evaluation.decodings:
            raise UserError("evaluation.decodings: expected at least one of sampled and greedy, got none")
        _check_name("protocol.name", self.protocol.name, PROTOCOLS)
        _check_name("engine.name", self.engine.name, ENGINES)
        _check_name("rollout.agent", self.rollout.agent, AGENTS)
        for baseline in self.evaluation.baselines:
            _check_name("evaluation.baselines", baseline, AGENTS)
        if not self.build_algorithm().drop_zero_variance and self.rollout.refill:
            raise UserError(
                "rollout.refill: replaces groups with equal rewards, but this algorithm learns from them too; "
                "expected 0 or algorithm.drop_zero_variance=true"
            )
        build_reward(self.reward, decode=lambda ids: "")

    def build_algorithm(self) -> Any:
        """The algorithm's object. Raises ``UserError`` for an unknown name, key or value."""
        options = dict(self.algorithm)
        cls = load_algorithm(options.pop("name", "grpo"))
        return _validate(cls, options, "algorithm")

    def resolved(self) -> dict[str, Any]:
        """Plain JSON-able settings with every default filled in."""
        algorithm = {"name": self.algorithm.get("name", "grpo"), **dataclasses.asdict(self.build_algorithm())}
        plain = {**dataclasses.asdict(self), "algorithm": algorithm}
        encoded: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(plain, mode="json")
        return encoded


_LEAST = {
    "steps": 1,
    "rollout.questions": 1,
    "rollout.group_size": 1,
    "rollout.refill": 0,
    "training.updates_per_batch": 1,
    "training.micro_batch_tokens": 1,
    "sft.epochs": 1,
    "sft.batch": 1,
    "engine.slots": 1,
    "engine.threads": 0,
    "engine.retries": 0,
    "evaluation.every": 0,
    "evaluation.questions": 1,
    "evaluation.final_questions": 1,
    "save.checkpoint_every": 1,
    "save.keep": 1,
    "save.trajectories_every": 0,
}


_REPLACED = ("reward", "retriever")
"""Tables that are one thing: half of a base's and half of one's own would be neither."""


def load_recipe(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a TOML file (or the built-in one of that name) with ``key=value`` overrides.

    ``base = "NAME"`` in a file starts from another recipe: a file, relative to the one that names it, or a built-in
    one. Its tables are taken over key by key; ``[reward]``, ``retriever`` and an ``[algorithm]`` of another name are
    replaced as a whole. Other paths in a file are relative to the working folder. Raises ``UserError``; errors inside a
    reward function of the user's keep their type.
    """
    recipe = build_recipe(_read_recipe(str(source), Path(), ()), overrides)
    build_reward(recipe.reward, decode=lambda ids: "").load_functions()  # now, not when the first step was played
    return recipe


def _read_recipe(source: str, folder: Path, chain: tuple[Path, ...]) -> dict[str, Any]:
    """The tables of a recipe, laid over those of its base; ``chain`` are the recipes that led here."""
    path = folder / source
    if not path.is_file():
        built_in = files("searchr1") / "recipes" / f"{source}.toml"
        if not built_in.is_file():
            where = f"{chain[-1]}: base: expected a recipe" if chain else "recipe"
            raise UserError(f"{where} {source}: no such file{nearest(source, built_in_recipes())}")
        path = Path(str(built_in))
    path = path.resolve()
    if path in chain:
        circle = " -> ".join(link.name for link in (*chain[chain.index(path) :], path))
        raise UserError(f"{chain[-1]}: base: expected a recipe that does not lead back here, got {circle}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected TOML: {error}") from error
    if "base" not in table:
        return table
    base = table.pop("base")
    if not isinstance(base, str):
        raise UserError(f"{path}: base: expected the name or the file of a recipe, got {base!r}")
    return _lay_over(_read_recipe(base, path.parent, (*chain, path)), table)


def _lay_over(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the keys of ``own``.

    >>> _lay_over({"steps": 5, "data": {"train": "a", "test": "b"}}, {"data": {"train": "c"}})
    {'steps': 5, 'data': {'train': 'c', 'test': 'b'}}
    """
    merged = dict(base)
    for key, value in own.items():
        below = base.get(key)
        if key in _REPLACED or not isinstance(value, Mapping) or not isinstance(below, Mapping):
            merged[key] = value
        elif key == "algorithm" and "name" in value and value["name"] != below.get("name", "grpo"):
            merged[key] = value  # the options of one algorithm are not those of another
        else:
            merged[key] = {**below, **value}
    return merged


def build_recipe(table: Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from nested tables. Raises ``UserError`` naming key, value and what was expected.

    >>> build_recipe({"steps": 3}, ["rollout.group_size=8"]).rollout.group_size
    8
    """
    merged: dict[str, Any] = {"reward": dict(OUTCOME), **_copy(table)}  # so that --set adds to it, as to any default
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise UserError(f"--set {override}: expected key=value, for example --set rollout.group_size=8")
        _assign(merged, key.strip().split("."), _parse_value(value.strip()), override)
    recipe: Recipe = _validate(Recipe, merged, "")
    return recipe


def built_in_recipes() -> list[str]:
    return sorted(item.name.removesuffix(".toml") for item in (files("searchr1") / "recipes").iterdir())


def _check_name(key: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise UserError(f"{key}: there is no {name!r}{nearest(name, known)}")


def _copy(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _copy(value) if isinstance(value, Mapping) else value for key, value in table.items()}


def _assign(table: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    *parents, last = keys
    for depth, key in enumerate(parents):
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            if keys[0] != "reward" or depth != 1:
                raise UserError(f"--set {override}: {'.'.join(parents[: depth + 1])} is a value, not a table")
            inner = table[key] = {"function" if isinstance(inner, str) else "weight": inner}
        table = inner
    table[last] = value


def _parse_value(text: str) -> Any:
    """A TOML value where it is one, else the text itself: ``3``, ``true``, ``["a", "b"]``, ``some/path``."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _validate(cls: type[Any], table: Mapping[str, Any], prefix: str) -> Any:
    _check_keys(cls, table, prefix)
    try:
        return TypeAdapter(cls, config=None if dataclasses.is_dataclass(cls) else ConfigDict()).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join([*([prefix] if prefix else []), *(str(part) for part in first["loc"])])
        cause = first.get("ctx", {}).get("error")
        if first["type"] == "value_error" and cause is not None:
            raise UserError(str(cause)) from error
        raise UserError(f"{key}: {first['msg'].lower()}, got {first['input']!r}") from error


def _check_keys(cls: type[Any], table: Mapping[str, Any], prefix: str) -> None:
    hints = typing.get_type_hints(cls)
    known = {item.name for item in dataclasses.fields(cls)}
    for key, value in table.items():
        dotted = f"{prefix}.{key}" if prefix else key
        if key not in known:
            raise UserError(f"unknown key {dotted!r}{nearest(key, known)}")
        inner = hints[key]
        if dataclasses.is_dataclass(inner) and isinstance(inner, type):
            if not isinstance(value, Mapping):
                raise UserError(f"{dotted}: expected a table, got {value!r}")
            _check_keys(inner, value, dotted)
