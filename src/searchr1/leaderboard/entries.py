"""Which evaluation folders make one line: the same thing evaluated, with one seed or with several."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchr1.errors import UserError
from searchr1.evaluation.results import Evaluation, read_evaluation

Flat = dict[str, Any]
_SEED = re.compile(r"seed[-_=]?\d+")
_LABELS = frozenset({"name", "seed", "weights", "part", "questions.n", "questions.hash", "retriever.spec"})
"""What may differ between the seeds of one entry; which questions were asked is looked up in the rows."""
_BUDGET = "max_searches"


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table: one evaluation, or several that differ in their seed alone."""

    name: str
    settings: Mapping[str, Any]
    """Those of the first seed."""
    seeds: tuple[Evaluation, ...]

    @property
    def max_searches(self) -> int | None:
        value = self.settings.get(_BUDGET)
        return value if isinstance(value, int) else None

    @property
    def family(self) -> tuple[tuple[str, str], ...]:
        """Equal for entries that differ in nothing but ``max_searches``: the points of one curve."""
        return tuple(sorted((key, repr(value)) for key, value in comparable(self.settings).items() if key != _BUDGET))


def read_entries(folders: Sequence[str | Path], group: str = "name") -> list[Entry]:
    """The entries of evaluation folders, in the order in which they first occur.

    Folders with the same ``settings.<group>`` are seeds of one entry where all else is equal but the seed, the weights
    and, in the paths of model and retriever, a ``seed-N``; entries of one name that differ in ``max_searches`` are told
    apart by it, and ordered. Raises UserError for folders that are not evaluations, a folder named twice, a setting
    ``group`` that is not there, two folders of one name that differ in other settings, and two that do not differ.
    """
    paths = [Path(folder) for folder in folders]
    for place, path in enumerate(paths):
        if path.resolve() in {other.resolve() for other in paths[:place]}:
            raise UserError(f"{path}: named twice; name every evaluation folder once")
    named: dict[str, list[Evaluation]] = {}
    for path in paths:
        evaluation = read_evaluation(path)
        named.setdefault(_name(evaluation, group), []).append(evaluation)
    entries = []
    for name, evaluations in named.items():
        budgets: dict[Any, list[Evaluation]] = {}
        for evaluation in evaluations:
            budgets.setdefault(evaluation.settings.get(_BUDGET), []).append(evaluation)
        for budget, seeds in sorted(budgets.items(), key=lambda pair: (pair[0] is None, pair[0])):
            label = name if len(budgets) == 1 else f"{name}, budget {budget}"
            _check_seeds(name, seeds)
            entries.append(Entry(label, seeds[0].settings, tuple(seeds)))
    return entries


def flat(settings: Mapping[str, Any], prefix: str = "") -> Flat:
    """
    >>> flat({"agent": "rag", "retriever": {"kind": "bm25"}, "control": None})
    {'agent': 'rag', 'retriever.kind': 'bm25', 'control': None}
    """
    found: Flat = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def comparable(settings: Mapping[str, Any]) -> Flat:
    """What the seeds of one entry have in common.

    >>> comparable({"name": "GRPO", "model": "runs/grpo/seed-3", "seed": 1, "top_k": 3})
    {'model': 'runs/grpo/seed-*', 'top_k': 3}
    """
    kept = {key: value for key, value in flat(settings).items() if key not in _LABELS}
    return {key: _SEED.sub("seed-*", value) if isinstance(value, str) else value for key, value in kept.items()}


def _name(evaluation: Evaluation, group: str) -> str:
    if not evaluation.settings:
        return evaluation.folder.resolve().name
    found = flat(evaluation.settings)
    if found.get(group) is None:
        keys = ", ".join(sorted(key for key, value in found.items() if value is not None))
        raise UserError(f"{evaluation.folder}: --group {group}: there is no such setting; it has {keys}")
    return str(found[group])


def _check_seeds(name: str, seeds: Sequence[Evaluation]) -> None:
    first = seeds[0]
    if len(seeds) > 1 and not all(seed.settings for seed in seeds):
        raise UserError(
            f"{first.folder} and {seeds[1].folder}: both are named {name!r} and one does not say how it was made; "
            "evaluate again with this version of searchr1, or rename a folder"
        )
    for place, other in enumerate(seeds[1:], start=1):
        differing = [key for key, (one, two) in _differences(first, other).items() if one != two]
        if differing:
            shown = "; ".join(_shown(key, *_differences(first, other)[key]) for key in differing[:4])
            more = f" and {len(differing) - 4} more" if len(differing) > 4 else ""
            raise UserError(
                f"{first.folder} and {other.folder}: both are named {name!r}, but they differ in {shown}{more}; give "
                "them different names (searchr1 eval --name); seeds may differ in seed and a seed-N of the model's path"
            )
        for twin in seeds[:place]:
            if all(twin.settings.get(key) == other.settings.get(key) for key in ("seed", "model", "weights")):
                raise UserError(
                    f"{twin.folder} and {other.folder}: both are {name!r} with the same model and seed; "
                    "a seed counts once"
                )


def _differences(one: Evaluation, other: Evaluation) -> dict[str, tuple[Any, Any]]:
    a, b = comparable(one.settings), comparable(other.settings)
    return {key: (a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b])}


def _shown(key: str, one: Any, other: Any) -> str:
    return f"{key} ({one} and {other})"
