"""``compare``, ``judge`` and ``score``: figures of what was evaluated before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from searchr1.commands.options import Json
from searchr1.commands.tables import table
from searchr1.console import interval, percent, print_json, progress, say, stdout, visible


def compare(
    dir_a: Annotated[Path, typer.Argument(metavar="DIR_A", help="An evaluation folder.")],
    dir_b: Annotated[Path, typer.Argument(metavar="DIR_B", help="Another one, of the same questions.")],
    as_json: Json = False,
) -> None:
    """Is B better than A? Paired bootstrap and McNemar's test on the questions that both answered."""
    from searchr1.evaluation import compare as comparing

    result = comparing.compare(dir_a, dir_b)
    if as_json:
        print_json(result)
        return
    clear = result["ci_low"] > 0 or result["ci_high"] < 0
    verdict = f"{'B is better' if result['difference'] > 0 else 'A is better'}" if clear else "no clear difference"
    heads = ("questions", "points [95%]", "p", "only A / B", "McNemar p", "detectable")
    shown = table("Exact match of B minus that of A", "", *heads)
    for name, figures in result["datasets"].items() if result["macro"] else ():
        shown.add_row(visible(name), *_difference_cells(figures))
    if result["macro"]:
        shown.add_section()
        shown.add_row("macro average", *_difference_cells(result["macro"]))
    shown.add_row(verdict, *_difference_cells(result), style="bold")
    stdout().print(shown)
    say("only A / B: questions that one alone got right")
    say("detectable: the true difference that so many questions find in 80% of all cases, at 5%")
    if result["left_out"]:
        say(f"{result['left_out']:,} questions failed in one of both and are left out", "yellow")
    if result["unmatched"]:
        say(f"{result['unmatched']:,} questions are in one folder only and are left out", "yellow")


def _difference_cells(figures: Mapping[str, Any]) -> list[str]:
    """Questions, the difference, its p-value, who alone was right, McNemar's p-value, what could have been seen."""

    def count(name: str) -> str:
        return "-" if figures.get(name) is None else f"{figures[name]:,}"

    def chance(name: str) -> str:
        value = figures.get(name)
        return "-" if value is None else "<0.0001" if value < 0.0001 else f"{value:.4f}"

    value = "-"
    if figures["difference"] is not None:
        value, low, high = (f"{100 * figures[key]:+.1f}" for key in ("difference", "ci_low", "ci_high"))
        value = f"{value} [{low}, {high}]"
    detectable = "-" if figures["detectable"] is None else f"{100 * figures['detectable']:.1f}"
    alone = f"{count('only_a')} / {count('only_b')}"
    return [count("n"), value, chance("p_value"), alone, chance("mcnemar_p"), detectable]


def judge(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="An evaluation folder.")],
    model: Annotated[str, typer.Option("--model", help="The judge, as the server calls it.")],
    url: Annotated[str, typer.Option("--url", help="An OpenAI-compatible server.")] = "https://api.openai.com/v1",
    key_variable: Annotated[
        str, typer.Option("--key-variable", help="The environment variable that holds the key.")
    ] = "OPENAI_API_KEY",
    concurrency: Annotated[int, typer.Option("--concurrency", min=1, help="Requests at one time.")] = 16,
    temperature: Annotated[
        bool, typer.Option("--temperature/--no-temperature", help="Ask for temperature 0; some models refuse it.")
    ] = True,
    as_json: Json = False,
) -> None:
    """Have a language model judge the answers; prompts and replies are kept, what was judged is not asked again."""
    from searchr1.engines.chat_http import ChatServer
    from searchr1.evaluation import judge as judging

    options = judging.GREEDY if temperature else {}

    async def ask() -> dict[str, Any]:
        server = ChatServer(url, model, key_variable, concurrency=concurrency, setting="--url")
        await server.check()
        with progress(f"judging: {model}", "answers") as advance:
            return await judging.judge(folder, server, concurrency=concurrency, options=options, progress=advance)

    result = asyncio.run(ask())
    if as_json:
        print_json(result)
    else:
        columns = ("answers", "correct [95%]", "judge only", "match only", "unclear", "failed")
        shown = table(f"Judged by {visible(model)}", "dataset", *columns)
        for name, row in result["datasets"].items():
            value = interval({"exact_match": row["correct"], **row})
            counts = (str(row[key]) for key in ("judge_only", "match_only", "unclear", "failed"))
            shown.add_row(visible(name), f"{row['n']:,}", value, *counts)
        stdout().print(shown)
    say(f"written: {folder}/judge.json and judgements.jsonl")


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
