"""``bench rollout``, ``bench retrieval`` and ``bench train``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from searchr1.commands.options import Json
from searchr1.console import print_json, say, stdout

_BESIDE = Path(__file__).resolve().parents[3].parent / "shared" / "data"


def rollout(as_json: Json = False) -> None:
    """Multi-turn rollouts with the local engine, and with transformers' generate in lock-step."""
    from searchr1.benchmarks.rollout import bench_rollout

    say("playing 64 and 192 trajectories, three rounds of each system; about two minutes")
    _show(bench_rollout(), as_json)


def retrieval(
    figure: Annotated[
        list[str] | None,
        typer.Option(
            "--figure", metavar="NAME", help="build, bm25, dense, server, burst or growth; repeatable. [build bm25]"
        ),
    ] = None,
    passages: Annotated[
        list[int] | None, typer.Option("--passages", metavar="N...", help="Sizes of the corpus; one or more. [37000]")
    ] = None,
    more: Annotated[list[int] | None, typer.Argument(hidden=True)] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Of all systems in turn; medians are shown.")] = 5,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", metavar="NAME", help="bm25s or lucene; may be repeated. [both]")
    ] = None,
    workers: Annotated[int, typer.Option("--workers", help="Processes of our server.")] = 1,
    work: Annotated[
        Path | None,
        typer.Option("--work", metavar="DIR", help="Keeps corpora and indexes for the next time. [a temporary folder]"),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            envvar="SEARCHR1_DATA",
            metavar="DIR",
            help="merged_corpus.jsonl.gz and *.dev.jsonl.gz; else it is generated.",
        ),
    ] = _BESIDE,
    lucene_jar: Annotated[
        Path | None,
        typer.Option("--lucene-jar", envvar="SEARCHR1_LUCENE_JAR", metavar="FILE", help="Anserini's fat jar."),
    ] = None,
    encoder: Annotated[
        str | None, typer.Option("--encoder", metavar="MODEL", help="Its vectors for the dense figure; else made up.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the growth figure: a .png or .svg.")
    ] = None,
    as_json: Json = False,
) -> None:
    """BM25 beside bm25s and Lucene, dense search beside faiss and hnswlib, the server beside Search-R1's design."""
    from searchr1.benchmarks.retrieval.base import PEERS, Options
    from searchr1.benchmarks.retrieval.bench import QUICK, bench_retrieval

    sizes = (*(passages or ()), *(more or ()))
    with tempfile.TemporaryDirectory() as temporary:
        options = Options(
            work=work or Path(temporary),
            data=data,
            passages=sizes or None,
            peers=tuple(peer or PEERS),
            rounds=rounds,
            workers=workers,
            lucene_jar=lucene_jar,
            encoder=encoder,
            plot=plot,
            say=say,
        )
        _show(bench_retrieval(options, figure or QUICK), as_json)


def train(
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="atlas, small, 0.5b or 3b; repeatable. [atlas small]"),
    ] = None,
    variant: Annotated[
        list[str] | None,
        typer.Option(
            "--variant",
            metavar="NAME",
            help="float32 or bfloat16, and each with -checkpointed; repeatable. [float32 bfloat16]",
        ),
    ] = None,
    peer: Annotated[
        list[str] | None, typer.Option("--peer", metavar="NAME", help="transformers or trl; repeatable. [both]")
    ] = None,
    rounds: Annotated[int, typer.Option("--rounds", help="Of all systems in turn; medians are shown.")] = 3,
    samples: Annotated[
        int | None, typer.Option("--samples", metavar="N", help="Trajectories of the update. [the model's own]")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", help="Of each measured process.")] = 1,
    device: Annotated[str, typer.Option("--device", help="cpu or cuda.")] = "cpu",
    as_json: Json = False,
) -> None:
    """One optimiser step beside padded rows with all logits, and beside TRL: speed, memory, utilisation."""
    from searchr1.benchmarks.training.bench import Options, bench_training

    given = {"models": model, "variants": variant, "peers": peer}
    chosen: dict[str, Any] = {name: tuple(values) for name, values in given.items() if values}
    options = Options(rounds=rounds, samples=samples, threads=threads, device=device, say=say, **chosen)
    _show(bench_training(options), as_json)


def _show(rows: list[dict[str, Any]], as_json: bool) -> None:
    from searchr1.commands.tables import table

    if as_json:
        print_json(rows)
        return
    for peer in dict.fromkeys(row["peer"] for row in rows):
        shown = table(f"Beside {peer}; above 1, ours is better", "", "unit", "ours", "theirs", "ratio")
        shown.columns[0].no_wrap = False  # figures say what they were measured on
        for row in (row for row in rows if row["peer"] == peer):
            numbers = (_number(row[key]) for key in ("ours", "theirs"))
            shown.add_row(row["figure"], row["unit"], *numbers, f"{row['ratio']:.2f}")
        stdout().print(shown)


def _number(value: float) -> str:
    """
    >>> _number(1234.5), _number(0.1234)
    ('1,234.5', '0.123')
    """
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"
