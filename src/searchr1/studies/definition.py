"""What a study is: a TOML file with a base recipe, variants of it, seeds, and what a finding implies for them.

    title = "Retrieved tokens: masked or trained"
    source = "arXiv 2503.09516, section 5.4"
    finding = "Masking wins: 0.431 against 0.343."
    base = "atlas"                       # a recipe
    shared.optimizer.max_grad_norm = 1   # settings of every run, as `--set` takes them
    variants.masked = {}
    variants.trained.training.mask_environment = false
    expectations = [{higher = "masked", lower = "trained", of = "exact_match"}]

A variant's ``prepare`` (and the study's own, before it) lists command lines of ``searchr1`` that are run before its
training, once a seed; a part ``{settings}`` stands for the run's own ``--set`` options. ``evaluations`` names further
evaluations of every trained policy, each by the arguments that it adds to ``searchr1 eval RUN``. In an expectation
``variant@evaluation`` means one of those, and ``variant@before`` the one before training. In all of these and in
settings ``{out}`` is the folder for what is prepared, ``{seed}`` the seed, and ``{data.atlas_seed}`` that setting of
the run.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from searchr1.errors import UserError, nearest

Settings = dict[str, Any]
"""Dotted keys of a recipe and their values."""
Command = tuple[str, ...]
"""Arguments of ``searchr1``."""

SHORT: Settings = {
    "steps": 25,
    "evaluation.every": 5,
    "evaluation.questions": 100,
    "evaluation.final_questions": 300,
    "evaluation.baselines": [],
    "alarms.action": "log",  # a collapse is to be seen, not to be mended
    "save.checkpoint_every": 5,
    "save.keep": 1,
    "save.trajectories_every": 0,
}
"""Settings of every run of every study; a study's ``shared`` may change them."""

