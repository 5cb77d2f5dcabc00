"""``searchr1``: the command line. It parses first; what is heavy is imported by the command that needs it.

Exit codes: 0 done, 1 it failed, 2 the user's input is wrong (one line says what was expected, what came and what to
do), 130 interrupted. Errors that are not ours keep their traceback.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from searchr1.commands import (
    asking,
    bench,
    data,
    data_checks,
    data_filter,
    evaluating,
    evaluation,
    indexes,
    leaderboard,
    reporting,
    serving,
    studying,
    supervised,
    training,
)
from searchr1.errors import SearchR1Error, UserError


class Commands(TyperGroup):
    """The boundary where our errors become one line and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        from searchr1 import console

        try:
            return super().invoke(ctx)
        except UserError as failure:
            console.error(failure)
            raise typer.Exit(2) from failure
        except SearchR1Error as failure:
            console.error(failure)
            raise typer.Exit(1) from failure
        except OSError as failure:
            if failure.filename is None:
                raise
            console.error(f"{failure.filename}: {failure.strerror}; check the path, its permissions and the disk")
            raise typer.Exit(1) from failure
        except KeyboardInterrupt as stop:
            console.say(str(stop) or "interrupted")
            raise typer.Exit(130) from stop


def _group(help: str) -> typer.Typer:
    return typer.Typer(help=help, no_args_is_help=True)


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Train language models to reason and to search, by reinforcement learning; evaluate and serve them.",
)
app.command()(training.demo)
app.command()(training.train)
app.command()(supervised.sample)
app.command()(supervised.sft)
app.command("eval")(evaluating.evaluate)
app.command()(evaluating.merge)
app.command()(evaluation.compare)
app.command()(leaderboard.leaderboard)
app.command()(evaluation.judge)
app.command()(evaluation.score)
app.command()(asking.ask)
app.command()(reporting.report)
app.command()(studying.study)

_index = _group("Build, change, search and measure indexes.")
_index.command("build")(indexes.build)
_index.command("add")(indexes.add)
_index.command("delete")(indexes.delete)
_index.command("search")(indexes.search)
_index.command("eval")(indexes.evaluate)
app.add_typer(_index, name="index")

_serve = _group("Servers.")
_serve.command("retriever")(serving.retriever)
_serve.command("mcp")(serving.mcp)
app.add_typer(_serve, name="serve")

_data = _group("Questions and passages.")
_data.command("atlas")(data.atlas)
_data.command("prepare")(data.prepare)
_data.command("overlap")(data_checks.overlap)
_data.command("coverage")(data_checks.coverage)
_data.command("filter")(data_filter.filter_by_difficulty)
app.add_typer(_data, name="data")

_bench = _group("Performance, each figure beside its peer in the same run.")
_bench.command("rollout")(bench.rollout)
_bench.command("retrieval")(bench.retrieval)
_bench.command("train")(bench.train)
app.add_typer(_bench, name="bench")


def _version(wanted: bool) -> None:
    if wanted:
        from searchr1 import __version__

        typer.echo(f"searchr1 {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    from searchr1.console import silence_libraries

    silence_libraries()


def main() -> None:
    app()


if __name__ == "__main__":
    main()
