"""Results as tables: evaluations with their intervals, and a run before and after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from searchr1.console import decimal, interval, percent, visible

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]
NAMES = {
    "search_r1": "Search-R1",
    "direct": "Direct",
    "cot": "CoT",
    "rag": "RAG",
    "ircot": "IRCoT",
    "search_o1": "Search-o1",
    "r1": "R1",
    "react": "ReAct",
}


def table(title: str, *columns: str, caption: str = "") -> Table:
    """An empty table; the first column holds names, the others numbers."""
    from rich import box
    from rich.table import Table

    made = Table(
        title=title or None, caption=caption or None, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left"
    )
    made.title_style = "bold"
    made.caption_justify = "left"
    for place, column in enumerate(columns):
        made.add_column(column, justify="right" if place else "left", no_wrap=True)
    return made


def evaluation_table(summary: Mapping[str, Any], title: str) -> Table:
    """One line a dataset and, where there are several, their unweighted mean."""
    sampled = any("majority" in figures for figures in summary["datasets"].values())
    middle = ["majority", "pass@k"] if sampled else ["F1", "found"]
    caption = "In %." if sampled else "In %. found: searched questions of which a passage held an accepted answer."
    columns = ("n", "exact match [95%]", *middle, "searches", "failed")
    made = table(visible(title), "dataset", *columns, caption=caption)

    def add(name: str, figures: Mapping[str, Any], style: str = "") -> None:
        scores = _repeated(figures) if sampled else [_share(figures["f1"]), _share(figures["answer_retrieved"])]
        costs = (decimal(figures["searches"]), str(figures["failed"]))
        made.add_row(visible(name), f"{figures['n']:,}", _points(dict(figures)), *scores, *costs, style=style)

    for name, figures in summary["datasets"].items():
        add(name, figures)
    if len(summary["datasets"]) > 1:
        made.add_section()
        add("macro average", summary["macro"], style="bold")
    return made


def _repeated(figures: Mapping[str, Any]) -> list[str]:
    """The vote of several samples, and whether the best of the most samples is right."""
    if not figures.get("majority"):
        return ["", ""]
    vote, best = figures["majority"], figures["pass_at"]
    most = max(best, key=int)
    return [_share(vote["value"]), f"{_share(best[most]['value'])} ({most})"]


def _share(value: float | None) -> str:
    return percent(value).removesuffix("%")


def before_after(rows: Sequence[Row], agent: str) -> Table:
    """The evaluations of a run before its first and after its last step, and the baselines.

    ``rows`` are those of ``eval.jsonl``; ``agent`` is the one that was trained.
    """
    last = max(row["step"] for row in rows)
    names = list(dict.fromkeys(row["dataset"] for row in rows))
    total = max(row["n"] for row in rows if row["step"] == 0)
    made = table(
        f"Exact match on {total:,} test questions, %",
        "",
        "before [95%]",
        f"after step {last}",
        "searches",
        caption="[95%]: interval over questions. searches: a question. Direct and RAG: untrained policy.",
    )
    for decoding in dict.fromkeys(row["decoding"] for row in rows if row["agent"] == agent and row["step"] == 0):
        made.add_row(f"{NAMES.get(agent, agent)} {decoding}", style="bold")
        mine = [row for row in rows if (row["agent"], row["decoding"]) == (agent, decoding)]
        for before in (row for row in mine if row["step"] == 0):
            after = next((r for r in mine if r["step"] == last and r["dataset"] == before["dataset"]), before)
            _add_pair(made, before, after)
        made.add_section()
    for row in rows:
        if row["agent"] != agent and row["dataset"] == names[-1]:  # all questions come last
            name = f"{NAMES.get(row['agent'], row['agent'])} {row['decoding']}"
            made.add_row(name, _points(row), "", decimal(row.get("searches")), style="dim")
    return made


def _add_pair(made: Table, before: Row, after: Row) -> None:
    """One data set: green where it got better, red where it got worse, beyond what the intervals allow for."""
    from rich.text import Text

    name = f"  {visible(before['dataset'])}"
    searches = decimal(before.get("searches"))
    if after["step"] == before["step"] or before.get("exact_match") is None or after.get("exact_match") is None:
        made.add_row(name, _points(before), "", searches)
        return
    style = "green" if after["ci_low"] > before["ci_high"] else "red" if after["ci_high"] < before["ci_low"] else ""
    made.add_row(name, _points(before), Text(_points(after), style), f"{searches} → {decimal(after.get('searches'))}")


def _points(row: Row) -> str:
    return interval(row).replace("%", "")