MEASURES = {
    "exact_match": "exact match",
    "searches": "searches a question",
    "area": "mean exact match of training",
    "half": "first step at 0.5",
    "collapsed": "step of collapse",
    "seconds": "seconds of training",
}
"""What is measured of a run (`searchr1.studies.measures`), in words."""
COMPARABLE = ("exact_match", "searches", "area", "seconds")
"""Those that every finished run has, so that variants can be compared."""
EVALUATED = ("exact_match", "searches")
"""Those that a further evaluation has."""
BEFORE = "before"
"""The evaluation before training, which every run has."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass(frozen=True)
class Expectation:
    """The finding implies that ``higher`` has more of a measure than ``lower``; both are variants."""

    higher: str
    lower: str
    of: str = "exact_match"

    def __post_init__(self) -> None:
        if self.of not in COMPARABLE:
            raise UserError(f"expectations: of = {self.of!r} cannot be compared{nearest(self.of, COMPARABLE)}")


@dataclass(frozen=True)
class Variant:
    """One way to train; its settings are those in which it differs."""

    settings: Settings = field(default_factory=dict)
    prepare: tuple[Command, ...] = ()


@dataclass(frozen=True)
class Study:
    """One study; see the head of this file."""

    name: str
    title: str
    source: str
    finding: str
    """The paper's finding, in words and with its numbers."""
    variants: dict[str, Variant]
    reading: str = ""
    """What to keep in mind about our version of it."""
    base: str = "atlas"
    shared: Settings = field(default_factory=dict)
    prepare: tuple[Command, ...] = ()
    evaluations: dict[str, Command] = field(default_factory=dict)
    expectations: tuple[Expectation, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    decoding: Literal["sampled", "greedy"] = "sampled"
    """Of the exact match and the searches that are compared."""
    optional: tuple[str, ...] = ()
    """Variants that are run only where they are named."""

    def __post_init__(self) -> None:
        for name in (self.name, *self.variants, *self.evaluations):
            if not _NAME.fullmatch(name):
                raise UserError(f"study {self.name}: {name!r} is no name; use a-z, 0-9, '-', '_' and '.'")
        if BEFORE in self.evaluations:
            raise UserError(f"study {self.name}: evaluations: {BEFORE!r} is the one before training; use another name")
        if not self.variants:
            raise UserError(f"study {self.name}: expected at least one variant, got none")
        for name in self.optional:
            self._check_variant("optional", name)
        if len(set(self.seeds)) != len(self.seeds) or not self.seeds:
            raise UserError(f"study {self.name}: expected different seeds, got {list(self.seeds)}")
        for expectation in self.expectations:
            for reference in (expectation.higher, expectation.lower):
                variant, at, evaluation = reference.partition("@")
                self._check_variant("expectations", variant)
                if at and (evaluation not in (BEFORE, *self.evaluations) or expectation.of not in EVALUATED):
                    known = [f"{variant}@{name}" for name in (BEFORE, *self.evaluations)]
                    raise UserError(
                        f"study {self.name}: expectations: {reference} has no {expectation.of}"
                        f"{nearest(reference, known)}"
                    )

    def settings(self, variant: str) -> Settings:
        """All settings of a variant's runs, but the seed."""
        return {**SHORT, **self.shared, **self.variants[variant].settings}

    def changed(self, settings: Mapping[str, Any]) -> Study:
        """The same with other settings in every run. Raises UserError where those are what the variants vary."""
        if "seed" in settings:
            raise UserError("--set seed: every seed of a study is a run of its own; use --seeds")
        for key in settings:
            for name, variant in self.variants.items():
                clash = next((own for own in variant.settings if _same_branch(own, key)), None)
                if clash is not None:
                    raise UserError(
                        f"--set {key}: study {self.name} varies it ({clash} of {name}); choose variants with --only"
                    )
        return replace(self, shared={**self.shared, **settings})

    def chosen(self, only: Sequence[str] = ()) -> list[str]:
        """The variants to run: those in ``only``, or all but the optional ones."""
        return [name for name in self.variants if (name in only if only else name not in self.optional)]

    def table(self) -> dict[str, Any]:
        """Plain JSON that `parse_study` reads."""
        plain: dict[str, Any] = TypeAdapter(dict[str, Any]).dump_python(asdict(self), mode="json")
        return plain

    def _check_variant(self, key: str, name: str) -> None:
        if name not in self.variants:
            raise UserError(f"study {self.name}: {key}: there is no variant {name!r}{nearest(name, self.variants)}")


def load_study(source: str) -> Study:
    """The built-in study of that name, or the one in a TOML file, named after it. Raises UserError."""
    path = Path(source)
    if source in built_in_studies():
        path = Path(str(files("searchr1") / "studies" / f"{source}.toml"))
    elif path.suffix != ".toml" or not path.is_file():
        raise UserError(f"study {source}: no such study and no such .toml file{nearest(source, built_in_studies())}")
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: expected TOML: {error}") from error
    variants = {}
    for name in _table(table, "variants", path):
        options = dict(_table(table["variants"], name, path))
        prepare = options.pop("prepare", [])
        variants[name] = {"settings": flat(options), "prepare": prepare}
    shared = flat(_table(table, "shared", path))
    return parse_study({"name": path.stem, **table, "variants": variants, "shared": shared}, str(path))


def parse_study(table: Mapping[str, Any], where: str) -> Study:
    """A study from what `Study.table` gives. Raises UserError naming ``where`` and the key."""
    known = Study.__dataclass_fields__
    for key in table:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, known)}")
    try:
        return TypeAdapter(Study).validate_python(table)
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg'].lower()}") from error


def built_in_studies() -> list[str]:
    found = (item.name for item in (files("searchr1") / "studies").iterdir())
    return sorted(name.removesuffix(".toml") for name in found if name.endswith(".toml"))


def flat(table: Mapping[str, Any]) -> Settings:
    """
    >>> flat({"algorithm": {"name": "ppo"}, "steps": 3})
    {'algorithm.name': 'ppo', 'steps': 3}
    """
    return dict(_leaves(table))


def _leaves(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _table(table: Mapping[str, Any], key: str, path: Path) -> Mapping[str, Any]:
    value = table.get(key, {})
    if not isinstance(value, Mapping):
        raise UserError(f"{path}: {key}: expected a table, got {value!r}")
    return value


def _same_branch(one: str, other: str) -> bool:
    """Whether one dotted key is the other or above it."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
