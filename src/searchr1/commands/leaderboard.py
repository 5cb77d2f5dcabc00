"""``leaderboard``: one table of many evaluations."""

from __future__ import annotations

from enum import StrEnum
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from searchr1.commands.options import Json
from searchr1.console import PIPE_WIDTH, print_json, say, stdout, visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from searchr1.leaderboard.board import Board, Cell

_COLUMN = 11  # characters of a column of scores, with the space before it
_NAME = 20  # and of the names, which are folded


class Metric(StrEnum):
    EXACT_MATCH = "exact_match"
    F1 = "f1"
    COVER_MATCH = "cover_match"


class Format(StrEnum):
    TERMINAL = "terminal"
    MARKDOWN = "markdown"
    JSON = "json"
    LATEX = "latex"
    HTML = "html"


_SUFFIXES = {".md": Format.MARKDOWN, ".json": Format.JSON, ".tex": Format.LATEX, ".html": Format.HTML}


def leaderboard(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Evaluation folders; seeds of one thing are pooled.")
    ],
    metric: Annotated[Metric, typer.Option("--metric")] = Metric.EXACT_MATCH,
    form: Annotated[
        Format | None,
        typer.Option("--format", help="Default: by the name of --out, else terminal.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write it there.")] = None,
    group: Annotated[
        str, typer.Option("--group", metavar="SETTING", help="The setting that names the entries: name, model, agent.")
    ] = "name",
    as_json: Json = False,
) -> None:
    """One table: every data set and the average, with 95% intervals; what the best does not beat is marked."""
    from searchr1.data.jsonl import encode, replacing
    from searchr1.leaderboard.board import as_json as document
    from searchr1.leaderboard.board import build_board
    from searchr1.leaderboard.entries import read_entries

    board = build_board(read_entries(folders, group), metric.value)
    chosen = Format.JSON if as_json else form or (_SUFFIXES.get(out.suffix) if out else None) or Format.TERMINAL
    if out is not None:
        with replacing(out) as stream:
            stream.write(encode(document(board), indent=2) + b"\n" if chosen is Format.JSON else _file(board, chosen))
        say(f"written: {visible(str(out))}")
    if as_json or (out is None and chosen is Format.JSON):
        print_json(document(board))
    elif out is None and chosen is Format.TERMINAL:
        _show(board, stdout())
    elif out is None:
        typer.echo(_file(board, chosen).decode(), nl=False)


def _file(board: Board, form: Format) -> bytes:
    """UTF-8; a lone surrogate of a folder's text, which has no such form, becomes a question mark."""
    from searchr1.leaderboard.page import page
    from searchr1.leaderboard.text import latex, markdown

    if form is Format.TERMINAL:
        from rich.console import Console

        into = StringIO()
        _show(board, Console(file=into, width=PIPE_WIDTH, highlight=False, markup=False, emoji=False))
        return into.getvalue().encode()
    return {Format.MARKDOWN: markdown, Format.LATEX: latex, Format.HTML: page}[form](board).encode(errors="replace")


def _show(board: Board, console: Console) -> None:
    """The scores, in as many tables as the width asks for, then what they took, the legend and the notes."""
    from searchr1.commands.tables import table
    from searchr1.leaderboard.words import COST_COLUMNS, cost_cells, headline, legend, title

    names = [visible(line.entry.name) for line in board.lines]
    room = console.width - min(max(map(len, names)), _NAME) - 2
    at_once = max(1, room // _COLUMN)
    for start in range(0, len(board.columns), at_once):
        columns = board.columns[start : start + at_once]
        made = table("" if start else headline(board), "", *(visible(title(column)) for column in columns))
        made.columns[0].no_wrap, made.columns[0].max_width = False, _NAME
        for name, line in zip(names, board.lines, strict=True):
            made.add_row(name, *(_cell(line.cells[column]) for column in columns))
        console.print(made)
    for caption, heads in (("Per question", slice(0, 4)), ("Per right answer (exact match)", slice(4, None))):
        made = table(caption, "", *(head.removesuffix(" / right") for head in COST_COLUMNS[heads]))
        made.columns[0].no_wrap, made.columns[0].max_width = False, _NAME
        for name, line in zip(names, board.lines, strict=True):
            made.add_row(name, *cost_cells(line)[heads])
        console.print(made)
    for sentence in legend(board, "Bold", "*"):
        console.print(sentence, style="dim")
    for note in board.notes:
        console.print(visible(note), style="yellow")


def _cell(cell: Cell | None) -> Text:
    """The value, and its interval below it."""
    from rich.text import Text

    from searchr1.leaderboard.words import points

    if cell is None:
        return Text("-")
    value = Text(points(cell.value), style="bold" if cell.best else "")
    mark = "*" if cell.tied else " "
    return Text.assemble(value, mark, "\n", (f"{points(cell.low)}–{points(cell.high)}", "dim"))
