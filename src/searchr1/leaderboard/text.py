"""The table to be pasted: Markdown, and LaTeX for a paper (booktabs)."""

from __future__ import annotations

from collections.abc import Sequence

from searchr1.leaderboard.board import Board, Cell
from searchr1.leaderboard.words import COST_COLUMNS, best_and_tied, cost_cells, headline, legend, points, title

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
        **{character: rf"\{character}" for character in "&%$#_{}"},
        "\n": " ", "\r": " ", "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    }
)  # fmt: skip
_MARKDOWN = str.maketrans(
    {
        **{character: rf"\{character}" for character in "\\`*_[]|~!"},
        "&": "&amp;", "<": "&lt;", ">": "&gt;", "\n": " ", "\r": " ",
    }
)  # fmt: skip


def markdown(board: Board) -> str:
    """The two tables, the legend and the notes. What folders hold is escaped: it cannot become markup."""

    def cell(value: Cell | None) -> str:
        if value is None:
            return "-"
        point = best_and_tied(value, points(value.value), ("**", "**"), r"\*")
        return f"{point} [{points(value.low)}, {points(value.high)}]"

    def name(text: str) -> str:
        return text.translate(_MARKDOWN)

    columns = board.columns
    scores = [[name(line.entry.name), *(cell(line.cells[column]) for column in columns)] for line in board.lines]
    costs = [[name(line.entry.name), *cost_cells(line)] for line in board.lines]
    notes = "\n".join(f"- {name(note)}" for note in board.notes)
    parts = [
        headline(board),
        _pipes(["", *(name(title(column)) for column in columns)], scores),
        _pipes(["", *COST_COLUMNS], costs),
        " ".join(legend(board, "**Bold**", r"\*")),
        *([notes] if notes else []),
    ]
    return "\n\n".join(parts) + "\n"


def latex(board: Board) -> str:
    """A ``table*`` with the scores; needs ``\\usepackage{booktabs}``. What folders hold is escaped."""

    def cell(value: Cell | None) -> str:
        if value is None:
            return "--"
        point = best_and_tied(value, points(value.value), (r"\textbf{", "}"), "$^{*}$")
        return rf"{point} {{\scriptsize [{points(value.low)}, {points(value.high)}]}}"

    def row(cells: Sequence[str]) -> str:
        guard = "{}" if cells[0].startswith(("[", "*")) else ""  # else an argument of the row break before it
        return guard + " & ".join(cells) + r" \\"

    columns = board.columns
    body = [row([tex(line.entry.name), *(cell(line.cells[column]) for column in columns)]) for line in board.lines]
    caption = " ".join([f"{headline(board)}.", *legend(board, "Bold", "*"), *(f"{note}." for note in board.notes)])
    return "\n".join(
        [
            r"% \usepackage{booktabs}",
            r"\begin{table*}",
            r"\centering\small",
            rf"\begin{{tabular}}{{l{'r' * len(columns)}}}",
            r"\toprule",
            row(["", *(tex(title(column)) for column in columns)]),
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{tex(caption)}}}",
            r"\end{table*}",
            "",
        ]
    )


def tex(text: str) -> str:
    """``text`` so that LaTeX sets it as it is.

    >>> tex("50% of \\\\input{x}_1")
    '50\\\\% of \\\\textbackslash{}input\\\\{x\\\\}\\\\_1'
    """
    return text.translate(_LATEX)


def _pipes(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
