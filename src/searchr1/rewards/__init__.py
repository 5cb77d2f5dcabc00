"""Rewards: trajectory -> float. A new one is one file here and one line in `REWARDS`.

A recipe's reward table is the weighted sum; a part's options are the fields of its dataclass::

    [reward.exact_match]
    weight = 0.8
    [reward.format]
    weight = 0.2
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from searchr1.errors import UserError, nearest
from searchr1.ports import Reward
from searchr1.types import Scored, Trajectory

REWARDS: dict[str, tuple[str, str]] = {
    "exact_match": ("searchr1.rewards.exact_match", "ExactMatch"),
    "cover_match": ("searchr1.rewards.cover_match", "CoverMatch"),
    "f1": ("searchr1.rewards.f1", "F1"),
    "format": ("searchr1.rewards.format", "FormatReward"),
    "economy": ("searchr1.rewards.economy", "EconomicalExactMatch"),
}
"""Name in a recipe -> (module, class)."""

DIAGNOSTICS = ("exact_match", "cover_match", "f1")
"""Always computed, with weight 0 where the recipe does not name them."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Part:
    """One named term of the weighted sum."""

    name: str
    weight: float
    reward: Reward


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of named rewards; itself a reward."""

    parts: tuple[Part, ...]

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        return self._scored(trajectory, group).reward

    def score_group(self, trajectories: Sequence[Trajectory]) -> list[Scored]:
        """Every trajectory of one group with its reward and the unweighted value of every part."""
        return [self._scored(trajectory, trajectories) for trajectory in trajectories]

    def _scored(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> Scored:
        components = {part.name: part.reward.score(trajectory, group) for part in self.parts}
        reward = sum((part.weight * components[part.name] for part in self.parts), 0.0)
        return Scored(trajectory, reward, components)


def build_reward(table: Mapping[str, Mapping[str, Any] | float], *, decode: Decode | None = None) -> WeightedReward:
    """The reward of a recipe's table ``{name: weight}`` or ``{name: {"weight": 1.0, **options}}``.

    ``decode`` (token ids to text) is needed by rewards that read the policy's text. Raises UserError for an empty
    table, an unknown name or option, and a value that its reward refuses; ValueError where ``decode`` is missing.

    >>> reward = build_reward({"exact_match": 1.0, "economy": {"weight": 0.5, "cost": 0.1}})
    >>> [(part.name, part.weight) for part in reward.parts]
    [('exact_match', 1.0), ('economy', 0.5), ('cover_match', 0.0), ('f1', 0.0)]
    """
    if not table:
        raise UserError(f"reward: expected at least one of {', '.join(REWARDS)}, got an empty table")
    complete = dict(table) | {name: 0.0 for name in DIAGNOSTICS if name not in table}
    return WeightedReward(tuple(_build_part(name, value, decode) for name, value in complete.items()))


def _build_part(name: str, value: Mapping[str, Any] | float, decode: Decode | None) -> Part:
    if name not in REWARDS:
        raise UserError(f"reward.{name}: no such reward{nearest(name, REWARDS)}")
    options: dict[str, Any] = dict(value) if isinstance(value, Mapping) else {"weight": value}
    weight = options.pop("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise UserError(f"reward.{name}.weight: expected a finite number, got {weight!r}")
    module, class_name = REWARDS[name]
    reward_class = getattr(import_module(module), class_name)
    known = {field.name for field in fields(reward_class)}
    unknown = [option for option in options if option not in known - {"decode"}]
    if unknown:
        known_options = (known - {"decode"}) | {"weight"}
        raise UserError(f"reward.{name}.{unknown[0]}: no such option{nearest(unknown[0], known_options)}")
    if "decode" in known:  # not an option: the one thing a reward may need from outside the recipe
        if decode is None:
            raise ValueError(f"reward {name!r} reads the policy's text: build_reward needs decode")
        options["decode"] = decode
    try:
        return Part(name, float(weight), reward_class(**options))
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.{name}: {error}") from error
