"""The table as one HTML file: styles and drawings inside it, no script, nothing loaded; jinja escapes all text."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from searchr1 import __version__
from searchr1.leaderboard import drawings
from searchr1.leaderboard.board import Board
from searchr1.leaderboard.words import COST_COLUMNS, METRICS, cost_cells, headline, legend, points, title


def page(board: Board) -> str:
    """The whole page."""
    here = Path(__file__).parent
    environment = Environment(
        loader=FileSystemLoader(here), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(points=points, title=title)
    return environment.get_template("page.html.jinja").render(
        board=board,
        headline=headline(board),
        metric=METRICS[board.metric],
        legend=legend(board, "Bold", "asterisk"),
        cost_columns=COST_COLUMNS,
        cost_cells=cost_cells,
        plots=drawings.dot_plots(board),
        chart=drawings.budget_chart(board),
        sizes=drawings,
        style=Markup((here / "page.css").read_text(encoding="utf-8")),
        version=__version__,
    )
