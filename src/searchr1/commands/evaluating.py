"""``eval`` and ``merge``."""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Agent, Json, Retriever, Seed, Settings
from searchr1.commands.tables import NAMES, evaluation_table
from searchr1.console import print_json, progress, say, stdout, visible
from searchr1.errors import SearchR1Error, UserError

if TYPE_CHECKING:
    from searchr1.evaluation.folder import EvaluationFolder
    from searchr1.evaluation.play import Session


class Decoding(StrEnum):
    GREEDY = "greedy"
    SAMPLED = "sampled"


class Control(StrEnum):
    NONE = "none"
    EMPTY = "empty"
    SHUFFLED = "shuffled"


Samples = Annotated[
    int, typer.Option("--samples", min=1, help="Answers to each question, sampled: pass@k, majority vote.")
]
Controlled = Annotated[
    Control, typer.Option("--control", help="Searches that find nothing, or pages of another question.")
]
PartOf = Annotated[
    str | None, typer.Option("--part", metavar="K/N", help="Every N-th question alone; see searchr1 merge.")
]
Price = Annotated[
    str | None, typer.Option("--price", metavar="IN,OUT", help="Dollars for a million tokens read, and written.")
]
Name = Annotated[str | None, typer.Option("--name", help="What tables call it. Default: the agent's name.")]


def evaluate(
    target: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|MODEL", help="A run folder, a model folder or name, or atlas-base.", show_default=False
        ),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="FILE...", help="Question files, or atlas. Default: the run's test questions."),
    ] = None,
    retriever: Retriever = None,
    agent: Agent = None,
    engine: Annotated[
        str | None, typer.Option("--engine", help="local, openai (a server), or scripted: a JSON file as MODEL.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions of each file.")] = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/eval-DATE-TIME.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with --out; failed questions are asked again.")
    ] = False,
    decoding: Annotated[Decoding, typer.Option("--decoding")] = Decoding.GREEDY,
    samples: Samples = 1,
    control: Controlled = Control.NONE,
    part: PartOf = None,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="best|last|STEP", help="Of a run. Default: last.")
    ] = None,
    price: Price = None,
    name: Name = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Exact match with 95% intervals; predictions are kept as they come, and --resume goes on after a kill."""
    if samples > 1 and decoding is Decoding.GREEDY:
        raise UserError(f"--samples {samples}: greedy answers are all the same; add --decoding sampled")
    if resume and out is None:
        raise UserError("--resume: name the folder to go on with, --out DIR")
    changes = [
        *(settings or []),
        *([f"engine.name={engine}"] if engine else []),
        *([f"rollout.agent={agent}"] if agent else []),
    ]
    folder = out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    model, *more = target
    files = [*(data or []), *more]
    asked = _Asked(
        model, changes, checkpoint, files, limit, retriever, seed, decoding, samples, control, part, price, name
    )
    summary = _evaluate(asked, folder, resume)
    if as_json:
        print_json(summary)
    else:
        title = f"{summary['settings']['name']}, {decoding}: {visible(model)}"
        stdout().print(evaluation_table(summary, title))
    _tell(summary, folder)


def merge(
    parts: Annotated[list[Path], typer.Argument(metavar="DIR...", help="The parts of one evaluation, all of them.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The folder to make.")],
    as_json: Json = False,
) -> None:
    """Make one evaluation of the parts that `eval --part K/N` made, on one machine or on many."""
    from searchr1.evaluation.folder import merge as join

    summary = join(parts, out)
    if as_json:
        print_json(summary)
    else:
        stdout().print(evaluation_table(summary, summary["settings"]["name"]))
    say(f"written: {out}/summary.json and predictions.jsonl")


@dataclass(frozen=True)
class _Asked:
    """What the user wants evaluated."""

    model: str
    changes: Sequence[str]
    checkpoint: str | None
    files: list[str]
    limit: int | None
    retriever: str | None
    seed: int | None
    decoding: Decoding
    samples: int
    control: Control
    part: str | None
    price: str | None
    name: str | None


def _evaluate(asked: _Asked, path: Path, resume: bool) -> dict[str, Any]:
    """Cheap checks first, then the model, then the folder; the summary."""
    from searchr1.commands.sitting import (
        distinct,
        open_session,
        pick,
        read_data,
        read_part,
        read_price,
        search_engine,
        settings_of,
    )
    from searchr1.commands.targets import find_target
    from searchr1.evaluation.folder import EvaluationFolder, refuse_occupied

    part = read_part(asked.part)
    found = find_target(asked.model, asked.changes, asked.checkpoint)
    if not resume:
        refuse_occupied(path)
    everything = distinct(read_data(found, asked.files, asked.limit))
    questions = pick(everything, part)
    seed = found.recipe.seed if asked.seed is None else asked.seed
    search = search_engine(found, asked.retriever, asked.control, everything, seed)
    greedy = asked.decoding is Decoding.GREEDY
    session = open_session(found, questions, search, greedy=greedy, samples=asked.samples, seed=seed)
    agent = found.recipe.rollout.agent
    settings = {
        "name": asked.name or NAMES.get(agent, agent),
        **settings_of(found, session, everything, asked.retriever, seed),
        "decoding": str(asked.decoding),
        "control": str(asked.control),
        "part": list(part) if part else None,
        "price": read_price(asked.price),
    }
    with EvaluationFolder.resume(path, settings) if resume else EvaluationFolder.begin(path, settings) as folder:
        return _play(session, folder, f"{settings['name']}, {asked.decoding}")


def _play(session: Session, folder: EvaluationFolder, title: str) -> dict[str, Any]:
    from searchr1.evaluation.play import play

    again = f"the same command with --resume goes on: {_again(folder.path)}"
    try:
        with progress(title, "answers", already=len(folder.rows)) as advance:
            asyncio.run(play(session, folder, advance))
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(f"interrupted after {len(folder.rows):,} answers; {again}") from stop
    except SearchR1Error:
        say(f"{sum(not row['failed'] for row in folder.rows):,} answers are kept; {again}")
        raise
    return folder.finish(session.order)


def _again(folder: Path) -> str:
    given = sys.argv[1:]
    named = any(part == "--out" or part.startswith("--out=") for part in given)
    more = [*([] if named else ["--out", str(folder)]), *([] if "--resume" in given else ["--resume"])]
    return shlex.join(["searchr1", *given, *more])


def _tell(summary: dict[str, Any], folder: Path) -> None:
    failed = summary["macro"]["failed"]
    if failed:
        searches, engine = summary["macro"]["search_failures"], summary["macro"]["engine_errors"]
        say(
            f"{failed:,} answers failed ({searches:,} searches, {engine:,} of the engine): left out of every figure; "
            "--resume asks them again",
            "yellow",
        )
    say(f"written: {folder}/summary.json and predictions.jsonl")
