"""``eval``, ``compare`` and ``score``."""

from __future__ import annotations

import asyncio
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from searchr1.commands.options import Agent, Json, Retriever, Seed, Settings
from searchr1.commands.tables import evaluation_table, table
from searchr1.console import percent, print_json, progress, say, stdout, visible
from searchr1.errors import UserError

if TYPE_CHECKING:
    from searchr1.commands.targets import Target
    from searchr1.ports import Retriever as RetrieverPort
    from searchr1.types import Question, Scored


class Decoding(StrEnum):
    GREEDY = "greedy"
    SAMPLED = "sampled"


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
    engine: Annotated[str | None, typer.Option("--engine", help="local, or scripted: a JSON file as MODEL.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="Questions of each file.")] = None,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Default: runs/eval-DATE-TIME.")] = None,
    decoding: Annotated[Decoding, typer.Option("--decoding")] = Decoding.GREEDY,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", metavar="best|last|STEP", help="Of a run. Default: last.")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Exact match with 95% intervals; writes summary.json and predictions.jsonl."""
    from searchr1.commands.targets import find_target
    from searchr1.evaluation.evaluate import write_eval

    changes = [
        *(settings or []),
        *([f"engine.name={engine}"] if engine else []),
        *([f"rollout.agent={agent}"] if agent else []),
    ]
    name, *more = target
    found = find_target(name, changes, checkpoint)
    folder = out or Path("runs") / time.strftime("eval-%Y%m%d-%H%M%S")
    _refuse_occupied(folder)
    questions = _questions(found, [*(data or []), *more], limit)
    scored = _play(found, questions, _search_engine(found, retriever), decoding, seed)
    summary = write_eval(folder, scored)
    if as_json:
        print_json(summary)
    else:
        stdout().print(evaluation_table(summary, f"{found.recipe.rollout.agent}, {decoding}: {visible(found.model)}"))
    say(f"written: {folder}/summary.json and predictions.jsonl")


def compare(
    dir_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="An evaluation folder.")],
    dir_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one, of the same questions.")],
    as_json: Json = False,
) -> None:
    """Is B better than A? The paired bootstrap on the questions that both answered."""
    from searchr1.evaluation import compare as comparing

    result = comparing.compare(dir_a, dir_b)
    if as_json:
        print_json(result)
        return
    points = {key: 100 * result[key] for key in ("difference", "ci_low", "ci_high")}
    clear = result["ci_low"] > 0 or result["ci_high"] < 0
    verdict = f"{'B is better' if result['difference'] > 0 else 'A is better'}" if clear else "no clear difference"
    shown = table("Exact match of B minus that of A", "", "questions", "points [95%]", "p")
    value = f"{points['difference']:+.1f} [{points['ci_low']:+.1f}, {points['ci_high']:+.1f}]"
    shown.add_row(verdict, f"{result['n']:,}", value, f"{result['p_value']:.4f}")
    stdout().print(shown)


def score(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help='Rows {"answers": [...], "prediction": "..."}.')],
    as_json: Json = False,
) -> None:
    """Score predictions that were made elsewhere."""
    from searchr1.evaluation.score import METRICS, read_score_rows, score_rows

    result = score_rows(read_score_rows(file))
    if as_json:
        print_json(result)
        return
    shown = table("", "file", "rows", *(metric.replace("_", " ") for metric in METRICS))
    shown.add_row(visible(str(file)), f"{result['n']:,}", *(percent(result[metric]) for metric in METRICS))
    stdout().print(shown)


def _refuse_occupied(folder: Path) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        what = "an evaluation" if (folder / "summary.json").is_file() else "something else"
        raise UserError(f"{folder}: expected a new or empty folder, it holds {what} already; choose another --out")


def _questions(target: Target, data: list[str], limit: int | None) -> list[Question]:
    from searchr1.sources import ATLAS, load_questions

    if not data:
        if target.home is None:
            raise UserError(f"--data: {target.model} is no run of ours, so name question files, or atlas")
        test = target.recipe.data.test
        data = [test] if isinstance(test, str) else list(test)
    return load_questions([str(target.atlas() / "test.jsonl") if name == ATLAS else name for name in data], limit)


def _search_engine(target: Target, spec: str | None) -> RetrieverPort:
    if target.recipe.rollout.agent == "direct" and spec is None:
        from searchr1.retrieval.dictionary import DictionaryRetriever

        return DictionaryRetriever({})  # never asked
    return target.retriever(spec)


def _play(
    target: Target, questions: list[Question], retriever: RetrieverPort, decoding: str, seed: int | None
) -> list[Scored]:
    from searchr1.agents import build_agent
    from searchr1.assemble import build_player, greedy
    from searchr1.evaluation.evaluate import evaluate as play
    from searchr1.evaluation.evaluate import score_trajectories
    from searchr1.seeds import derive_seed

    recipe = target.recipe
    player = build_player(recipe, target.model, questions)
    budget: Any = greedy(recipe.rollout) if decoding == "greedy" else recipe.rollout
    agent = build_agent(recipe.rollout.agent, player.protocol, player.tokenizer, budget)
    with progress(f"{recipe.rollout.agent}, {decoding}", "questions") as advance:
        played = asyncio.run(
            play(
                questions,
                agent,
                player.engine,
                retriever,
                # as in training, so that a run's own evaluation comes out again
                seed=derive_seed(recipe.seed if seed is None else seed, "evaluation"),
                concurrency=recipe.engine.slots,
                progress=advance,
            )
        )
    return score_trajectories(played)
