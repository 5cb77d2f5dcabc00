"""What a study has to run: every variant with every seed, as command lines of ``searchr1``, and what of it is done.

DIR/NAME/VARIANT/seed-0/                      the run folder, as `searchr1 train` leaves it
DIR/NAME/VARIANT/seed-0.log                   what its commands said
DIR/NAME/VARIANT/seed-0.prepared/             what its preparation made
DIR/NAME/VARIANT/seed-0.evaluations/bm25/     one further evaluation
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from searchr1.assemble import check_trainable
from searchr1.changes import refuse_changes
from searchr1.config import Recipe, load_recipe
from searchr1.errors import UserError
from searchr1.run import RunFolder
from searchr1.run_files import replacing
from searchr1.studies.definition import Command, Study, flat

PREPARED = "prepared.json"
SETTINGS = "{settings}"
FREE = frozenset({"engine.threads", "save"})
"""Settings in which the runs of a study may differ: how fast they are and what they keep."""
_PLACEHOLDER = re.compile(r"\{([a-z_.]+)\}")


@dataclass(frozen=True)
class Job:
    """One variant with one seed."""

    study: Study
    variant: str
    seed: int
    folder: Path
    recipe: Recipe
    settings: tuple[str, ...]
    """All that changes the base recipe, as ``--set`` takes it."""
    prepare: tuple[Command, ...]

    @property
    def name(self) -> str:
        """For example ``mask/masked/seed-0``."""
        return f"{self.study.name}/{self.variant}/seed-{self.seed}"

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def prepared(self) -> Path:
        return prepared_folder(self.folder)

    def evaluation(self, name: str) -> Path:
        return self.folder.with_name(f"{self.folder.name}.evaluations") / name

    @property
    def trained(self) -> bool:
        """Whether the last step's checkpoint is there, which is the last thing that training writes."""
        return (self.folder / "checkpoints" / f"step-{self.recipe.steps}").is_dir()

    @property
    def done(self) -> bool:
        return self.trained and all(
            (self.evaluation(name) / "summary.json").is_file() for name in self.study.evaluations
        )

    def steps_done(self) -> int:
        """Training steps whose metrics are written; cheap enough to ask every second."""
        path = self.folder / "metrics.jsonl"
        return max(0, path.read_bytes().count(b"\n") - 1) if path.is_file() else 0


def plan(study: Study, out: Path, variants: Sequence[str], seeds: Sequence[int], threads: int) -> list[Job]:
    """The jobs of a study in ``out``, all variants of a seed before the next seed; one job's mistake refuses all.

    Runs that are there already must have been started with the same settings. Raises UserError.
    """
    folder = out.resolve() / study.name
    jobs = [_job(study, name, seed, folder / name / f"seed-{seed}", threads) for seed in seeds for name in variants]
    for job in jobs:
        check_trainable(job.recipe)
    for job in _existing(study, folder, threads):
        refuse_changes(job.folder, RunFolder.open(job.folder).config, job.recipe.resolved(), FREE)
    return jobs


def tasks(job: Job) -> Iterator[tuple[str, Command]]:
    """What is still to be done for a job, one (``preparing``, ``training`` or ``evaluating``, arguments) at a time.

    Whoever runs them must run each to its end before asking for the next. Raises UserError.
    """
    if not job.trained:
        if job.prepare and not _is_prepared(job):
            shutil.rmtree(job.prepared, ignore_errors=True)  # half of it may be there
            job.prepared.mkdir(parents=True)
            for command in job.prepare:
                yield "preparing", command
            with replacing(job.prepared / PREPARED) as file:
                file.write(json.dumps(job.prepare).encode())
        settings = [part for setting in job.settings for part in ("--set", setting)]
        resume = ["--resume"] if (job.folder / "config.json").is_file() else []
        yield "training", ("train", job.study.base, *settings, "--out", str(job.folder), *resume)
    for name, arguments in job.study.evaluations.items():
        folder = job.evaluation(name)
        if (folder / "summary.json").is_file():
            continue
        shutil.rmtree(folder, ignore_errors=True)
        given = tuple(_filled(argument, job.folder, job.seed, job.recipe) for argument in arguments)
        limit = ("--limit", str(job.recipe.evaluation.final_questions), "--decoding", job.study.decoding)
        yield "evaluating", ("eval", str(job.folder), *limit, *given, "--out", str(folder))


def prepared_folder(run: Path) -> Path:
    """Where the preparation of a run puts what it makes: ``{out}``."""
    return run.with_name(f"{run.name}.prepared")


def setting_text(key: str, value: Any) -> str:
    """``key=value`` as ``--set`` reads it back, whatever the value looks like.

    >>> setting_text("model", "3"), setting_text("retriever", {"kind": "random", "seed": 1})
    ('model="3"', 'retriever={"kind" = "random", "seed" = 1}')
    """
    return f"{key}={_toml(value)}"


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{json.dumps(key)} = {_toml(inner)}' for key, inner in value.items())}}}"
    return json.dumps(value, ensure_ascii=False)  # strings, numbers, booleans and lists of them are TOML too


def _job(study: Study, variant: str, seed: int, folder: Path, threads: int) -> Job:
    own = {"engine.threads": threads, **study.settings(variant), "seed": seed}
    if (folder / "config.json").is_file():  # it goes on as it began, bit for bit
        own["engine.threads"] = RunFolder.open(folder).config["engine"]["threads"]
    try:
        settings = tuple(setting_text(key, _filled(value, folder, seed)) for key, value in own.items())
        recipe = load_recipe(study.base, settings)
        commands = (*study.prepare, *study.variants[variant].prepare)
        prepare = tuple(_command(command, settings, folder, seed, recipe) for command in commands)
    except UserError as error:
        raise UserError(f"study {study.name}, variant {variant}: {error}") from error
    return Job(study, variant, seed, folder, recipe, settings, prepare)


def _command(command: Command, settings: Sequence[str], folder: Path, seed: int, recipe: Recipe) -> Command:
    parts: list[str] = []
    for part in command:
        if part == SETTINGS:
            parts += [given for setting in settings for given in ("--set", setting)]
        else:
            parts.append(_filled(part, folder, seed, recipe))
    return tuple(parts)


def _existing(study: Study, folder: Path, threads: int) -> Iterator[Job]:
    """The jobs whose run folders are there, those of this call or not."""
    for name in study.variants:
        for path in sorted((folder / name).glob("seed-*/config.json")):
            yield _job(study, name, int(path.parent.name.removeprefix("seed-")), path.parent, threads)


def _is_prepared(job: Job) -> bool:
    """Raises UserError where something else was prepared and the run has begun with it."""
    path = job.prepared / PREPARED
    same = path.is_file() and json.loads(path.read_bytes()) == [list(command) for command in job.prepare]
    if not same and (job.folder / "config.json").is_file():
        raise UserError(f"{job.prepared}: the run began with what other commands had prepared; use another --out")
    return same


def _filled(value: Any, folder: Path, seed: int, recipe: Recipe | None = None) -> Any:
    """``value`` with its placeholders filled, if it is a string. Raises UserError for an unknown one."""
    if not isinstance(value, str):
        return value
    known = {"out": str(prepared_folder(folder)), "seed": seed}
    if recipe is not None:
        known |= flat(recipe.resolved())

    def fill(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise UserError(f"{value!r}: there is nothing called {match[0]}")
        return str(known[match[1]])

    return _PLACEHOLDER.sub(fill, value)
