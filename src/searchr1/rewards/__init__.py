"""Rewards: trajectory -> float. A new one is one file here and one line in `REWARDS`.

A recipe's reward table is the weighted sum; a part's options are the fields of its dataclass::

    [reward.exact_match]
    weight = 0.8
    [reward.format]
    weight = {0 = 0.2, 100 = 0.0}       # from step 0 to step 100, linear in between
    [reward.mine]
    function = "my_rewards.py:brief"    # your own: function(trajectory, group, **options) -> float
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any

from searchr1.errors import UserError, nearest
from searchr1.ports import Reward, TurnReward
from searchr1.rewards.schedule import Schedule, parse_weight
from searchr1.rewards.user import RESERVED, UserReward, user_reward
from searchr1.types import Scored, Trajectory

REWARDS: dict[str, tuple[str, str]] = {
    "exact_match": ("searchr1.rewards.exact_match", "ExactMatch"),
    "cover_match": ("searchr1.rewards.cover_match", "CoverMatch"),
    "f1": ("searchr1.rewards.f1", "F1"),
    "f1_floor": ("searchr1.rewards.f1_floor", "F1Floor"),
    "format": ("searchr1.rewards.format", "FormatReward"),
    "search_r1_format": ("searchr1.rewards.search_r1_format", "SearchR1Format"),
    "retrieval": ("searchr1.rewards.retrieval", "Retrieval"),
    "new_evidence": ("searchr1.rewards.new_evidence", "NewEvidence"),
    "economy": ("searchr1.rewards.economy", "EconomicalExactMatch"),
    "otc": ("searchr1.rewards.otc", "OTC"),
    "ikea": ("searchr1.rewards.ikea", "IKEA"),
    "length": ("searchr1.rewards.length", "LengthPenalty"),
}
"""Name in a recipe -> (module, class)."""

DIAGNOSTICS = ("exact_match", "cover_match", "f1")
"""Always computed, with weight 0 where the recipe does not name them."""

Decode = Callable[[Sequence[int]], str]


@dataclass(frozen=True, slots=True)
class Part:
    """One named term of the weighted sum."""

    name: str
    weight: Schedule
    reward: Reward | TurnReward


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """The weighted sum of named rewards; itself a reward."""

    parts: tuple[Part, ...]

    def score(self, trajectory: Trajectory, group: Sequence[Trajectory]) -> float:
        """The reward with the weights of step 0."""
        return self._scored(trajectory, group, 0).reward

    def score_group(self, trajectories: Sequence[Trajectory], *, step: int = 0) -> list[Scored]:
        """Every trajectory of one group with its reward, and the unweighted value of every part.

        Parts that pay at turns are added up, weighted, in ``turn_rewards``; ``reward`` includes them, and their
        component is the sum over the turns. Weights are those of ``step``. Raises UserError where a function of the
        user's does not answer a number.
        """
        group = tuple(trajectories)  # which a function of the user's cannot change
        return [self._scored(trajectory, group, step) for trajectory in group]

    def load_functions(self) -> None:
        """Load the functions of the user's now rather than at the first score. Raises what `UserReward.load` does."""
        for part in self.parts:
            if isinstance(part.reward, UserReward):
                part.reward.load()

    def _scored(self, trajectory: Trajectory, group: Sequence[Trajectory], step: int) -> Scored:
        components: dict[str, float] = {}
        turns: list[float] = []
        end = 0.0
        for part in self.parts:
            weight = part.weight.at(step)
            if isinstance(part.reward, TurnReward):
                values = part.reward.score_turns(trajectory, group)
                components[part.name] = sum(values, 0.0)
                paid = turns or [0.0] * len(trajectory.turns)
                turns = [sofar + weight * value for sofar, value in zip(paid, values, strict=True)]
            else:
                components[part.name] = part.reward.score(trajectory, group)
                end += weight * components[part.name]
        return Scored(trajectory, end + sum(turns, 0.0), components, tuple(turns))


def build_reward(table: Mapping[str, Any], *, decode: Decode | None = None) -> WeightedReward:
    """The reward of a recipe's table ``{name: weight}`` or ``{name: {"weight": 1.0, **options}}``.

    A weight is a number or a schedule (see `parse_weight`). A name that is not in `REWARDS` is a reward of the user's:
    ``{name: "path.py:function"}`` or ``{name: {"function": "path.py:function", "weight": 1.0, **options}}``; its file
    is read at the first score, or by ``load_functions``. ``decode`` (token ids to text) is needed by rewards that read
    the policy's text. Raises UserError for an empty table, an unknown name or option, and a value that its reward
    refuses; ValueError where ``decode`` is missing.

    >>> reward = build_reward({"exact_match": 1.0, "economy": {"weight": 0.5, "cost": 0.1}})
    >>> [(part.name, part.weight.at(0)) for part in reward.parts]
    [('exact_match', 1.0), ('economy', 0.5), ('cover_match', 0.0), ('f1', 0.0)]
    """
    if not table:
        raise UserError(f"reward: expected at least one of {', '.join(REWARDS)}, got an empty table")
    complete = dict(table) | {name: 0.0 for name in DIAGNOSTICS if name not in table}
    return WeightedReward(tuple(_build_part(name, value, decode) for name, value in complete.items()))


def _build_part(name: str, value: Any, decode: Decode | None) -> Part:
    options = _options(value)
    function = options.pop("function", None)
    if name not in REWARDS and function is None:
        own = f'; or, for one of your own: reward.{name} = "path.py:function"' if name.isidentifier() else ""
        raise UserError(f"reward.{name}: no such reward{nearest(name, REWARDS)}{own}")
    try:
        weight = parse_weight(options.pop("weight", 1.0))
    except ValueError as error:
        raise UserError(f"reward.{name}.weight: {error}") from error
    if function is not None:
        if name in REWARDS or not name.isidentifier():
            if ":" not in str(function):
                raise UserError(f"reward.{name}: expected a weight, or a table of weight and options, got {function!r}")
            why = "is built in" if name in REWARDS else "is no name"
            raise UserError(f"reward.{name}: {name!r} {why}; give your function {function!r} another one, such as mine")
        if name in RESERVED:
            raise UserError(f"reward.{name}: train/{name} is a metric already; give your function another name")
        return Part(name, weight, user_reward(name, function, options))
    return Part(name, weight, _built_in(name, options, decode))


def _options(value: Any) -> dict[str, Any]:
    """A part's table: ``0.5`` and ``{0 = 1.0, 9 = 0.5}`` are weights, ``"path.py:function"`` a function."""
    if isinstance(value, Mapping) and not (value and all(str(key).isdecimal() for key in value)):
        return dict(value)
    return {"function" if isinstance(value, str) else "weight": value}


def _built_in(name: str, options: dict[str, Any], decode: Decode | None) -> Reward | TurnReward:
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
        reward: Reward | TurnReward = reward_class(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"reward.{name}: {error}") from error
    return reward
